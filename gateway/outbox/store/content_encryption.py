"""Encryption of what is stored of a write. It is bound to its entry and its position there."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from gateway.outbox.entry import QueuedRequest, StoredResponse, note_of

if TYPE_CHECKING:
    from gateway.outbox.entry import FieldLines, RecoveryMode

# The version of the encrypted format, and so of the keys derived for it.
_SCHEMA: Final = 1
_NONCE_BYTES: Final = 12
_LENGTH_BYTES: Final = 4
# Bytes. Each segment is a row of the database: small enough for every driver, large enough for most
# bodies.
_SEGMENT_BYTES: Final = 1024 * 1024

ContentKind = Literal["request", "response"]


class DecryptionError(Exception):
    """The data is not what was encrypted with this key for this binding."""


@dataclass(frozen=True, slots=True)
class ContentBinding:
    """What an encrypted content belongs to: these values cannot be changed without detection."""

    entry: str
    caller: str
    recovery: RecoveryMode
    kind: ContentKind

    def segment_binding(self, index: int, *, last: bool) -> bytes:
        """Return the associated data of one segment, which also fixes its position."""
        parts = (_SCHEMA, self.entry, self.caller, self.recovery, self.kind, index, last)
        return orjson.dumps(parts)


class ContentCipher:
    """Encryption with keys derived from `key`, 32 bytes (AES-256-GCM; HKDF, RFC 5869)."""

    def __init__(self, key: bytes) -> None:
        # Imported here because it takes time and memory, and a gateway without an outbox also
        # imports this module.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"dhp-gateway outbox {_SCHEMA}".encode()
        keys = HKDF(SHA256(), length=96, salt=None, info=info).derive(key)
        self._cipher = AESGCM(keys[:32])
        self._digest_key = keys[32:64]
        self._broken = (InvalidTag, ValueError)
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
        """Return the plain text. Raises `DecryptionError`, also where a segment is missing."""
        last = len(segments) - 1
        if last < 0:
            raise DecryptionError
        try:
            return b"".join(
                self._cipher.decrypt(
                    segment[:_NONCE_BYTES],
                    segment[_NONCE_BYTES:],
                    binding.segment_binding(index, last=index == last),
                )
                for index, segment in enumerate(segments)
            )
        except self._broken:
            raise DecryptionError from None

    def _encrypt_segment(self, plain: bytes, associated_data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, associated_data)


def pack_request(request: QueuedRequest) -> bytes:
    """Return a request as bytes."""
    facts = {
        "method": request.method,
        "suffix": request.target_suffix,
        "credential": request.credential,
        "interaction": request.interaction,
        "resource": request.resource,
        "resource_id": request.resource_id,
        "request_id": request.request_id,
        "gateway_base": request.gateway_base,
    }
    return _packed(facts, request.fields, request.body)


def unpack_request(data: bytes) -> QueuedRequest:
    """Return the request that `pack_request` packed."""
    facts = _unpacked(data)
    return QueuedRequest(target_suffix=facts.pop("suffix"), **facts)


def pack_response(response: StoredResponse) -> bytes:
    """Return a response as bytes."""
    facts = {
        "status": response.status,
        "reason": response.reason,
        "note": response.note,
        "found": response.is_verified,
    }
    return _packed(facts, response.fields, response.body)


def unpack_response(data: bytes) -> StoredResponse:
    """Return the response that `pack_response` packed."""
    facts = _unpacked(data)
    note, is_verified = note_of(facts.pop("note")), facts.pop("found", False)
    return StoredResponse(note=note, is_verified=is_verified, **facts)


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
