"""What the product is made of: known, permitted, looked at; and how it would be released."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS = ROOT / ".venv-tools"
TESTS = ROOT / "tests"


def _chain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / ".ci/supply_chain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHAIN = _chain()


@pytest.fixture(scope="module")
def tools() -> Path:
    """The programs of .ci/tools.lock."""
    made = subprocess.run(
        [".ci/tools", TOOLS, ".ci/tools.lock"], cwd=ROOT, capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"the tools cannot be installed: make audit\n{made.stderr[-500:]}")
    return TOOLS / "bin"


def run(tools: Path, what: str, into: Path) -> subprocess.CompletedProcess[str]:
    """One of the make targets' commands."""
    command = [tools / "python", ".ci/supply_chain.py", "--into", into, what]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_bill_of_materials(tools: Path, tmp_path: Path) -> None:
    """A document that is valid CycloneDX has each package of the runtime lock with its sums."""
    done = run(tools, "sbom", tmp_path)
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


def test_the_licences(tools: Path, tmp_path: Path) -> None:
    """Every dependency states terms under which the gateway may be handed on."""
    done = run(tools, "licences", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = (tmp_path / "licences.md").read_text()
    assert "| aiohttp |" in listed
    assert "GPL" not in listed


def test_our_code_is_not_suspicious(tools: Path) -> None:
    """Bandit finds nothing; what was judged harmless says so at its line."""
    command = [tools / "bandit", "-q", "-r", "gateway", "-c", "pyproject.toml", "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout)["results"] == []


PYTHON_LOCKS = sorted({*CHAIN.LOCKS} | {str(p.relative_to(ROOT)) for p in TESTS.glob("*/*.lock")})


@pytest.mark.parametrize("lock", PYTHON_LOCKS)
def test_every_lock_file_pins_by_sums_and_names_no_address(lock: str) -> None:
    """Each package has at least one SHA-256 sum, and nothing says where to fetch it."""
    packages = CHAIN.locked(ROOT / lock)
    assert packages
    assert [name for name, (_, sums) in packages.items() if not sums] == []
    assert "://" not in (ROOT / lock).read_text()


NPM_LOCKS = sorted(TESTS.glob("*/package-lock.json"))


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda path: path.parent.name)
def test_every_lock_file_of_npm_pins_by_sums_and_names_no_address(lock: Path) -> None:
    """Each package has a hash, and no `resolved` address ties the lock to one registry."""
    fetched = [each for path, each in json.loads(lock.read_text())["packages"].items() if path]
    assert fetched
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not [package for package in fetched if "resolved" in package]


def test_workflows_hold_no_known_mistake(tools: Path) -> None:
    """Zizmor, asked offline and strictly, finds nothing in the workflows."""
    command = [tools / "zizmor", "--offline", "--persona=pedantic", "--no-progress", ".github"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"]),
    ],
    ids=["workflows", "dependabot"],
)
def test_files_have_the_form_that_github_expects(
    tools: Path, schema: str, files: list[Path]
) -> None:
    """What GitHub reads is valid by the schemas that check-jsonschema brings along."""
    command = [tools / "check-jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def workflow(path: Path) -> dict[Any, Any]:
    """A workflow's content; YAML takes its `on` for a truth value."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_few_rights_and_fixed_parts(path: Path) -> None:
    """Nothing is permitted by default; actions are pinned by commit with their version beside."""
    found = workflow(path)
    assert found["permissions"] == {}
    assert all("permissions" in job and "timeout-minutes" in job for job in found["jobs"].values())
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


def test_workflows_run_what_there_is() -> None:
    """The make targets and scripts that workflows call exist."""
    text = "".join(path.read_text() for path in WORKFLOWS)
    targets = set(re.findall(r"(?:run: |ENGINE=docker )make ((?:[a-z]+ ?)+)", text))
    assert targets
    for target in " ".join(targets).split():
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for script in re.findall(r"(?:bash|run:) (\.ci/\w+)", text):
        assert (ROOT / script).exists()


def test_a_release_compiles_for_every_python(tools: Path) -> None:
    """Wheels and archives are made for each Python that is claimed, on both kinds of processors."""
    command = [tools / "cibuildwheel", "--platform", "linux", "--print-build-identifiers"]
    done = subprocess.run(
        [*command, "--archs", "x86_64,aarch64"], cwd=ROOT, capture_output=True, text=True
    )
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
    """The jobs that have succeeded when this one begins."""
    given = jobs[name].get("needs", [])
    direct = {given} if isinstance(given, str) else set(given)
    return direct.union(*(needed(jobs, each) for each in direct))


def test_a_release_publishes_only_what_was_tested() -> None:
    """Each job that publishes begins after the outside tests have passed on every wheel.

    None of them skips for want of a program.
    """
    jobs = workflow(ROOT / ".github/workflows/release.yml")["jobs"]
    steps = jobs["archives"]["steps"]
    runs = [step.get("run", "") for step in steps]
    tested = next(n for n, run in enumerate(runs) if run.startswith("make test-compiled "))
    assert "make test-tools" in runs[:tested]
    assert steps[tested]["env"] == {"DHP_NO_SKIPS": "but-root"}
    publishing = {name for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert publishing == {"attest", "publish", "image", "index", "announce"}
    for name in publishing:
        assert "archives" in needed(jobs, name), name


def test_this_interpreter_is_among_those_of_the_workflow() -> None:
    """CI runs every Python that the package claims to support."""
    claimed = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    matrix = workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["check"]["strategy"]["matrix"]
    assert set(matrix["python"]) == claimed
    assert f"3.{sys.version_info.minor}" in claimed
