"""Decodes and re-encodes compressed bodies chunk by chunk, so that their content can be changed.

Bodies are encoded only for recipients that accept that. The gateway requests only gzip and identity
from the platform, which every server supports. Some platforms compress without a request, and old
systems would show the bytes: deflate is decoded as well. The ratio of an expansion has no limit,
which could break a legitimate response full of blanks; it costs mostly its own exchange's time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Protocol

from gateway.http.headers import list_elements

STEP_BYTES: Final = 64 * 1024
"""The maximum of bytes that are transformed in one step: longer work would block the event loop."""

DECODABLE: Final = frozenset(("gzip", "deflate"))
"""The content codings that can be decoded here, named as by `parse_content_encoding`."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 4
_CM: Final = 0x0F
_GZIP_NAMES: Final = frozenset((b"gzip", b"x-gzip"))


class ContentCodingError(Exception):
    """The body is not valid in the coding that its Content-Encoding names."""


class BodyTransform(Protocol):
    """Changes a body chunk by chunk."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on of the body up to and including `chunk`."""

    def finish(self) -> bytes:
        """Return the rest at the end of the body."""

    def transform_complete(self, body: bytes) -> list[bytes] | None:
        """Return what `feed` and `finish` would return for a complete body of at most two steps.

        The result is a list of chunks, together not much longer than the body, and saves a copy.
        None if `feed` and `finish` must be called.
        """


def feed_in_steps(transform: BodyTransform, chunk: bytes) -> Iterator[bytes]:
    """Feed a chunk to a transform, in steps of bounded work between which other tasks may run.

    However large the content of a small chunk is, only one step of it is in memory at a time.
    Raises `ContentCodingError`.
    """
    if isinstance(transform, DecodingTransform):
        yield from transform.feed_in_steps(chunk)
    else:
        for at in range(0, len(chunk), STEP_BYTES):
            yield transform.feed(chunk[at : at + STEP_BYTES])


class DecodingTransform:
    """Decodes a coding of `DECODABLE` and applies an optional transform to the content.

    All methods raise `ContentCodingError`. A body in gzip may have several members (RFC 1952).
    """

    def __init__(self, coding: str, inner: BodyTransform | None = None) -> None:
        self._inner = inner
        self._coding = coding
        self._decompressor = zlib.decompressobj(_GZIP)
        self._has_started = False
        self._is_in_member = False

    def feed(self, chunk: bytes) -> bytes:
        return b"".join(self.feed_in_steps(chunk))

    def feed_in_steps(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what `feed` returns, for at most `STEP_BYTES` of the content at a time."""
        for at in range(0, len(chunk), STEP_BYTES):
            part = chunk[at : at + STEP_BYTES]
            while part:
                plain, part = self._decode(part)
                yield self._changed(plain)

    def _decode(self, part: bytes) -> tuple[bytes, bytes]:
        """Return at most `STEP_BYTES` of content, and the encoded bytes that are left."""
        if not self._is_in_member:
            self._begin(part)
        try:
            plain = self._decompressor.decompress(part, STEP_BYTES)
        except zlib.error:
            raise ContentCodingError from None
        if not self._decompressor.eof:
            return plain, self._decompressor.unconsumed_tail
        self._is_in_member = False
        return plain, self._decompressor.unused_data

    def _begin(self, part: bytes) -> None:
        if self._coding == "gzip":
            self._decompressor = zlib.decompressobj(_GZIP)
        elif self._has_started:
            # A body in deflate has no second member.
            raise ContentCodingError
        else:
            # RFC 9110 section 8.4.1.2 requires zlib's format (RFC 1950). Some servers send bare
            # deflate, whose first byte never looks like that of zlib's format.
            bits = zlib.MAX_WBITS if part[0] & _CM == zlib.DEFLATED else -zlib.MAX_WBITS
            self._decompressor = zlib.decompressobj(bits)
        self._has_started = self._is_in_member = True

    def finish(self) -> bytes:
        """Return the rest at the end of the body; b"" for an empty body, whatever its coding."""
        last = b""
        if self._is_in_member:
            # Bare deflate can have ended while some of the content has not been read yet.
            last = self._changed(self._decompressor.flush())
            if not self._decompressor.eof:
                raise ContentCodingError
        return last + self._rest() if self._has_started else b""

    def transform_complete(self, body: bytes) -> None:
        """Return None: the content may be far longer than the body."""

    def _rest(self) -> bytes:
        return b"" if self._inner is None else self._inner.finish()

    def _changed(self, plain: bytes) -> bytes:
        return plain if self._inner is None else self._inner.feed(plain)


class RecodingTransform(DecodingTransform):
    """Applies a transform to the content of an encoded body and encodes the result again."""

    def __init__(self, coding: str, inner: BodyTransform) -> None:
        super().__init__(coding, inner)
        bits = _GZIP if coding == "gzip" else zlib.MAX_WBITS
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)

    def _rest(self) -> bytes:
        return self._compressor.compress(super()._rest()) + self._compressor.flush()

    def _changed(self, plain: bytes) -> bytes:
        return self._compressor.compress(super()._changed(plain))


def parse_content_encoding(field: str | None) -> str | None:
    """Return the coding that a Content-Encoding names, None if the body is not encoded.

    For a coding that cannot be decoded here, or several, that is the field's value in lower case.
    """
    coding = (field or "").strip().lower()
    return "gzip" if coding == "x-gzip" else None if coding == "identity" else coding or None


def accepts_coding(field: bytes | None, coding: str) -> bool:
    """Return whether an Accept-Encoding accepts a coding (RFC 9110 section 12.5.3).

    False without the field: any coding would then be acceptable, but callers that do not send the
    field can rarely decode one.
    """
    if field is None:
        return False
    weights = _weights(field)
    name = coding.encode("ascii")
    for candidate in (name, b"x-" + name, b"*"):
        if candidate in weights:
            return weights[candidate]
    return False


@lru_cache(maxsize=64)
def upstream_accept_encoding(field: bytes | None) -> bytes:
    """Return the Accept-Encoding for the platform: what the caller accepts of gzip and identity.

    The caller's own list elements are used as far as they name these.
    """
    if not accepts_coding(field, "gzip"):
        return b"identity"
    elements = [
        element.strip() for element in list_elements(field or b"") if _is_supported(element)
    ]
    if _GZIP_NAMES.isdisjoint(_weights(field or b"")):
        elements.insert(0, b"gzip")  # accepted by a "*", which would let the platform choose others
    return b", ".join(elements)


def _is_supported(element: bytes) -> bool:
    name, is_accepted = _weighted(element.lower())
    return name in _GZIP_NAMES or name == b"identity" or (name == b"*" and not is_accepted)


def _weights(field: bytes) -> dict[bytes, bool]:
    """Return the codings that an Accept-Encoding names, and whether it accepts each."""
    return dict(_weighted(element) for element in list_elements(field.lower()))


def _weighted(element: bytes) -> tuple[bytes, bool]:
    name, _, parameter = element.partition(b";")
    weight = parameter.strip().removeprefix(b"q=").strip()
    return name.strip(), weight.strip(b"0.") != b"" or not weight


def decode_body(data: bytes, coding: str, max_bytes: int) -> bytes:
    """Return the content of a body; b"" if it is incomplete or longer than `max_bytes` bytes."""
    decoder = DecodingTransform(coding)
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in decoder.feed_in_steps(data):
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                return b""
        chunks.append(decoder.finish())
    except ContentCodingError:
        return b""
    return b"".join(chunks)


def decode_prefix(data: bytes, coding: str | None, size: int) -> bytes:
    """Return the content of the part of a body that has arrived, b"" if it cannot be decoded.

    An encoded body is decoded up to about `size` bytes of content.
    """
    if coding is None:
        return data
    chunks: list[bytes] = []
    try:
        for chunk in DecodingTransform(coding).feed_in_steps(data) if coding in DECODABLE else ():
            chunks.append(chunk)
            size -= len(chunk)
            if size <= 0:
                break
    except ContentCodingError:
        return b""
    return b"".join(chunks)
