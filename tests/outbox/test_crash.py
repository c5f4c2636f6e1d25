"""The contents of the outbox after a kill and after a torn write."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.outbox.entry import OutboxEntry
from gateway.outbox.store.outbox_store import OutboxStore
from tests.outbox.attempts import stored_request
from tests.outbox.child import Child
from tests.outbox.drafts import draft, write
from tests.outbox.places import PostgresPlace, SqlitePlace, opened, value_of

# Kills of a log, each at a place of its own.
TRIES = 12


async def all_readable(store: OutboxStore) -> dict[str, str]:
    """Every entry there is, all of which can be read: id and request id."""
    found = {}
    for entry in await store.entries(limit=100_000):
        request = await stored_request(store, entry.id)
        assert request is not None
        found[entry.id] = request.request_id
    return found


@pytest.mark.parametrize("wanted", [1, 40])
async def test_what_was_acknowledged_survives_a_kill(
    postgres_place: PostgresPlace, wanted: int
) -> None:
    """With SQLite that is simulated."""
    acknowledged: dict[str, str] = {}
    for _ in range(2):
        process = Child("write", postgres_place.url)
        said = 0
        async for entry_id, request_id in process.lines():
            acknowledged[entry_id] = request_id
            said += 1
            if said == wanted:
                process.kill()
        await process.killed()
    async with opened(postgres_place) as store:
        found = await all_readable(store)
        assert acknowledged.items() <= found.items()
        # It goes on, and numbers go on.
        last = await store.enqueue(draft("last"))
        assert last.number == max(entry.number for entry in await store.entries(limit=100_000))


async def test_what_was_acknowledged_survives_a_crash_of_the_server(
    postgres_place: PostgresPlace,
) -> None:
    server = postgres_place.server
    process = Child("write", postgres_place.url)
    acknowledged = {}
    async for entry_id, request_id in process.lines():
        acknowledged[entry_id] = request_id
        if len(acknowledged) == 20:
            await asyncio.to_thread(server.stop)
            break
    await process.killed()
    await asyncio.to_thread(server.start)
    async with opened(postgres_place) as store:
        assert acknowledged.items() <= (await all_readable(store)).items()


def end_of_log(log: bytes) -> int:
    """Where the log's content ends: with the last frame that has the salts of its header.

    The file is longer (https://sqlite.org/fileformat2.html, section 4.1).
    """
    salts, end = log[16:24], 32
    while log[end + 8 : end + 16] == salts:
        end += 24 + 4096
    return end


async def acknowledged_at(place: SqlitePlace, copy: Path) -> list[tuple[int, OutboxEntry]]:
    """Writes of all sizes, three at once, and how long the log was when each was acknowledged.

    What is on the disk then is copied, as a power cut would leave it.
    """
    log = place.path.with_name(place.path.name + "-wal")
    kept = []
    async with opened(place) as store:
        # The log has room for all until its checkpoint.
        await store.enqueue(draft("first", "P/a"))

        async def acknowledge(number: int) -> None:
            sized = write(str(number), body=bytes(100 + number * 1597))
            entry = await store.enqueue(replace(draft(str(number), "P/a"), request=sized))
            kept.append((end_of_log(log.read_bytes()), entry))

        for number in range(0, 15, 3):
            await asyncio.gather(*(acknowledge(number + each) for each in range(3)))
        assert kept == sorted(kept, key=lambda each: each[0])
        for file in place.files():
            if not file.name.endswith(("-shm", "-reserve")):
                shutil.copy(file, copy / file.name)
    return kept


async def test_a_torn_last_write_loses_no_acknowledged_entry(
    sqlite_place: SqlitePlace, tmp_path: Path
) -> None:
    """What a power failure leaves out or cuts off is simulated; this may be anything."""
    # Of pytest-randomly's seed, with which a failed test can be repeated.
    chance = random.Random(random.getrandbits(32))  # noqa: S311
    copy = tmp_path / "copy"
    copy.mkdir()
    kept = await acknowledged_at(sqlite_place, copy)
    size = kept[-1][0]
    for round_ in range(TRIES):
        here = tmp_path / f"round{round_}"
        shutil.copytree(copy, here)
        at = chance.randrange(size)
        log = here / "outbox.db-wal"
        whole = log.read_bytes()
        rest = os.urandom(size - at)
        log.write_bytes(whole[:at] + rest)
        # What is overwritten with what it was is not spoilt.
        pairs = zip(whole[at:], rest, strict=False)
        at += sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        survivors = SqlitePlace(here / "outbox.db")
        async with opened(survivors) as store:
            found = await all_readable(store)
            for length, entry in kept:
                assert (entry.id in found) == (length <= at)
            await store.enqueue(draft("new", "P/a"))
        database = sqlite3.connect(survivors.path)
        try:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        finally:
            database.close()


async def test_every_commit_is_synced(sqlite_place: SqlitePlace) -> None:
    database = sqlite_place.database()
    modes = {
        pragma: await database.read(value_of, f"PRAGMA {pragma}")
        for pragma in ("journal_mode", "synchronous", "secure_delete")
    }
    await database.close()
    assert modes == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


async def test_postgresql_commits_are_synced(postgres_place: PostgresPlace) -> None:
    watcher = await postgres_place.server.connect()
    name = postgres_place.name
    await watcher.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await watcher.close()
    database = postgres_place.database()
    assert await database.read(value_of, "SHOW synchronous_commit") == "on"
    await database.close()
