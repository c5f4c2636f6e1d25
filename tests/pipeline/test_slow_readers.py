"""Slow readers hold connections to the platform only while no other caller waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.http.slow_readers import ResponseReader, SlowReaders
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform, fhir
from tests.doubles.wire import TruncatedResponseError, Wire, fetch, get

LONG = b'{"resourceType":"Binary","data":"%s"}' % (b"A" * 40_000_000)
READ = get("/fhir/Patient/1")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale the measured time: a second counts as a minute."""

    def made(
        rate: int, connections: int, clock: Callable[[], float], half_closed_timeout: float
    ) -> SlowReaders:
        return SlowReaders(rate, connections, lambda: 60 * clock(), 60 * half_closed_timeout)

    monkeypatch.setattr("gateway.app.revision.SlowReaders", made)


@pytest.fixture
async def wires() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def begun(
    gateway: RunningGateway, platform: Platform, wires: contextlib.AsyncExitStack, *fields: str
) -> Wire:
    """Return a caller that has begun to read a long response."""
    platform.script(fhir(LONG))
    wire = await wires.enter_async_context(await Wire.open(gateway.address))
    wire.writer.transport.pause_reading()
    await wire.send(get("/fhir/Binary/1", *fields))
    await platform.wait_for_requests(len(platform.requests) + 1)
    # Longer than half a minute of the gateway's.
    await asyncio.sleep(1.5)
    return wire


async def test_slow_reader_is_cut_off_for_waiter(start_gateway, platform: Platform, wires) -> None:
    """The waiter gets its connection at once; the response is truncated and audited so."""
    async with start_gateway(platform={"max_connections": 1}) as gateway:
        wire = await begun(gateway, platform, wires)
        # It was not cut while no other caller waited.
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 1
        assert (await fetch(gateway.address, READ)).body == PATIENT
        wire.writer.transport.resume_reading()
        with pytest.raises(TruncatedResponseError):
            await wire.read_response()
        outcomes = sorted(record["outcome"] for record in await gateway.audit(2))
        assert outcomes == ["aborted", "success"]


async def test_one_slow_reader_is_cut_off_for_each_waiter(
    start_gateway, platform: Platform, wires
) -> None:
    """The others get complete responses."""
    async with start_gateway(platform={"max_connections": 3}) as gateway:
        readers = [await begun(gateway, platform, wires) for _ in range(3)]
        assert (await fetch(gateway.address, READ)).body == PATIENT
        for wire in readers:
            wire.writer.transport.resume_reading()
        responses = await asyncio.gather(
            *(wire.read_response() for wire in readers), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in responses) == [
            "Response",
            "Response",
            "TruncatedResponseError",
        ]
        assert {each.body == LONG for each in responses if not isinstance(each, Exception)} == {
            True
        }


async def test_fast_enough_reader_is_not_cut_off(start_gateway, platform: Platform, wires) -> None:
    """Waiters get upstream-busy."""
    settings = {"max_connections": 1, "connect_timeout": 1}
    async with start_gateway(platform=settings, limits={"min_body_rate": 0}) as gateway:
        wire = await begun(gateway, platform, wires)
        assert (await fetch(gateway.address, READ)).reason == "upstream-busy"
        wire.writer.transport.resume_reading()
        assert (await wire.read_response()).body == LONG


class PacedReader:
    """A caller's connection that is read at `rate` octets a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.unsent_bytes = 10_000_000
        self.cut = False

    def abort(self) -> None:
        self.cut = True


@pytest.mark.parametrize(
    ("connections", "rates", "waiting", "cut"),
    [
        (4, [3500, 4000, 4500, 5000], ["other"], [0]),
        (4, [3500, 4000, 4500, 5000], ["other"] * 9, [0, 1]),
        (4, [3500, 4000, 4500, 5000], ["many"] * 9, []),
        (4, [450_000] * 4, ["other"], []),
        (1, [3500], ["other"], []),
        (8, [3500, 4000, 4500, 5000], ["other"] * 9, []),
        (4, [3500, 4000, 4500, 5000], ["many", "many", "other"], [0]),
        (4, [500, 4000, 4500, 5000], ["many"], [0]),
    ],
    ids=[
        "one waits",
        "many wait",
        "its own",
        "brisk",
        "the only one",
        "within its share",
        "both",
        "least",
    ],
)
@pytest.mark.interpreted
def test_the_slowest_reader_over_its_callers_share_is_cut_off(
    connections: int, rates: list[float], waiting: list[str], cut: list[int]
) -> None:
    """Although it reads faster than the minimum rate."""
    now = 0.0
    readers = SlowReaders(1024, connections, lambda: now)
    taking = [PacedReader(rate) for rate in rates]
    for each in taking:
        readers.add(ResponseReader(each, "many"))
    for _ in range(40):
        now += 1.0
        for each in taking:
            each.unsent_bytes -= int(each.rate)
        readers.abort_slowest([])
    readers.abort_slowest(waiting)
    assert [index for index, each in enumerate(taking) if each.cut] == cut


@pytest.mark.interpreted
def test_octets_in_socket_buffers_do_not_count_as_read() -> None:
    now = 0.0
    readers = SlowReaders(1024, 4, lambda: now)
    taking = [PacedReader(3500) for _ in range(4)]
    for each in taking:
        readers.add(ResponseReader(each, "many"))
    for second in range(3):
        now += 1.0
        for each in taking:
            each.unsent_bytes -= 3500 if second else 2_000_000
        readers.abort_slowest([])
    readers.abort_slowest(["other"])
    assert sum(each.cut for each in taking) == 1


async def test_slow_readers_leave_a_connection_for_other_callers(
    start_gateway, platform: Platform, wires
) -> None:
    """No reader is cut off for another caller's first response."""
    callers = [{"name": name, "api_key": f"key of {name}"} for name in ("many", "other")]
    settings = {"max_connections": 40, "connect_timeout": 30}
    limits = {"min_body_rate": 0}
    long = LONG[:8_000_000]
    platform.respond(fhir(long))
    async with start_gateway(callers=callers, platform=settings, limits=limits) as gateway:
        for _ in range(45):
            wire = await wires.enter_async_context(await Wire.open(gateway.address))
            wire.writer.transport.pause_reading()
            await wire.send(get("/fhir/Binary/1", "X-Api-Key: key of many"))
        await platform.wait_for_requests(39)
        for _ in range(3):
            response = await fetch(
                gateway.address, get("/fhir/Binary/1", "X-Api-Key: key of other")
            )
            assert response.body == long
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 39
        await wires.aclose()
