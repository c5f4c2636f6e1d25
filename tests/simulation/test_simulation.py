"""The gateway in a simulated world, where everything that happens follows from a seed.

Each run is a process of its own: the clocks must be replaced before `gateway` is imported. A
failure prints what repeats it. `DHP_SIMULATION_SECONDS` says for how long new seeds are tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments import REPOSITORY, python_with_packages
from tests.extent import seconds

if sys.version_info < (3, 12):
    pytest.skip("simloop needs Python 3.12", allow_module_level=True)

_LOCK = REPOSITORY / "tests/simulation/requirements.lock"
_SCENARIOS = ("tokens", "outbox", "changes", "login")
# Runs of each scenario that are the same each time: the first seed, and their number.
_OLD_SEEDS = ((0, 2), pytest.param(2, 10, marks=pytest.mark.ci))
# Of `found.py`, which cannot be imported here: the clocks are real ones by now.
_FOUND = (
    "a token expires before another attempt",
    "a new token is refused at its first use",
    "a power failure tears the audit",
    "a verification meets a failing platform",
)
_NEW_SECONDS = float(os.environ.get("DHP_SIMULATION_SECONDS") or seconds(60.0, 3600.0))
# Planted faults that a few seeds find: the scenario, and a number of seeds that is enough.
_QUICK_FAULTS = (
    ("two token requests at a time", "tokens", 10),
    ("a cancelled request keeps its connection", "tokens", 10),
    ("entries are claimed out of order", "outbox", 10),
    ("an attempt's doubt is forgotten", "outbox", 10),
    ("a session is renewed by two requests at a time", "login", 10),
)


Simulate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def packages() -> str:
    """Return the folder that has simloop and nothing else."""
    python = python_with_packages(_LOCK)
    return str(next(python.parents[1].glob("lib/python*/site-packages")))


@pytest.fixture
def simulate(packages: str, tmp_path: Path) -> Iterator[Simulate]:
    """Yield what calls `python -m tests.simulation` with arguments.

    It leaves nothing where it runs: a name that SQLite opens must not be freed before the file is
    closed, or its shared memory gets the name of whatever is there by then.
    """

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.simulation", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{packages}{os.pathsep}{REPOSITORY}"},
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scenario", _SCENARIOS)
@pytest.mark.parametrize(("first", "count"), _OLD_SEEDS)
def test_old_seeds_violate_nothing(
    simulate: Simulate, scenario: str, first: int, count: int
) -> None:
    done = simulate("--first", first, "--seeds", count, "--scenario", scenario)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", _FOUND)
def test_what_was_found_once_is_mended(simulate: Simulate, name: str) -> None:
    done = simulate("--found", name)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.timeout(0)
def test_new_seeds_violate_nothing(simulate: Simulate) -> None:
    done = simulate("--seconds", _NEW_SECONDS)
    print(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
@pytest.mark.parametrize("scenario", _SCENARIOS)
def test_a_seed_gives_the_same_run_in_any_process(simulate: Simulate, scenario: str) -> None:
    runs = [simulate(3, "--scenario", scenario, "--trace").stdout for _ in range(2)]

    assert "steps" in runs[0]
    assert runs[0] == runs[1]


@pytest.mark.ci
@pytest.mark.parametrize(("fault", "scenario", "count"), _QUICK_FAULTS)
def test_a_planted_fault_is_found(
    simulate: Simulate, fault: str, scenario: str, count: int
) -> None:
    seeds = ("--first", 0, "--seeds", count, "--scenario", scenario)
    done = simulate(*seeds, "--fault", fault, "--no-shrink")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "python -m tests.simulation" in done.stdout
