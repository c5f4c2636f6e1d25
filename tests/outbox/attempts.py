"""Claims entries and records the outcomes of attempts, as one process does, one entry at a time."""

from __future__ import annotations

from gateway.outbox.attempt_result import Decision
from gateway.outbox.entry import EntryState, OutboxEntry, QueuedRequest, StoredResponse
from gateway.outbox.store.outbox_store import OutboxStore

LEASE = 30.0
ME = "me"


async def claim(
    store: OutboxStore, most: int = 10, owner: str = ME, lease: float = LEASE
) -> list[OutboxEntry]:
    """Claim up to `most` entries that may be sent now, and return them."""
    _, claimed = await store.record_and_claim(owner, (), max_claims=most, size=1 << 30, lease=lease)
    return [content.entry for content in claimed]


async def stored_request(store: OutboxStore, entry_id: str) -> QueuedRequest | None:
    """Return the write of an entry in plain text, None where it was erased."""
    content = await store.content(entry_id)
    return None if content is None else content.request


async def present(store: OutboxStore, entry_id: str) -> OutboxEntry:
    """Return an entry as it is now."""
    entry = await store.entry(entry_id)
    assert entry is not None
    return entry


async def finish(
    store: OutboxStore, owner: str, entry: OutboxEntry, state: EntryState, response: StoredResponse
) -> bool:
    """Record the final outcome of an attempt. Return whether it could still be recorded."""
    return await _record(store, owner, Decision(entry, state, response))


async def release(
    store: OutboxStore, owner: str, entry: OutboxEntry, *, delay: float, cause: str
) -> bool:
    return await _record(
        store, owner, Decision(entry, EntryState.WAITING, cause=cause, delay=delay)
    )


async def doubt(
    store: OutboxStore, owner: str, entry: OutboxEntry, *, delay: float, cause: str
) -> bool:
    """Record that the entry is in doubt and waits again."""
    return await _record(
        store,
        owner,
        Decision(entry, EntryState.WAITING, cause=cause, in_doubt=True, delay=delay),
    )


async def _record(store: OutboxStore, owner: str, decision: Decision) -> bool:
    recorded, _ = await store.record_and_claim(owner, [decision], max_claims=0)
    return recorded[0]
