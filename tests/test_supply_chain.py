"""Dependencies are known, permitted and pinned; workflows are restricted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.rehearsal.__main__ import EXCUSED, INSTEAD, VALUES, jobs_from
from deploy.rehearsal.actions import ACTIONS, StepError
from deploy.rehearsal.workflow import EXPRESSION, jobs_of
from tests.environments import load_module, run, run_or_skip
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1]
WORKFLOWS = tracked_files(".github/workflows/*.yml")
TOOLS = ROOT / ".venv-tools"
TESTS = ROOT / "tests"


CHAIN = load_module(ROOT / ".ci/supply_chain.py")


@pytest.fixture(scope="module")
def tools() -> Path:
    """Return the folder of the programs of .ci/tools.lock."""
    line = [".ci/tools", TOOLS, ".ci/tools.lock"]
    run_or_skip("the tools cannot be installed: make audit", line)
    return TOOLS / "bin"


def examine(tools: Path, what: str, into: Path) -> subprocess.CompletedProcess[str]:
    command = [tools / "python", ".ci/supply_chain.py", "--into", into, what]
    return run(command)


@pytest.mark.ci
def test_the_bill_of_materials(tools: Path, tmp_path: Path) -> None:
    """A valid CycloneDX document has each package of the runtime lock with its hashes."""
    done = examine(tools, "sbom", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "sbom.cdx.json").read_text())
    lock = (ROOT / "requirements.lock").read_text()
    sums = {
        each["purl"]: [one["content"] for one in each["externalReferences"][0]["hashes"]]
        for each in document["components"]
    }
    pinned = re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE)
    assert set(sums) == {f"pkg:pypi/{name}@{version}" for name, version in pinned}
    assert sorted(one for all_of_it in sums.values() for one in all_of_it) == sorted(
        re.findall(r"sha256:(\w{64})", lock)
    )
    needed = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert any(name.startswith("aiohttp==") for name in needed["root-component"])


@pytest.mark.ci
def test_the_licences(tools: Path, tmp_path: Path) -> None:
    """Every dependency may be distributed with the gateway."""
    done = examine(tools, "licences", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = (tmp_path / "licences.md").read_text()
    assert "| aiohttp |" in listed
    assert "GPL" not in listed


@pytest.mark.ci
def test_bandit_finds_nothing(tools: Path) -> None:
    command = [tools / "bandit", "-q", "-r", "gateway", "-c", "pyproject.toml", "-f", "json"]
    done = run(command)
    assert json.loads(done.stdout)["results"] == []


PYTHON_LOCKS = sorted(
    {*CHAIN.LOCKS} | {str(p.relative_to(ROOT)) for p in tracked_files("tests/*.lock")}
)


@pytest.mark.parametrize("lock", PYTHON_LOCKS)
def test_every_python_lock_pins_by_hash_and_names_no_address(lock: str) -> None:
    packages = CHAIN.locked(ROOT / lock)
    assert packages
    assert [name for name, (_, sums) in packages.items() if not sums] == []
    assert "://" not in (ROOT / lock).read_text()


NPM_LOCKS = tracked_files("tests/*/package-lock.json")


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda path: path.parent.name)
def test_every_npm_lock_pins_by_hash_and_names_no_address(lock: Path) -> None:
    fetched = [each for path, each in json.loads(lock.read_text())["packages"].items() if path]
    assert fetched
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not [package for package in fetched if "resolved" in package]


@pytest.mark.ci
def test_zizmor_finds_nothing(tools: Path) -> None:
    """Offline and pedantic."""
    command = [tools / "zizmor", "--offline", "--persona=pedantic", "--no-progress", ".github"]
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"]),
    ],
    ids=["workflows", "dependabot"],
)
def test_files_for_github_are_valid_by_their_schemas(
    tools: Path, schema: str, files: list[Path]
) -> None:
    command = [tools / "check-jsonschema", "--builtin-schema", schema, *files]
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr


def workflow(path: Path) -> dict[Any, Any]:
    """Return a workflow's content; YAML reads its `on` as a truth value."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def test_make_targets_and_scripts_of_workflows_exist() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    targets = set(re.findall(r"(?:run: |ENGINE=docker )make ((?:[a-z]+ ?)+)", text))
    assert targets
    for target in " ".join(targets).split():
        done = run(["make", "-n", target])
        assert done.returncode == 0, done.stderr
    scripts = re.findall(r"(?:bash|run:) (\.ci/\w+)", text)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).exists()] == []


@pytest.mark.ci
def test_a_release_compiles_for_every_python(tools: Path) -> None:
    """On both kinds of processors."""
    command = [tools / "cibuildwheel", "--platform", "linux", "--print-build-identifiers"]
    done = run([*command, "--archs", "x86_64,aarch64"])
    claimed = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert set(done.stdout.split()) == {
        f"cp{version.replace('.', '')}-manylinux_{processor}"
        for version in claimed
        for processor in ("x86_64", "aarch64")
    }
    jobs = workflow(ROOT / ".github/workflows/release.yml")["jobs"]
    matrix = jobs["archives"]["strategy"]["matrix"]
    assert matrix["python"] == claimed
    runners = {one["processor"] for one in jobs["wheels"]["strategy"]["matrix"]["include"]}
    assert runners == set(matrix["processor"])


def needed(jobs: dict[str, Any], name: str) -> set[str]:
    """Return the jobs that have succeeded when this one begins."""
    given = jobs[name].get("needs", [])
    direct = {given} if isinstance(given, str) else set(given)
    return direct.union(*(needed(jobs, each) for each in direct))


def test_a_release_publishes_only_what_was_tested() -> None:
    """No test skips for lack of a program."""
    jobs = workflow(ROOT / ".github/workflows/release.yml")["jobs"]
    for name in ("pure", "archives"):
        steps = jobs[name]["steps"]
        runs = [step.get("run", "") for step in steps]
        tested = next(n for n, run in enumerate(runs) if run.startswith("make test-compiled "))
        assert "make test-tools" in runs[:tested]
        assert steps[tested]["env"] == {"DHP_NO_SKIPS": "but-root"}
    publishing = {name for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert publishing == {"attest", "publish", "image", "index", "announce"}
    for name in publishing:
        assert {"pure", "archives"} <= needed(jobs, name), name


def test_the_rehearsal_knows_all_of_a_release() -> None:
    """And what it does in another way is still a step of the workflow."""
    file = ROOT / ".github/workflows/release.yml"
    named = set(EXPRESSION.findall(file.read_text()))
    assert {each for each in named if each.split(".")[0] not in ("matrix", "steps")} == set(VALUES)
    jobs = jobs_of(file)
    steps = [step for job in jobs for step in job.steps]
    assert {step.action for step in steps if step.action} == set(ACTIONS)
    assert INSTEAD.keys() | EXCUSED.keys() <= {(step.script or "").strip() for step in steps}


def test_a_rehearsal_continues_from_a_job_or_one_of_its_runs() -> None:
    jobs = jobs_of(ROOT / ".github/workflows/release.yml")
    assert jobs_from(None, jobs) == jobs
    assert jobs_from("trials", jobs) == []
    assert jobs_from("archives", jobs)[0].matrix["python"] == "3.11"
    assert jobs_from("archives 3.13 x86-64", jobs)[0].matrix["python"] == "3.13"
    with pytest.raises(StepError, match="there are announce, archives, "):
        jobs_from("archive", jobs)


def test_ci_runs_every_supported_python() -> None:
    claimed = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    matrix = workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["check"]["strategy"]["matrix"]
    assert set(matrix["python"]) == claimed
    assert f"3.{sys.version_info.minor}" in claimed
