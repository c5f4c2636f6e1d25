"""Callers that have closed their sending side: some wait for their answer, some have left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import (
    PATIENT,
    Line,
    Platform,
    fhir,
    once,
    outcome,
    read_body,
    silence,
    silent_until,
)
from tests.doubles.rest import come_to_rest, until
from tests.doubles.wire import TruncatedResponseError, Wire, ask, get, post
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import latest_connection

READ = get("/fhir/Patient/1")
LONG = b'{"resourceType":"Basic","id":"%s"}' % (b"1" * 200_000)
HANGING = get("/fhir/Patient/hangs")
# By itself the read of one that has closed its sending side would go on.
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


async def hanging(line: Line) -> None:
    """Answer nothing that hangs, and everything else at once."""
    await read_body(line.reader, line.seen)
    if "hangs" in line.seen.target or b"hangs" in line.seen.body:
        await silence(line)
    line.writer.write(fhir())


async def half(line: Line) -> None:
    """Send the beginning of a long response."""
    await read_body(line.reader, line.seen)
    line.writer.write(fhir(LONG)[:150_000])
    await silence(line)


@pytest.fixture(autouse=True)
def platform_hangs(platform: Platform) -> None:
    """The platform has no answer to some reads."""
    platform.answer(hanging)


HalfClose = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def half_close(platform: Platform) -> AsyncIterator[HalfClose]:
    """Callers whose requests are under way at the platform and that close their sending side."""
    async with contextlib.AsyncExitStack() as stack:

        async def behind(gateway: Running, request: bytes = HANGING) -> Wire:
            wire = await stack.enter_async_context(await Wire.open(gateway.address))
            seen = len(platform.seen)
            await wire.send(request)
            await platform.until_seen(seen + 1)
            ours = latest_connection(gateway)
            wire.writer.write_eof()
            await until(lambda: ours.is_half_closed)
            return wire

        yield behind


async def all_of(wire: Wire) -> bytes:
    """All that a caller was sent."""
    with contextlib.suppress(ConnectionError):
        return await wire.reader.read()
    return b""


@pytest.fixture(params=["TCP", "unix"])
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where callers reach the gateway."""
    return {} if request.param == "TCP" else {"address": f"unix:{tmp_path / 's'}"}


@pytest.mark.parametrize("name", READS)
async def test_its_read_makes_way_at_once(
    start_gateway: StartGateway,
    platform: Platform,
    half_close: HalfClose,
    listen: dict[str, Any],
    name: str,
) -> None:
    """Another that waits gets its connection; nothing is sent to it, and the audit says so."""
    settings = {"max_connections": 1, "connect_timeout": 5}
    async with start_gateway(listen=listen, platform=settings) as gateway:
        left = await half_close(gateway, READS[name])
        assert (await ask(gateway.address, READ)).body == PATIENT
        assert await all_of(left) == b""
        outcomes = [record["outcome"] for record in await gateway.audit(2)]
        assert sorted(outcomes) == ["aborted", "success"]


async def test_it_makes_way_while_its_answer_goes_out(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """What was begun is cut and does not look complete."""
    platform.script(half)
    async with start_gateway(platform={"max_connections": 1}) as gateway:
        left = await half_close(gateway)
        assert (await ask(gateway.address, READ)).body == PATIENT
        assert 0 < len(await all_of(left)) < 200_000


async def test_in_http10_what_was_begun_ends_with_a_reset(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """By a plain end its caller could take the beginning for all."""
    platform.script(half)
    async with start_gateway(platform={"max_connections": 1}) as gateway:
        left = await half_close(gateway, READS["HTTP/1.0"])
        assert (await ask(gateway.address, READ)).body == PATIENT
        with pytest.raises(ConnectionResetError):
            await left.reader.read()


async def test_only_as_many_as_wait_are_given_up(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """The first to close goes first; the others have their answers."""
    proceed = asyncio.Event()
    platform.script(*[once(proceed, fhir())] * 3)
    async with start_gateway(platform={"max_connections": 3}) as gateway:
        left = [await half_close(gateway) for _ in range(3)]
        assert (await ask(gateway.address, READ)).body == PATIENT
        proceed.set()
        assert [PATIENT in await all_of(each) for each in left] == [False, True, True]


async def test_on_a_busy_machine_no_more_are_given_up(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """The one that is given up keeps its connection for a moment, in which no other one goes."""
    proceed = asyncio.Event()

    async def busy() -> None:
        while True:
            time.sleep(0.1)  # noqa: ASYNC251 - blocks the loop
            await asyncio.sleep(0)

    platform.script(*[once(proceed, fhir())] * 3)
    async with start_gateway(platform={"max_connections": 3}) as gateway:
        left = [await half_close(gateway) for _ in range(3)]
        blocking = asyncio.create_task(busy())
        assert (await ask(gateway.address, READ)).body == PATIENT
        blocking.cancel()
        proceed.set()
        assert [PATIENT in await all_of(each) for each in left] == [False, True, True]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_takes_its_course(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose, method: str
) -> None:
    """However many wait, and for however long."""
    settings = {"max_connections": 1, "connect_timeout": 5}
    proceed = asyncio.Event()
    platform.script(once(proceed, fhir()))
    limits = {"half_closed": 0.1}
    async with start_gateway(platform=settings, limits=limits) as gateway:
        write = post("/fhir/Patient/1", b"{}", method=method)
        left = await half_close(gateway, write)
        assert (await ask(gateway.address, READ)).reason == "upstream-busy"
        proceed.set()
        assert PATIENT in await all_of(left)


async def test_for_one_that_closed_nothing_makes_way(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """It waits until one is free."""
    proceed = asyncio.Event()
    platform.script(once(proceed, fhir()))
    async with start_gateway(platform={"max_connections": 1}) as gateway:
        async with (
            await Wire.open(gateway.address) as first,
            await Wire.open(gateway.address) as second,
        ):
            await first.send(READ)
            await platform.until_seen(1)
            await second.send(READ)
            ours = latest_connection(gateway)
            second.writer.write_eof()
            await until(lambda: ours.is_half_closed)
            first.writer.write_eof()
            # Twice as long as between two looks at who has to make way.
            await asyncio.sleep(0.5)
            proceed.set()
            replies = await asyncio.gather(first.reply(), second.reply())
        assert [reply.body for reply in replies] == [PATIENT, PATIENT]


async def test_one_that_waits_for_a_connection_makes_way(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A freed connection goes to callers that are still connected, even if others waited longer."""
    proceed = asyncio.Event()
    platform.script(once(proceed, fhir()))
    async with start_gateway(platform={"max_connections": 1}, limits=LASTING) as gateway:
        there = asyncio.ensure_future(ask(gateway.address, READ))
        await platform.until_seen(1)
        async with await Wire.open(gateway.address) as gone:
            await gone.send(HANGING)
            await gateway.until_metric(2, "dhp_gateway_inflight_requests")
            ours = latest_connection(gateway)
            gone.writer.write_eof()
            await until(lambda: ours.is_half_closed)
            next_one = asyncio.ensure_future(ask(gateway.address, READ))
            assert await gone.at_end()
            proceed.set()
            assert [each.body for each in (await there, await next_one)] == [PATIENT, PATIENT]
        assert len(platform.seen) == 2


@pytest.mark.parametrize("name", READS)
async def test_its_read_ends_in_time(
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
        await come_to_rest(gateway)
        assert (await gateway.audit())[0]["outcome"] == "aborted"


async def test_an_answer_that_has_begun_goes_on(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """It came in time: from then on writing tells whether the caller is there."""

    async def slowly(line: Line) -> None:
        await read_body(line.reader, line.seen)
        answer = fhir(LONG)
        line.writer.write(answer[:150_000])
        await over.wait()
        line.writer.write(answer[150_000:])

    over = asyncio.Event()
    platform.script(slowly)
    async with start_gateway(limits={"half_closed": 2}) as gateway:
        left = await half_close(gateway)
        # The time of one that closed later, and has no answer, is over before that of the first.
        assert await all_of(await half_close(gateway)) == b""
        over.set()
        assert len(await all_of(left)) > 200_000
        outcomes = [record["outcome"] for record in await gateway.audit(2)]
        assert outcomes == ["aborted", "success"]


@pytest.mark.parametrize("fault", ["time-out", "503", "broken", "no FHIR", "busy"])
async def test_what_it_leaves_behind_is_no_fault_of_the_platform(
    start_gateway: StartGateway, platform: Platform, fault: str
) -> None:
    """Neither the circuit opens nor does readiness end, whatever the platform does."""
    # All six must have left before the first of them times out.
    settings = {"response_timeout": 5}
    have_left = asyncio.Event()

    async def late(line: Line) -> None:
        await read_body(line.reader, line.seen)
        if "hangs" not in line.seen.target:
            line.writer.write(fhir())
            return
        await have_left.wait()
        match fault:
            case "503":
                line.writer.write(outcome(503))
            case "no FHIR":
                line.writer.write(fhir(b"<html>", 200))
            case "broken":
                line.writer.close()
            case _:
                await silence(line)

    if fault == "busy":
        settings |= {"max_connections": 1, "connect_timeout": 1}
    platform.answer(late)
    async with start_gateway(
        platform=settings,
        circuit_breaker={"min_requests": 2},
        retries={"max_attempts": 1},
    ) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                wire = await stack.enter_async_context(await Wire.open(gateway.address))
                await wire.send(HANGING)
                wire.writer.write_eof()
            callers = gateway.gateway._server._connections
            # Those that wait for a connection make way for each other.
            if fault != "busy":
                await until(lambda: sum(each.is_half_closed for each in callers) == 6)
            have_left.set()
            await gateway.audit(6)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0
        assert (await gateway.ready())[0] == 200
        assert (await ask(gateway.address, READ)).status == 200


@pytest.mark.parametrize("request_", [READ, post("/fhir/Patient", b"{}")], ids=["read", "write"])
async def test_an_answer_that_reaches_nobody_is_no_success(
    start_gateway: StartGateway,
    platform: Platform,
    half_close: HalfClose,
    listen: dict[str, Any],
    request_: bytes,
) -> None:
    """The audit calls it aborted, with the platform's status; one that was taken is a success."""
    proceed = asyncio.Event()
    platform.answer(once(proceed, fhir()))
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


async def test_an_error_that_reaches_nobody_is_aborted(
    start_gateway: StartGateway, platform: Platform, half_close: HalfClose
) -> None:
    """The audit keeps the reason."""
    async with start_gateway(platform={"response_timeout": 1.5}) as gateway:
        left = await half_close(gateway)
        left.writer.close()
        (record,) = await gateway.audit()
        assert (record["outcome"], record["reason"]) == ("aborted", "upstream-timeout")


@pytest.mark.parametrize("how", ["close_notify", "FIN alone"])
async def test_over_tls_its_read_ends_at_once(
    start_gateway: StartGateway,
    platform: Platform,
    tls: tuple[dict[str, Any], ssl.SSLContext],
    how: str,
) -> None:
    """TLS is closed in both directions; nothing of it counts against the platform either."""
    listen, context = tls
    ended = asyncio.Event()
    platform.script(silent_until(ended))
    async with start_gateway(listen=listen, limits=LASTING) as gateway:
        async with await Wire.open(gateway.address, tls=context) as wire:
            await wire.send(HANGING)
            await platform.until_seen(1)
            if how == "close_notify":
                wire.writer.close()
            else:
                raw = wire.writer.get_extra_info("socket")
                with socket.socket(fileno=os.dup(raw.fileno())) as same:
                    same.shutdown(socket.SHUT_WR)
            await ended.wait()
        assert (await gateway.audit())[0]["outcome"] == "aborted"


def stop_sweep(gateway: Running) -> None:
    """Let only a request that begins to wait end what others have left."""
    sweep = gateway.gateway._cores.current.pool._sweep_timer
    assert sweep is not None
    sweep.cancel()


async def impatient(gateway: Running, until: asyncio.Event) -> None:
    """A caller that waits for a moment, gives up and asks again."""
    while not until.is_set():
        async with await Wire.open(gateway.address) as wire:
            await wire.send(HANGING)
            with contextlib.suppress(TimeoutError, TruncatedResponseError):
                await asyncio.wait_for(wire.reply(), 0.1)
            wire.writer.close()


@contextlib.asynccontextmanager
async def besieged(gateway: Running, callers: int) -> AsyncIterator[None]:
    """So many impatient callers, at the same time."""
    over = asyncio.Event()
    tasks = [asyncio.ensure_future(impatient(gateway, over)) for _ in range(callers)]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def test_callers_that_give_up_starve_no_other(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Others are served, although what was left would never time out."""
    settings = {"max_connections": 20, "connect_timeout": 30, "response_timeout": 3600}
    async with start_gateway(platform=settings, limits=LASTING) as gateway:
        stop_sweep(gateway)
        async with besieged(gateway, 10):
            left = 0
            # What has left by then would hold each connection three times.
            while left < 3 * 20:
                reply = await ask(gateway.address, READ)
                assert (reply.status, reply.reason) == (200, None)
                left = [seen.target for seen in platform.seen].count("/r5/Patient/hangs")
        assert await gateway.metric("dhp_gateway_circuit_state") == 0
        platform.answer(fhir())
        platform.drop_connections()
