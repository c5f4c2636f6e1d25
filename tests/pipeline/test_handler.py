"""The request path as a caller and the platform see it."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import PATIENT, Platform, fhir
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get, post


@pytest.mark.parametrize(
    "target",
    [
        "/Patient?identifier=a%7Cb|c&name=%41~:&empty=&x=1,2&_format=json%2Bfhir",
        "/Patient/a%7eb;v=1?q=%41%2F+%20&q=|\"'&&x",
        # A question mark without a query is part of the target.
        "/Patient?",
    ],
)
async def test_the_target_passes_octet_for_octet(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    await fetch(gateway.address, get("/fhir" + target))
    assert platform.requests[0].target == "/r5" + target


async def test_response_fields_are_filtered(gateway: RunningGateway, platform: Platform) -> None:
    """The platform's connection fields, cookies and challenges do not reach the caller.

    Nor fields that only the gateway sends, or that are about the gateway's origin.
    """
    platform.respond(
        fhir(
            PATIENT,
            200,
            ("Set-Cookie", "a=b"),
            ("WWW-Authenticate", "Bearer"),
            ("Server", "x"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Alt-Svc", "h3"),
            ("X-Gateway-Error", "internal"),
            ("X_Gateway_Warning", "x"),
            ("Set_Cookie", "a=b"),
            ("Clear-Site-Data", "*"),
            ("Access-Control-Allow-Origin", "*"),
            ("Connection", "X-Hop, cache-control"),
            ("Cache-Control", "public"),
            ("X-Hop", "1"),
            ("ETag", 'W/"3"'),
            ("X-Kept", "1"),
            ("X-Kept", "2"),
        )
    )
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    names = {name.lower() for name, _ in response.headers}
    assert names == {
        *("content-type", "etag", "x-kept", "cache-control", "x-request-id", "content-length"),
        *("connection", "keep-alive", "date"),
    }
    assert (response.header("connection"), response.header("keep-alive")) == (
        "keep-alive",
        "timeout=120",
    )
    assert response.all("x-kept") == ["1", "2"]
    assert response.header("etag") == 'W/"3"'
    assert response.header("cache-control") == "no-store"


async def test_a_valid_request_id_of_the_caller_is_kept(
    gateway: RunningGateway, platform: Platform
) -> None:
    response = await fetch(gateway.address, get("/fhir/Patient/1", "X-Request-Id: lab:7_a.B-1"))
    assert response.header("x-request-id") == "lab:7_a.B-1"
    assert platform.requests[0].header("x-request-id") == "lab:7_a.B-1"


async def test_invalid_request_id_is_replaced(gateway: RunningGateway, platform: Platform) -> None:
    ids = []
    for odd in ("a b", "x" * 129, 'a"b}<script>'):
        response = await fetch(gateway.address, get("/fhir/Patient/1", f"X-Request-Id: {odd}"))
        ids.append(response.header("x-request-id") or "")
        assert uuid.UUID(ids[-1])
    assert [request.header("x-request-id") for request in platform.requests] == ids
    assert [record["request_id"] for record in await gateway.audit(3)] == ids


async def test_chunked_body_streams(gateway: RunningGateway, platform: Platform) -> None:
    """The platform receives it chunk by chunk, before its end is known."""
    head = get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head + b"5\r\nhello\r\n")
        await platform.wait_for_requests(1)
        await wire.send(b"6\r\n world\r\n0\r\n\r\n")
        assert (await wire.read_response()).status == 200
    assert platform.requests[0].body == b"hello world"


async def test_a_head_gets_the_fields_of_the_get_and_no_body(
    gateway: RunningGateway, platform: Platform
) -> None:
    platform.respond(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1234\r\n\r\n")
    async with await Wire.open(gateway.address) as wire:
        response = await wire.fetch(get("/fhir/Patient/1", method="HEAD"), head=True)
        assert response.header("content-length") == "1234"
        platform.respond(fhir())
        assert (await wire.fetch(get("/fhir/Patient/1"))).body == PATIENT


async def test_fifty_first_requests_cause_one_token_request(
    gateway: RunningGateway, sso: Sso
) -> None:
    responses = await asyncio.gather(
        *(fetch(gateway.address, get("/fhir/Patient/1")) for _ in range(50))
    )
    assert {response.status for response in responses} == {200}
    assert len(sso.requests) == 1


async def test_platform_without_a_path(sso: Sso) -> None:
    """It gets the rest of the target, "/" for the base itself."""
    async with (
        Platform(base_path="") as platform,
        running_gateway(platform.url, sso.token_url) as gateway,
    ):
        await fetch(gateway.address, get("/fhir/metadata"))
        await fetch(gateway.address, get("/fhir?_format=json"))
    assert [request.target for request in platform.requests] == ["/metadata", "/?_format=json"]


async def test_exchange_has_one_audit_record(gateway: RunningGateway, platform: Platform) -> None:
    """With names of parameters but no values."""
    await fetch(gateway.address, get("/fhir/Patient?name=Karimov&birthdate=1990-01-01"))
    (record,) = await gateway.audit()
    assert record["interaction"] == "search-type"
    assert record["resource"] == "Patient"
    assert record["query_params"] == ["name", "birthdate"]
    assert record["status"] == record["upstream_status"] == 200
    assert record["attempts"] == 1
    assert "Karimov" not in str(record)


async def test_an_exchange_is_counted_once(gateway: RunningGateway) -> None:
    """With labels of closed lists."""
    await fetch(gateway.address, post("/fhir/Observation", b"{}"))
    await gateway.audit()
    assert (
        await gateway.metric(
            "dhp_gateway_requests_total",
            caller="anonymous",
            interaction="create",
            resource="Observation",
            status="200",
            reason="",
        )
        == 1
    )
    assert await gateway.metric("dhp_gateway_request_bytes_total", caller="anonymous") == 2
    assert await gateway.metric("dhp_gateway_inflight_requests") == 0


async def test_the_audit_distinguishes_transaction_and_batch(
    gateway: RunningGateway, platform: Platform
) -> None:
    for kind in (b"transaction", b"batch"):
        body = b'{"resourceType":"Bundle","type":"%s","entry":[]}' % kind
        await fetch(gateway.address, post("/fhir", body))
    assert [r["interaction"] for r in await gateway.audit(2)] == ["transaction", "batch"]
    assert [request.body[-12:] for request in platform.requests] == [b',"entry":[]}'] * 2
