"""Pending audit records: steps that stay in the store until an audit trail has recorded them.

They are stored because the process that took the step had no audit trail to write to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox.entry import OutboxEntry
from gateway.outbox.events import Actor, OutboxStep, PendingAuditRecord, RecordPending
from gateway.outbox.schema import pending_records_table

_MAX_RECORDS: Final = 100


async def add_pending_records(
    connection: AsyncConnection,
    step: OutboxStep,
    entries: Sequence[OutboxEntry],
    actor: Actor,
    at: float,
) -> None:
    """Store that `actor` took this step with these entries, in the transaction of the step.

    `at` is a Unix time.
    """
    common = {"step": step, "by": _encode_actor(actor), "at": at}
    rows = [{**common, "entry": entry.id, "caller": entry.caller} for entry in entries]
    if rows:
        await connection.execute(sa.insert(pending_records_table), rows)


async def has_pending_records(connection: AsyncConnection) -> bool:
    """Return whether any pending record is stored."""
    query = sa.select(sa.exists().select_from(pending_records_table))
    return bool((await connection.execute(query)).scalar_one())


async def drain_pending_records(
    connection: AsyncConnection, record: RecordPending, recorded: set[int]
) -> set[int]:
    """Pass the oldest pending records to `record`, delete them, and return their numbers.

    No other process records them meanwhile: their rows are locked, with SQLite the whole database.
    The numbers of recorded ones are added to `recorded`, so that they are not recorded again if the
    transaction fails. A record may appear twice if the process dies before the transaction ends.
    """
    query = (
        sa.select(pending_records_table)
        .order_by(pending_records_table.c.number)
        .limit(_MAX_RECORDS)
    )
    rows = (await connection.execute(query.with_for_update(skip_locked=True))).all()
    new = [row for row in rows if row.number not in recorded]
    if new and await record([_record_of_row(row) for row in new]):
        recorded.update(row.number for row in new)
    deleted = {row.number for row in rows} & recorded
    if deleted:
        await connection.execute(
            sa.delete(pending_records_table).where(pending_records_table.c.number.in_(deleted))
        )
    return deleted


def _record_of_row(row: sa.Row[Any]) -> PendingAuditRecord:
    return PendingAuditRecord(
        OutboxStep(row.step), row.entry, row.caller, _decode_actor(row.by), row.at
    )


def _encode_actor(actor: Actor) -> str:
    """Return the channel alone, as all versions store it, or JSON if there is more to store."""
    if not (actor.operator or actor.reason):
        return actor.channel
    stored = {"way": actor.channel, "operator": actor.operator, "reason": actor.reason}
    return orjson.dumps(stored).decode()


def _decode_actor(text: str) -> Actor:
    if not text.startswith("{"):
        return Actor(text)
    stored = orjson.loads(text)
    return Actor(stored.pop("way"), **stored)
