"""What attempts change in the store: outcomes are recorded, and entries are claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import changes, contents, judging, statements
from gateway.outbox.entry import EntryState, OutboxEntry
from gateway.outbox.judging import FinalOutcome
from gateway.outbox.schema import entries_table
from gateway.outbox.statements import entry_from_row
from gateway.outbox.store import AttemptOutcome

_UPDATE_ENTRY = sa.update(entries_table).where(entries_table.c.number == sa.bindparam("of"))


async def record_outcomes(
    connection: AsyncConnection,
    owner: str,
    outcomes: Sequence[AttemptOutcome],
    sealed: Mapping[int, Sequence[bytes]],
    now: float,
) -> Sequence[bool]:
    """Record the outcomes that this owner may still record. Return for each whether it may.

    `sealed` are the encrypted responses of final outcomes, by entry number.
    """
    numbers = [outcome.entry.number for outcome in outcomes]
    found = {
        row.number: row for row in await connection.execute(statements.select_for_update(numbers))
    }
    recorded = [
        _owns_outcome(owner, outcome, found.get(outcome.entry.number)) for outcome in outcomes
    ]
    written = [
        outcome for outcome, is_recorded in zip(outcomes, recorded, strict=True) if is_recorded
    ]
    if not written:
        return recorded
    await connection.execute(_UPDATE_ENTRY, [_values(outcome, now) for outcome in written])
    finished = [
        outcome.entry.number for outcome in written if isinstance(outcome.transition, FinalOutcome)
    ]
    delivered = [outcome.entry.number for outcome in written if is_delivered(outcome)]
    if delivered:
        # Deleted first, so that there is space for the responses on a full disk.
        await contents.delete_segments(connection, delivered, "request")
        await changes.unblock_successors(connection, delivered)
    if finished:
        await contents.save_segments(
            connection, "response", {number: sealed[number] for number in finished}
        )
    return recorded


async def claim_entries(
    connection: AsyncConnection, ready: sa.Select[Any], size: int, lease_values: Mapping[str, Any]
) -> Mapping[OutboxEntry, Sequence[bytes]]:
    """Claim entries of `ready` and return them with their encrypted requests.

    Their requests have at most `size` bytes in all, or it is one entry.
    """
    found = (await connection.execute(ready)).all()
    numbers = [row.number for row in _limit_bytes(found, size)]
    if not numbers:
        return {}
    change = statements.update_entries(entries_table.c.number.in_(numbers)).values(
        state=EntryState.SENDING, attempts=entries_table.c.attempts + 1, **lease_values
    )
    claimed = [entry_from_row(row) for row in await connection.execute(change)]
    sealed = await contents.load_segments(connection, numbers, "request")
    return {
        entry: sealed[entry.number] for entry in sorted(claimed, key=lambda entry: entry.number)
    }


def is_delivered(outcome: AttemptOutcome) -> bool:
    """Return whether the outcome says that the platform has the write."""
    return (
        isinstance(outcome.transition, FinalOutcome)
        and outcome.transition.state is EntryState.DELIVERED
    )


def _owns_outcome(owner: str, outcome: AttemptOutcome, row: Any) -> bool:
    # Every claim increments `attempts`: a lease that was lost and given again has another number.
    if row is None or row.attempts != outcome.entry.attempts:
        return False
    if row.state == EntryState.SENDING:
        return bool(row.owner == owner)
    # The lease has ended. A retry of an unclear entry would have ended its doubt, and a dropped
    # entry is in another state. A retry does not change an entry that waits in doubt.
    undecided = row.state == EntryState.UNCLEAR or (row.state == EntryState.WAITING and row.doubt)
    # A DELIVERED entry was delivered by this attempt: the connection broke after that transaction
    # was committed.
    return is_delivered(outcome) and (undecided or row.state == EntryState.DELIVERED)


def _values(outcome: AttemptOutcome, now: float) -> dict[str, Any]:
    entry = judging.apply_transition(outcome.entry, outcome.transition)
    if isinstance(outcome.transition, FinalOutcome):
        moments: dict[str, float | None] = {"due_at": entry.due_at, "finished_at": now}
    else:
        due_at = now + outcome.delay if outcome.delay else entry.queued_at
        moments = {"due_at": due_at, "finished_at": None}
    facts = {"state": entry.state, "cause": entry.cause, "doubt": entry.in_doubt}
    return {"of": entry.number, **facts, **moments, **changes.UNLEASED}


def _limit_bytes(rows: Sequence[Any], size: int) -> Sequence[Any]:
    """Return the first row, and those after it while all have at most `size` bytes."""
    for count, row in enumerate(rows):
        size -= row.size
        if size < 0 and count:
            return rows[:count]
    return rows
