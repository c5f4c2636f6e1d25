"""Spans as a real OTLP collector receives them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.doubles.certificates import server_context

pytest.importorskip("opentelemetry.sdk", reason="pip install 'dhp-gateway[otel]'")

from opentelemetry.trace import NoOpTracer

from gateway.exchange import Exchange
from gateway.telemetry.tracing import Tracing
from tests.doubles.collector import Collector, Span
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform, fhir, outcome, then_close, unauthorized
from tests.doubles.processes import free_port
from tests.doubles.sso import Sso, status
from tests.doubles.wire import fetch, get, post

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"traceparent: 00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"traceparent: 00-{TRACE}-{SPAN}-00"
STATE = "tracestate: his=x1,other=y2"
READ = "/fhir/Patient/1"
PLANTED = ("30101901234567", "Plantedov", "planted", "Planted", "AB1234567", "token-1")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as double:
        yield double


@contextlib.asynccontextmanager
async def traced(
    platform: Platform,
    sso: Sso,
    collector: Collector,
    circuit_breaker: dict[str, Any] | None = None,
    **tracing: Any,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway that exports spans; all have arrived at the end."""
    sections = {
        "tracing": {"otlp_endpoint": collector.url, **tracing},
        "retries": {"backoff": 0.01},
        "circuit_breaker": circuit_breaker or {},
    }
    async with running_gateway(platform.url, sso.token_url, **sections) as gateway:
        yield gateway


def by_kind(spans: list[Span], trace_id: str | None = None) -> tuple[Span, list[Span]]:
    """Return the one server span and the client spans of a trace, in order."""
    mine = [span for span in spans if trace_id in (None, span.trace_id)]
    [server] = [span for span in mine if span.kind == "server"]
    clients = [span for span in mine if span.kind == "client"]
    return server, sorted(clients, key=lambda span: span.began)


async def test_spans_continue_the_callers_trace(platform, sso, collector) -> None:
    """The platform gets the last one as parent."""
    async with traced(platform, sso, collector) as gateway:
        await asyncio.wait_for(sso.wait_for_requests(1), 30)
        assert (await fetch(gateway.address, get(READ, SAMPLED, STATE))).status == 200
        [record] = await gateway.audit()
    server, clients = by_kind(collector.spans, TRACE)
    upstream = clients[-1]
    assert server.parent_id == SPAN
    assert upstream.parent_id == server.span_id
    sent = platform.requests[0].header("traceparent")
    assert sent == f"00-{TRACE}-{upstream.span_id}-01" == record["traceparent"]
    assert platform.requests[0].header("tracestate") == "his=x1,other=y2"
    assert server.began <= upstream.began <= upstream.ended <= server.ended


async def test_spans_have_names_and_attributes_of_the_http_conventions(
    platform, sso, collector
) -> None:
    """And the gateway's own."""
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get(READ, SAMPLED))
    server, clients = by_kind(collector.spans)
    assert server.name == "GET read Patient"
    assert not server.failed
    assert server.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "http.response.body.size": len(fhir().partition(b"\r\n\r\n")[2]),
        "url.scheme": "http",
        "dhp_gateway.caller": "anonymous",
        "dhp_gateway.interaction": "read",
        "dhp_gateway.resource": "Patient",
        "dhp_gateway.outcome": "success",
        "dhp_gateway.attempts": 1,
    }
    assert clients[-1].name == "GET"
    assert clients[-1].attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "peer.service": "dhp-platform",
        "server.address": "127.0.0.1",
        "server.port": platform.port,
    }
    assert collector.resources[0]["service.name"] == "dhp-gateway"


async def test_every_attempt_has_its_own_span(platform, sso, collector) -> None:
    platform.script(then_close(b""), outcome(503), fhir())
    async with traced(platform, sso, collector) as gateway:
        await asyncio.wait_for(sso.wait_for_requests(1), 30)
        assert (await fetch(gateway.address, get(READ, SAMPLED))).status == 200
    server, clients = by_kind(collector.spans)
    tries = [span for span in clients if span.attributes["peer.service"] == "dhp-platform"]
    assert [span.attributes.get("http.request.resend_count") for span in tries] == [None, 1, 2]
    assert [span.attributes.get("error.type") for span in tries] == ["closed", "503", None]
    assert [span.failed for span in tries] == [True, True, False]
    parents = [request.header("traceparent") for request in platform.requests]
    assert parents == [f"00-{TRACE}-{span.span_id}-01" for span in tries]
    assert {span.parent_id for span in tries} == {server.span_id}


async def test_waiting_for_a_token_has_a_span(platform, sso, collector) -> None:
    sso.hold()
    async with traced(platform, sso, collector) as gateway:
        answer = asyncio.ensure_future(fetch(gateway.address, get(READ, SAMPLED)))
        await asyncio.wait_for(sso.wait_for_requests(1), 30)
        await gateway.wait_for_metric(1, "dhp_gateway_token_waiters")
        sso.release()
        assert (await answer).status == 200
    _, [token, upstream] = by_kind(collector.spans)
    assert (token.name, token.attributes["peer.service"]) == ("token", "dhp-sso")
    assert token.attributes["server.port"] == sso.port
    assert token.ended <= upstream.began


async def test_replacing_a_rejected_token_has_a_span(platform, sso, collector) -> None:
    platform.script(unauthorized())
    async with traced(platform, sso, collector) as gateway:
        await gateway.wait_for_metric(1, "dhp_gateway_token_requests_total", outcome="ok")
        assert (await fetch(gateway.address, get(READ, SAMPLED))).status == 200
    _, clients = by_kind(collector.spans)
    assert [span.attributes["peer.service"] for span in clients] == [
        *("dhp-platform", "dhp-sso", "dhp-platform")
    ]
    assert [span.attributes.get("error.type") for span in clients] == ["401", None, None]


async def test_failed_spans_have_the_reason(platform, sso, collector) -> None:
    sso.respond(status(503))
    async with traced(platform, sso, collector) as gateway:
        response = await fetch(gateway.address, get(READ, SAMPLED))
    assert response.reason == "sso-unavailable"
    server, clients = by_kind(collector.spans)
    assert server.failed
    assert server.attributes["error.type"] == "sso-unavailable"
    assert server.attributes["dhp_gateway.reason"] == "sso-unavailable"
    assert {span.name for span in clients} <= {"token"}
    assert all(span.failed for span in clients)


async def test_what_the_caller_does_not_sample_is_not_exported(platform, sso, collector) -> None:
    """The ids are forwarded."""
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get(READ, UNSAMPLED))
        await fetch(gateway.address, get("/fhir/Patient/2"))
    sent = platform.requests[0].header("traceparent")
    assert sent is not None
    assert re.fullmatch(f"00-{TRACE}-(?!{SPAN})[0-9a-f]{{16}}-00", sent)
    assert TRACE not in {span.trace_id for span in collector.spans}
    assert len(by_kind(collector.spans)[1]) >= 1


@pytest.mark.parametrize("flags", ["02", "03"])
async def test_the_random_flag_is_forwarded(platform, sso, collector, flags: str) -> None:
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get(READ, f"traceparent: 00-{TRACE}-{SPAN}-{flags}"))
    sent = platform.requests[0].header("traceparent")
    assert sent is not None
    assert re.fullmatch(f"00-{TRACE}-(?!{SPAN})[0-9a-f]{{16}}-{flags}", sent)


async def test_an_open_circuit_has_no_client_span(platform, sso, collector) -> None:
    platform.respond(then_close(b""))
    circuit = {"min_requests": 1, "open_for": 60}
    async with traced(platform, sso, collector, circuit_breaker=circuit) as gateway:
        body = b'{"resourceType":"Patient"}'
        assert (await fetch(gateway.address, post("/fhir/Patient", body))).status == 502
        await gateway.wait_for_metric(2, "dhp_gateway_circuit_state")
        refused = await fetch(gateway.address, get(READ, SAMPLED))
        assert refused.reason == "circuit-open"
        record = (await gateway.audit(2))[-1]
    server, clients = by_kind(collector.spans, TRACE)
    assert clients == []
    assert record["traceparent"] == f"00-{TRACE}-{server.span_id}-01"


@pytest.mark.parametrize("field", [[], [f"traceparent: 00-{TRACE}-{'0' * 16}-01", STATE]])
async def test_without_a_valid_field_a_new_trace_begins(
    platform, sso, collector, field: list[str]
) -> None:
    """The state of another trace is dropped."""
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get(READ, *field))
    server, clients = by_kind(collector.spans)
    assert server.parent_id == ""
    assert server.trace_id != TRACE
    sent = platform.requests[0].header("traceparent")
    assert sent == f"00-{server.trace_id}-{clients[-1].span_id}-01"
    assert platform.requests[0].header("tracestate") is None


async def test_sample_ratio_of_0_exports_only_what_callers_sample(platform, sso, collector) -> None:
    async with traced(platform, sso, collector, sample_ratio=0) as gateway:
        await fetch(gateway.address, get(READ))
        await fetch(gateway.address, get(READ, SAMPLED))
    sent = platform.requests[0].header("traceparent")
    assert sent is not None
    assert sent.endswith("-00")
    assert {span.trace_id for span in collector.spans} == {TRACE}


async def test_a_disabled_sdk_forwards_the_trace_unchanged(
    platform, sso, collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get(READ, SAMPLED))
        await fetch(gateway.address, get(READ))
    assert [request.header("traceparent") for request in platform.requests] == [
        *(SAMPLED.partition(": ")[2], None)
    ]
    assert collector.spans == []


async def test_rejected_requests_have_a_server_span(platform, sso, collector) -> None:
    async with traced(platform, sso, collector) as gateway:
        await fetch(gateway.address, get("/nowhere", SAMPLED))
        [record] = await gateway.audit()
    server, clients = by_kind(collector.spans)
    assert clients == []
    assert server.attributes["dhp_gateway.reason"] == "unknown-path"
    assert not server.failed
    assert record["traceparent"] == f"00-{TRACE}-{server.span_id}-01"


async def test_no_patient_data_is_exported(platform, sso, collector) -> None:
    """Nothing of path, query, body or fields is in the octets that the collector gets."""
    fields = (
        "tracestate: planted=Plantedov",
        "baggage: patient=30101901234567",
        "User-Agent: Plantedov",
        "X-Request-Id: 30101901234567",
    )
    body = b'{"resourceType":"Patient","id":"planted","name":[{"family":"Plantedov"}]}'
    target = "/fhir/Patient/planted-30101901234567?name=Plantedov&identifier=AB1234567"
    async with traced(platform, sso, collector) as gateway:
        for request in (
            get(target, SAMPLED, *fields),
            get("/fhir/Planted/$planted?Plantedov=1", *fields),
            get(target, *fields, method="PLANTED"),
            get("/planted", *fields),
            post(target, body, *fields, method="PUT"),
        ):
            await fetch(gateway.address, request)
        platform.respond(fhir(body, 422))
        await fetch(gateway.address, post("/fhir/Patient", body, *fields))
    assert len([span for span in collector.spans if span.kind == "server"]) == 6
    assert b"GET read Patient" in collector.raw
    assert [planted for planted in PLANTED if planted.encode() in collector.raw] == []


async def test_without_its_collector_requests_are_served(platform, sso, caplog) -> None:
    """The log reports every lost span."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    async with running_gateway(
        platform.url, sso.token_url, tracing={"otlp_endpoint": endpoint}
    ) as gateway:
        for _ in range(20):
            assert (await fetch(gateway.address, get(READ))).status == 200
    logged = [r.msg for r in caplog.records if r.name == "gateway.tracing"]
    assert {each["event"] for each in logged} == {
        "spans cannot be exported; requests are not affected"
    }
    # Once when it begins and, where that was before the end, once more with all of them.
    assert 1 <= len(logged) <= 2
    # Two for each request; some have waited for the token, too.
    assert logged[-1]["lost"] >= 40


async def test_a_collector_over_tls_is_verified_and_gets_the_authorization(
    platform, sso, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "secret").write_text("Bearer planted-secret")
    async with Collector(tls=server_context(authority)) as collector:
        async with traced(
            platform,
            sso,
            collector,
            ca_file=str(tmp_path / "ca.pem"),
            authorization_file=str(tmp_path / "secret"),
            service_name="gateway-17",
        ) as gateway:
            await fetch(gateway.address, get(READ))
        assert collector.spans
        assert collector.requests[0]["authorization"] == "Bearer planted-secret"
        assert collector.resources[0]["service.name"] == "gateway-17"


def test_a_fault_of_the_tracing_library_costs_only_spans() -> None:
    """Not metrics and audit."""

    class BrokenTracer(NoOpTracer):
        """A library that fails."""

        def start_span(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError

    accounted: list[Exchange] = []
    tracing = Tracing(
        BrokenTracer(), is_tls=False, platform_url="http://x/fhir", token_url="http://x/token"
    )
    exchange = Exchange("id", 0.0, 0.0)
    tracing.wrap_account(accounted.append)(exchange)
    assert accounted == [exchange]
