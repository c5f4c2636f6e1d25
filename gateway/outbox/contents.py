"""The sealed contents of entries in the database: requests and responses, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import statements
from gateway.outbox.entry import Draft, Entry, Response
from gateway.outbox.judging import Ended
from gateway.outbox.schema import pieces
from gateway.outbox.sealing import (
    BrokenSeal,
    Cipher,
    Kind,
    Place,
    pack_request,
    pack_response,
)
from gateway.outbox.store import OutboxUnusable, Outcome
from gateway.phrases import Phrase

_CHANGED: Final = Phrase("holds a content that was changed from outside")
# Up to this size encrypting takes less time than a change of threads.
_INLINE: Final = 128 * 1024


class Contents:
    """Seals and opens with one cipher; what is given a connection belongs to its transaction."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    async def seal_request(self, entry_id: str, draft: Draft) -> tuple[list[bytes], int]:
        """The sealed pieces and the size of what they hold."""
        plain = pack_request(draft.request)
        place = Place(entry_id, draft.caller, draft.recovery, "request")
        return await self._seal(plain, place), len(plain)

    async def seal_responses(self, outcomes: Sequence[Outcome]) -> dict[int, list[bytes]]:
        """The sealed answers of those that have ended, by their numbers."""
        return {
            each.entry.number: await self.seal_response(each.entry, each.verdict.response)
            for each in outcomes
            if isinstance(each.verdict, Ended)
        }

    async def seal_response(self, entry: Entry, response: Response) -> list[bytes]:
        """The sealed pieces."""
        return await self._seal(pack_response(response), _place(entry, "response"))

    async def read(self, connection: AsyncConnection, entry: Entry, kind: Kind) -> bytes | None:
        """As `open`, of what is kept."""
        found = await sealed(connection, (entry.number,), kind)
        return await self.open(found[entry.number], entry, kind)

    async def open(self, sealed: Sequence[bytes], entry: Entry, kind: Kind) -> bytes | None:
        """A content in clear; None: there is none. Raises `OutboxUnusable` when it was changed."""
        if not sealed:
            return None
        try:
            if _is_small(sealed):
                return self._cipher.open(sealed, _place(entry, kind))
            return await asyncio.to_thread(self._cipher.open, sealed, _place(entry, kind))
        except BrokenSeal:
            raise OutboxUnusable(_CHANGED) from None

    async def _seal(self, plain: bytes, place: Place) -> list[bytes]:
        if len(plain) <= _INLINE:
            return self._cipher.seal(plain, place)
        return await asyncio.to_thread(self._cipher.seal, plain, place)


async def sealed(
    connection: AsyncConnection, numbers: Collection[int], kind: Kind
) -> Mapping[int, Sequence[bytes]]:
    """The sealed pieces of entries, by their numbers; nothing where there are none."""
    found: dict[int, list[bytes]] = {number: [] for number in numbers}
    for row in await connection.execute(statements.contents(numbers, kind)):
        found[row.entry].append(row.sealed)
    return found


async def keep(
    connection: AsyncConnection, kind: Kind, contents: Mapping[int, Sequence[bytes]]
) -> None:
    """Write entries' sealed pieces, in the place of any others."""
    await erase(connection, tuple(contents), kind)
    rows = [
        {"entry": number, "kind": kind, "place": place, "sealed": piece}
        for number, pieces_of_it in contents.items()
        for place, piece in enumerate(pieces_of_it)
    ]
    await connection.execute(sa.insert(pieces), rows)


async def erase(connection: AsyncConnection, numbers: Collection[int], *kinds: Kind) -> None:
    """Delete contents of entries, of these kinds or all."""
    of_kinds = (pieces.c.kind.in_(kinds),) if kinds else ()
    await connection.execute(sa.delete(pieces).where(pieces.c.entry.in_(tuple(numbers)), *of_kinds))


def _place(entry: Entry, kind: Kind) -> Place:
    return Place(entry.id, entry.caller, entry.recovery, kind)


def _is_small(sealed: Sequence[bytes]) -> bool:
    return sum(map(len, sealed)) <= _INLINE
