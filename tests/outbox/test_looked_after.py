"""Groups, retries and reveals of entries by operators, in SQLite and PostgreSQL."""

from __future__ import annotations

from gateway.outbox.entry import Actor, EntryState, OutboxStep, PendingAuditRecord, StoredResponse
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import EntryGroup
from tests.outbox.attempts import claim, finish
from tests.outbox.drafts import draft, write
from tests.outbox.places import Place
from tests.outbox.test_notes import Records

ME = "me"
DILNOZA = Actor("page", "dilnoza", "entered anew")


async def rejected_entry(store: OutboxStore, name: str, status: int = 422, **more: object) -> str:
    made = await store.enqueue(draft(name, **more))  # type: ignore[arg-type]
    [entry] = await claim(store, most=1, owner=ME)
    assert entry.id == made.id
    assert await finish(store, ME, entry, EntryState.FAILED, StoredResponse(status))
    return made.id


async def test_undelivered_entries_are_grouped_by_cause(store: OutboxStore, place: Place) -> None:
    began = place.wall.now
    for name, caller in (("a", "lis"), ("b", "lis"), ("c", "ris")):
        await rejected_entry(store, name, caller=caller)
        place.wall.now += 1
    delivered = await store.enqueue(draft("d"))
    [entry] = await claim(store, most=1, owner=ME)
    await finish(store, ME, entry, EntryState.DELIVERED, StoredResponse(200))
    waiting = await store.enqueue(draft("e", cause="circuit-open"))
    assert list(await store.undelivered_groups()) == [
        EntryGroup(EntryState.FAILED, "platform-status 422", "lis", 2, began),
        EntryGroup(EntryState.FAILED, "platform-status 422", "ris", 1, began + 2),
        EntryGroup(EntryState.WAITING, "circuit-open", "lis", 1, began + 3),
    ]
    assert [each.id for each in await store.entries(cause="circuit-open")] == [waiting.id]
    assert delivered.id == entry.id


async def test_all_failed_entries_of_a_cause_are_retried(store: OutboxStore, place: Place) -> None:
    seen: list[OutboxStep] = []
    old = [await rejected_entry(store, name) for name in "abc"]
    other = await rejected_entry(store, "d", status=403)
    store.observers.append(lambda event: seen.append(event.step))
    moved = []
    async for entry in store.retry_failed("platform-status 422", DILNOZA):
        moved.append(entry.id)
        if entry.id == old[0]:
            # It fails again at once, while others are still to be looked for.
            [again] = await claim(store, most=1, owner=ME)
            assert again.id == old[0]
            assert await finish(store, ME, again, EntryState.FAILED, StoredResponse(422))
    assert moved == old
    assert (await store.entry(other)).state is EntryState.FAILED  # type: ignore[union-attr]
    records = Records()
    await store.record_pending(records)
    noted = [
        PendingAuditRecord(OutboxStep.RETRIED, each, "lis", DILNOZA, place.wall.now) for each in old
    ]
    assert list(records) == noted
    assert seen == [OutboxStep.RETRIED] * 3


async def test_revealing_an_entry_leaves_an_audit_record(store: OutboxStore, place: Place) -> None:
    entry = await store.enqueue(draft("a"))
    records = Records()
    assert await store.content("nonesuch", DILNOZA) is None
    content = await store.content(entry.id, DILNOZA)
    assert content is not None
    assert (content.entry, content.response) == (entry, None)
    assert content.request == write("a", body=b'{"id":"a"}')
    await store.record_pending(records)
    assert list(records) == [
        PendingAuditRecord(OutboxStep.REVEALED, entry.id, "lis", DILNOZA, place.wall.now)
    ]
    assert records[0].record_fields(str) == {
        "step": "revealed",
        "entry": entry.id,
        "caller": "lis",
        "by": "page",
        "operator": "dilnoza",
        "reason": "entered anew",
        "at": str(place.wall.now),
    }
