"""The encrypted contents of entries in the database: requests and responses, in segments.

Each segment is bound to its entry and its position there.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.i18n import Message
from gateway.outbox.attempt_result import Decision
from gateway.outbox.entry import (
    FieldLines,
    NewEntry,
    OutboxEntry,
    QueuedRequest,
    RecoveryMode,
    StoredResponse,
    note_of,
)
from gateway.outbox.store import queries
from gateway.outbox.store.store_types import OutboxConfigurationError
from gateway.outbox.store.tables import segments_table

# The version of the encrypted format, and so of the keys derived for it.
_SCHEMA: Final = 1
_NONCE_BYTES: Final = 12
_LENGTH_BYTES: Final = 4
_CHANGED: Final = Message("contains data that was changed from outside")
# Bytes. Each segment is a row of the database: small enough for every driver, large enough for most
# bodies.
_SEGMENT_BYTES: Final = 1024 * 1024

ContentKind = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class ContentBinding:
    """What an encrypted content belongs to: these values cannot be changed without detection."""

    entry: str
    caller: str
    recovery: RecoveryMode
    kind: ContentKind

    def segment_binding(self, index: int, *, last: bool) -> bytes:
        """Return the associated data of one segment, which also fixes its position."""
        return orjson.dumps(
            (_SCHEMA, self.entry, self.caller, self.recovery, self.kind, index, last)
        )


class ContentCipher:
    """Encryption with keys derived from `key`, 32 bytes (AES-256-GCM; HKDF, RFC 5869)."""

    def __init__(self, key: bytes) -> None:
        info = f"dhp-gateway outbox {_SCHEMA}".encode()
        keys = HKDF(SHA256(), length=96, salt=None, info=info).derive(key)
        self._cipher = AESGCM(keys[:32])
        self._digest_key = keys[32:64]
        self.check = hmac.digest(keys[64:], b"check", hashlib.sha256).hex()

    def ordering_key_digest(self, caller: str, ordering_key: str) -> bytes:
        """Return the HMAC-SHA-256 of an ordering key.

        Without the secret it cannot be computed from a patient id.
        """
        return hmac.digest(self._digest_key, orjson.dumps((caller, ordering_key)), hashlib.sha256)

    def encrypt(self, plain: bytes, binding: ContentBinding) -> list[bytes]:
        """Return the encrypted segments, at least one."""
        starts = range(0, max(1, len(plain)), _SEGMENT_BYTES)
        return [
            self._encrypt_segment(
                plain[at : at + _SEGMENT_BYTES],
                binding.segment_binding(index, last=index == len(starts) - 1),
            )
            for index, at in enumerate(starts)
        ]

    def decrypt(self, segments: Sequence[bytes], binding: ContentBinding) -> bytes:
        """Return the plain text of at least one segment.

        Raises `OutboxConfigurationError` for another key or binding, also where a segment is
        missing.
        """
        last = len(segments) - 1
        try:
            return b"".join(
                self._cipher.decrypt(
                    segment[:_NONCE_BYTES],
                    segment[_NONCE_BYTES:],
                    binding.segment_binding(index, last=index == last),
                )
                for index, segment in enumerate(segments)
            )
        except (InvalidTag, ValueError):
            raise OutboxConfigurationError(_CHANGED) from None

    def _encrypt_segment(self, plain: bytes, associated_data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, associated_data)


def pack_request(request: QueuedRequest) -> bytes:
    """Return a request as bytes."""
    return _packed(
        {
            "method": request.method,
            "suffix": request.target_suffix,
            "credential": request.credential,
            "interaction": request.interaction,
            "resource": request.resource,
            "resource_id": request.resource_id,
            "request_id": request.request_id,
        },
        request.fields,
        request.body,
    )


def unpack_request(data: bytes) -> QueuedRequest:
    """Return the request that `pack_request` packed."""
    facts = _unpacked(data)
    return QueuedRequest(target_suffix=facts.pop("suffix"), **facts)


def pack_response(response: StoredResponse) -> bytes:
    """Return a response as bytes."""
    return _packed(
        {
            "status": response.status,
            "reason": response.reason,
            "note": response.note,
        },
        response.fields,
        response.body,
    )


def unpack_response(data: bytes) -> StoredResponse:
    """Return the response that `pack_response` packed."""
    facts = _unpacked(data)
    return StoredResponse(note=note_of(facts.pop("note")), **facts)


def _packed(facts: dict[str, Any], fields: FieldLines, body: bytes) -> bytes:
    head = orjson.dumps({**facts, "fields": _text(fields)})
    return len(head).to_bytes(_LENGTH_BYTES, "big") + head + body


def _unpacked(data: bytes) -> dict[str, Any]:
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    facts = orjson.loads(data[_LENGTH_BYTES:end])
    return {**facts, "fields": _fields(facts["fields"]), "body": data[end:]}


def _text(fields: FieldLines) -> list[tuple[str, str]]:
    # Latin-1 maps every octet to one character, so that nothing is lost.
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _fields(text: list[tuple[str, str]]) -> FieldLines:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in text)


_INSERT_SEGMENTS: Final = sa.insert(segments_table)
# Bytes. Up to this size encryption takes less time than switching to a thread.
_MAX_INLINE_BYTES: Final = 128 * 1024


class EncryptedContents:
    """Encryption and decryption of contents with one cipher.

    Contents of more than 128 KiB are processed in a thread.
    """

    def __init__(self, cipher: ContentCipher) -> None:
        self._cipher = cipher

    async def encrypt_request(self, entry_id: str, new_entry: NewEntry) -> tuple[list[bytes], int]:
        """Return the encrypted segments and the size of their plain text in bytes."""
        plain = pack_request(new_entry.request)
        binding = ContentBinding(entry_id, new_entry.caller, new_entry.recovery, "request")
        return await self._encrypt(plain, binding), len(plain)

    async def encrypt_responses(self, decisions: Sequence[Decision]) -> dict[int, list[bytes]]:
        """Return the encrypted responses of the decisions that have one, by entry number."""
        return {
            decision.entry.number: await self.encrypt_response(decision.entry, decision.response)
            for decision in decisions
            if decision.response is not None
        }

    async def encrypt_response(self, entry: OutboxEntry, response: StoredResponse) -> list[bytes]:
        """Return the encrypted segments of a response."""
        return await self._encrypt(pack_response(response), _binding(entry, "response"))

    def encrypt_note(self, entry: OutboxEntry, response: StoredResponse) -> list[bytes]:
        """Return the encrypted segments of a response without a body."""
        return self._cipher.encrypt(pack_response(response), _binding(entry, "response"))

    async def decrypt(
        self, sealed: Sequence[bytes], entry: OutboxEntry, kind: ContentKind
    ) -> bytes | None:
        """Return a content in plain text; None where there is none.

        Raises `OutboxConfigurationError` when it was modified.
        """
        if not sealed:
            return None
        if sum(map(len, sealed)) <= _MAX_INLINE_BYTES:
            return self._cipher.decrypt(sealed, _binding(entry, kind))
        return await asyncio.to_thread(self._cipher.decrypt, sealed, _binding(entry, kind))

    async def _encrypt(self, plain: bytes, binding: ContentBinding) -> list[bytes]:
        if len(plain) <= _MAX_INLINE_BYTES:
            return self._cipher.encrypt(plain, binding)
        return await asyncio.to_thread(self._cipher.encrypt, plain, binding)


def load_segments(
    connection: sa.Connection, numbers: Collection[int], kind: ContentKind
) -> Mapping[int, Sequence[bytes]]:
    """Return encrypted segments by entry number; an empty list where an entry has none."""
    found: dict[int, list[bytes]] = {number: [] for number in numbers}
    for row in connection.execute(queries.select_segments(numbers, kind)):
        found[row.entry].append(row.sealed)
    return found


def save_segments(
    connection: sa.Connection, kind: ContentKind, contents: Mapping[int, Sequence[bytes]]
) -> None:
    """Store encrypted segments of entries, by entry number, and replace any earlier ones."""
    delete_segments(connection, tuple(contents), kind)
    insert_segments(connection, kind, contents)


def insert_segments(
    connection: sa.Connection, kind: ContentKind, contents: Mapping[int, Sequence[bytes]]
) -> None:
    """Store the first encrypted segments of entries, by entry number."""
    connection.execute(
        _INSERT_SEGMENTS,
        [
            {"entry": number, "kind": kind, "place": index, "sealed": segment}
            for number, segments in contents.items()
            for index, segment in enumerate(segments)
        ],
    )


def delete_segments(
    connection: sa.Connection, numbers: Collection[int], *kinds: ContentKind
) -> None:
    """Delete contents of entries: those of the given kinds, or all."""
    of_kinds = (segments_table.c.kind.in_(kinds),) if kinds else ()
    connection.execute(
        sa.delete(segments_table).where(segments_table.c.entry.in_(tuple(numbers)), *of_kinds)
    )


def _binding(entry: OutboxEntry, kind: ContentKind) -> ContentBinding:
    return ContentBinding(entry.id, entry.caller, entry.recovery, kind)
