"""The encrypted contents of entries in the database: requests and responses, in segments."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.i18n import Message
from gateway.outbox.attempt_result import FinalOutcome
from gateway.outbox.store import queries
from gateway.outbox.store.content_encryption import (
    ContentBinding,
    DecryptionError,
    pack_request,
    pack_response,
)
from gateway.outbox.store.store_types import OutboxConfigurationError
from gateway.outbox.store.tables import segments_table

if TYPE_CHECKING:
    from gateway.outbox.entry import NewEntry, OutboxEntry, StoredResponse
    from gateway.outbox.store.content_encryption import ContentCipher, ContentKind
    from gateway.outbox.store.store_types import AttemptOutcome

_CHANGED: Final = Message("holds a content that was changed from outside")
# Bytes. Up to this size encryption takes less time than switching to a thread.
_MAX_INLINE_BYTES: Final = 128 * 1024


class EncryptedContents:
    """Encryption and decryption of contents with one cipher.

    A method with a `connection` works in the transaction of that connection. Contents of more than
    128 KiB are processed in a thread.
    """

    def __init__(self, cipher: ContentCipher) -> None:
        self._cipher = cipher

    async def encrypt_request(self, entry_id: str, new_entry: NewEntry) -> tuple[list[bytes], int]:
        """Return the encrypted segments and the size of their plain text in bytes."""
        plain = pack_request(new_entry.request)
        binding = ContentBinding(entry_id, new_entry.caller, new_entry.recovery, "request")
        return await self._encrypt(plain, binding), len(plain)

    async def encrypt_responses(self, outcomes: Sequence[AttemptOutcome]) -> dict[int, list[bytes]]:
        """Return the encrypted responses of the final outcomes, by entry number."""
        return {
            outcome.entry.number: await self.encrypt_response(
                outcome.entry, outcome.transition.response
            )
            for outcome in outcomes
            if isinstance(outcome.transition, FinalOutcome)
        }

    async def encrypt_response(self, entry: OutboxEntry, response: StoredResponse) -> list[bytes]:
        """Return the encrypted segments of a response."""
        return await self._encrypt(pack_response(response), _binding(entry, "response"))

    async def read(
        self, connection: AsyncConnection, entry: OutboxEntry, kind: ContentKind
    ) -> bytes | None:
        """Load a content and return it as `decrypt` does."""
        found = await load_segments(connection, (entry.number,), kind)
        return await self.decrypt(found[entry.number], entry, kind)

    async def decrypt(
        self, sealed: Sequence[bytes], entry: OutboxEntry, kind: ContentKind
    ) -> bytes | None:
        """Return a content in plain text; None where there is none.

        Raises `OutboxConfigurationError` when it was modified.
        """
        if not sealed:
            return None
        try:
            if _is_small(sealed):
                return self._cipher.decrypt(sealed, _binding(entry, kind))
            return await asyncio.to_thread(self._cipher.decrypt, sealed, _binding(entry, kind))
        except DecryptionError:
            raise OutboxConfigurationError(_CHANGED) from None

    async def _encrypt(self, plain: bytes, binding: ContentBinding) -> list[bytes]:
        if len(plain) <= _MAX_INLINE_BYTES:
            return self._cipher.encrypt(plain, binding)
        return await asyncio.to_thread(self._cipher.encrypt, plain, binding)


async def load_segments(
    connection: AsyncConnection, numbers: Collection[int], kind: ContentKind
) -> Mapping[int, Sequence[bytes]]:
    """Return encrypted segments by entry number; an empty list where an entry has none."""
    found: dict[int, list[bytes]] = {number: [] for number in numbers}
    for row in await connection.execute(queries.select_segments(numbers, kind)):
        found[row.entry].append(row.sealed)
    return found


async def save_segments(
    connection: AsyncConnection, kind: ContentKind, contents: Mapping[int, Sequence[bytes]]
) -> None:
    """Store encrypted segments of entries, by entry number, and replace any earlier ones."""
    await delete_segments(connection, tuple(contents), kind)
    rows = [
        {"entry": number, "kind": kind, "place": index, "sealed": segment}
        for number, segments in contents.items()
        for index, segment in enumerate(segments)
    ]
    await connection.execute(sa.insert(segments_table), rows)


async def delete_segments(
    connection: AsyncConnection, numbers: Collection[int], *kinds: ContentKind
) -> None:
    """Delete contents of entries: those of the given kinds, or all."""
    of_kinds = (segments_table.c.kind.in_(kinds),) if kinds else ()
    await connection.execute(
        sa.delete(segments_table).where(segments_table.c.entry.in_(tuple(numbers)), *of_kinds)
    )


def _binding(entry: OutboxEntry, kind: ContentKind) -> ContentBinding:
    return ContentBinding(entry.id, entry.caller, entry.recovery, kind)


def _is_small(sealed: Sequence[bytes]) -> bool:
    return sum(map(len, sealed)) <= _MAX_INLINE_BYTES
