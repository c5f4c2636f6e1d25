"""The report: ratios round by round, the table, the chart."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.bench import read_options
from benchmarks.chart import chart
from benchmarks.figures import Spread, percentile
from benchmarks.report import Result, machine_readable, overview, table
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


def test_the_table_gives_the_median_ratio_with_its_spread() -> None:
    """One line for each contender, the ratio with its extremes in the others' lines."""
    lines = table(result(), {"envoy": "Envoy"}).splitlines()
    assert lines[0] == "| proxy | request/s | CPU µs/request | the gateway's rate ÷ its |"
    assert lines[2:] == [
        "| gateway | 8 | 50.0 | – |",
        "| Envoy | 9 | 40.0 | 0.80 (0.80 to 1.00) |",
    ]


def test_the_overview_has_a_row_for_each_contender() -> None:
    """Where it was not measured, there is no figure."""
    start = Result("start", "", "request", {"caddy": [{"first_request_s": 0.2}]}, 0)
    assert overview([result(), start], {"caddy": "Caddy"}).splitlines() == [
        "| proxy | small: CPU µs/request | start: start to first request, ms |",
        "| --- | ---: | ---: |",
        "| gateway | 50.0 | – |",
        "| envoy | 40.0 | – |",
        "| Caddy | – | 200 |",
    ]


def test_dropped_measurements_are_in_the_report() -> None:
    """Programs are told how many measurements were left out."""
    assert machine_readable(result(dropped=3))["dropped"] == 3


def test_the_chart_is_a_picture_with_every_contender() -> None:
    """It is XML, and names the workload, the contender and the ratio."""
    picture = chart([result()], {"envoy": "Envoy <proxy>"})
    assert picture is not None
    texts = [text.text for text in ElementTree.fromstring(picture).iter() if text.text]  # noqa: S314 - our own
    assert {"small", "Envoy <proxy>", "0.80 ×"} <= set(texts)


def test_nothing_compared_makes_no_chart() -> None:
    """Workloads without a rate leave nothing to draw."""
    assert (
        chart([Result("start", "", "request", {"gateway": [{"first_request_s": 1.0}]}, 0)], {})
        is None
    )


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
