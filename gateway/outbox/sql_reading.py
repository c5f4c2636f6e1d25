"""The queries of the store: everything that reads entries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import statements
from gateway.outbox.contents import EncryptedContents
from gateway.outbox.database import Database
from gateway.outbox.entry import BLOCKING, EntryState, OutboxEntry, QueuedRequest, StoredResponse
from gateway.outbox.schema import entries_table
from gateway.outbox.sealing import unpack_request, unpack_response
from gateway.outbox.shielded import ShieldedTasks, shielded
from gateway.outbox.statements import entry_from_row
from gateway.outbox.store import EntryGroup, QueueDepth


class SqlQueries:
    """The part of `SqlStore` that changes nothing."""

    def __init__(self, database: Database, contents: EncryptedContents) -> None:
        self._database = database
        self._contents = contents
        self.shielded_tasks = ShieldedTasks()

    @shielded
    async def entry(self, entry_id: str) -> OutboxEntry | None:
        """Return one entry."""
        async with self._database.read_transaction() as connection:
            return await find_entry(connection, entry_id)

    @shielded
    async def entries(
        self,
        *,
        caller: str | None = None,
        states: Collection[EntryState] = (),
        cause: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[OutboxEntry]:
        """Return entries in the order of arrival, with numbers above `after`; no `states`: all."""
        query = statements.select_entries().where(entries_table.c.number > after)
        if caller is not None:
            query = query.where(entries_table.c.caller == caller)
        if cause is not None:
            query = query.where(entries_table.c.cause == cause)
        if states:
            query = query.where(entries_table.c.state.in_(states))
        async with self._database.read_transaction() as connection:
            found = await connection.execute(query.order_by(entries_table.c.number).limit(limit))
            return [entry_from_row(row) for row in found]

    @shielded
    async def undelivered_groups(self) -> Sequence[EntryGroup]:
        """Return the number of blocking entries by state, cause and caller."""
        columns = (entries_table.c.state, entries_table.c.cause, entries_table.c.caller)
        aggregates = (sa.func.count(), sa.func.min(entries_table.c.queued_at))
        query = (
            sa.select(*columns, *aggregates)
            .where(entries_table.c.state.in_(BLOCKING))
            .group_by(*columns)
        )
        async with self._database.read_transaction() as connection:
            rows = (await connection.execute(query.order_by(*columns))).all()
        return [EntryGroup(EntryState(state), *rest) for state, *rest in rows]

    @shielded
    async def request(self, entry_id: str) -> QueuedRequest | None:
        """Return the write in plain text; None when it was erased."""
        async with self._database.read_transaction() as connection:
            entry = await find_entry(connection, entry_id)
            return None if entry is None else await self._request(connection, entry)

    @shielded
    async def response(self, entry_id: str) -> StoredResponse | None:
        """Return the outcome in plain text; None while there is none."""
        async with self._database.read_transaction() as connection:
            entry = await find_entry(connection, entry_id)
            return None if entry is None else await self._response(connection, entry)

    async def _request(
        self, connection: AsyncConnection, entry: OutboxEntry
    ) -> QueuedRequest | None:
        plain = await self._contents.read(connection, entry, "request")
        return None if plain is None else unpack_request(plain)

    async def _response(
        self, connection: AsyncConnection, entry: OutboxEntry
    ) -> StoredResponse | None:
        plain = await self._contents.read(connection, entry, "response")
        return None if plain is None else unpack_response(plain)

    @shielded
    async def depth(self) -> QueueDepth:
        """Return the number of entries by state, and the size and age of those that block."""
        async with self._database.read_transaction() as connection:
            rows = (await connection.execute(statements.select_depth())).all()
        blocking = [row for row in rows if EntryState(row.state) in BLOCKING]
        return QueueDepth(
            {EntryState(row.state): row.entries for row in rows},
            sum(int(row.size) for row in blocking),
            min((row.oldest for row in blocking), default=None),
        )


async def find_entry(connection: AsyncConnection, entry_id: str) -> OutboxEntry | None:
    """Return one entry by its id."""
    query = statements.select_entries().where(entries_table.c.id == entry_id)
    row = (await connection.execute(query)).first()
    return None if row is None else entry_from_row(row)
