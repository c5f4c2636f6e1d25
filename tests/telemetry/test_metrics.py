"""Metrics as Prometheus reads them."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import __version__
from gateway.telemetry.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def _series(metrics: Metrics) -> Series:
    _type, body = metrics.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return _series(metrics).get((name, frozenset(labels.items())))


def _families(metrics: Metrics) -> Iterator[tuple[str, str, frozenset[str]]]:
    _type, body = metrics.render()
    for family in parse_text(body.decode()):
        if family.name.startswith("dhp_gateway_"):
            labels = frozenset(label for sample in family.samples for label in sample.labels)
            yield family.name, family.type, labels - {"le"}


def test_names_types_and_labels_are_stable(metrics, make_exchange):
    metrics.record_exchange(make_exchange(unforwarded_fields=(b"X-Odd",)))
    metrics.declare_credentials(["default"])
    metrics.usability = lambda: (True, "answers")
    metrics.declare_probe_signals(["answers"])
    metrics.certificate_expiries = lambda: {"listener": 0.0}
    outbox = {"entries": {"waiting": 1}, "oldest_seconds": 3.0}
    metrics.observe_outbox(lambda: outbox, ["waiting", "failed"], ["queued"])
    assert set(_families(metrics)) == {
        (
            "dhp_gateway_requests",
            "counter",
            frozenset({"caller", "interaction", "resource", "status", "reason"}),
        ),
        ("dhp_gateway_request_duration_seconds", "histogram", frozenset({"interaction"})),
        ("dhp_gateway_upstream_duration_seconds", "histogram", frozenset({"interaction"})),
        ("dhp_gateway_request_bytes", "counter", frozenset({"caller"})),
        ("dhp_gateway_response_bytes", "counter", frozenset({"caller"})),
        ("dhp_gateway_inflight_requests", "gauge", frozenset()),
        ("dhp_gateway_upstream_connections", "gauge", frozenset({"state"})),
        ("dhp_gateway_upstream_retries", "counter", frozenset({"cause"})),
        ("dhp_gateway_token_requests", "counter", frozenset({"credential", "outcome"})),
        ("dhp_gateway_token_expiry_timestamp_seconds", "gauge", frozenset({"credential"})),
        ("dhp_gateway_token_waiters", "gauge", frozenset({"credential"})),
        ("dhp_gateway_token_request_duration_seconds", "histogram", frozenset({"credential"})),
        ("dhp_gateway_circuit_state", "gauge", frozenset()),
        ("dhp_gateway_platform_usable", "gauge", frozenset({"reason"})),
        ("dhp_gateway_platform_probes", "counter", frozenset({"found"})),
        ("dhp_gateway_links", "counter", frozenset({"outcome"})),
        ("dhp_gateway_fields_not_forwarded", "counter", frozenset({"caller"})),
        ("dhp_gateway_search_parameters_ignored", "counter", frozenset()),
        ("dhp_gateway_audit_records", "counter", frozenset({"outcome"})),
        ("dhp_gateway_config_reload", "counter", frozenset({"outcome"})),
        ("dhp_gateway_alert_messages", "counter", frozenset({"outcome"})),
        ("dhp_gateway_certificate_expiry_timestamp_seconds", "gauge", frozenset({"certificate"})),
        ("dhp_gateway_outbox_entries", "gauge", frozenset({"state"})),
        ("dhp_gateway_outbox_oldest_seconds", "gauge", frozenset()),
        ("dhp_gateway_outbox_available", "gauge", frozenset()),
        ("dhp_gateway_outbox_stalled_seconds", "gauge", frozenset()),
        ("dhp_gateway_outbox_steps", "counter", frozenset({"step"})),
        ("dhp_gateway_build_info", "gauge", frozenset({"version", "python"})),
    }


def test_an_exchange_updates_counter_durations_and_sizes(metrics, make_exchange):
    for _ in range(2):
        metrics.record_exchange(
            make_exchange(request_bytes=10, duration=0.02, upstream_duration=0.004)
        )
    series = {
        "caller": "lab",
        "interaction": "read",
        "resource": "Patient",
        "status": "200",
        "reason": "",
    }
    assert _value(metrics, "dhp_gateway_requests_total", **series) == 2
    assert _value(metrics, "dhp_gateway_request_bytes_total", caller="lab") == 20
    assert _value(metrics, "dhp_gateway_response_bytes_total", caller="lab") == 3400
    duration, upstream = (
        "dhp_gateway_request_duration_seconds",
        "dhp_gateway_upstream_duration_seconds",
    )
    assert _value(metrics, f"{duration}_count", interaction="read") == 2
    assert _value(metrics, f"{duration}_sum", interaction="read") == pytest.approx(0.04)
    assert _value(metrics, f"{duration}_bucket", interaction="read", le="0.01") == 0
    assert _value(metrics, f"{duration}_bucket", interaction="read", le="0.025") == 2
    assert _value(metrics, f"{upstream}_bucket", interaction="read", le="0.005") == 2


def test_exchanges_that_differ_in_a_label_are_counted_apart(metrics, make_exchange):
    """A rejected request has no platform duration."""
    changes = [
        {"caller": "ward"},
        {"interaction": "vread"},
        {"resource": "Observation"},
        {"status": 404},
        {"status": 503, "reason": "circuit-open", "upstream_duration": None},
        {"status": 503, "reason": "upstream-busy", "upstream_duration": None},
    ]
    for change in changes:
        metrics.record_exchange(make_exchange(**change))
    counts = [
        value
        for (name, _labels), value in _series(metrics).items()
        if name == "dhp_gateway_requests_total"
    ]
    assert counts == [1.0] * 6
    count = _value(metrics, "dhp_gateway_upstream_duration_seconds_count", interaction="read")
    assert count == 3


def test_gauges_are_read_at_the_scrape(metrics):
    connections = {"idle": 3, "active": 1}
    circuit = [0]
    metrics.observe_connections(lambda: connections)
    metrics.observe_circuit(lambda: circuit[0])
    metrics.observe_inflight(lambda: connections["active"])
    connections["active"] = 5
    circuit[0] = 2
    assert _value(metrics, "dhp_gateway_inflight_requests") == 5
    assert _value(metrics, "dhp_gateway_upstream_connections", state="idle") == 3
    assert _value(metrics, "dhp_gateway_upstream_connections", state="active") == 5
    assert _value(metrics, "dhp_gateway_upstream_connections", state="connecting") == 0
    assert _value(metrics, "dhp_gateway_circuit_state") == 2


def test_the_state_of_the_platform_is_one_series(metrics):
    """With its reason; probes are counted."""
    judged = [(True, "untried")]
    metrics.usability = lambda: judged[0]
    assert _value(metrics, "dhp_gateway_platform_usable", reason="untried") == 1
    judged[0] = False, "platform-tls"
    usable = [(key, value) for key, value in _series(metrics).items() if "usable" in key[0]]
    (((_, labels), value),) = usable
    assert (dict(labels), value) == ({"reason": "platform-tls"}, 0)
    probes = "dhp_gateway_platform_probes_total"
    metrics.declare_probe_signals(["answers", "platform-tls"])
    assert _value(metrics, probes, found="answers") == 0
    metrics.count_probe("answers")
    assert _value(metrics, probes, found="answers") == 1


def test_credentials_that_are_no_longer_used_have_no_gauges(metrics):
    """Their counters stay."""
    expiry, requests = (
        "dhp_gateway_token_expiry_timestamp_seconds",
        "dhp_gateway_token_requests_total",
    )
    metrics.declare_credentials(["default", "lab"])
    metrics.on_token_requested("lab", "ok", 0.1)
    metrics.declare_credentials(["default"])
    assert _value(metrics, expiry, credential="lab") is None
    assert _value(metrics, "dhp_gateway_token_waiters", credential="lab") is None
    assert _value(metrics, requests, credential="lab", outcome="ok") == 1
    assert _value(metrics, expiry, credential="default") == 0
    metrics.declare_credentials(["default", "lab"])
    assert _value(metrics, expiry, credential="lab") == 0


def test_unused_certificates_have_no_series(metrics):
    name = "dhp_gateway_certificate_expiry_timestamp_seconds"
    metrics.certificate_expiries = lambda: {"listener": 1767225600.0, "of a stranger": 1.0}
    assert _value(metrics, name, certificate="listener") == 1767225600
    assert _value(metrics, name, certificate="of a stranger") is None
    metrics.certificate_expiries = dict
    assert _value(metrics, name, certificate="listener") is None


def test_token_requests_are_counted(metrics):
    metrics.on_token_requested("default", "ok", 0.2)
    metrics.on_token_requested("default", "transient", 0.3)
    metrics.on_token_expiry("default", 1767225600.0)
    metrics.on_waiters_changed("default", 7)
    name = "dhp_gateway_token_requests_total"
    assert _value(metrics, name, credential="default", outcome="ok") == 1
    assert _value(metrics, name, credential="default", outcome="transient") == 1
    name = "dhp_gateway_token_request_duration_seconds_count"
    assert _value(metrics, name, credential="default") == 2
    name = "dhp_gateway_token_expiry_timestamp_seconds"
    assert _value(metrics, name, credential="default") == 1767225600.0
    assert _value(metrics, "dhp_gateway_token_waiters", credential="default") == 7


def test_known_series_start_at_zero(metrics):
    """So that an alert on an increase works from the first failure."""
    metrics.declare_credentials(["default"])
    for outcome in ("ok", "refused", "throttled", "transient"):
        name = "dhp_gateway_token_requests_total"
        assert _value(metrics, name, credential="default", outcome=outcome) == 0
    for outcome in ("rewritten", "unrewritten"):
        assert _value(metrics, "dhp_gateway_links_total", outcome=outcome) == 0
    for outcome in ("written", "dropped"):
        assert _value(metrics, "dhp_gateway_audit_records_total", outcome=outcome) == 0
    for outcome in ("ok", "failed"):
        assert _value(metrics, "dhp_gateway_config_reload_total", outcome=outcome) == 0
    assert _value(metrics, "dhp_gateway_upstream_retries_total", cause="reused") == 0


def test_audit_records_reloads_and_retries_are_counted(metrics):
    metrics.count_audit_records("written", 3)
    metrics.count_audit_records("dropped")
    metrics.count_reload("failed")
    metrics.count_retry("connect")
    assert _value(metrics, "dhp_gateway_audit_records_total", outcome="written") == 3
    assert _value(metrics, "dhp_gateway_audit_records_total", outcome="dropped") == 1
    assert _value(metrics, "dhp_gateway_config_reload_total", outcome="failed") == 1
    assert _value(metrics, "dhp_gateway_upstream_retries_total", cause="connect") == 1


def test_an_unknown_retry_cause_is_other(metrics):
    metrics.count_retry("30101901234567")
    assert _value(metrics, "dhp_gateway_upstream_retries_total", cause="other") == 1
    assert b"30101901234567" not in metrics.render()[1]


def test_build_info_names_version_and_python(metrics):
    labels = {"version": __version__, "python": platform.python_version()}
    assert _value(metrics, "dhp_gateway_build_info", **labels) == 1


@pytest.mark.parametrize("accept", [None, "text/plain"])
def test_the_text_format_has_neither_start_times_nor_exemplars(metrics, make_exchange, accept):
    metrics.record_exchange(make_exchange(traceparent=f"00-{TRACE}-{SPAN}-01"))
    content_type, body = metrics.render(accept)
    assert content_type.startswith("text/plain; version=")
    assert b"_created" not in body
    assert TRACE.encode() not in body
    assert _value(metrics, "dhp_gateway_request_duration_seconds_count", interaction="read") == 1


def test_openmetrics_is_sent_where_the_scraper_prefers_it(metrics, make_exchange):
    metrics.record_exchange(make_exchange())
    content_type, body = metrics.render(f"{OPENMETRICS};q=0.5,text/plain;q=0.3")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    names = {family.name: family for family in parse_openmetrics(body.decode())}
    [total] = [s for s in names["dhp_gateway_requests"].samples if s.name.endswith("_total")]
    assert total.value == 1


@pytest.mark.parametrize("accept", ["", "*/*", "nonsense;;;q=,", "text/html", "a/b;version=x.y"])
def test_any_other_accept_gets_the_text_format(metrics, accept):
    assert metrics.render(accept)[0].startswith("text/plain")


def test_two_instances_have_separate_registries():
    first, second = Metrics(), Metrics()
    first.count_audit_records("written")
    assert _value(second, "dhp_gateway_audit_records_total", outcome="written") == 0


def _exemplars(metrics: Metrics) -> dict[tuple[str, str], tuple[dict[str, str], float, float]]:
    """Return the exemplars of the OpenMetrics format by sample and bucket."""
    _type, body = metrics.render(OPENMETRICS)
    return {
        (sample.name, sample.labels["le"]): (
            sample.exemplar.labels,
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar is not None
    }


def test_a_bucket_has_the_last_sampled_trace_as_exemplar(metrics, make_exchange):
    sampled = f"00-{TRACE}-{SPAN}-01"
    for traceparent in (f"00-{'a' * 32}-{SPAN}-01", sampled):
        metrics.record_exchange(
            make_exchange(traceparent=traceparent, duration=0.02, upstream_duration=0.004)
        )
    ids, ended = {"trace_id": TRACE, "span_id": SPAN}, pytest.approx(1767225600.145)
    assert _exemplars(metrics) == {
        ("dhp_gateway_request_duration_seconds_bucket", "0.025"): (ids, 0.02, ended),
        ("dhp_gateway_upstream_duration_seconds_bucket", "0.005"): (ids, 0.004, ended),
    }


@pytest.mark.parametrize(
    "traceparent", [None, f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-01 30101901234567", ""]
)
def test_without_a_sampled_trace_there_is_no_exemplar(metrics, make_exchange, traceparent):
    metrics.record_exchange(make_exchange(traceparent=traceparent))
    assert _exemplars(metrics) == {}


def test_without_an_outbox_there_are_no_series_of_one(metrics):
    """With one there is a series for each state."""
    assert _value(metrics, "dhp_gateway_outbox_oldest_seconds") is None
    report = {"entries": {"waiting": 2}, "oldest_seconds": None}
    metrics.observe_outbox(lambda: report, ["waiting", "failed"], ["queued"])
    metrics.count_outbox_step("queued")
    assert _value(metrics, "dhp_gateway_outbox_entries", state="waiting") == 2
    assert _value(metrics, "dhp_gateway_outbox_entries", state="failed") == 0
    assert _value(metrics, "dhp_gateway_outbox_oldest_seconds") == 0
    assert _value(metrics, "dhp_gateway_outbox_steps_total", step="queued") == 1
