"""Changes of an entry's state without an attempt: a lost lease, its age, an operator's decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import contents, notes, statements
from gateway.outbox.contents import EncryptedContents
from gateway.outbox.entry import BLOCKING, EntryState, OutboxEntry, RecoveryMode, StoredResponse
from gateway.outbox.pacing import INDEX_LAG
from gateway.outbox.schema import all_keys_table, entries_table, ordering_keys_table
from gateway.outbox.statements import entry_from_row
from gateway.outbox.store import EntryChange, EntryStateError

UNLEASED: Final[dict[str, Any]] = {"owner": None, "leased_until": None}
INTERRUPTED: Final = StoredResponse(502, reason="upstream-failed", note=notes.INTERRUPTED)
EXPIRED: Final = "expired"
# Seconds. A smaller backward step of the clock is ignored.
_CLOCK_TOLERANCE: Final = 1.0
_EXPIRED_UNSENT: Final = StoredResponse(
    503, reason="upstream-unreachable", note=notes.NEVER_DELIVERED
)
_EXPIRED_IN_DOUBT: Final = StoredResponse(502, reason="upstream-failed", note=notes.OUTCOME_UNKNOWN)
_ALLOWED_TRANSITIONS: Final = {
    EntryState.WAITING: frozenset({EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR}),
    EntryState.CANCELLED: frozenset({EntryState.WAITING, EntryState.FAILED}),
    EntryState.DROPPED: frozenset({EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR}),
}


async def expire_lease(
    connection: AsyncConnection,
    encrypted_contents: EncryptedContents,
    entry: OutboxEntry,
    now: float,
    settle: float,
) -> EntryChange:
    """End the lease of an entry whose process is gone; the write may have taken effect.

    With `RecoveryMode.HOLD` the entry becomes unclear, otherwise it waits in doubt. An entry to be
    verified is due after `settle` seconds, others at once. `now` is a Unix time.
    """
    if entry.recovery is RecoveryMode.HOLD:
        await _save_response(connection, encrypted_contents, entry, INTERRUPTED)
        values: dict[str, Any] = {"state": EntryState.UNCLEAR, "finished_at": now}
    else:
        due_at = now + settle if entry.recovery is RecoveryMode.VERIFY else entry.queued_at
        values = {"state": EntryState.WAITING, "due_at": due_at, "doubt": True}
    cause = INTERRUPTED.reason
    return EntryChange(
        await _update_entry(connection, entry, values | {"cause": cause} | UNLEASED), cause
    )


async def expire_entry(
    connection: AsyncConnection,
    encrypted_contents: EncryptedContents,
    entry: OutboxEntry,
    now: float,
) -> EntryChange:
    """Give up an entry that has waited too long: it is failed, or unclear if it is in doubt."""
    await _save_response(
        connection,
        encrypted_contents,
        entry,
        _EXPIRED_IN_DOUBT if entry.in_doubt else _EXPIRED_UNSENT,
    )
    state = EntryState.UNCLEAR if entry.in_doubt else EntryState.FAILED
    values = {"state": state, "finished_at": now, "cause": EXPIRED}
    return EntryChange(await _update_entry(connection, entry, values), EXPIRED)


async def reset_delays_after_clock_step(
    connection: AsyncConnection, latest: float, now: float
) -> None:
    """Shorten delays if the clock that measured them was set back since `latest`.

    `latest` and `now` are Unix times.
    """
    if now < latest - _CLOCK_TOLERANCE:
        for change in statements.update_delays_after_clock_step(now, INDEX_LAG):
            await connection.execute(change)


async def apply_operator_action(
    connection: AsyncConnection, entry: OutboxEntry, to: EntryState, now: float
) -> OutboxEntry:
    """Apply a decision of an operator or of the caller: retry (`WAITING`), cancel or drop.

    Cancelling and dropping erase the content. Raises `EntryStateError` where the entry's state does
    not allow the decision.
    """
    if entry.state not in _ALLOWED_TRANSITIONS[to] or (
        to is EntryState.CANCELLED and entry.in_doubt
    ):
        raise EntryStateError(entry.state)
    if to is not EntryState.WAITING:
        await contents.delete_segments(connection, (entry.number,))
        changed = await _update_entry(connection, entry, {"state": to, "finished_at": now})
        await unblock_successors(connection, (entry.number,))
        return changed
    if entry.state is EntryState.WAITING:
        # An entry in doubt keeps its delay before the verification: the platform's search index may
        # lag behind.
        return await _update_entry(
            connection, entry, {} if entry.in_doubt else {"due_at": entry.queued_at}
        )
    await contents.delete_segments(connection, (entry.number,), "response")
    return await _update_entry(connection, entry, _retry_values(now))


async def retry_failed(
    connection: AsyncConnection, now: float, cause: str | None, after: int, *, max_entries: int
) -> list[OutboxEntry]:
    """Retry up to `max_entries` failed entries, of one cause or of any, with numbers above `after`.

    Entries that another transaction has locked are left out. Returns them in the order of their
    numbers.
    """
    of_cause = () if cause is None else (entries_table.c.cause == cause,)
    failed = (entries_table.c.state == EntryState.FAILED, entries_table.c.number > after)
    query = statements.select_unlocked(*failed, *of_cause)
    found = await connection.execute(query.order_by(entries_table.c.number).limit(max_entries))
    numbers = [row.number for row in found]
    await contents.delete_segments(connection, numbers, "response")
    change = statements.update_entries(entries_table.c.number.in_(numbers)).values(
        _retry_values(now)
    )
    retried = [entry_from_row(row) for row in await connection.execute(change)]
    return sorted(retried, key=lambda entry: entry.number)


def _retry_values(now: float) -> dict[str, Any]:
    """Return the column values of a retry.

    The doubt is resolved and the age starts anew; the position by `number` stays.
    """
    values = {"state": EntryState.WAITING, "due_at": now, "queued_at": now, "finished_at": None}
    return {**values, "doubt": False, "cause": ""}


async def unblock_successors(connection: AsyncConnection, numbers: Sequence[int]) -> None:
    """Unblock the entries behind these, which block nothing any more.

    The transaction must hold the lock of `Database.lock_inserts`.
    """
    await connection.execute(
        sa.delete(ordering_keys_table).where(ordering_keys_table.c.entry.in_(numbers))
    )
    await connection.execute(sa.delete(all_keys_table).where(all_keys_table.c.entry.in_(numbers)))
    await connection.execute(statements.update_predecessors(entries_table.c.behind.in_(numbers)))


async def unblock_orphaned(connection: AsyncConnection) -> None:
    """Unblock entries behind an entry that blocks nothing any more.

    Only a process that does not know the column `behind` leaves such entries: one of an older
    version that still had an active attempt when its outbox was upgraded.
    """
    blocker = entries_table.alias()
    blocks = (blocker.c.number == entries_table.c.behind, blocker.c.state.in_(BLOCKING))
    blocker_exists = sa.select(blocker.c.number).where(*blocks).correlate(entries_table).exists()
    await connection.execute(
        statements.update_predecessors(entries_table.c.behind.is_not(None), ~blocker_exists)
    )


async def _save_response(
    connection: AsyncConnection,
    encrypted_contents: EncryptedContents,
    entry: OutboxEntry,
    response: StoredResponse,
) -> None:
    segments = await encrypted_contents.encrypt_response(entry, response)
    await contents.save_segments(connection, "response", {entry.number: segments})


async def _update_entry(
    connection: AsyncConnection, entry: OutboxEntry, values: dict[str, Any]
) -> OutboxEntry:
    if not values:
        return entry
    changed = await connection.execute(
        statements.update_entries(entries_table.c.number == entry.number).values(values)
    )
    return entry_from_row(changed.one())
