"""What the store tells of its entries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import statements
from gateway.outbox.contents import Contents
from gateway.outbox.database import Database
from gateway.outbox.entry import BLOCKING, Entry, Request, Response, State
from gateway.outbox.schema import entries
from gateway.outbox.sealing import unpack_request, unpack_response
from gateway.outbox.shielded import Works, unbroken
from gateway.outbox.statements import entry_of
from gateway.outbox.store import Depth, Group


class SqlReading:
    """The part of `SqlStore` that changes nothing."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self.works = Works()

    @unbroken
    async def entry(self, entry_id: str) -> Entry | None:
        """One entry."""
        async with self._database.reading() as connection:
            return await find(connection, entry_id)

    @unbroken
    async def entries(
        self,
        *,
        caller: str | None = None,
        states: Collection[State] = (),
        cause: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Entries in the order of arrival, with numbers above `after`; no states: all."""
        query = statements.shown().where(entries.c.number > after)
        if caller is not None:
            query = query.where(entries.c.caller == caller)
        if cause is not None:
            query = query.where(entries.c.cause == cause)
        if states:
            query = query.where(entries.c.state.in_(states))
        async with self._database.reading() as connection:
            found = await connection.execute(query.order_by(entries.c.number).limit(limit))
            return [entry_of(row) for row in found]

    @unbroken
    async def groups(self) -> Sequence[Group]:
        """What blocks, by state, cause and caller."""
        kind = (entries.c.state, entries.c.cause, entries.c.caller)
        told = (sa.func.count(), sa.func.min(entries.c.queued_at))
        query = sa.select(*kind, *told).where(entries.c.state.in_(BLOCKING)).group_by(*kind)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.order_by(*kind))).all()
        return [Group(State(state), *rest) for state, *rest in rows]

    @unbroken
    async def request(self, entry_id: str) -> Request | None:
        """The write itself; None when it was erased."""
        async with self._database.reading() as connection:
            entry = await find(connection, entry_id)
            return None if entry is None else await self._request(connection, entry)

    @unbroken
    async def response(self, entry_id: str) -> Response | None:
        """How it ended; None while it has not."""
        async with self._database.reading() as connection:
            entry = await find(connection, entry_id)
            return None if entry is None else await self._response(connection, entry)

    async def _request(self, connection: AsyncConnection, entry: Entry) -> Request | None:
        plain = await self._contents.read(connection, entry, "request")
        return None if plain is None else unpack_request(plain)

    async def _response(self, connection: AsyncConnection, entry: Entry) -> Response | None:
        plain = await self._contents.read(connection, entry, "response")
        return None if plain is None else unpack_response(plain)

    @unbroken
    async def depth(self) -> Depth:
        """How full it is."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(statements.depth())).all()
        blocking = [row for row in rows if State(row.state) in BLOCKING]
        return Depth(
            {State(row.state): row.entries for row in rows},
            sum(int(row.size) for row in blocking),
            min((row.oldest for row in blocking), default=None),
        )


async def find(connection: AsyncConnection, entry_id: str) -> Entry | None:
    """One entry, by its id."""
    query = statements.shown().where(entries.c.id == entry_id)
    row = (await connection.execute(query)).first()
    return None if row is None else entry_of(row)
