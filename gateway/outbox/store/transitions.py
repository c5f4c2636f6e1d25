"""Changes of the state of entries in the store, inside the transaction of the caller.

They begin with the arrival of entries. Some follow from attempts: decisions are recorded, and
entries are claimed. The others happen without an attempt: a lost lease, an entry's age, an
operator's action, which is stored as a pending audit record too. The store calls these functions;
`gateway.outbox.attempt_result` makes the decisions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import sqlalchemy as sa

from gateway.i18n import Message
from gateway.outbox.attempt_result import Decision
from gateway.outbox.delivery_pacing import INDEX_LAG
from gateway.outbox.entry import (
    ALL_KEYS,
    BLOCKING,
    INTERRUPTED_NOTE,
    NEVER_DELIVERED_NOTE,
    OUTCOME_UNKNOWN_NOTE,
    Actor,
    EntryState,
    NewEntry,
    OutboxEntry,
    OutboxEvent,
    OutboxStep,
    PendingAuditRecord,
    RecordPending,
    RecoveryMode,
    StoredResponse,
)
from gateway.outbox.store import queries, sealed_contents
from gateway.outbox.store.store_types import EntryStateError, OutboxFullError
from gateway.outbox.store.tables import (
    all_keys_table,
    entries_table,
    ordering_keys_table,
    pending_records_table,
    segments_table,
)

if TYPE_CHECKING:
    from gateway.config.operations_settings import OutboxSettings
    from gateway.outbox.store.database import Transaction

_INTERRUPTED: Final = StoredResponse(502, reason="upstream-failed", note=INTERRUPTED_NOTE)
_EXPIRED: Final = "expired"
_MAX_ERASED_BYTES: Final = 1024 * 1024
_MAX_RECORDS: Final = 100
# Seconds. A smaller backward step of the clock is ignored.
_CLOCK_TOLERANCE: Final = 1.0
_EXPIRED_UNSENT: Final = StoredResponse(
    503, reason="upstream-unreachable", note=NEVER_DELIVERED_NOTE
)
_EXPIRED_IN_DOUBT: Final = StoredResponse(502, reason="upstream-failed", note=OUTCOME_UNKNOWN_NOTE)
_ALLOWED_TRANSITIONS: Final = {
    EntryState.WAITING: frozenset({EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR}),
    EntryState.CANCELLED: frozenset({EntryState.WAITING, EntryState.FAILED}),
    EntryState.DROPPED: frozenset({EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR}),
}


@dataclass(slots=True, eq=False)
class Arrival:
    """A write that waits to be stored.

    `sealed` are the segments of its encrypted request, `digests` those of its ordering keys. `size`
    is that of its entry. `stored` gets the entry, or the error for which it is not stored.
    """

    new_entry: NewEntry
    id: str
    sealed: Sequence[bytes]
    digests: Sequence[bytes]
    size: int
    is_share_limited: bool
    confirm: Callable[[], None]
    stored: asyncio.Future[OutboxEntry]

    def is_confirmed(self) -> bool:
        """Return whether it may be stored still; if not, `stored` has the reason."""
        try:
            self.confirm()
        except Exception as error:
            self.stored.set_exception(error)
        return not self.stored.done()


def exceeding_limits(
    connection: sa.Connection, arrivals: Sequence[Arrival], limits: OutboxSettings
) -> Mapping[Arrival, OutboxFullError]:
    """Return those that do not fit when all of them are added in this order."""
    callers = list({arrival.new_entry.caller for arrival in arrivals})
    rows = connection.execute(queries.SELECT_USAGE, {"callers": callers})
    used = {row.caller: (row.entries, row.size) for row in rows}
    total = connection.execute(queries.SELECT_TOTAL_USAGE).one()
    entries, total_bytes = int(total.entries), int(total.size)
    refusals: dict[Arrival, OutboxFullError] = {}
    for arrival in arrivals:
        caller = arrival.new_entry.caller
        caller_entries, caller_bytes = used.get(caller, (0, 0))
        if entries >= limits.max_entries or total_bytes + arrival.size > limits.max_bytes:
            refusals[arrival] = OutboxFullError(Message("the outbox is full"))
            continue
        # One entry is allowed for every caller, whatever its share.
        if (
            arrival.is_share_limited
            and caller_entries
            and (
                caller_entries >= int(limits.max_entries * limits.max_share)
                or caller_bytes + arrival.size > limits.max_bytes * limits.max_share
            )
        ):
            why = Message("the caller's share of the outbox is used up")
            refusals[arrival] = OutboxFullError(why)
            continue
        entries += 1
        total_bytes += arrival.size
        used[caller] = caller_entries + 1, caller_bytes + arrival.size
    return refusals


def insert_arrivals(
    connection: sa.Connection, arrivals: Sequence[Arrival], now: float
) -> Mapping[Arrival, OutboxEntry]:
    """Insert at least one entry, in this order. `now` is a Unix time.

    The transaction must hold the lock of `Database.lock_inserts`.
    """
    connection.execute(queries.INSERT_ENTRIES, [_values_of_arrival(each, now) for each in arrivals])
    rows = connection.execute(queries.SELECT_NEW, {"ids": [arrival.id for arrival in arrivals]})
    entries = dict(zip(arrivals, map(queries.entry_from_row, rows), strict=True))
    connection.execute(
        queries.INSERT_ORDERING_KEYS,
        [
            {"mark": digest, "entry": entry.number}
            for arrival, entry in entries.items()
            for digest in arrival.digests
        ],
    )
    with_all_keys = [
        {"entry": entry.number, "caller": entry.caller}
        for arrival, entry in entries.items()
        if arrival.new_entry.ordering_keys == ALL_KEYS
    ]
    if with_all_keys:
        connection.execute(queries.INSERT_ALL_KEYS, with_all_keys)
    _add_usage(connection, entries.values())
    first = min(entry.number for entry in entries.values())
    connection.execute(queries.UPDATE_NEW_PREDECESSORS, {"first": first})
    sealed = {entry.number: arrival.sealed for arrival, entry in entries.items()}
    sealed_contents.insert_segments(connection, "request", sealed)
    return entries


def _add_usage(connection: sa.Connection, entries: Iterable[OutboxEntry]) -> None:
    """Add what new entries use to that of their callers, under the lock of their insertion."""
    counts, sizes = Counter[str](), Counter[str]()
    for entry in entries:
        counts[entry.caller] += 1
        sizes[entry.caller] += entry.size
    for caller, count in counts.items():
        more = {"of": caller, "more_entries": count, "more_bytes": sizes[caller]}
        if not connection.execute(queries.UPDATE_USAGE, more).rowcount:
            first = {"caller": caller, "entries": count, "size": sizes[caller]}
            connection.execute(queries.INSERT_USAGE, first)


def _subtract_usage(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Subtract what these entries use from that of their callers.

    The transaction must hold the lock of `Database.lock_inserts`.
    """
    used = connection.execute(queries.COUNT_USAGE_OF_NUMBERS, {"numbers": numbers})
    less = [
        {"of": row.caller, "more_entries": -row.entries, "more_bytes": -row.size} for row in used
    ]
    if less:
        connection.execute(queries.UPDATE_USAGE, less)


def _values_of_arrival(arrival: Arrival, now: float) -> dict[str, Any]:
    new_entry = arrival.new_entry
    return {
        "id": arrival.id,
        "caller": new_entry.caller,
        "state": EntryState.WAITING,
        "recovery": new_entry.recovery,
        "doubt": new_entry.in_doubt,
        "queued_at": now,
        "due_at": now + new_entry.delay,
        "attempts": 0,
        "size": arrival.size,
        "cause": new_entry.cause,
    }


def remove_arrivals(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Delete entries that this transaction has inserted."""
    _unblock_successors(connection, numbers)
    delete_entries(connection, numbers)


def delete_entries(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Delete entries that block nothing, with their contents."""
    connection.execute(sa.delete(segments_table).where(segments_table.c.entry.in_(numbers)))
    connection.execute(sa.delete(entries_table).where(entries_table.c.number.in_(numbers)))


def expire_lease(
    connection: sa.Connection,
    encrypted_contents: sealed_contents.EncryptedContents,
    entry: OutboxEntry,
    now: float,
    settle: float,
) -> OutboxEvent:
    """End the lease of an entry whose process is gone; the write may have taken effect.

    With `RecoveryMode.HOLD` the entry becomes unclear, otherwise it waits in doubt. An entry to be
    verified is due after `settle` seconds, others at once. `now` is a Unix time.
    """
    if entry.recovery is RecoveryMode.HOLD:
        _save_response(connection, encrypted_contents, entry, _INTERRUPTED)
        step = OutboxStep.UNCLEAR
        values: dict[str, Any] = {"state": EntryState.UNCLEAR, "finished_at": now}
    else:
        step = OutboxStep.BECAME_IN_DOUBT
        due_at = now + settle if entry.recovery is RecoveryMode.VERIFY else entry.queued_at
        values = {"state": EntryState.WAITING, "due_at": due_at, "doubt": True}
    cause = _INTERRUPTED.reason
    changed = _update_entry(connection, entry, values | {"cause": cause} | _end_lease(now))
    return OutboxEvent(step, changed, cause)


def expire_entry(
    connection: sa.Connection,
    encrypted_contents: sealed_contents.EncryptedContents,
    entry: OutboxEntry,
    now: float,
) -> OutboxEvent:
    """Give up an entry that has waited too long: it is failed, or unclear if it is in doubt."""
    _save_response(
        connection,
        encrypted_contents,
        entry,
        _EXPIRED_IN_DOUBT if entry.in_doubt else _EXPIRED_UNSENT,
    )
    state = EntryState.UNCLEAR if entry.in_doubt else EntryState.FAILED
    values = {"state": state, "finished_at": now, "cause": _EXPIRED}
    changed = _update_entry(connection, entry, values)
    return OutboxEvent(OutboxStep.EXPIRED, changed, _EXPIRED)


def reset_delays_after_clock_step(connection: sa.Connection, latest: float, now: float) -> None:
    """Shorten delays if the clock that measured them was set back since `latest`.

    `latest` and `now` are Unix times.
    """
    if now < latest - _CLOCK_TOLERANCE:
        for change in queries.update_delays_after_clock_step(now, INDEX_LAG):
            connection.execute(change)


def apply_operator_action(
    connection: sa.Connection, entry: OutboxEntry, to: EntryState, now: float
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
        sealed_contents.delete_segments(connection, (entry.number,))
        changed = _update_entry(connection, entry, {"state": to, "finished_at": now})
        _unblock_successors(connection, (entry.number,))
        return changed
    if entry.state is EntryState.WAITING:
        # An entry in doubt keeps its delay before the verification: the platform's search index may
        # lag behind.
        return _update_entry(
            connection, entry, {} if entry.in_doubt else {"due_at": entry.queued_at}
        )
    sealed_contents.delete_segments(connection, (entry.number,), "response")
    return _update_entry(connection, entry, _retry_values(now))


def retry_failed(
    connection: sa.Connection, now: float, cause: str | None, after: int, *, max_entries: int
) -> list[OutboxEntry]:
    """Retry up to `max_entries` failed entries, of one cause or of any, with numbers above `after`.

    Entries that another transaction has locked are left out. Returns them in the order of their
    numbers.
    """
    of_cause = () if cause is None else (entries_table.c.cause == cause,)
    failed = (entries_table.c.state == EntryState.FAILED, entries_table.c.number > after)
    query = queries.select_unlocked(*failed, *of_cause)
    found = connection.execute(query.order_by(entries_table.c.number).limit(max_entries))
    numbers = [row.number for row in found]
    sealed_contents.delete_segments(connection, numbers, "response")
    change = queries.update_entries(entries_table.c.number.in_(numbers)).values(_retry_values(now))
    retried = [queries.entry_from_row(row) for row in connection.execute(change)]
    return sorted(retried, key=lambda entry: entry.number)


def _retry_values(now: float) -> dict[str, Any]:
    """Return the column values of a retry.

    The doubt is resolved and the age starts anew; the position by `number` stays.
    """
    return {
        "state": EntryState.WAITING,
        "due_at": now,
        "queued_at": now,
        "finished_at": None,
        "doubt": False,
        "cause": "",
        "collisions": 0,
    }


def _unblock_successors(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Unblock the entries behind these, which block nothing any more.

    The transaction must hold the lock of `Database.lock_inserts`.
    """
    _subtract_usage(connection, numbers)
    connection.execute(
        sa.delete(ordering_keys_table).where(ordering_keys_table.c.entry.in_(numbers))
    )
    connection.execute(sa.delete(all_keys_table).where(all_keys_table.c.entry.in_(numbers)))
    connection.execute(queries.update_predecessors(entries_table.c.behind.in_(numbers)))


def _save_response(
    connection: sa.Connection,
    encrypted_contents: sealed_contents.EncryptedContents,
    entry: OutboxEntry,
    response: StoredResponse,
) -> None:
    segments = encrypted_contents.encrypt_note(entry, response)
    sealed_contents.save_segments(connection, "response", {entry.number: segments})


def _update_entry(
    connection: sa.Connection, entry: OutboxEntry, values: dict[str, Any]
) -> OutboxEntry:
    if not values:
        return entry
    changed = connection.execute(
        queries.update_entries(entries_table.c.number == entry.number).values(values)
    )
    return queries.entry_from_row(changed.one())


_UPDATE_ENTRY = sa.update(entries_table).where(entries_table.c.number == sa.bindparam("of"))


def record_decisions(
    connection: sa.Connection,
    owner: str,
    decisions: Sequence[Decision],
    sealed: Mapping[int, Sequence[bytes]],
    now: float,
) -> Sequence[bool]:
    """Record the decisions that this owner may still record. Return for each whether it may.

    `sealed` are the encrypted responses of decisions, by entry number.
    """
    if not decisions:
        return ()
    numbers = [decision.entry.number for decision in decisions]
    found = {row.number: row for row in connection.execute(queries.select_for_update(numbers))}
    recorded = [
        _may_record(owner, decision, found.get(decision.entry.number)) for decision in decisions
    ]
    written = [
        decision for decision, is_recorded in zip(decisions, recorded, strict=True) if is_recorded
    ]
    if not written:
        return recorded
    connection.execute(_UPDATE_ENTRY, [_values(decision, now) for decision in written])
    finished = [decision.entry.number for decision in written if decision.response is not None]
    # Without those that were delivered already, whose decision is recorded again.
    delivered = [
        decision.entry.number
        for decision in written
        if is_delivered(decision) and found[decision.entry.number].state in BLOCKING
    ]
    if delivered:
        # Deleted first, so that there is space for the responses on a full disk.
        small = [each.entry.number for each in written if not is_erased_later(each)]
        sealed_contents.delete_segments(
            connection, [number for number in delivered if number in small], "request"
        )
        _unblock_successors(connection, delivered)
    if finished:
        sealed_contents.save_segments(
            connection, "response", {number: sealed[number] for number in finished}
        )
    return recorded


def claim_entries(
    connection: sa.Connection, ready: sa.Select[Any], size: int, owner: str, until: float
) -> Mapping[OutboxEntry, Sequence[bytes]]:
    """Claim entries of `ready` and return them with their encrypted requests.

    They are leased to `owner` until a Unix time. Their requests have at most `size` bytes in all,
    or it is one entry.
    """
    found = (connection.execute(ready)).all()
    numbers = [row.number for row in _limit_bytes(found, size)]
    if not numbers:
        return {}
    change = queries.update_entries(entries_table.c.number.in_(numbers)).values(
        state=EntryState.SENDING,
        attempts=entries_table.c.attempts + 1,
        owner=owner,
        leased_until=until,
    )
    claimed = [queries.entry_from_row(row) for row in connection.execute(change)]
    sealed = sealed_contents.load_segments(connection, numbers, "request")
    return {
        entry: sealed[entry.number] for entry in sorted(claimed, key=lambda entry: entry.number)
    }


def is_delivered(decision: Decision) -> bool:
    """Return whether the decision says that the platform has the write."""
    return decision.state is EntryState.DELIVERED


def is_erased_later(decision: Decision) -> bool:
    """Return whether a delivered request is erased in steps of their own, being large.

    SQLite writes as many bytes to its log as it erases: on a full disk there is no room for them.
    """
    return is_delivered(decision) and decision.entry.size > _MAX_ERASED_BYTES


def _may_record(owner: str, decision: Decision, row: Any) -> bool:
    # Every claim increments `attempts`: a lease that was lost and given again has another number.
    if row is None or row.attempts != decision.entry.attempts:
        return False
    if row.state == EntryState.SENDING:
        return bool(row.owner == owner)
    # The lease has ended. A retry of an unclear entry would have ended its doubt, and a dropped
    # entry is in another state. A retry does not change an entry that waits in doubt.
    undecided = row.state == EntryState.UNCLEAR or (row.state == EntryState.WAITING and row.doubt)
    # A DELIVERED entry was delivered by this attempt: the connection broke after that transaction
    # was committed.
    return is_delivered(decision) and (undecided or row.state == EntryState.DELIVERED)


def _values(decision: Decision, now: float) -> dict[str, Any]:
    entry = decision.changed_entry()
    if decision.response is not None:
        moments: dict[str, float | None] = {"due_at": entry.due_at, "finished_at": now}
    else:
        due_at = now + decision.delay if decision.delay else entry.queued_at
        moments = {"due_at": due_at, "finished_at": None}
    return {
        "of": entry.number,
        "state": entry.state,
        "cause": entry.cause,
        "doubt": entry.in_doubt,
        "collisions": entry.collisions,
        **moments,
        **_end_lease(now),
    }


def _end_lease(now: float) -> dict[str, Any]:
    """Return the column values of a lease that ends now, from when a delay of the entry counts."""
    return {"owner": None, "leased_until": now}


def _limit_bytes(rows: Sequence[Any], size: int) -> Sequence[Any]:
    """Return the first row, and those after it while all have at most `size` bytes."""
    for count, row in enumerate(rows):
        size -= row.size
        if size < 0 and count:
            return rows[:count]
    return rows


def add_pending_records(
    connection: sa.Connection,
    step: OutboxStep,
    entries: Sequence[OutboxEntry],
    actor: Actor,
    at: float,
) -> None:
    """Store that `actor` took this step with these entries, in the transaction of the step.

    `at` is a Unix time.
    """
    by = orjson.dumps((actor.channel, actor.operator, actor.reason)).decode()
    rows = [
        {"step": step, "by": by, "at": at, "entry": entry.id, "caller": entry.caller}
        for entry in entries
    ]
    if rows:
        connection.execute(sa.insert(pending_records_table), rows)


async def drain_pending_records(
    transaction: Transaction, record: RecordPending, recorded: set[int]
) -> set[int]:
    """Pass the oldest pending records to `record`, delete them, and return their numbers.

    No other process records them meanwhile: their rows are locked, with SQLite the whole database.
    The numbers of recorded ones are added to `recorded`, so that they are not recorded again if the
    transaction fails. A record may appear twice if the process dies before the transaction ends.
    """
    rows = await transaction.run(_oldest_pending_records)
    new = [row for row in rows if row.number not in recorded]
    if new and await record([_record_of_row(row) for row in new]):
        recorded.update(row.number for row in new)
    deleted = {row.number for row in rows} & recorded
    if deleted:
        await transaction.run(_delete_pending_records, deleted)
    return deleted


def _record_of_row(row: sa.Row[Any]) -> PendingAuditRecord:
    return PendingAuditRecord(
        OutboxStep(row.step), row.entry, row.caller, Actor(*orjson.loads(row.by)), row.at
    )


def _oldest_pending_records(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    query = sa.select(pending_records_table).order_by(pending_records_table.c.number)
    return connection.execute(query.limit(_MAX_RECORDS).with_for_update(skip_locked=True)).all()


def _delete_pending_records(connection: sa.Connection, numbers: Collection[int]) -> None:
    connection.execute(
        sa.delete(pending_records_table).where(pending_records_table.c.number.in_(numbers))
    )
