"""Limits of one caller's bytes and ordering keys."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import sqlalchemy as sa

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import ALL_KEYS, EntryState
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import OutboxFullError
from gateway.outbox.store.tables import (
    all_keys_table,
    entries_table,
    ordering_keys_table,
    usage_table,
)
from tests.outbox.attempts import ME, claim, finish
from tests.outbox.drafts import draft, write
from tests.outbox.places import change, rows_of
from tests.outbox.store.test_outbox_store import DONE, names


async def test_one_caller_fills_its_share_of_the_bytes_only(store: OutboxStore) -> None:
    large = replace(draft("1"), request=write("1", body=b"x" * 10_000))
    store.settings = OutboxSettings(max_entries=100, max_bytes=40_000, max_share=0.5)
    await store.enqueue(large, shared=True)
    with pytest.raises(OutboxFullError, match="share"):
        await store.enqueue(large, shared=True)
    await store.enqueue(replace(large, caller="his"), shared=True)


async def test_ordering_keys_count_as_bytes(store: OutboxStore) -> None:
    few = await store.enqueue(draft("1", "P/1"))
    many = await store.enqueue(draft("1", *(f"P/{n}" for n in range(100))))
    assert many.size - few.size == 99 * 256
    store.settings = OutboxSettings(max_entries=10, max_bytes=few.size + many.size + 1500)
    with pytest.raises(OutboxFullError):
        await store.enqueue(draft("1", *"abcdefgh"))


async def test_all_keys_block_and_are_blocked(store: OutboxStore) -> None:
    await store.enqueue(draft("1", "P/a"))
    await store.enqueue(replace(draft("2"), ordering_keys=ALL_KEYS))
    await store.enqueue(draft("3", "P/b"))
    await store.enqueue(replace(draft("4"), ordering_keys=ALL_KEYS))
    await store.enqueue(draft("5", "P/b", caller="his"))
    given = []
    while found := await claim(store):
        given.append(await names(store, found))
        for entry in found:
            await finish(store, ME, entry, EntryState.DELIVERED, DONE)
    assert given == [["r-1", "r-5"], ["r-2"], ["r-3"], ["r-4"]]
    assert await rows_of(store._database, sa.select(all_keys_table)) == []


async def test_is_blocked_with_all_keys(store: OutboxStore) -> None:
    assert not await store.is_blocked("lis", ALL_KEYS)
    await store.enqueue(draft("1", "P/a"))
    assert await store.is_blocked("lis", ALL_KEYS)
    assert not await store.is_blocked("his", ALL_KEYS)
    assert not await store.is_blocked("lis", ["P/b"])
    await store.enqueue(replace(draft("2"), ordering_keys=ALL_KEYS))
    assert await store.is_blocked("lis", ["P/b"])
    assert not await store.is_blocked("his", ["P/b"])


async def test_unblocking_many_entries_takes_few_statements(store: OutboxStore) -> None:
    first = await store.enqueue(replace(draft("1"), ordering_keys=ALL_KEYS))
    later = range(first.number + 1, first.number + 10_001)
    columns = asdict(first)
    columns["doubt"] = columns.pop("in_doubt")
    same = {**columns, "behind": first.number}
    rows = [{**same, "number": number, "id": str(number)} for number in later]
    await change(store._database, sa.insert(entries_table), rows)
    used = usage_table.c
    more = {"entries": used.entries + len(rows), "size": used.size + first.size * len(rows)}
    await change(store._database, sa.update(usage_table).values(more))
    marks = [{"mark": number.to_bytes(32), "entry": number} for number in later]
    await change(store._database, sa.insert(ordering_keys_table), marks)
    [claimed] = await claim(store)
    statements: list[str] = []
    engine = store._database._engine  # type: ignore[attr-defined]
    engine = getattr(engine, "sync_engine", engine)
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    await finish(store, ME, claimed, EntryState.DELIVERED, DONE)
    assert len(statements) < 50
    assert len(await claim(store)) == 10
