"""Purged entries release disk space."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gateway.outbox.entry import EntryState
from gateway.outbox.store.disk_reserve import PAGE, DiskReserve
from tests.doubles.clock import FakeClock
from tests.doubles.waiting import wait_until
from tests.outbox.drafts import draft, write
from tests.outbox.places import ClockWall, SqlitePlace, opened
from tests.outbox.running import SETTINGS, Process
from tests.outbox.sender import RecordingSender

_MIB = 1024 * 1024
_LARGE = 200 * 1024


def size(place: SqlitePlace) -> int:
    return sum(path.stat().st_size for path in place.files() if "reserve" not in path.name)


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
        assert grown > 40 * _LARGE
        sender.held["r-0"].set()
        await wait_until(lambda: len(sender.seen) == 40)
        await running.wait_until_idle()
        for n in range(40, 80):
            await running.pass_time(1)
            if n % 10 == 0:
                entry = await running.put(draft(str(n)))
                await running.wait_for_state(entry, EntryState.DELIVERED)
        assert size(place) < grown - 5 * _MIB
        with closing(sqlite3.connect(place.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_free_pages_are_made_once_for_many_writes(tmp_path: Path) -> None:
    """Each transaction leaves them, and few have to make any: that writes megabytes.

    Maintenance, which may come between any two writes, releases none that the next ones need.
    """
    place = SqlitePlace(tmp_path / "outbox.db", ClockWall(FakeClock()))
    pages: list[int] = []
    async with opened(place) as store:
        for n in range(60):
            body = b"x" * (10 * PAGE)
            await store.enqueue(replace(draft(str(n)), request=write(str(n), body=body)))
            assert not await store.release_disk_space()
            with closing(sqlite3.connect(place.path)) as connection:
                [free] = connection.execute("PRAGMA freelist_count").fetchone()
                assert free >= DiskReserve(place.path).free_pages
                pages += connection.execute("PRAGMA page_count").fetchone()
    assert 2 <= len(set(pages)) <= 6
