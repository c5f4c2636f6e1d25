"""The questions and changes that the store's methods are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from gateway.outbox.entry import BLOCKING, Draft, Entry, Recovery, State
from gateway.outbox.schema import alone, entries, orders, pieces
from gateway.outbox.store import Lease

_SHOWN: Final = (
    *(entries.c.number, entries.c.id, entries.c.caller, entries.c.state, entries.c.recovery),
    *(entries.c.doubt, entries.c.queued_at, entries.c.due_at, entries.c.finished_at),
    *(entries.c.attempts, entries.c.size, entries.c.cause),
)
_LEASE: Final = (*(entries.c.number, entries.c.attempts, entries.c.leased_until, entries.c.owner),)
# No pause and no lease is longer, in seconds: a later moment was set before the clock was put back.
_LONGEST_PAUSE: Final = 4000.0
_LONGEST_LEASE: Final = 60.0
# The platform is asked first whether it has it.
_ASKED_FOR: Final = entries.c.doubt & (entries.c.recovery == Recovery.ASK)
_OVER: Final = (State.DELIVERED, State.CANCELLED, State.DROPPED)


def entry_of(row: Any) -> Entry:
    """An entry of a row of the shown columns."""
    facts = row._asdict()
    return Entry(
        **{**facts, "state": State(facts["state"]), "recovery": Recovery(facts["recovery"])}
    )


def shown() -> sa.Select[Any]:
    """Entries."""
    return sa.select(*_SHOWN)


def locked(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Entries that nobody else has in hand, for a change."""
    return shown().where(*conditions).with_for_update(skip_locked=True, of=entries)


def arrival(draft: Draft, entry_id: str, size: int, now: float) -> sa.Insert:
    """A new entry, which gives it back with its number."""
    return (
        sa.insert(entries)
        .values(
            id=entry_id,
            caller=draft.caller,
            state=State.WAITING,
            recovery=draft.recovery,
            doubt=draft.doubt,
            queued_at=now,
            due_at=now + draft.delay,
            attempts=0,
            size=size,
            cause=draft.cause,
        )
        .returning(*_SHOWN)
    )


def ready(now: float, most: int, *, cautious: bool) -> sa.Select[Any]:
    """Entries that may be sent: due, and nothing of their orders before them.

    Those that are due longest come first: what has just failed lets others go before it.
    `cautious`: those that must not be repeated come last.
    """
    # What is due at once is so whatever the clock says meanwhile.
    at_once = entries.c.due_at == entries.c.queued_at
    is_due = at_once | _reached(entries.c.due_at, now, _LONGEST_PAUSE)
    due = (entries.c.state == State.WAITING, entries.c.behind.is_(None), is_due)
    first = [entries.c.recovery == Recovery.PARK] if cautious else []
    return locked(*due).order_by(*first, entries.c.due_at, entries.c.number).limit(most)


def placed(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Entries get told which earlier one they wait for, if there is one."""
    return sa.update(entries).where(*conditions).values(behind=_earlier())


def _earlier() -> sa.ColumnElement[int]:
    """One that has to be over before it: of its orders, or because of the order of everything."""
    mine, before, rest = orders.alias(), orders.alias(), entries.alias()
    latest = sa.select(sa.func.max(before.c.entry)).where(
        before.c.mark == mine.c.mark, before.c.entry < mine.c.entry
    )
    of_orders = sa.select(sa.func.max(latest.correlate(mine).scalar_subquery())).where(
        mine.c.entry == entries.c.number
    )
    of_everything = sa.select(sa.func.max(alone.c.entry)).where(
        alone.c.caller == entries.c.caller, alone.c.entry < entries.c.number
    )
    latest_of_all = sa.select(sa.func.max(rest.c.number)).where(
        rest.c.caller == entries.c.caller,
        rest.c.state.in_(BLOCKING),
        rest.c.number < entries.c.number,
    )
    has_it = sa.select(alone.c.entry).where(alone.c.entry == entries.c.number)
    # Only for one that has that order itself: all of the caller's are looked at.
    anything = sa.case(
        (
            has_it.correlate(entries).exists(),
            latest_of_all.correlate(entries).scalar_subquery(),
        )
    )
    ways = (each.correlate(entries).scalar_subquery() for each in (of_orders, of_everything))
    return sa.func.coalesce(*ways, anything)


def leases() -> sa.Select[Any]:
    """What is being sent: number, attempts, end and owner of the lease."""
    return sa.select(*_LEASE).where(entries.c.state == State.SENDING)


def interrupted(standing: Collection[Lease], dead: Collection[str], now: float) -> sa.Select[Any]:
    """Entries that have one of these leases still, and it has ended or its owner is dead."""
    known = [(each.number, each.attempts, each.until, each.owner) for each in standing]
    over = _reached(entries.c.leased_until, now, _LONGEST_LEASE) | entries.c.owner.in_(dead)
    return locked(entries.c.state == State.SENDING, sa.tuple_(*_LEASE).in_(known), over)


def hastened(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Entries that wait become due at once; the platform's index may lag for those in doubt."""
    waiting = sa.update(entries).where(entries.c.state == State.WAITING, ~_ASKED_FOR, *conditions)
    return waiting.values(due_at=entries.c.queued_at)


def set_back(now: float, settle: float) -> Sequence[sa.Update]:
    """Ends the pauses that were measured by a clock that was put back since."""
    late = (entries.c.state == State.WAITING, _ASKED_FOR, entries.c.due_at > now + settle)
    return (
        hastened(entries.c.due_at > now),
        sa.update(entries).where(*late).values(due_at=now + settle),
    )


def _reached(moment: sa.Column[Any], now: float, longest: float) -> sa.ColumnElement[bool]:
    return (moment <= now) | (moment > now + longest)


def blocked(marks: Collection[bytes]) -> sa.Select[Any]:
    """Whether anything of these orders is there."""
    return sa.select(sa.exists().where(orders.c.mark.in_(marks)))


def blocked_by_any(caller: str) -> sa.Select[Any]:
    """Whether anything of this caller's blocks."""
    mine = (entries.c.caller == caller, entries.c.state.in_(BLOCKING))
    return sa.select(sa.exists().where(*mine))


def change(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    """A change of entries, which gives what they became."""
    return sa.update(entries).where(*conditions).returning(*_SHOWN)


def standing(numbers: Collection[int]) -> sa.Select[Any]:
    """How these entries stand, for a change."""
    columns = (entries.c.number, entries.c.state, entries.c.owner, entries.c.attempts)
    found = sa.select(*columns, entries.c.doubt).where(entries.c.number.in_(numbers))
    return found.with_for_update()


def fullness(caller: str) -> sa.Select[Any]:
    """Number and bytes of what blocks: of everybody, and of this caller."""
    own = sa.case((entries.c.caller == caller, 1), else_=0)
    return sa.select(
        sa.func.count(), _sum(entries.c.size), _sum(own), _sum(own * entries.c.size)
    ).where(entries.c.state.in_(BLOCKING))


def _sum(what: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(what), 0)


def depth() -> sa.Select[Any]:
    """Number, bytes and oldest moment of each state."""
    return sa.select(
        entries.c.state,
        sa.func.count().label("entries"),
        _sum(entries.c.size).label("size"),
        sa.func.min(entries.c.queued_at).label("oldest"),
    ).group_by(entries.c.state)


def contents(numbers: Collection[int], kind: str) -> sa.Select[Any]:
    """The pieces of these entries' contents, each in order."""
    where = (pieces.c.entry.in_(numbers), pieces.c.kind == kind)
    return sa.select(pieces.c.entry, pieces.c.sealed).where(*where).order_by(pieces.c.place)


def forgettable(before: float) -> sa.Select[Any]:
    """Numbers of entries that were over before that moment."""
    return sa.select(entries.c.number).where(
        entries.c.state.in_(_OVER), entries.c.finished_at < before
    )
