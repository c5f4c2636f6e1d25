# DHP Gateway. `make help` lists what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
# The tests start hundreds of Pythons, which would each compile all that they load.
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait for something; three more of them than there are processors keep those busy.
JOBS := $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 3)
PYTEST := python -m pytest --dist=loadscope --no-loadscope-reorder --numprocesses=$(JOBS)
# What `make test` runs where TESTS picks nothing, and what it says of the rest.
QUICK := -m "not ci" --hypothesis-profile=few
LEFT := Left to CI: tests that explore at length, weigh long tables or pack artifacts (make test TESTS=tests runs them too).
# What looks at the gateway from outside.
OUTSIDE := $(addprefix tests/,faults wire lifecycle oauth login outbox pipeline http app/test_tracing_setup.py)

CATALOGUES := $(wildcard gateway/locale/*/LC_MESSAGES/*.po)

.DEFAULT_GOAL := help
COMPILED := build/compiled
INSTALLED := build/installed
# By the C compiler's level: what was made for a quick check is not measured.
MADE := $(COMPILED)/.made-O$(or $(DHP_GATEWAY_OPTIMISATION),2)
.PHONY: help demo test test-tools nightly simulate test-compiled instructions compiled check fix docs translations site bench image dist release-rehearsal audit licences sbom wheelhouse lock clean venv environment tools

help:
	@awk -F ':.*## ' '/^##@ / {print substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'PYTHON=python3.12 behind any of them names another interpreter (3.11 or newer).'

##@ To use the gateway (first steps: docs/quick-start.md; where it is to stay: docs/installation.md)

demo: venv ## Set up, then run the gateway on the embedded platform; Ctrl-C ends it (ARGS="--port 8091" etc.)
	@exec $(BIN)/dhp-gateway sandbox $(ARGS)

test: venv ## Set up, then run the tests, but for those left to CI (TESTS=tests runs them too, TESTS=tests/pipeline those of a folder)
	@status=0; $(BIN)/$(PYTEST) $(or $(TESTS),$(QUICK)) || status=$$?; $(if $(TESTS),,echo "$(LEFT)";) exit $$status

wheelhouse: venv tools ## Pack an installation for machines without a network, into dist/ (WINDOWS=3.13: for that Python on Windows)
	@PYTHONS="$(if $(WINDOWS),,$(BIN)/python)" sh deploy/compiled-wheels.sh
	@PYTHON=$(BIN)/python WHEELS=dist sh deploy/offline/make-wheelhouse.sh

image: ## Build the container image with docker, podman or buildah
	@sh deploy/build-image.sh

bench: venv ## Measure the gateway beside other proxies on this machine (ARGS="--workloads small-32 --contenders gateway,envoy")
	@$(BIN)/python -m benchmarks.bench $(ARGS)

##@ To change the gateway

test-tools: ## Install what tests need beside Python: Debian packages (asks sudo) and Node packages
	@.ci/test-tools

check: venv ## Format, lint, types, translations, architecture, documents: generated ones, links, claims
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python deploy/translations.py --check
	@$(BIN)/python -m pytest -q -p no:randomly tests/test_architecture.py tests/test_documents.py
	@$(BIN)/hadolint Dockerfile

fix: venv ## Format and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

nightly: ## Install what tests need, then run what CI has no time for (PART=tests, histories, fuzzing, mutants or old-clients)
	@.ci/nightly $(PART)

simulate: venv ## Run the gateway in a simulated world (SEED=17 SCENARIO=outbox repeats a run; ARGS="--seconds 60" tries new seeds)
	@.ci/tools .venv-simulation tests/simulation/requirements.lock
	@PYTHONPATH=$$(echo .venv-simulation/lib/python3*/site-packages) \
		$(BIN)/python -m tests.simulation $(SEED) $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

docs: venv ## Regenerate the documents that are made from code
	@$(BIN)/python docs/generate.py

translations: venv ## Update the catalogues of translations from the code, and compile them (docs/translating.md)
	@$(BIN)/python deploy/translations.py
	@$(MAKE) --no-print-directory venv

site: venv ## Build the documentation as a site in site/; links and anchors are checked
	@.ci/tools .venv-site docs/requirements.lock
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --strict --config-file .mkdocs.yml $(ARGS)

compiled: $(MADE) ## Compile the request path for this machine's Python, in build/compiled/ (needs gcc and Python's headers)

$(MADE): deploy/build_hook.py deploy/compile.sh pyproject.toml $(shell find gateway -type f -not -name '*.py[co]') $(VENV)/.installed
	@sh deploy/compile.sh $(BIN)/python $(COMPILED)
	@touch $@

# Newer than before only where the environment was made anew, as for another interpreter.
$(VENV)/.installed: venv
	@:

# The gateway would take the level for a setting.
# What mypyc makes of an await throws in a way that Python 3.12 and newer warn of.
instructions: venv ## Count the instructions for each request beside the recorded ones (WHEEL=… those of a compiled one, ARGS="--workloads read")
	@$(if $(WHEEL),rm -rf build/counted && $(BIN)/python -m zipfile --extract $(WHEEL) build/counted)
	@$(BIN)/python -m benchmarks.instructions $(if $(WHEEL),--compiled build/counted) $(ARGS)

test-compiled: $(if $(WHEEL),venv,compiled) ## Run the tests that look at the gateway from outside on its compiled wheel, installed apart from the sources (WHEEL=… on that one, compiled or not)
	@.ci/installed $(INSTALLED) $(or $(WHEEL),$(COMPILED)-wheel/*.whl)
	@cd $(INSTALLED) && env -u DHP_GATEWAY_OPTIMISATION .venv/bin/$(PYTEST) -m "not interpreted" \
		-W "ignore:the (type, exc, tb) signature:DeprecationWarning" $(or $(TESTS),$(OUTSIDE))

lock: venv ## Renew the lock files (hashes, no addresses)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra notify --extra otel --extra outbox --extra redis --extra sandbox pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra notify --extra otel --extra outbox --extra redis --extra sandbox --group dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	@for each in .ci/tools docs/requirements; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
			$$each.in --output-file $$each.lock || exit; done

clean: ## Remove what the other targets made
	@rm -f $(CATALOGUES:.po=.mo)
	@rm -rf $(VENV) .venv-site .venv-tools build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

##@ To release it

dist: venv tools ## Build the packages in dist/: the source, the wheel for any system, compiled ones for the Pythons that are here
	@$(BIN)/hatchling build
	@sh deploy/compiled-wheels.sh

release-rehearsal: venv ## Run the release's workflow on this machine as root, and try what it makes (ARGS="--python 3.11 --tests tests/faults")
	@$(BIN)/python -m deploy.rehearsal $(ARGS)

audit: tools ## Look for known vulnerabilities in the lock files (needs a network) and for suspicious code
	@.venv-tools/bin/python .ci/supply_chain.py audit

licences: tools ## List the licences of what the gateway needs in dist/, and refuse those that are not permitted
	@.venv-tools/bin/python .ci/supply_chain.py licences

sbom: tools ## Write the bill of materials (CycloneDX) in dist/
	@.venv-tools/bin/python .ci/supply_chain.py sbom

tools: venv
	@.ci/tools .venv-tools .ci/tools.lock

# Catalogues that were edited or pulled are compiled again.
venv: environment $(CATALOGUES:.po=.mo)

%.mo: %.po | environment
	@$(BIN)/pybabel --quiet compile --input-file $< --output-file $@

environment:
	@.ci/venv $(VENV) requirements-dev.lock
