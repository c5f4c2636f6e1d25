"""Callers that half-closed their connection: some wait for a response, others have disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    fhir,
    once,
    outcome,
    read_body,
    silence,
    silent_until,
)
from tests.doubles.waiting import wait_until, wait_until_idle
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline.conftest import StartGateway
from tests.pipeline.testbed import latest_connection

READ = get("/fhir/Patient/1")
LONG = b'{"resourceType":"Basic","id":"%s"}' % (b"1" * 200_000)
HANGING = get("/fhir/Patient/hangs")
# Half-closed reads are not limited by time.
LASTING = {"half_closed": 3600}
# The first caller's request, and how many it sends ahead.
READS = {
    "HTTP/1.1": HANGING,
    "HTTP/1.0": get("/fhir/Patient/hangs", version="1.0"),
    "kept alive in HTTP/1.0": get("/fhir/Patient/hangs", "Connection: keep-alive", version="1.0"),
    "HEAD": get("/fhir/Patient/hangs", method="HEAD"),
    "search by POST": post("/fhir/Patient/_search", b"name=hangs"),
    "sent ahead": HANGING + HANGING,
}


async def hanging(connection: PlatformConnection) -> None:
    """Do not respond to requests that contain `hangs`, and to all others at once."""
    await read_body(connection.reader, connection.request)
    if "hangs" in connection.request.target or b"hangs" in connection.request.body:
        await silence(connection)
    connection.writer.write(fhir())


async def half(connection: PlatformConnection) -> None:
    await read_body(connection.reader, connection.request)
    connection.writer.write(fhir(LONG)[:150_000])
    await silence(connection)


@pytest.fixture(autouse=True)
def platform_hangs(platform: Platform) -> None:
    platform.respond(hanging)


HalfClose = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def half_close(platform: Platform) -> AsyncIterator[HalfClose]:
    """Yield a function that opens a caller, sends its request and half-closes the connection."""
    async with contextlib.AsyncExitStack() as stack:

        async def behind(gateway: RunningGateway, request: bytes = HANGING) -> Wire:
            wire = await stack.enter_async_context(await Wire.open(gateway.address))
            received = len(platform.requests)
            await wire.send(request)
            await platform.wait_for_requests(received + 1)
            ours = latest_connection(gateway)
            wire.writer.write_eof()
            await wait_until(lambda: ours.is_half_closed)
            return wire

        yield behind


async def all_of(wire: Wire) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await wire.reader.read()
    return b""


@pytest.fixture(params=["TCP", "unix"])
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {} if request.param == "TCP" else {"address": f"unix:{tmp_path / 's'}"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_half_closed_write_is_not_cancelled(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose, method: str
) -> None:
    """However many callers wait, and for however long."""
    settings = {"max_connections": 1, "connect_timeout": 2}
    proceed = asyncio.Event()
    platform.script(once(proceed, fhir()))
    limits = {"half_closed": 0.1}
    async with start_gateway(platform=settings, limits=limits) as gateway:
        write = post("/fhir/Patient/1", b"{}", method=method)
        left = await half_close(gateway, write)
        assert (await fetch(gateway.address, READ)).reason == "upstream-busy"
        proceed.set()
        assert PATIENT in await all_of(left)


async def test_a_half_closed_waiter_is_cancelled(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A freed connection goes to callers that are still connected, even if others waited longer."""
    proceed = asyncio.Event()
    platform.script(once(proceed, fhir()))
    async with start_gateway(
        platform={"max_connections": 1}, limits={"half_closed": 0.2}
    ) as gateway:
        there = asyncio.ensure_future(fetch(gateway.address, READ))
        await platform.wait_for_requests(1)
        async with await Wire.open(gateway.address) as gone:
            await gone.send(HANGING)
            await gateway.wait_for_metric(2, "dhp_gateway_inflight_requests")
            ours = latest_connection(gateway)
            gone.writer.write_eof()
            await wait_until(lambda: ours.is_half_closed)
            next_one = asyncio.ensure_future(fetch(gateway.address, READ))
            assert await gone.at_end()
            proceed.set()
            assert [each.body for each in (await there, await next_one)] == [PATIENT, PATIENT]
        assert len(platform.requests) == 2


@pytest.mark.parametrize("name", READS)
async def test_a_half_closed_read_ends_after_the_limit(
    start_gateway: StartGateway,
    platform: Platform,
    half_close: HalfClose,
    listen: dict[str, Any],
    name: str,
) -> None:
    """After `limits.half_closed`, also without waiters; the platform's connection is closed too."""
    async with start_gateway(listen=listen, limits={"half_closed": 0.2}) as gateway:
        left = await half_close(gateway, READS[name])
        assert await all_of(left) == b""
        await wait_until_idle(gateway)
        assert (await gateway.audit())[0]["outcome"] == "aborted"


async def test_a_response_over_http_1_0_that_does_not_come_ends_with_a_reset(
    start_gateway: StartGateway, half_close: HalfClose
) -> None:
    """After a FIN the caller could take it for complete."""
    async with start_gateway(limits={"half_closed": 0.2}) as gateway:
        left = await half_close(gateway, READS["HTTP/1.0"])
        with pytest.raises(ConnectionResetError):
            await left.reader.read()


async def test_a_response_that_has_begun_is_not_limited(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """From then on writing shows whether the caller is connected."""

    async def slowly(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        answer = fhir(LONG)
        connection.writer.write(answer[:150_000])
        await over.wait()
        connection.writer.write(answer[150_000:])

    over = asyncio.Event()
    platform.script(slowly)
    async with start_gateway(limits={"half_closed": 2}) as gateway:
        left = await half_close(gateway)
        # A caller that closed later, without a response, reaches its limit before the first.
        assert await all_of(await half_close(gateway)) == b""
        over.set()
        assert len(await all_of(left)) > 200_000
        outcomes = [record["outcome"] for record in await gateway.audit(2)]
        assert outcomes == ["aborted", "success"]


@pytest.mark.parametrize("fault", ["time-out", "503", "broken", "no FHIR", "busy"])
async def test_cancelled_reads_do_not_count_against_the_platform(
    start_gateway: StartGateway, platform: Platform, fault: str
) -> None:
    """Neither circuit nor readiness change, whatever the platform does."""
    # All six must have disconnected before the first of them times out.
    settings = {"response_timeout": 5}
    have_left = asyncio.Event()

    async def late(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        if "hangs" not in connection.request.target:
            connection.writer.write(fhir())
            return
        await have_left.wait()
        match fault:
            case "503":
                connection.writer.write(outcome(503))
            case "no FHIR":
                connection.writer.write(fhir(b"<html>", 200))
            case "broken":
                connection.writer.close()
            case _:
                await silence(connection)

    if fault == "busy":
        settings |= {"max_connections": 1, "connect_timeout": 1}
    platform.respond(late)
    async with start_gateway(
        platform=settings, circuit_breaker={"min_requests": 2}, retries={"max_attempts": 1}
    ) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                wire = await stack.enter_async_context(await Wire.open(gateway.address))
                await wire.send(HANGING)
                wire.writer.write_eof()
            callers = gateway.gateway._server._connections
            # Half-closed waiters are cancelled for each other.
            if fault != "busy":
                await wait_until(lambda: sum(each.is_half_closed for each in callers) == 6)
            have_left.set()
            await gateway.audit(6)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0
        assert (await gateway.ready())[0] == 200
        assert (await fetch(gateway.address, READ)).status == 200


@pytest.mark.parametrize("request_", [READ, post("/fhir/Patient", b"{}")], ids=["read", "write"])
async def test_a_response_to_a_disconnected_caller_is_audited_as_aborted(
    start_gateway: StartGateway,
    platform: Platform,
    half_close: HalfClose,
    listen: dict[str, Any],
    request_: bytes,
) -> None:
    """With the platform's status."""
    proceed = asyncio.Event()
    platform.respond(once(proceed, fhir()))
    async with start_gateway(listen=listen) as gateway:
        there = await half_close(gateway, request_)
        gone = await half_close(gateway, request_)
        gone.writer.close()
        await gone.writer.wait_closed()
        proceed.set()
        assert PATIENT in await all_of(there)
        records = await gateway.audit(2)
        assert sorted(record["outcome"] for record in records) == ["aborted", "success"]
        assert [record["upstream_status"] for record in records] == [200, 200]


async def test_an_error_for_a_disconnected_caller_is_audited_as_aborted(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """With its reason."""
    async with start_gateway(platform={"response_timeout": 1.5}) as gateway:
        left = await half_close(gateway)
        left.writer.close()
        (record,) = await gateway.audit()
        assert (record["outcome"], record["reason"]) == ("aborted", "upstream-timeout")


@pytest.mark.parametrize("how", ["close_notify", "FIN alone"])
async def test_over_tls_a_half_closed_read_ends_at_once(
    start_gateway: StartGateway,
    platform: Platform,
    tls: tuple[dict[str, Any], ssl.SSLContext],
    how: str,
) -> None:
    """TLS is closed in both directions."""
    listen, context = tls
    ended = asyncio.Event()
    platform.script(silent_until(ended))
    async with start_gateway(listen=listen, limits=LASTING) as gateway:
        async with await Wire.open(gateway.address, tls=context) as wire:
            await wire.send(HANGING)
            await platform.wait_for_requests(1)
            if how == "close_notify":
                wire.writer.close()
            else:
                raw = wire.writer.get_extra_info("socket")
                with socket.socket(fileno=os.dup(raw.fileno())) as same:
                    same.shutdown(socket.SHUT_WR)
            await ended.wait()
        assert (await gateway.audit())[0]["outcome"] == "aborted"
