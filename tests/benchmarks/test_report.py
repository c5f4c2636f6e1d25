"""The report: ratios round by round, the table, the chart."""

from __future__ import annotations

import pytest

from benchmarks.bench import read_options
from benchmarks.figures import Spread, percentile
from benchmarks.report import Result
from benchmarks.simulated_tokens import token_requests


def result(dropped: int = 0) -> Result:
    """Three rounds; the machine was half as fast in the second one."""
    samples = {
        "gateway": [
            {"rate": 8.0, "cpu_us": 50.0},
            {"rate": 4.0, "cpu_us": 50.0},
            {"rate": 9.0, "cpu_us": 40.0},
        ],
        "envoy": [
            {"rate": 10.0, "cpu_us": 40.0},
            {"rate": 5.0, "cpu_us": 40.0},
            {"rate": 9.0, "cpu_us": 40.0},
        ],
    }
    return Result("small", "a read", "request", samples, dropped)


def test_ratios_are_taken_within_a_round() -> None:
    """A slow minute of the machine hits both, so that it does not show in the ratio."""
    assert result().ratio("rate", "gateway", "envoy") == Spread(0.8, 0.8, 1.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.99, 4), (0, 1)])
def test_a_percentile_is_a_measured_value(share: float, value: float) -> None:
    """It is the smallest one that at least this share does not exceed."""
    assert percentile([1, 2, 3, 4], share) == value


def test_a_simulated_hour_asks_the_sso_once_for_each_life_of_a_token() -> None:
    """18,000 requests in an hour, tokens of five minutes: renewed at 70 to 80 % of their life."""
    figures = token_requests(rate=5, lifetime=300, requests=18_000)
    assert figures["waited"] == 1  # the first one
    assert 3600 / 300 <= figures["token_requests"] <= 3600 / (0.7 * 300) + 1


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt workload does not measure nothing."""
    with pytest.raises(SystemExit):
        read_options(["--workloads", "smal-32"])
    assert "no workload is called smal-32" in capsys.readouterr().err
