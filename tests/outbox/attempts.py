"""Claims entries and records the outcomes of attempts, as one process does, one entry at a time."""

from __future__ import annotations

from gateway.outbox.attempt_result import EntryTransition, FinalOutcome, RetryLater
from gateway.outbox.entry import EntryState, OutboxEntry, StoredResponse
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import AttemptOutcome

LEASE = 30.0
ME = "me"


async def claim(
    store: OutboxStore, most: int = 10, owner: str = ME, lease: float = LEASE
) -> list[OutboxEntry]:
    """Claim up to `most` entries that may be sent now, and return them."""
    progress = await store.record_and_claim(owner, (), max_claims=most, size=1 << 30, lease=lease)
    return [claimed.entry for claimed in progress.claimed]


async def finish(
    store: OutboxStore, owner: str, entry: OutboxEntry, state: EntryState, response: StoredResponse
) -> bool:
    """Record the final outcome of an attempt. Return whether it could still be recorded."""
    return await _tell(store, owner, entry, FinalOutcome(state, response))


async def release(
    store: OutboxStore, owner: str, entry: OutboxEntry, *, delay: float, cause: str
) -> bool:
    """Record that the entry was certainly not delivered and waits again."""
    return await _tell(store, owner, entry, RetryLater(cause), delay)


async def doubt(
    store: OutboxStore, owner: str, entry: OutboxEntry, *, delay: float, cause: str
) -> bool:
    """Record that the entry is in doubt and waits again."""
    return await _tell(store, owner, entry, RetryLater(cause, in_doubt=True), delay)


async def _tell(
    store: OutboxStore, owner: str, entry: OutboxEntry, verdict: EntryTransition, delay: float = 0.0
) -> bool:
    progress = await store.record_and_claim(
        owner, [AttemptOutcome(entry, verdict, delay)], max_claims=0
    )
    return progress.recorded[0]
