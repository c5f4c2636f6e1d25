# DHP Gateway. `make help` lists what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test check fix docs bench image lock clean venv

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  PYTHON=python3.12 behind any of them names another interpreter (3.11 or newer)'

demo: venv ## Set up, then run the gateway on the embedded platform; Ctrl-C ends it (ARGS="--port 8091" etc.)
	@exec $(BIN)/dhp-gateway sandbox $(ARGS)

test: venv ## Set up, then run all tests (TESTS=tests/proxy picks some)
	@$(BIN)/python -m pytest $(TESTS)

check: venv ## Format, lint, types, architecture, generated documents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -p no:randomly tests/test_architecture.py tests/test_documents.py
	@$(BIN)/hadolint Dockerfile

fix: venv ## Format and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: venv ## Regenerate the documents that are made from code
	@$(BIN)/python docs/generate.py

bench: venv ## Measure the gateway beside other proxies on this machine
	@$(BIN)/python benchmarks/bench.py

image: ## Build the container image with docker, podman or buildah
	@sh deploy/build-image.sh

lock: venv ## Renew the lock files (hashes, no addresses)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra redis --extra sandbox pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra redis --extra sandbox --group dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

venv:
	@.ci/venv $(VENV) requirements-dev.lock
