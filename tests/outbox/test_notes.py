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
    """Recorded audit records; recording fails while `full`."""

    full = False

    async def __call__(self, notes: Sequence[PendingAuditRecord]) -> bool:
        if not self.full:
            self.extend(notes)
        return not self.full


async def test_pending_audit_records_are_recorded_once(place: Place) -> None:
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


async def test_unrecorded_audit_records_stay_pending(store: OutboxStore) -> None:
    records = Records()
    entry = await store.enqueue(draft("a"))
    await store.apply_action(entry.id, EntryState.WAITING, actor=Actor("somebody"))
    records.full = True
    assert await store.record_pending(records) == 0
    records.full = False
    assert await store.record_pending(records) == 1
    assert [(note.step, note.entry) for note in records] == [(OutboxStep.RETRIED, entry.id)]


async def test_rejected_actions_leave_no_audit_record(store: OutboxStore) -> None:
    records = Records()
    entry = await store.enqueue(draft("a"))
    await store.apply_action(entry.id, EntryState.DROPPED)
    with pytest.raises(EntryStateError):
        await store.apply_action(entry.id, EntryState.WAITING, actor=Actor("somebody"))
    await store.record_pending(records)
    assert records == []
