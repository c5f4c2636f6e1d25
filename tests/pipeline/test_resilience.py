"""Unusual responses, callers and failures, each of which can do harm."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    Platform,
    PlatformConnection,
    fhir,
    http,
    outcome,
    read_body,
    silence,
)
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline.testbed import latest_connection

FAR_AWAY = "Mon, 01 Jan 99999999999 00:00:00 GMT"


async def test_retry_after_beyond_calendar_is_ignored(start_gateway, platform: Platform) -> None:
    """The connection is reused."""
    async with start_gateway(
        platform={"max_connections": 1, "connect_timeout": 30}, retries={"max_attempts": 1}
    ) as gateway:
        platform.script(
            outcome(503, ("Retry-After", FAR_AWAY)),
            http(503, b"<html>", ("Content-Type", "text/html"), ("Retry-After", FAR_AWAY)),
        )
        statuses = [(await fetch(gateway.address, get("/fhir/Patient/1"))).status for _ in range(3)]
        assert statuses == [503, 503, 200]
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 0


async def test_an_empty_gzip_response_to_a_write_passes(
    gateway: RunningGateway, platform: Platform
) -> None:
    platform.respond(fhir(b"", 201, ("Content-Encoding", "gzip"), ("Location", "Patient/1")))
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert (response.status, response.header("location")) == (201, "Patient/1")


async def test_a_slow_reader_gets_its_whole_response(start_gateway, platform: Platform) -> None:
    body = b"A" * 6_000_000 + b"the end"
    platform.respond(http(200, body, ("Content-Type", "image/png")))
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


async def slow_wire(gateway: RunningGateway) -> Wire:
    """Open a connection whose caller reads little at a time."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (gateway.address.host, gateway.address.port))
    return Wire(*await asyncio.open_connection(sock=raw, limit=16_384))


async def test_a_complete_write_is_forwarded_after_its_caller_disconnected(
    start_gateway, platform: Platform, sso: Sso
) -> None:
    """While it waited for a token."""
    sso.hold()
    body = b'{"resourceType":"Patient"}'
    async with start_gateway() as gateway:
        async with await Wire.open(gateway.address) as wire:
            await wire.send(post("/fhir/Patient", body))
            await sso.wait_for_requests(1)
            await gateway.wait_for_metric(1, "dhp_gateway_inflight_requests")
            ours = latest_connection(gateway)
        await wait_until(lambda: ours.is_half_closed)
        sso.release()
        await platform.wait_for_requests(1)
        (record,) = await gateway.audit()
        assert record["upstream_status"] == 200
    assert platform.requests[0].body == body


async def test_the_next_address_of_the_platform_is_tried(
    monkeypatch, start_gateway, platform: Platform
) -> None:
    """When one does not accept connections."""
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
            assert (await fetch(gateway.address, get("/fhir/Patient/1"))).status == 200


async def test_the_digest_of_a_request_that_may_change_is_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    body = b'{"subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    await fetch(gateway.address, post("/fhir/Observation", body, "Content-MD5: x", "Date: 1"))
    seen = platform.requests[0]
    assert (seen.header("content-md5"), seen.header("date")) == (None, "1")


async def test_web_pages_of_the_gateways_origin_are_served(gateway: RunningGateway) -> None:
    response = await fetch(gateway.address, get("/fhir/Patient/1", "Origin: http://gateway"))
    assert response.status == 200


async def test_a_body_of_many_comments_takes_linear_time(
    gateway: RunningGateway, platform: Platform
) -> None:
    body = b"<!---->" * 5000 + b'<Patient xmlns="http://hl7.org/fhir"/>'
    platform.respond(http(200, body, ("Content-Type", "application/fhir+xml")))
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).body == body


async def test_slow_uploads_hold_at_most_half_of_the_connections(
    start_gateway, platform: Platform
) -> None:
    async def upload(connection: PlatformConnection) -> None:
        await (
            silence(connection)
            if connection.request.method == "PUT"
            else respond_with_patient(connection)
        )

    platform.respond(upload)
    async with (
        start_gateway(platform={"max_connections": 4, "connect_timeout": 3}) as gateway,
        asyncio.TaskGroup() as group,
    ):
        wires = [await Wire.open(gateway.address) for _ in range(4)]
        head = get("/fhir/Binary/1", "Content-Length: 5000000", method="PUT")
        for wire in wires:
            await wire.send(head + b"x" * 100)
        await platform.wait_for_requests(2)
        responses = [group.create_task(wires[n].read_response()) for n in (2, 3)]
        assert (await fetch(gateway.address, get("/fhir/Patient/1"))).status == 200
        assert {(await response).reason for response in responses} == {"upstream-busy"}
        for wire in wires:
            wire.writer.transport.abort()


async def respond_with_patient(connection: PlatformConnection) -> None:
    await read_body(connection.reader, connection.request)
    connection.writer.write(fhir())


async def test_a_slow_response_is_forwarded_as_it_arrives(
    gateway: RunningGateway, platform: Platform
) -> None:
    go_on = asyncio.Event()

    async def trickle(connection: PlatformConnection) -> None:
        connection.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: 40\r\n\r\n"
        )
        for _ in range(30):
            connection.writer.write(b" ")
            await asyncio.sleep(0.1)
        await go_on.wait()
        connection.writer.write(b" " * 8 + b"{}")

    platform.respond(trickle)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1"))
        assert b"200 OK" in await wire.reader.readuntil(b"\r\n\r\n")
        go_on.set()
        assert len(await wire.reader.readexactly(40)) == 40
