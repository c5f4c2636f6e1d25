"""The benchmark runs: it measures each contender and reports all of them.

What the ratios are is for `make bench`: on a busy machine a run of a second says too little.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.simulated_tokens import token_requests
from benchmarks.workloads import PEERS
from tests.environments import run
from tests.extent import NIGHTLY, seconds

ROOT = Path(__file__).parents[2]
PROGRAMS = ("nginx", "haproxy", "wrk", *(("go", "mvn") * NIGHTLY))
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/go/bin"

CASES = [
    pytest.param(["small-32", "page"], ["gateway", "usual"], id="beside the usual proxy"),
    pytest.param(["outbox"], ["gateway", "gateway-outbox"], id="with an outbox and without"),
]
if NIGHTLY:
    others = ["gateway", *PEERS, "ghostunnel"]
    patient = pytest.mark.timeout(1800)  # Go takes minutes to build them.
    CASES.append(pytest.param(["create", "page", "tls"], others, id="others", marks=patient))


def run_benchmark(line: Sequence[str], folder: Path, programs: Sequence[str]) -> str:
    """Return what a benchmark prints; skip without these programs or a second core."""
    missing = [name for name in programs if shutil.which(name, path=SEARCHED) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} needed: make test-tools")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the benchmark needs two cores")
    # Where no other benchmark is waited for.
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = run([sys.executable, "-m", *line], env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("workloads", "contenders"), CASES)
def test_a_short_benchmark_measures_each_contender(
    tmp_path: Path, workloads: Sequence[str], contenders: Sequence[str]
) -> None:
    """Other tests may run at the same time."""
    written = tmp_path / "bench.json"
    options = ["--workloads", ",".join(workloads), "--contenders", ",".join(contenders), "--plain"]
    options += ["--rounds", "1", "--seconds", str(seconds(1, 4)), "--max-others", "99"]
    options += ["--json", str(written)]
    run_benchmark(["benchmarks.bench", *options], tmp_path, PROGRAMS)
    assert written.with_suffix(".svg").stat().st_size > 0
    measured = json.loads(written.read_text())["workloads"]
    for workload in workloads:
        for contender in contenders:
            (sample,) = measured[workload]["contenders"][contender]["samples"]
            assert sample["rate"] > 0
            assert sample["cpu_us"] > 0


def test_the_simulation_of_tokens_requests_one_a_lifetime() -> None:
    simulated = token_requests(rate=10, lifetime=60, requests=3000)
    assert simulated["simulated_hours"] == pytest.approx(300 / 3600)
    assert 5 <= simulated["token_requests"] <= 7
    assert simulated["waited"] == 1
