"""The sealed contents of entries in the database: requests and responses, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import statements
from gateway.outbox.entry import Draft, Entry, Response
from gateway.outbox.schema import pieces
from gateway.outbox.sealing import (
    BrokenSeal,
    Cipher,
    Kind,
    Place,
    pack_request,
    pack_response,
)
from gateway.outbox.store import OutboxUnusable

# Up to this size encrypting takes less time than a change of threads.
_INLINE: Final = 128 * 1024
_KINDS: Final[tuple[Kind, ...]] = ("request", "response")


class Contents:
    """Seals and opens with one cipher; what is given a connection belongs to its transaction."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def seal_request(self, entry_id: str, draft: Draft) -> tuple[list[bytes], int]:
        """The sealed pieces and the size of what they hold."""
        plain = pack_request(draft.request)
        place = Place(entry_id, draft.caller, draft.recovery, "request")
        return await self._seal(plain, place), len(plain)

    async def seal_response(self, entry: Entry, response: Response) -> list[bytes]:
        """The sealed pieces."""
        return await self._seal(pack_response(response), _place(entry, "response"))

    async def read(self, connection: AsyncConnection, entry: Entry, kind: Kind) -> bytes | None:
        """A content in clear; None: there is none. Raises `OutboxUnusable` when it was changed."""
        found = await connection.execute(statements.content(entry.number, kind))
        sealed = [row.sealed for row in found]
        if not sealed:
            return None
        try:
            if _is_small(sealed):
                return self._cipher.open(sealed, _place(entry, kind))
            return await asyncio.to_thread(self._cipher.open, sealed, _place(entry, kind))
        except BrokenSeal:
            raise OutboxUnusable("holds a content that was changed from outside") from None

    async def _seal(self, plain: bytes, place: Place) -> list[bytes]:
        if len(plain) <= _INLINE:
            return self._cipher.seal(plain, place)
        return await asyncio.to_thread(self._cipher.seal, plain, place)


async def keep(
    connection: AsyncConnection, number: int, kind: Kind, sealed: Sequence[bytes]
) -> None:
    """Write sealed pieces, in the place of any others."""
    await erase(connection, number, (kind,))
    rows = [
        {"entry": number, "kind": kind, "place": place, "sealed": piece}
        for place, piece in enumerate(sealed)
    ]
    await connection.execute(sa.insert(pieces), rows)


async def erase(connection: AsyncConnection, number: int, kinds: Iterable[Kind] = _KINDS) -> None:
    """Delete contents of an entry."""
    where = (pieces.c.entry == number, pieces.c.kind.in_(tuple(kinds)))
    await connection.execute(sa.delete(pieces).where(*where))


def _place(entry: Entry, kind: Kind) -> Place:
    return Place(entry.id, entry.caller, entry.recovery, kind)


def _is_small(sealed: Sequence[bytes]) -> bool:
    return sum(map(len, sealed)) <= _INLINE
