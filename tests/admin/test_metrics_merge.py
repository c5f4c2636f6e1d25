"""The metrics and the readiness of several processes as one."""

from __future__ import annotations

import json

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.metrics_merge import MergedMetrics, merge_readiness, snapshot
from gateway.exchange import Exchange
from gateway.telemetry.metrics import Metrics


def served(metrics: Metrics, times: int, duration: float = 0.1) -> None:
    """Count exchanges."""
    for _ in range(times):
        exchange = Exchange("id", 0.0, 0.0, interaction="read", resource="Patient", status=200)
        exchange.duration, exchange.response_bytes = duration, 10
        metrics.record_exchange(exchange)


def value(merged: MergedMetrics, name: str, **labels: str) -> float:
    """The one sample of that name and those labels."""
    _, text = merged.render(None)
    found = [
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, found
    return found[0]


def test_counters_histograms_and_gauges_add_up() -> None:
    """Each sample is the sum over the processes, label by label."""
    merged = MergedMetrics()
    for number, times in enumerate((3, 4)):
        metrics = Metrics()
        served(metrics, times)
        metrics.observe_inflight(lambda times=times: times)  # type: ignore[misc]
        merged.update(number, snapshot(metrics.registry))
    assert value(merged, "dhp_gateway_requests_total", status="200") == 7
    assert value(merged, "dhp_gateway_response_bytes_total") == 70
    bucket = "dhp_gateway_request_duration_seconds_bucket"
    assert value(merged, bucket, le="0.1", interaction="read") == 7
    assert value(merged, bucket, le="0.05", interaction="read") == 0
    assert value(merged, "dhp_gateway_inflight_requests") == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dhp_gateway_circuit_state", 2),
        ("dhp_gateway_build_info", 1),
        ("dhp_gateway_token_expiry_timestamp_seconds", 0),
        ("dhp_gateway_certificate_expiry_timestamp_seconds", 0),
    ],
)
def test_some_gauges_have_no_sum(name: str, expected: float) -> None:
    """The worst circuit, the first token and certificate to end, and one build."""
    merged = MergedMetrics()
    for state in (0, 2, 1):
        metrics = Metrics()
        metrics.observe_circuit(lambda state=state: state)  # type: ignore[misc]
        metrics.on_token_expiry("default", 1000.0 * state)
        ends = {"listener": 1000.0 * state}
        metrics.observe_certificates(lambda ends=ends: ends)  # type: ignore[misc]
        merged.update(state, snapshot(metrics.registry))
    assert value(merged, name) == expected


def test_what_an_ended_process_counted_stays() -> None:
    """No counter falls when a process ends, and none is counted twice; its gauges go."""
    merged = MergedMetrics()
    for process in range(3):
        metrics = Metrics()
        served(metrics, 5)
        metrics.observe_inflight(lambda: 1)
        merged.update(process, snapshot(metrics.registry))
        merged.update(process, snapshot(metrics.registry))
        if process < 2:
            merged.remove_process(process)
    assert value(merged, "dhp_gateway_requests_total", status="200") == 15
    assert value(merged, "dhp_gateway_inflight_requests") == 1


def test_a_scrape_is_valid_in_both_formats() -> None:
    """Merged families have the names, types and texts of each one."""
    merged = MergedMetrics()
    metrics = Metrics()
    served(metrics, 1)
    for process in "ab":
        merged.update(process, snapshot(metrics.registry))
    plain = metrics.render(None)[1].decode()
    content_type, text = merged.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(text.decode())}
    assert families["dhp_gateway_requests"].type == "counter"
    headers = [line for line in plain.splitlines() if line.startswith("#")]
    assert set(headers) == {
        line for line in merged.render(None)[1].decode().splitlines() if line.startswith("#")
    }


def test_the_latest_exemplar_of_all_workers_is_told() -> None:
    """A bucket's trace comes over the channel, and of several workers' the newest stays."""
    merged = MergedMetrics()
    for number, started_at in ((1, 100.0), (2, 300.0), (3, 200.0)):
        metrics = Metrics()
        exchange = Exchange("id", started_at, 0.0, interaction="read", status=200, duration=0.02)
        exchange.traceparent = f"00-{number:032x}-{number:016x}-01"
        metrics.record_exchange(exchange)
        families = json.loads(json.dumps(snapshot(metrics.registry)))
        merged.update(number, families)
    merged.remove_process(2)
    _, text = merged.render("application/openmetrics-text; version=1.0.0")
    found = [
        (sample.value, sample.exemplar)
        for family in parse_openmetrics(text.decode())
        for sample in family.samples
        if sample.exemplar is not None
    ]
    [(count, exemplar)] = found
    assert count == 3
    assert exemplar.labels["trace_id"] == f"{2:032x}"
    assert (exemplar.value, float(exemplar.timestamp)) == (0.02, pytest.approx(300.02))


def test_ready_is_who_has_only_ready_workers() -> None:
    """A check fails that fails anywhere; a worker without an answer is a failure of its own."""
    good = {"checks": {"token:default": "ok", "circuit": "ok", "shutdown": "ok"}}
    bad = {"checks": {"token:default": "failed", "circuit": "ok", "shutdown": "ok"}}
    assert merge_readiness({1: good, 2: good}, draining=False)[0]
    ready, body = merge_readiness({1: good, 2: bad, 3: None}, draining=False)
    assert (ready, body["failing"]) == (False, ["token:default", "workers"])
    assert merge_readiness({1: good}, draining=True)[1]["failing"] == ["shutdown"]
    assert not merge_readiness({1: None}, draining=False)[0]
