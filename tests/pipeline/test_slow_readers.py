"""Callers that read slowly hold connections to the platform only while no other caller waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.http.slow_readers import ResponseReader, SlowReaders
from tests.doubles.gateway import Running
from tests.doubles.platform import PATIENT, Platform, fhir
from tests.doubles.wire import TruncatedResponseError, Wire, ask, get

LONG = b'{"resourceType":"Binary","data":"%s"}' % (b"A" * 40_000_000)
READ = get("/fhir/Patient/1")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is measured of readers a second lasts as long as a minute."""

    def made(
        rate: int, connections: int, clock: Callable[[], float], half_closed_timeout: float
    ) -> SlowReaders:
        return SlowReaders(rate, connections, lambda: 60 * clock(), 60 * half_closed_timeout)

    monkeypatch.setattr("gateway.app.revision.SlowReaders", made)


@pytest.fixture
async def wires() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Closes callers' connections at the end."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def begun(
    gateway: Running, platform: Platform, wires: contextlib.AsyncExitStack, *fields: str
) -> Wire:
    """A caller that has begun to read a long answer."""
    platform.script(fhir(LONG))
    wire = await wires.enter_async_context(await Wire.open(gateway.address))
    wire.writer.transport.pause_reading()
    await wire.send(get("/fhir/Binary/1", *fields))
    await platform.until_seen(len(platform.seen) + 1)
    # Longer than half a minute of the gateway's.
    await asyncio.sleep(1.5)
    return wire


async def test_a_slow_reader_makes_way(start_gateway, platform: Platform, wires) -> None:
    """Who waits gets its connection at once; its answer is cut, not whole, and audited so."""
    async with start_gateway(platform={"max_connections": 1}) as gateway:
        wire = await begun(gateway, platform, wires)
        # It was not cut while no other caller waited.
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 1
        assert (await ask(gateway.address, READ)).body == PATIENT
        wire.writer.transport.resume_reading()
        with pytest.raises(TruncatedResponseError):
            await wire.reply()
        outcomes = sorted(record["outcome"] for record in await gateway.audit(2))
        assert outcomes == ["aborted", "success"]


async def test_only_as_many_as_are_wanted_make_way(
    start_gateway, platform: Platform, wires
) -> None:
    """One goes for each that waits; the others stay, and have their answers whole."""
    async with start_gateway(platform={"max_connections": 3}) as gateway:
        readers = [await begun(gateway, platform, wires) for _ in range(3)]
        assert (await ask(gateway.address, READ)).body == PATIENT
        for wire in readers:
            wire.writer.transport.resume_reading()
        replies = await asyncio.gather(*(wire.reply() for wire in readers), return_exceptions=True)
        assert sorted(type(each).__name__ for each in replies) == [
            "Reply",
            "Reply",
            "TruncatedResponseError",
        ]
        assert {each.body == LONG for each in replies if not isinstance(each, Exception)} == {True}


async def test_who_reads_fast_enough_stays(start_gateway, platform: Platform, wires) -> None:
    """Others that wait are told that there is no connection, and its answer is whole."""
    settings = {"max_connections": 1, "connect_timeout": 1}
    async with start_gateway(platform=settings, limits={"min_body_rate": 0}) as gateway:
        wire = await begun(gateway, platform, wires)
        assert (await ask(gateway.address, READ)).reason == "upstream-busy"
        wire.writer.transport.resume_reading()
        assert (await wire.reply()).body == LONG


class Taking:
    """A caller's connection that is read at `rate` bytes a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.unsent_bytes = 10_000_000
        self.cut = False

    def abort(self) -> None:
        """End it."""
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
def test_a_caller_keeps_its_share_while_another_waits(
    connections: int, rates: list[float], waiting: list[str], cut: list[int]
) -> None:
    """The slowest of too many of one caller go for another one, though above the least rate."""
    now = 0.0
    readers = SlowReaders(1024, connections, lambda: now)
    taking = [Taking(rate) for rate in rates]
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
def test_what_the_system_takes_at_first_makes_nobody_fast() -> None:
    """Who takes little is slow within seconds, however much went into buffers on the way."""
    now = 0.0
    readers = SlowReaders(1024, 4, lambda: now)
    taking = [Taking(3500) for _ in range(4)]
    for each in taking:
        readers.add(ResponseReader(each, "many"))
    for second in range(3):
        now += 1.0
        for each in taking:
            each.unsent_bytes -= 3500 if second else 2_000_000
        readers.abort_slowest([])
    readers.abort_slowest(["other"])
    assert sum(each.cut for each in taking) == 1


async def test_others_are_served_beside_as_many_as_may_be_slow(
    start_gateway, platform: Platform, wires
) -> None:
    """No caller is cut for another caller's first response: a connection is left for it."""
    callers = [{"name": name, "api_key": f"key of {name}"} for name in ("many", "other")]
    settings = {"max_connections": 40, "connect_timeout": 30}
    limits = {"min_body_rate": 0}
    long = LONG[:8_000_000]
    platform.answer(fhir(long))
    async with start_gateway(callers=callers, platform=settings, limits=limits) as gateway:
        for _ in range(45):
            wire = await wires.enter_async_context(await Wire.open(gateway.address))
            wire.writer.transport.pause_reading()
            await wire.send(get("/fhir/Binary/1", "X-Api-Key: key of many"))
        await platform.until_seen(39)
        for _ in range(3):
            answer = await ask(gateway.address, get("/fhir/Binary/1", "X-Api-Key: key of other"))
            assert answer.body == long
        assert await gateway.metric("dhp_gateway_upstream_connections", state="active") == 39
        await wires.aclose()
