"""Steps that stand in the store until an audit has them: their process had none at hand."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox.events import Note, RecordNotes, Step
from gateway.outbox.schema import notes

_MOST: Final = 100


async def note(connection: AsyncConnection, what: Note) -> None:
    """Keep it, in the transaction of the step itself."""
    fields = {"step": what.step, "entry": what.entry, "caller": what.caller}
    await connection.execute(sa.insert(notes).values(**fields, by=what.by, at=what.at))


async def any_noted(connection: AsyncConnection) -> bool:
    """Whether there is something to take."""
    query = sa.select(sa.exists().select_from(notes))
    return bool((await connection.execute(query)).scalar_one())


async def take(connection: AsyncConnection, record: RecordNotes, recorded: set[int]) -> set[int]:
    """Have the oldest recorded and forget them; the numbers of these.

    Nobody else has them in hand meanwhile. `recorded` learns what is recorded, so that it is not
    again where the transaction fails; it may come twice if the process dies before that ends.
    """
    query = sa.select(notes).order_by(notes.c.number).limit(_MOST)
    rows = (await connection.execute(query.with_for_update(skip_locked=True))).all()
    new = [row for row in rows if row.number not in recorded]
    if new and await record([_note(row) for row in new]):
        recorded.update(row.number for row in new)
    taken = {row.number for row in rows} & recorded
    if taken:
        await connection.execute(sa.delete(notes).where(notes.c.number.in_(taken)))
    return taken


def _note(row: sa.Row[Any]) -> Note:
    return Note(Step(row.step), row.entry, row.caller, row.by, row.at)
