"""The SQL statements of the store's methods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from gateway.outbox.entry import BLOCKING, EntryState, OutboxEntry, RecoveryMode
from gateway.outbox.store.store_types import Lease
from gateway.outbox.store.tables import (
    all_keys_table,
    entries_table,
    ordering_keys_table,
    segments_table,
    usage_table,
)

_ENTRY_COLUMNS: Final = (
    entries_table.c.number,
    entries_table.c.id,
    entries_table.c.caller,
    entries_table.c.state,
    entries_table.c.recovery,
    entries_table.c.doubt,
    entries_table.c.queued_at,
    entries_table.c.due_at,
    entries_table.c.finished_at,
    entries_table.c.attempts,
    entries_table.c.size,
    entries_table.c.cause,
    entries_table.c.collisions,
)
_LEASE_COLUMNS: Final = (
    entries_table.c.number,
    entries_table.c.attempts,
    entries_table.c.leased_until,
    entries_table.c.owner,
)
# Seconds. No lease is longer: an end further ahead was set before the clock was set back.
_MAX_LEASE: Final = 60.0
# Entries that are verified before the next attempt.
_NEEDS_VERIFICATION: Final = entries_table.c.doubt & (
    entries_table.c.recovery == RecoveryMode.VERIFY
)
_PURGEABLE_STATES: Final = (EntryState.DELIVERED, EntryState.CANCELLED, EntryState.DROPPED)


def entry_from_row(row: Any) -> OutboxEntry:
    """Return the entry of a row with the columns `_ENTRY_COLUMNS`."""
    facts = row._asdict()
    facts["in_doubt"] = facts.pop("doubt")
    return OutboxEntry(
        **{
            **facts,
            "state": EntryState(facts["state"]),
            "recovery": RecoveryMode(facts["recovery"]),
        }
    )


def select_entries() -> sa.Select[Any]:
    """Return the SELECT of all entries."""
    return sa.select(*_ENTRY_COLUMNS)


def select_unlocked(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return the SELECT of entries that no other transaction has locked, which locks them."""
    return select_entries().where(*conditions).with_for_update(skip_locked=True, of=entries_table)


def select_ready(now: float, max_entries: int, *, prefer_verifiable: bool) -> sa.Select[Any]:
    """Return the SELECT of up to `max_entries` entries that are due and not blocked.

    Those that have been due longest come first: an entry that has just failed lets others go ahead.
    With `prefer_verifiable` those that must not be repeated come last.
    """
    # An entry that is due at once stays due, however the clock is set meanwhile.
    at_once = entries_table.c.due_at == entries_table.c.queued_at
    is_due = at_once | (entries_table.c.due_at <= now)
    due = (entries_table.c.state == EntryState.WAITING, entries_table.c.behind.is_(None), is_due)
    first = [entries_table.c.recovery == RecoveryMode.HOLD] if prefer_verifiable else []
    return (
        select_unlocked(*due)
        .order_by(*first, entries_table.c.due_at, entries_table.c.number)
        .limit(max_entries)
    )


def update_predecessors(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Return the UPDATE that sets `behind` to the earlier entry that blocks, or to null."""
    return sa.update(entries_table).where(*conditions).values(behind=_predecessor())


def _predecessor() -> sa.ColumnElement[int]:
    """Return the number of an entry that blocks this one: by an ordering key, or by ALL_KEYS."""
    keys, before, rest = (
        ordering_keys_table.alias(),
        ordering_keys_table.alias(),
        entries_table.alias(),
    )
    latest = sa.select(sa.func.max(before.c.entry)).where(
        before.c.mark == keys.c.mark, before.c.entry < keys.c.entry
    )
    of_orders = sa.select(sa.func.max(latest.correlate(keys).scalar_subquery())).where(
        keys.c.entry == entries_table.c.number
    )
    of_everything = sa.select(sa.func.max(all_keys_table.c.entry)).where(
        all_keys_table.c.caller == entries_table.c.caller,
        all_keys_table.c.entry < entries_table.c.number,
    )
    latest_of_all = sa.select(sa.func.max(rest.c.number)).where(
        rest.c.caller == entries_table.c.caller,
        rest.c.state.in_(BLOCKING),
        rest.c.number < entries_table.c.number,
    )
    has_it = sa.select(all_keys_table.c.entry).where(
        all_keys_table.c.entry == entries_table.c.number
    )
    # Evaluated only for an entry with ALL_KEYS: it reads all entries of the caller.
    anything = sa.case(
        (
            has_it.correlate(entries_table).exists(),
            latest_of_all.correlate(entries_table).scalar_subquery(),
        )
    )
    predecessors = (
        query.correlate(entries_table).scalar_subquery() for query in (of_orders, of_everything)
    )
    return sa.func.coalesce(*predecessors, anything)


def select_leases() -> sa.Select[Any]:
    """Return the SELECT of all leases: number, attempts, end and owner."""
    return sa.select(*_LEASE_COLUMNS).where(entries_table.c.state == EntryState.SENDING)


def count_leased(now: float) -> sa.Select[Any]:
    """Return the SELECT of the number of leases that have not ended."""
    return (
        sa.select(sa.func.count())
        .select_from(entries_table)
        .where(entries_table.c.state == EntryState.SENDING, entries_table.c.leased_until > now)
    )


def select_interrupted(
    standing: Collection[Lease], dead: Collection[str], now: float
) -> sa.Select[Any]:
    """Return the SELECT of entries with one of these leases, ended or of a dead owner."""
    known = [(lease.number, lease.attempts, lease.until, lease.owner) for lease in standing]
    until = entries_table.c.leased_until
    has_ended = (until <= now) | (until > now + _MAX_LEASE)
    return select_unlocked(
        entries_table.c.state == EntryState.SENDING,
        sa.tuple_(*_LEASE_COLUMNS).in_(known),
        has_ended | entries_table.c.owner.in_(dead),
    )


def update_due_now(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Return the UPDATE that makes waiting entries due at once.

    Entries to be verified are left out, because the platform's index may lag behind.
    """
    return (
        sa.update(entries_table)
        .where(entries_table.c.state == EntryState.WAITING, ~_NEEDS_VERIFICATION, *conditions)
        .values(due_at=entries_table.c.queued_at)
    )


def update_delays_after_clock_step(now: float, settle: float) -> Sequence[sa.Update]:
    """Return the UPDATEs that end delays measured by a clock that was set back since.

    Entries to be verified are due after `settle` seconds.
    """
    return (
        update_due_now(entries_table.c.due_at > now),
        sa.update(entries_table)
        .where(
            entries_table.c.state == EntryState.WAITING,
            _NEEDS_VERIFICATION,
            entries_table.c.due_at > now + settle,
        )
        .values(due_at=now + settle, leased_until=now),
    )


def select_latest_delay() -> sa.Select[Any]:
    """Return the SELECT of the latest moment from which the delay of a waiting entry counts."""
    begin = sa.func.coalesce(entries_table.c.leased_until, entries_table.c.queued_at)
    return sa.select(sa.func.max(begin)).where(
        entries_table.c.state == EntryState.WAITING,
        entries_table.c.due_at != entries_table.c.queued_at,
    )


def exists_blocking_of_caller(caller: str) -> sa.Select[Any]:
    """Return the SELECT whether any entry of this caller blocks."""
    return sa.select(
        sa.exists().where(entries_table.c.caller == caller, entries_table.c.state.in_(BLOCKING))
    )


def update_entries(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Return an UPDATE of entries that returns the changed rows."""
    return sa.update(entries_table).where(*conditions).returning(*_ENTRY_COLUMNS)


def select_for_update(numbers: Collection[int]) -> sa.Select[Any]:
    """Return the SELECT of state and lease of these entries, which locks them."""
    return (
        sa.select(
            entries_table.c.number,
            entries_table.c.state,
            entries_table.c.owner,
            entries_table.c.attempts,
            entries_table.c.doubt,
        )
        .where(entries_table.c.number.in_(numbers))
        .with_for_update()
    )


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def select_segments(numbers: Collection[int], kind: str) -> sa.Select[Any]:
    """Return the SELECT of the segments of these entries, each entry's in order."""
    return (
        sa.select(segments_table.c.entry, segments_table.c.sealed)
        .where(segments_table.c.entry.in_(numbers), segments_table.c.kind == kind)
        .order_by(segments_table.c.place)
    )


def select_unerased() -> sa.Select[Any]:
    """Return the SELECT of the key of a segment of a delivered request."""
    segment = (segments_table.c.entry, segments_table.c.kind, segments_table.c.place)
    is_of_entry = segments_table.c.entry == entries_table.c.number
    delivered = entries_table.c.state == EntryState.DELIVERED
    return (
        sa.select(*segment)
        .join(entries_table, is_of_entry & delivered)
        .where(segments_table.c.kind == "request")
        .order_by(segments_table.c.entry.desc(), segments_table.c.place.desc())
        .limit(1)
    )


def select_purgeable(before: float) -> sa.Select[Any]:
    """Return the SELECT of the numbers of entries that finished before that Unix time."""
    return sa.select(entries_table.c.number).where(
        entries_table.c.state.in_(_PURGEABLE_STATES), entries_table.c.finished_at < before
    )


# Made once: to build an expression takes longer than to execute it.
INSERT_ENTRIES: Final = sa.insert(entries_table)
INSERT_ORDERING_KEYS: Final = sa.insert(ordering_keys_table)
INSERT_ALL_KEYS: Final = sa.insert(all_keys_table)
# The entries with these `ids`, in the order of arrival.
SELECT_NEW: Final = (
    select_entries()
    .where(entries_table.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(entries_table.c.number)
)
# Those of these `digests` of ordering keys that an entry blocks.
SELECT_BLOCKING_KEYS: Final = (
    sa.select(ordering_keys_table.c.mark)
    .where(ordering_keys_table.c.mark.in_(sa.bindparam("digests", expanding=True)))
    .distinct()
)
# Of entries from number `first`.
UPDATE_NEW_PREDECESSORS: Final = update_predecessors(
    entries_table.c.number >= sa.bindparam("first")
)
# The number and bytes of each caller's entries; and those of the entries with these `numbers`.
COUNT_USAGE: Final = sa.select(
    entries_table.c.caller,
    sa.func.count().label("entries"),
    _sum(entries_table.c.size).label("size"),
).group_by(entries_table.c.caller)
COUNT_USAGE_OF_NUMBERS: Final = COUNT_USAGE.where(
    entries_table.c.number.in_(sa.bindparam("numbers", expanding=True))
)
# What these `callers` use, and what all do.
SELECT_USAGE: Final = sa.select(usage_table).where(
    usage_table.c.caller.in_(sa.bindparam("callers", expanding=True))
)
SELECT_TOTAL_USAGE: Final = sa.select(
    _sum(usage_table.c.entries).label("entries"), _sum(usage_table.c.size).label("size")
)
INSERT_USAGE: Final = sa.insert(usage_table)
# Of the caller `of`.
UPDATE_USAGE: Final = (
    sa.update(usage_table)
    .where(usage_table.c.caller == sa.bindparam("of"))
    .values(
        entries=usage_table.c.entries + sa.bindparam("more_entries"),
        size=usage_table.c.size + sa.bindparam("more_bytes"),
    )
)
SELECT_COUNTS: Final = sa.select(entries_table.c.state, sa.func.count()).group_by(
    entries_table.c.state
)
# The moment of the entry of a `state` that arrived first. Clocks may be set, numbers only grow.
SELECT_OLDEST: Final = (
    sa.select(entries_table.c.queued_at)
    .where(entries_table.c.state == sa.bindparam("state"))
    .order_by(entries_table.c.number)
    .limit(1)
)
SELECT_LAST_END: Final = sa.select(sa.func.max(entries_table.c.finished_at))
SELECT_IS_DELIVERABLE: Final = sa.select(
    sa.exists().where(
        entries_table.c.behind.is_(None),
        entries_table.c.state.in_((EntryState.WAITING, EntryState.SENDING)),
    )
)
