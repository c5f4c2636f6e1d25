"""Purged entries release disk space."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gateway.outbox.entry import EntryState
from tests.doubles.clock import FakeClock
from tests.doubles.waiting import wait_until
from tests.outbox.drafts import draft, write
from tests.outbox.places import ClockWall, SqlitePlace, opened
from tests.outbox.running import SETTINGS, Process
from tests.outbox.sender import RecordingSender

_MIB = 1024 * 1024
_LARGE = 200 * 1024


def size(place: SqlitePlace) -> int:
    return place.path.stat().st_size


async def test_the_file_shrinks_while_deliveries_go_on(tmp_path: Path) -> None:
    clock, sender = FakeClock(), RecordingSender()
    place = SqlitePlace(tmp_path / "outbox.db", ClockWall(clock))
    settings = SETTINGS.model_copy(update={"retention": 5.0})
    async with (
        opened(place) as store,
        Process(store, sender, clock, settings).running() as running,
    ):
        sender.hold("r-0")
        for n in range(40):
            large = replace(draft(str(n), "P/a"), request=write(str(n), body=b"x" * _LARGE))
            await running.put(large)
        grown = size(place)
        assert grown > 20 * _LARGE
        sender.held["r-0"].set()
        await wait_until(lambda: len(sender.seen) == 40)
        await running.wait_until_idle()
        for n in range(40, 80):
            await running.pass_time(1)
            if n % 10 == 0:
                entry = await running.put(draft(str(n)))
                await running.wait_for_state(entry, EntryState.DELIVERED)
        assert size(place) < 3 * _MIB
        with closing(sqlite3.connect(place.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
