"""Processes that deliver from one outbox, one of which is killed."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest

from gateway.outbox.delivery import MAX_PARALLEL
from gateway.outbox.entry import BLOCKING, EntryState, RecoveryMode
from gateway.outbox.store.outbox_store import OutboxStore
from tests.outbox.child import RECOVERIES, Child
from tests.outbox.drafts import draft
from tests.outbox.places import Place, opened
from tests.outbox.places import Wall as StandingWall

WRITES = 120
KILLS = 2
ORDERS = 12


@dataclass
class LinePlatform:
    """Takes writes at a Unix socket and remembers each; answers take a moment."""

    path: Path
    arrived: list[str] = field(default_factory=list)
    answered: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            what, name, _ = orjson.loads(await reader.readline())
            if what == "ask":
                writer.write(b"yes\n" if name in self.arrived else b"no\n")
            else:
                self.arrived.append(name)
                await asyncio.sleep(0.01)
                writer.write(b"ok\n")
                self.answered += 1
            await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def until(self, count: int) -> None:
        """Wait until so many have arrived."""
        async with asyncio.timeout(40):
            while len(self.arrived) < count:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)


@pytest.fixture
async def platform() -> AsyncIterator[LinePlatform]:
    """At a short path, as sockets need one."""
    with tempfile.TemporaryDirectory(prefix="dhp-") as directory:
        made = LinePlatform(Path(directory) / "s")
        server = await asyncio.start_unix_server(made.serve, made.path)
        async with server:
            yield made


class RealWall(StandingWall):
    """The children's time."""

    def __call__(self) -> float:
        """The time."""
        return time.time()


async def test_a_killed_process_neither_loses_nor_doubles(
    place: Place, platform: LinePlatform
) -> None:
    """Two deliver, some are killed: the rest is delivered once, what was in hand by its rule."""
    place.wall = RealWall()
    recoveries = dict(zip((f"r-{n}" for n in range(WRITES)), itertools.cycle(RECOVERIES)))
    async with opened(place) as store:
        for number in range(WRITES):
            made = draft(str(number), f"P/{number % ORDERS}", method="POST")
            await store.enqueue(replace(made, recovery=recoveries[f"r-{number}"]))
        children = [Child("deliver", place.url, str(platform.path)) for _ in range(2)]
        try:
            for number in range(KILLS):
                await platform.until((number + 1) * WRITES // (KILLS + 2))
                await children.pop(0).killed()
                children.append(Child("deliver", place.url, str(platform.path)))
            unclear = await decided(store)
        finally:
            for child in children:
                await child.killed()
        entries = await store.entries(limit=1000)
    for entry, name in zip(entries, recoveries, strict=True):
        times = platform.arrived.count(name)
        if entry.id in unclear:
            assert (entry.recovery, times <= 1) == (RecoveryMode.HOLD, True)
        else:
            assert entry.state is EntryState.DELIVERED
            assert times == 1 or (times > 1 and entry.recovery is RecoveryMode.RESEND)
    # No more than what the killed ones had in hand.
    assert len(unclear) <= KILLS * MAX_PARALLEL
    in_order(platform.arrived)


async def decided(store: OutboxStore) -> set[str]:
    """Drop what is unclear until nothing waits any more; what that was."""
    unclear: set[str] = set()
    async with asyncio.timeout(45):
        while True:
            for entry in await store.entries(states=[EntryState.UNCLEAR]):
                unclear.add(entry.id)
                await store.apply_action(entry.id, EntryState.DROPPED)
            if not await store.entries(states=BLOCKING):
                return unclear
            await asyncio.sleep(0.05)


def in_order(arrived: list[str]) -> None:
    """First arrivals of each order are in the order of arrival at the gateway."""
    first = list(dict.fromkeys(arrived))
    for order in range(ORDERS):
        numbers = [int(name[2:]) for name in first if int(name[2:]) % ORDERS == order]
        assert numbers == sorted(numbers)
