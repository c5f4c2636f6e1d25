"""Steps that are noted for an audit, in SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.outbox.entry import Actor, EntryState, OutboxStep, PendingAuditRecord
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import EntryStateError
from tests.outbox.drafts import draft
from tests.outbox.places import Place, opened


class Records(list[PendingAuditRecord]):
    """What was recorded; nothing can be while `full`."""

    full = False

    async def __call__(self, notes: Sequence[PendingAuditRecord]) -> bool:
        """Record them."""
        if not self.full:
            self.extend(notes)
        return not self.full


async def test_a_step_is_recorded_once_by_whoever_comes_first(place: Place) -> None:
    """Several gateways that look at the same time share the notes."""
    records = Records()
    async with opened(place) as one, opened(place) as other, opened(place) as third:
        entries = [await one.enqueue(draft(str(n))) for n in range(20)]
        for entry in entries:
            await one.apply_action(entry.id, EntryState.DROPPED, actor=Actor("somebody"))
        await asyncio.gather(*(store.record_pending(records) for store in (one, other, third)))
        await third.record_pending(records)
    assert sorted(note.entry for note in records) == sorted(entry.id for entry in entries)
    assert {(note.step, note.caller, note.actor, note.at) for note in records} == {
        (OutboxStep.DROPPED, "lis", Actor("somebody"), place.wall.now)
    }


async def test_what_cannot_be_recorded_stays_noted(store: OutboxStore) -> None:
    records = Records()
    entry = await store.enqueue(draft("a"))
    await store.apply_action(entry.id, EntryState.WAITING, actor=Actor("somebody"))
    records.full = True
    assert await store.record_pending(records) == 0
    records.full = False
    assert await store.record_pending(records) == 1
    assert [(note.step, note.entry) for note in records] == [(OutboxStep.RETRIED, entry.id)]


async def test_only_what_was_done_is_noted(store: OutboxStore) -> None:
    """A step that is refused, or recorded by its own process, leaves no pending audit record."""
    records = Records()
    entry = await store.enqueue(draft("a"))
    await store.apply_action(entry.id, EntryState.DROPPED)
    with pytest.raises(EntryStateError):
        await store.apply_action(entry.id, EntryState.WAITING, actor=Actor("somebody"))
    await store.record_pending(records)
    assert records == []
