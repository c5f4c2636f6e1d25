"""Odd answers, odd callers and bad luck: each was once a way to harm the gateway or its callers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import (
    PATIENT,
    Line,
    Platform,
    fhir,
    http,
    outcome,
    read_body,
    silence,
)
from tests.doubles.rest import until
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get, post
from tests.pipeline.stage import latest_connection

FAR_AWAY = "Mon, 01 Jan 99999999999 00:00:00 GMT"


async def test_absurd_retry_after_costs_no_connection(start_gateway, platform: Platform) -> None:
    """A date beyond all calendars is no date, and the connection it came on is not lost."""
    async with start_gateway(
        platform={"max_connections": 1, "connect_timeout": 30}, retries={"max_attempts": 1}
    ) as gateway:
        platform.script(
            outcome(503, ("Retry-After", FAR_AWAY)),
            http(503, b"<html>", ("Content-Type", "text/html"), ("Retry-After", FAR_AWAY)),
        )
        statuses = [(await ask(gateway.address, get("/fhir/Patient/1"))).status for _ in range(3)]
        assert statuses == [503, 503, 200]
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 0


async def test_empty_gzip_answer_of_a_write_is_no_failure(
    gateway: Running, platform: Platform
) -> None:
    """A create answered with no body passes, whatever its Content-Encoding."""
    platform.answer(fhir(b"", 201, ("Content-Encoding", "gzip"), ("Location", "Patient/1")))
    reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
    assert (reply.status, reply.header("location")) == (201, "Patient/1")


async def test_slow_reader_is_served(start_gateway, platform: Platform) -> None:
    """A caller on a bad line gets its whole answer, however long that takes it."""
    body = b"A" * 6_000_000 + b"the end"
    platform.answer(http(200, body, ("Content-Type", "image/png")))
    async with start_gateway(limits={"header_timeout": 3}) as gateway:
        wire = await slow_wire(gateway)
        async with wire:
            await wire.send(get("/fhir/Binary/1"))
            received = b""
            while len(received) < len(body):
                piece = await wire.reader.read(200_000)
                assert piece, "the gateway gave up"
                received += piece
                # Longer than a caller that takes nothing has.
                await asyncio.sleep(0.1 if len(received) < 1_000_000 else 0)
        assert received.endswith(body[-100:])


async def slow_wire(gateway: Running) -> Wire:
    """A connection whose caller takes little at a time."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (gateway.address.host, gateway.address.port))
    return Wire(*await asyncio.open_connection(sock=raw, limit=16_384))


async def test_errors_wait_for_their_reader(start_gateway) -> None:
    """A caller that reads no errors is not answered for ever: what waits for it is bounded."""
    async with start_gateway(limits={"header_timeout": 5}) as gateway:
        wire = await slow_wire(gateway)
        async with wire:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask_without_end(wire, get("/nowhere") * 100), 2)
        records = await gateway.audit()
        # Without back-pressure tens of thousands are answered in that time.
        assert len(records) < 20_000


async def ask_without_end(wire: Wire, requests: bytes) -> None:
    """Send and never read."""
    while True:
        await wire.send(requests)


async def test_write_that_was_sent_in_full_takes_its_course(
    start_gateway, platform: Platform, sso: Sso
) -> None:
    """A caller that leaves while the token is awaited has still sent its whole write."""
    sso.hold()
    body = b'{"resourceType":"Patient"}'
    async with start_gateway() as gateway:
        async with await Wire.open(gateway.address) as wire:
            await wire.send(post("/fhir/Patient", body))
            await sso.seen(1)
            await gateway.until_metric(1, "dhp_gateway_inflight_requests")
            ours = latest_connection(gateway)
        await until(lambda: ours.is_half_closed)
        sso.release()
        await platform.until_seen(1)
        (record,) = await gateway.audit()
        assert record["upstream_status"] == 200
    assert platform.seen[0].body == body


async def test_dead_address_is_passed_over(monkeypatch, start_gateway, platform: Platform) -> None:
    """When one of the platform's addresses is dead the next one serves."""
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        # Bound without listening: connections are refused at once.
        deaf.bind(("127.0.0.2", 0))
        dead = deaf.getsockname()

        async def resolve(host: str, port: int, **_: Any) -> list[Any]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, dead), (*kind, ("127.0.0.1", platform.port))]

        async with start_gateway() as gateway:
            monkeypatch.setattr(loop, "getaddrinfo", resolve)
            assert (await ask(gateway.address, get("/fhir/Patient/1"))).status == 200


async def test_platform_cannot_speak_for_the_gateway(gateway: Running, platform: Platform) -> None:
    """The gateway's own fields and browsers' security fields are not accepted from the platform."""
    platform.answer(
        fhir(
            PATIENT,
            200,
            ("X-Gateway-Error", "internal"),
            ("X_Gateway_Warning", "x"),
            ("Set_Cookie", "a=b"),
            ("Clear-Site-Data", "*"),
            ("Access-Control-Allow-Origin", "*"),
            ("Connection", "cache-control"),
            ("Cache-Control", "public"),
        )
    )
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    names = {name.lower() for name, _ in reply.headers}
    own = {"connection", "keep-alive", "x-request-id"}
    assert names == {"content-type", "content-length", "cache-control", *own}
    assert reply.header("cache-control") == "no-store"


async def test_two_content_types_are_none(gateway: Running, platform: Platform) -> None:
    """A response with two types is refused: a caller might use the one that was not checked."""
    platform.answer(fhir(PATIENT, 200, ("Content-Type", "text/html")))
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    assert (reply.status, reply.reason) == (502, "upstream-failed")


async def test_digest_of_a_changed_request_is_dropped(gateway: Running, platform: Platform) -> None:
    """A digest of the caller's body does not go out with a body that may have changed."""
    body = b'{"subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    await ask(gateway.address, post("/fhir/Observation", body, "Content-MD5: x", "Date: 1"))
    seen = platform.seen[0]
    assert (seen.header("content-md5"), seen.header("date")) == (None, "1")


@pytest.mark.parametrize(
    "host",
    [
        *("", "a b", "a/b", "a@b", "[::1", "h" * 300, "a:b", "gateway:80@evil.example", "a:65536"),
        *("[::::]", "[1]", "[127.0.0.1]", "::1", "a:1:2", "a,b", "a#b", "a?b", "a\\b", "http://a"),
    ],
)
async def test_invalid_host_is_refused(gateway: Running, platform: Platform, host: str) -> None:
    """A Host that names no host is an error: links in answers are made of it."""
    async with await Wire.open(gateway.address) as wire:
        reply = await wire.ask(f"GET /fhir/Patient/1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (reply.status, reply.reason) == (400, "bad-request")
        assert await wire.at_end()
    assert platform.seen == []


@pytest.mark.parametrize(
    "field",
    [
        *("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"),
        *("Origin: ftp://gateway", "Origin: app://gateway", "Origin: ://gateway"),
        *("Origin: http://gateway@evil.example", "Origin: http://evil.example@gateway"),
        *("Origin: http://evil.example://gateway", "Origin: gateway", "Origin: http://gateway/"),
    ],
)
async def test_foreign_web_pages_are_refused(
    gateway: Running, platform: Platform, field: str
) -> None:
    """Where any caller on this machine is accepted, a web page of another origin is not."""
    reply = await ask(gateway.address, post("/fhir/Patient", b"{}", field))
    assert (reply.status, reply.reason) == (403, "caller-forbidden")
    assert platform.seen == []


async def test_page_of_the_gateways_own_origin_is_served(gateway: Running) -> None:
    """A page that the gateway's own address served may call."""
    reply = await ask(gateway.address, get("/fhir/Patient/1", "Origin: http://gateway"))
    assert reply.status == 200


async def test_many_comments_are_read_once(gateway: Running, platform: Platform) -> None:
    """A body of many comments costs no more than its length."""
    body = b"<!---->" * 5000 + b'<Patient xmlns="http://hl7.org/fhir"/>'
    platform.answer(http(200, body, ("Content-Type", "application/fhir+xml")))
    assert (await ask(gateway.address, get("/fhir/Patient/1"))).body == body


async def test_uploads_leave_room_for_others(start_gateway, platform: Platform) -> None:
    """Slow uploads hold at most half of the platform's connections."""

    async def upload(line: Line) -> None:
        await (silence(line) if line.seen.method == "PUT" else answer_plainly(line))

    platform.answer(upload)
    async with (
        start_gateway(platform={"max_connections": 4, "connect_timeout": 3}) as gateway,
        asyncio.TaskGroup() as group,
    ):
        wires = [await Wire.open(gateway.address) for _ in range(4)]
        head = get("/fhir/Binary/1", "Content-Length: 5000000", method="PUT")
        for wire in wires:
            await wire.send(head + b"x" * 100)
        await platform.until_seen(2)
        replies = [group.create_task(wires[n].reply()) for n in (2, 3)]
        assert (await ask(gateway.address, get("/fhir/Patient/1"))).status == 200
        assert {(await reply).reason for reply in replies} == {"upstream-busy"}
        for wire in wires:
            wire.writer.transport.abort()


async def answer_plainly(line: Line) -> None:
    """A Patient."""
    await read_body(line.reader, line.seen)
    line.writer.write(fhir())


async def test_trickling_answer_is_not_held_back(gateway: Running, platform: Platform) -> None:
    """An answer that comes slowly reaches its caller as it comes, after a moment."""
    go_on = asyncio.Event()

    async def trickle(line: Line) -> None:
        line.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: 40\r\n\r\n"
        )
        for _ in range(30):
            line.writer.write(b" ")
            await asyncio.sleep(0.1)
        await go_on.wait()
        line.writer.write(b" " * 8 + b"{}")

    platform.answer(trickle)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1"))
        assert b"200 OK" in await wire.reader.readuntil(b"\r\n\r\n")
        go_on.set()
        assert len(await wire.reader.readexactly(40)) == 40
