"""Slow readers hold connections to the platform only while no other caller waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.app import revision
from gateway.exchange import Exchange
from gateway.http.client import upstream_pool
from gateway.http.slow_readers import ResponseReader, SlowReaders
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform, fhir
from tests.doubles.wire import TruncatedResponseError, Wire, fetch, get

LONG = b'{"resourceType":"Binary","data":"%s"}' % (b"A" * 20_000_000)
READ = get("/fhir/Patient/1")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a sample each 0.01 s in the place of a second."""
    monkeypatch.setattr(upstream_pool, "_SWEEP_INTERVAL", 0.01)
    monkeypatch.setattr(
        revision, "SlowReaders", lambda rate, clock: SlowReaders(rate, lambda: 100 * clock())
    )


@pytest.fixture
async def wires() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def begun(
    gateway: RunningGateway,
    platform: Platform,
    wires: contextlib.AsyncExitStack,
    version: str = "1.1",
) -> Wire:
    """Return a caller that has begun to read a long response."""
    platform.script(fhir(LONG))
    wire = await wires.enter_async_context(await Wire.open(gateway.address))
    wire.writer.transport.pause_reading()
    await wire.send(get("/fhir/Binary/1"))
    await platform.wait_for_requests(len(platform.requests) + 1)
    # Longer than half a minute of the gateway's.
    await asyncio.sleep(0.7)
    return wire


@pytest.mark.interpreted
@pytest.mark.usefixtures("hurried")
async def test_slow_reader_is_cut_off_for_waiter(start_gateway, platform: Platform, wires) -> None:
    """The response is truncated and audited so."""
    settings = {"max_connections": 1, "connect_timeout": 20}
    async with start_gateway(platform=settings) as gateway:
        wire = await begun(gateway, platform, wires)
        # It was not cut while no other caller waited.
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 1
        assert (await fetch(gateway.address, READ)).body == PATIENT
        wire.writer.transport.resume_reading()
        with pytest.raises(TruncatedResponseError):
            await wire.read_response()
        outcomes = sorted(record["outcome"] for record in await gateway.audit(2))
        assert outcomes == ["aborted", "success"]


@pytest.mark.interpreted
@pytest.mark.usefixtures("hurried")
async def test_fast_enough_reader_is_not_cut_off(start_gateway, platform: Platform, wires) -> None:
    """Waiters get upstream-busy."""
    settings = {"max_connections": 1, "connect_timeout": 1}
    async with start_gateway(platform=settings, limits={"min_body_rate": 0}) as gateway:
        wire = await begun(gateway, platform, wires)
        assert (await fetch(gateway.address, READ)).reason == "upstream-busy"
        wire.writer.transport.resume_reading()
        assert (await wire.read_response()).body == LONG


class PacedReader:
    """A caller's connection that is read at `rate` bytes a second."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.unsent_bytes = 10_000_000
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True


def read_for(
    seconds: int, readers: SlowReaders, taking: list[PacedReader], clock: FakeClock
) -> None:
    """Let seconds pass in which no request waits."""
    for _ in range(seconds):
        clock.now += 1
        for each in taking:
            each.unsent_bytes -= each.rate
        readers.sample(is_awaited=False)


@pytest.mark.parametrize(
    ("rates", "seconds", "cut"),
    [
        ([700, 500, 900], 40, [1]),
        ([1000, 5000], 40, [0]),
        ([1024, 5000], 40, []),
        ([0, 0], 30, []),
        ([0, 0], 31, [0]),
    ],
    ids=["slowest", "below the rate", "none below", "before half a minute", "after half a minute"],
)
@pytest.mark.interpreted
def test_the_reader_that_took_least_is_cut_off_if_it_is_below_the_rate(
    rates: list[int], seconds: int, cut: list[int]
) -> None:
    clock = FakeClock()
    readers = SlowReaders(1024, clock)
    taking = [PacedReader(rate) for rate in rates]
    for each in taking:
        readers.add(ResponseReader(each, Exchange("r", 0.0, 0.0)))
    read_for(seconds - 1, readers, taking, clock)
    clock.now += 1
    for each in taking:
        each.unsent_bytes -= each.rate
    readers.sample(is_awaited=True)
    # The next one not before another second.
    readers.sample(is_awaited=True)
    assert [index for index, each in enumerate(taking) if each.is_cut] == cut


@pytest.mark.interpreted
def test_what_was_sent_meanwhile_counts_as_taken() -> None:
    clock, exchange, connection = FakeClock(), Exchange("r", 0.0, 0.0), PacedReader(0)
    readers = SlowReaders(1024, clock)
    readers.add(ResponseReader(connection, exchange))
    for _ in range(40):
        clock.now += 1
        exchange.response_bytes += 5000
        readers.sample(is_awaited=True)
    assert not connection.is_cut
