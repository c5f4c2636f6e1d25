"""Steps that stand in the store until an audit has them: their process had none at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox.entry import Entry
from gateway.outbox.events import By, Note, RecordNotes, Step
from gateway.outbox.schema import notes

_MOST: Final = 100


async def note(
    connection: AsyncConnection, step: Step, noted: Sequence[Entry], by: By, at: float
) -> None:
    """Keep that somebody took this step with these entries, in the transaction of the step."""
    common = {"step": step, "by": _written(by), "at": at}
    rows = [{**common, "entry": entry.id, "caller": entry.caller} for entry in noted]
    if rows:
        await connection.execute(sa.insert(notes), rows)


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
    return Note(Step(row.step), row.entry, row.caller, _read(row.by), row.at)


def _written(by: By) -> str:
    """The way alone, as it was noted always; with more that is known as JSON."""
    return orjson.dumps(asdict(by)).decode() if by.operator or by.reason else by.way


def _read(text: str) -> By:
    return By(**orjson.loads(text)) if text.startswith("{") else By(text)
