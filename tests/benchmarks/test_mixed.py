"""The mixed load of a large hospital: its parts, what it reports, and what it blames."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mixed import Phase, requests
from benchmarks.open_loop import OpenLoop

ROOT = Path(__file__).parents[2]
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def phase(
    *,
    gateway: float,
    generator: float = 0.1,
    others: float = 0,
    failures: int = 0,
    p99_ms: float = 5,
) -> Phase:
    """A phase with these shares of a core."""
    load = OpenLoop(requests(), 500, failures=Counter({"read 503": failures} if failures else {}))
    figures = {"p99_us": p99_ms * 1e3, "cpu_us": 100.0}
    return Phase(load, figures, gateway, generator, platform=0.1, others=others)


def mixed(folder: Path, *options: str) -> str:
    """What a short run over real connections prints; other tests may run at the same time."""
    missing = [name for name in ("nginx", "haproxy") if shutil.which(name, path=SEARCHED) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} needed: make test-tools")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the benchmark needs two cores")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mixed", "--plain", "--slow-readers", "2", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},  # where no other benchmark is waited for
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_of_a_hundred_requests_so_many_are_of_each_kind() -> None:
    """70 reads, 15 pages, 10 creates, 5 searches."""
    kinds = Counter(request.kind for request in requests())
    assert kinds == {"read": 700, "page": 150, "create": 100, "search": 50}


def test_every_request_of_the_mix_succeeds_over_tls(tmp_path: Path) -> None:
    """The report has each kind of request, and none that failed."""
    report = mixed(tmp_path, "--rate", "100", "--seconds", "2")
    counts = dict(re.findall(r"^\| (\w+) \| (\d+) \|", report, re.MULTILINE))
    assert counts["all"] == "200"
    assert set(counts) == {"all", "create", "page", "read", "search"}
    assert "\nfailed: none\n" in report
    assert "\ndescriptors before, under load, after: " in report


def test_the_limit_is_reported_with_what_was_used_up(tmp_path: Path) -> None:
    """A rate that no process serves is no limit that was reached."""
    report = mixed(tmp_path, "--limit", "--rate", "1000000", "--seconds", "0.005")
    assert re.search(r"^limit: 0 requests/s; above it the bottleneck was .+", report, re.MULTILINE)


@pytest.mark.parametrize(
    ("measured", "is_good"),
    [
        (phase(gateway=0.5), True),
        (phase(gateway=0.5, failures=1), False),
        (phase(gateway=0.5, p99_ms=101), False),
    ],
)
def test_a_rate_is_good_without_failures_and_with_a_low_p99(measured: Phase, is_good: bool) -> None:
    """One failed request is one too many."""
    assert measured.is_good is is_good


@pytest.mark.parametrize(
    ("measured", "blamed"),
    [
        (phase(gateway=0.95), "the gateway"),
        (phase(gateway=0.5, generator=0.85), "load generator and platform, which share a core"),
        (phase(gateway=0.5, others=0.5), "other programs, which used 50% of a core"),
        (phase(gateway=0.5), "neither core, so perhaps the disk"),
    ],
)
def test_the_bottleneck_is_the_process_whose_core_is_used_up(measured: Phase, blamed: str) -> None:
    """The benchmark blames itself where its own core was the limit."""
    assert measured.bottleneck == blamed
