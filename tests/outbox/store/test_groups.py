"""Writes that come together share a transaction, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import ALL_KEYS, OutboxEntry, OutboxEvent, OutboxStep
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.sealed_contents import ContentCipher
from gateway.outbox.store.sqlite_database import SqliteDatabase
from gateway.outbox.store.store_types import OutboxFullError, OutboxUnavailableError
from gateway.outbox.store.tables import ordering_keys_table, segments_table
from tests.outbox.attempts import claim, stored_request
from tests.outbox.drafts import ROOMY, draft, write
from tests.outbox.places import KEY, START, Place, change, rows_of
from tests.outbox.store.test_outbox_store import names


@contextlib.contextmanager
def counted_commits() -> Iterator[list[object]]:
    """Yield a list with one element for each transaction that is committed."""
    commits: list[object] = []

    def count(connection: sa.Connection) -> None:
        commits.append(connection)

    sa.event.listen(sa.Engine, "commit", count)
    try:
        yield commits
    finally:
        sa.event.remove(sa.Engine, "commit", count)


async def test_writes_that_come_together_share_a_transaction(store: OutboxStore) -> None:
    with counted_commits() as commits:
        entries = await asyncio.gather(
            *(store.enqueue(draft(str(number), f"P/{number % 7}")) for number in range(50))
        )
    assert len(commits) < 5
    assert await store.entries() == entries
    assert [entry.number for entry in entries] == sorted({entry.number for entry in entries})
    for number, entry in enumerate(entries):
        request = await stored_request(store, entry.id)
        assert request is not None
        assert request.request_id == f"r-{number}"
    # Each waits for the one before it with the same key, in its own group too.
    assert await names(store, await claim(store)) == [f"r-{number}" for number in range(7)]


async def test_writes_that_come_later_form_the_next_group(place: Place, store: OutboxStore) -> None:
    other = place.database()
    with counted_commits() as commits:
        async with other.write_transaction() as transaction:
            await transaction.run(other.lock_inserts)
            first = asyncio.create_task(store.enqueue(draft("first")))
            # It has all the time it needs to come as far as it can.
            await asyncio.sleep(0.2)
            later = [asyncio.create_task(store.enqueue(draft(str(number)))) for number in range(20)]
            await asyncio.sleep(0)
        entries = await asyncio.gather(first, *later)
    await other.close()
    assert await store.entries() == entries
    # With that of the other process.
    assert len(commits) == 3


async def test_a_large_group_is_split(store: OutboxStore) -> None:
    large = replace(draft("a"), request=write("a", body=bytes(700_000)))
    with counted_commits() as commits:
        await asyncio.gather(*(store.enqueue(large) for _ in range(4)))
    assert len(commits) == 4


async def test_each_write_of_a_group_has_its_own_outcome(store: OutboxStore) -> None:
    """Some exceed a limit, one is not confirmed, and the caller of one is gone."""

    def leave() -> None:
        raise LookupError

    events: list[OutboxEvent] = []
    store.observers.append(events.append)
    store.settings = OutboxSettings(max_entries=6, max_bytes=10_000, max_share=0.5)
    too_large = replace(draft("large", caller="ris"), request=write("large", body=bytes(20_000)))
    writes = {
        "lis-1": store.enqueue(draft("lis-1", "P/a"), leave, shared=True),
        "lis-2": store.enqueue(draft("lis-2", "P/a"), shared=True),
        "lis-3": store.enqueue(draft("lis-3", "P/a"), shared=True),
        "lis-4": store.enqueue(draft("lis-4"), shared=True),
        "large": store.enqueue(too_large, shared=True),
        "his-1": store.enqueue(draft("his-1", caller="his"), shared=True),
        "his-2": store.enqueue(draft("his-2", caller="his"), shared=True),
        "ris-1": store.enqueue(draft("ris-1", caller="ris"), shared=True),
        "ris-2": store.enqueue(draft("ris-2", caller="ris"), shared=True),
    }
    tasks = {name: asyncio.create_task(writing) for name, writing in writes.items()}
    await asyncio.sleep(0)
    tasks["his-1"].cancel()
    results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    told = {
        name: "stored" if isinstance(result, OutboxEntry) else f"{type(result).__name__} {result}"
        for name, result in zip(tasks, results, strict=True)
    }
    share, full = "the caller's share of the outbox is used up", "the outbox is full"
    assert told == {
        "lis-1": "LookupError ",
        "lis-2": "stored",
        "lis-3": "stored",
        "lis-4": f"OutboxFullError {share}",
        "large": f"OutboxFullError {full}",
        "his-1": "CancelledError ",
        "his-2": "stored",
        "ris-1": "stored",
        "ris-2": f"OutboxFullError {full}",
    }
    kept = ["r-lis-2", "r-lis-3", "r-his-1", "r-his-2", "r-ris-1"]
    assert await names(store, list(await store.entries())) == kept
    assert [event.step for event in events] == [OutboxStep.QUEUED] * 5
    # What was not confirmed holds up nothing and leaves nothing.
    assert await names(store, await claim(store)) == [name for name in kept if name != "r-lis-3"]
    numbers = {entry.number for entry in await store.entries()}
    for column in (ordering_keys_table.c.entry, segments_table.c.entry):
        assert {row.entry for row in await rows_of(store._database, sa.select(column))} == numbers


async def test_a_write_with_too_many_keys_orders_its_group(store: OutboxStore) -> None:
    await asyncio.gather(
        store.enqueue(draft("1", "P/a")),
        store.enqueue(replace(draft("2"), ordering_keys=ALL_KEYS)),
        store.enqueue(draft("3", "P/b")),
        store.enqueue(draft("4", "P/b", caller="his")),
    )
    assert await names(store, await claim(store)) == ["r-1", "r-4"]


async def test_a_failed_transaction_fails_all_its_writes(place: Place, store: OutboxStore) -> None:
    database = place.database()
    await change(database, sa.text("ALTER TABLE outbox_pieces RENAME TO away"))
    results = await asyncio.gather(
        *(store.enqueue(draft(str(number))) for number in range(5)), return_exceptions=True
    )
    assert [type(result) for result in results] == [OutboxUnavailableError] * 5
    await change(database, sa.text("ALTER TABLE away RENAME TO outbox_pieces"))
    await database.close()
    assert await store.entries() == []
    await store.enqueue(draft("a"))


async def test_questions_that_come_together_get_their_own_answers(store: OutboxStore) -> None:
    await store.enqueue(draft("1", "P/1"))
    answers = await asyncio.gather(*(store.is_blocked("lis", [f"P/{n}"]) for n in range(3)))
    assert answers == [False, True, False]


def allow_few_pages(connection: sa.Connection) -> None:
    connection.exec_driver_sql("PRAGMA max_page_count = 100")


async def test_on_a_full_disk_the_small_writes_of_a_group_are_stored(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "outbox.db", lambda: START)
    sa.event.listen(database._engine, "begin", allow_few_pages)
    store = OutboxStore(database=database, cipher=ContentCipher(KEY), settings=ROOMY)
    await store.prepare()
    large = replace(draft("large"), request=write("large", body=bytes(1_000_000)))
    results = await asyncio.gather(
        *(store.enqueue(each) for each in (draft("1"), large, draft("2"))), return_exceptions=True
    )
    assert [type(result) for result in results] == [OutboxEntry, OutboxFullError, OutboxEntry]
    assert await names(store, list(await store.entries())) == ["r-1", "r-2"]
    await store.close()
