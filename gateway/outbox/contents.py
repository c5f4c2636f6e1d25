"""The sealed contents of entries in the database: requests and responses, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox import statements
from gateway.outbox.entry import NewEntry, OutboxEntry, StoredResponse
from gateway.outbox.judging import FinalOutcome
from gateway.outbox.schema import segments_table
from gateway.outbox.sealing import (
    ContentBinding,
    ContentCipher,
    ContentKind,
    DecryptionError,
    pack_request,
    pack_response,
)
from gateway.outbox.store import AttemptOutcome, OutboxConfigurationError
from gateway.phrases import Phrase

_CHANGED: Final = Phrase("holds a content that was changed from outside")
# Up to this size encrypting takes less time than a change of threads.
_INLINE: Final = 128 * 1024


class EncryptedContents:
    """Seals and opens with one cipher; what is given a connection belongs to its transaction."""

    def __init__(self, cipher: ContentCipher) -> None:
        self._cipher = cipher

    async def encrypt_request(self, entry_id: str, draft: NewEntry) -> tuple[list[bytes], int]:
        """The sealed pieces and the size of what they hold."""
        plain = pack_request(draft.request)
        place = ContentBinding(entry_id, draft.caller, draft.recovery, "request")
        return await self._encrypt(plain, place), len(plain)

    async def encrypt_responses(self, outcomes: Sequence[AttemptOutcome]) -> dict[int, list[bytes]]:
        """The sealed answers of those that have ended, by their numbers."""
        return {
            each.entry.number: await self.encrypt_response(each.entry, each.transition.response)
            for each in outcomes
            if isinstance(each.transition, FinalOutcome)
        }

    async def encrypt_response(self, entry: OutboxEntry, response: StoredResponse) -> list[bytes]:
        """The sealed pieces."""
        return await self._encrypt(pack_response(response), _binding(entry, "response"))

    async def read(
        self, connection: AsyncConnection, entry: OutboxEntry, kind: ContentKind
    ) -> bytes | None:
        """As `decrypt`, of what is kept."""
        found = await load_segments(connection, (entry.number,), kind)
        return await self.decrypt(found[entry.number], entry, kind)

    async def decrypt(
        self, sealed: Sequence[bytes], entry: OutboxEntry, kind: ContentKind
    ) -> bytes | None:
        """A content in clear; None: there is none.

        Raises `OutboxConfigurationError` when it was changed.
        """
        if not sealed:
            return None
        try:
            if _is_small(sealed):
                return self._cipher.decrypt(sealed, _binding(entry, kind))
            return await asyncio.to_thread(self._cipher.decrypt, sealed, _binding(entry, kind))
        except DecryptionError:
            raise OutboxConfigurationError(_CHANGED) from None

    async def _encrypt(self, plain: bytes, place: ContentBinding) -> list[bytes]:
        if len(plain) <= _INLINE:
            return self._cipher.encrypt(plain, place)
        return await asyncio.to_thread(self._cipher.encrypt, plain, place)


async def load_segments(
    connection: AsyncConnection, numbers: Collection[int], kind: ContentKind
) -> Mapping[int, Sequence[bytes]]:
    """The sealed pieces of entries, by their numbers; nothing where there are none."""
    found: dict[int, list[bytes]] = {number: [] for number in numbers}
    for row in await connection.execute(statements.select_segments(numbers, kind)):
        found[row.entry].append(row.sealed)
    return found


async def save_segments(
    connection: AsyncConnection, kind: ContentKind, contents: Mapping[int, Sequence[bytes]]
) -> None:
    """Write entries' sealed pieces, in the place of any others."""
    await delete_segments(connection, tuple(contents), kind)
    rows = [
        {"entry": number, "kind": kind, "place": place, "sealed": piece}
        for number, pieces_of_it in contents.items()
        for place, piece in enumerate(pieces_of_it)
    ]
    await connection.execute(sa.insert(segments_table), rows)


async def delete_segments(
    connection: AsyncConnection, numbers: Collection[int], *kinds: ContentKind
) -> None:
    """Delete contents of entries, of these kinds or all."""
    of_kinds = (segments_table.c.kind.in_(kinds),) if kinds else ()
    await connection.execute(
        sa.delete(segments_table).where(segments_table.c.entry.in_(tuple(numbers)), *of_kinds)
    )


def _binding(entry: OutboxEntry, kind: ContentKind) -> ContentBinding:
    return ContentBinding(entry.id, entry.caller, entry.recovery, kind)


def _is_small(sealed: Sequence[bytes]) -> bool:
    return sum(map(len, sealed)) <= _INLINE
