"""The benchmark runs, and the gateway has not lost its speed grossly.

CPU time for a request is compared with that of the usual proxy in the same run: times by themselves
say more about the machine than about the gateway.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("nginx", "haproxy", "wrk")
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# The gateway's CPU time for a request, divided by the usual proxy's, that is only reached when
# something went wrong. The gateway rewrites the page, the usual proxy does not.
GROSS_LOSS = {"small-32": 1.5, "page": 15.0}


# The same for a write that an empty outbox looks at, divided by one without an outbox.
GROSS_LOSS_BY_OUTBOX = 1.5


def bench(folder: Path, *, workloads: Iterable[str], contenders: str) -> dict[str, Any]:
    """What a short benchmark wrote as JSON; other tests may run at the same time."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} needed: make test-tools")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the benchmark needs two cores")
    written = folder / "bench.json"
    options = ["--workloads", ",".join(workloads), "--contenders", contenders, "--plain"]
    options += ["--rounds", "4", "--seconds", "1", "--max-others", "99", "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},  # where no other benchmark is waited for
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert written.with_suffix(".svg").stat().st_size > 0
    measurement: dict[str, Any] = json.loads(written.read_text())
    return measurement


def cpu_us(measured: dict[str, Any], workload: str, contender: str) -> float:
    """The least CPU time of a request, in microseconds; what else is busy only adds to it."""
    samples = measured["workloads"][workload]["contenders"][contender]["samples"]
    return float(min(sample["cpu_us"] for sample in samples))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Beside the usual proxy."""
    folder = tmp_path_factory.mktemp("bench")
    return bench(folder, workloads=GROSS_LOSS, contenders="gateway,usual")


@pytest.mark.parametrize("workload", GROSS_LOSS)
def test_a_request_costs_no_grossly_larger_part_of_the_usual_proxys_cpu_time(
    measured: dict[str, Any], workload: str
) -> None:
    """In the same run the gateway spends at most so many times the usual proxy's CPU time."""
    ours, theirs = (cpu_us(measured, workload, name) for name in ("gateway", "usual"))
    assert ours <= GROSS_LOSS[workload] * theirs


def test_an_empty_outbox_makes_a_write_not_grossly_dearer(tmp_path: Path) -> None:
    """In the same run a write with the outbox costs at most so many times one without."""
    measured = bench(tmp_path, workloads=["outbox"], contenders="gateway,gateway-outbox")
    with_outbox, without = (
        cpu_us(measured, "outbox", name) for name in ("gateway-outbox", "gateway")
    )
    assert with_outbox <= GROSS_LOSS_BY_OUTBOX * without
