"""The request path as a caller and the platform see it."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.doubles.gateway import Running, running
from tests.doubles.platform import (
    PATIENT,
    Platform,
    fhir,
)
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get, post


@pytest.mark.parametrize(
    "target",
    [
        "/Patient?identifier=a%7Cb|c&name=%41~:&empty=&x=1,2&_format=json%2Bfhir",
        "/Patient/a%7eb;v=1?q=%41%2F+%20&q=|\"'&&x",
        # A question mark without a query is part of the target.
        "/Patient?",
    ],
)
async def test_target_passes_byte_for_byte(
    gateway: Running, platform: Platform, target: str
) -> None:
    """Path and query reach the platform as the caller spelled them."""
    await ask(gateway.address, get("/fhir" + target))
    assert platform.seen[0].target == "/r5" + target


async def test_answer_headers_are_filtered(gateway: Running, platform: Platform) -> None:
    """The platform's connection fields, cookies and challenges do not reach the caller."""
    platform.answer(
        fhir(
            PATIENT,
            200,
            ("Set-Cookie", "a=b"),
            ("WWW-Authenticate", "Bearer"),
            ("Server", "x"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Alt-Svc", "h3"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
            ("ETag", 'W/"3"'),
            ("X-Kept", "1"),
            ("X-Kept", "2"),
        )
    )
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    names = {name.lower() for name, _ in reply.headers}
    assert names == {
        *("content-type", "etag", "x-kept", "cache-control", "x-request-id", "content-length"),
        *("connection", "keep-alive"),
    }
    assert (reply.header("connection"), reply.header("keep-alive")) == ("keep-alive", "timeout=120")
    assert reply.all("x-kept") == ["1", "2"]
    assert reply.header("etag") == 'W/"3"'


async def test_request_id_of_the_caller_is_kept(gateway: Running, platform: Platform) -> None:
    """A well-formed X-Request-Id goes through in both directions."""
    reply = await ask(gateway.address, get("/fhir/Patient/1", "X-Request-Id: lab:7_a.B-1"))
    assert reply.header("x-request-id") == "lab:7_a.B-1"
    assert platform.seen[0].header("x-request-id") == "lab:7_a.B-1"


async def test_odd_request_id_is_replaced(gateway: Running, platform: Platform) -> None:
    """An X-Request-Id with other characters or more than 128 of them is replaced by a new one."""
    told = []
    for odd in ("a b", "x" * 129, 'a"b}<script>'):
        reply = await ask(gateway.address, get("/fhir/Patient/1", f"X-Request-Id: {odd}"))
        told.append(reply.header("x-request-id") or "")
        assert uuid.UUID(told[-1])
    assert [seen.header("x-request-id") for seen in platform.seen] == told
    assert [record["request_id"] for record in await gateway.audit(3)] == told


async def test_body_of_known_length_passes(gateway: Running, platform: Platform) -> None:
    """A create reaches the platform with its body and length."""
    body = b'{"resourceType":"Patient","multipleBirthInteger":1.10}'
    platform.answer(fhir(PATIENT, 201, ("Location", "Patient/1/_history/1")))
    reply = await ask(gateway.address, post("/fhir/Patient", body))
    assert (reply.status, reply.header("location")) == (201, "Patient/1/_history/1")
    assert platform.seen[0].body == body
    assert platform.seen[0].header("content-length") == str(len(body))


async def test_chunked_body_streams(gateway: Running, platform: Platform) -> None:
    """A body in chunks reaches the platform piece by piece, before its end is known."""
    head = get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head + b"5\r\nhello\r\n")
        await platform.until_seen(1)
        await wire.send(b"6\r\n world\r\n0\r\n\r\n")
        assert (await wire.reply()).status == 200
    assert platform.seen[0].body == b"hello world"


async def test_connection_is_kept_on_both_sides(gateway: Running, platform: Platform) -> None:
    """Requests one after the other share one connection to the platform."""
    async with await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.ask(get("/fhir/Patient/1"))).status == 200
    assert platform.connections == 1


async def test_head_has_no_body(gateway: Running, platform: Platform) -> None:
    """A HEAD is answered with the header of the GET, its length included, and nothing after it."""
    platform.answer(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1234\r\n\r\n")
    async with await Wire.open(gateway.address) as wire:
        reply = await wire.ask(get("/fhir/Patient/1", method="HEAD"), head=True)
        assert reply.header("content-length") == "1234"
        platform.answer(fhir())
        assert (await wire.ask(get("/fhir/Patient/1"))).body == PATIENT


async def test_fifty_first_requests_cause_one_token_request(gateway: Running, sso: Sso) -> None:
    """However many requests wait for the first token, the SSO is asked once."""
    replies = await asyncio.gather(
        *(ask(gateway.address, get("/fhir/Patient/1")) for _ in range(50))
    )
    assert {reply.status for reply in replies} == {200}
    assert len(sso.requests) == 1


async def test_platform_without_a_path(sso: Sso) -> None:
    """A platform whose base has no path gets the rest of the target, "/" for the base itself."""
    async with Platform(base_path="") as platform, running(platform.url, sso.token_url) as gateway:
        await ask(gateway.address, get("/fhir/metadata"))
        await ask(gateway.address, get("/fhir?_format=json"))
    assert [seen.target for seen in platform.seen] == ["/metadata", "/?_format=json"]


async def test_audit_record_tells_the_exchange(gateway: Running, platform: Platform) -> None:
    """One record an exchange, with names of parameters but no values."""
    await ask(gateway.address, get("/fhir/Patient?name=Karimov&birthdate=1990-01-01"))
    (record,) = await gateway.audit()
    assert record["interaction"] == "search-type"
    assert record["resource"] == "Patient"
    assert record["query_params"] == ["name", "birthdate"]
    assert record["status"] == record["upstream_status"] == 200
    assert record["attempts"] == 1
    assert "Karimov" not in str(record)


async def test_metrics_count_the_exchange(gateway: Running) -> None:
    """One update an exchange, with labels of closed lists."""
    await ask(gateway.address, post("/fhir/Observation", b"{}"))
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


async def test_transaction_and_batch_are_told_apart(gateway: Running, platform: Platform) -> None:
    """The audit names a Bundle's type, which only its body tells."""
    for kind in (b"transaction", b"batch"):
        body = b'{"resourceType":"Bundle","type":"%s","entry":[]}' % kind
        await ask(gateway.address, post("/fhir", body))
    assert [r["interaction"] for r in await gateway.audit(2)] == ["transaction", "batch"]
    assert [seen.body[-12:] for seen in platform.seen] == [b',"entry":[]}'] * 2
