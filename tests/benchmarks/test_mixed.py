"""The mixed load of a large hospital: its parts, what it reports, and what it blames."""

from __future__ import annotations

import re
from pathlib import Path

from tests.benchmarks.test_smoke import run_benchmark


def mixed(folder: Path, *options: str) -> str:
    """What a short run over real connections prints; other tests may run at the same time."""
    line = ["benchmarks.mixed", "--plain", "--slow-readers", "2", *options]
    return run_benchmark(line, folder, ("nginx", "haproxy"))


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
