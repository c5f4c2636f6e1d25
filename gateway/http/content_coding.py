"""Compressed bodies: opened and changed on their way, compressed again only for who accepts that.

The platform is asked for gzip or identity alone, which every server has. Some compress unasked:
deflate is opened as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Protocol

from gateway.http.headers import list_elements

STEP_BYTES: Final = 64 * 1024
"""Bytes of content that are changed at once: what takes longer would hold up the event loop."""

DECODABLE: Final = frozenset(("gzip", "deflate"))
"""The codings that can be undone here, as `parse_content_encoding` calls them."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 4
_CM: Final = 0x0F
_GZIP_NAMES: Final = frozenset((b"gzip", b"x-gzip"))


class ContentCodingError(Exception):
    """The body is not what its Content-Encoding says."""


class BodyTransform(Protocol):
    """Changes a body on its way, piece by piece."""

    def feed(self, chunk: bytes) -> bytes:
        """What can go on of what came so far."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...

    def transform_complete(self, body: bytes) -> list[bytes] | None:
        """What both would give for a whole body of at most two steps, copied once less.

        In pieces, which are not much longer; None: only they tell.
        """
        ...


def feed_in_steps(transform: BodyTransform, chunk: bytes) -> Iterator[bytes]:
    """Feed a chunk to a transform, in steps of bounded work between which others may have a turn.

    However much a small chunk unpacks to: never more than a step of it is in memory. Raises
    `ContentCodingError`.
    """
    if isinstance(transform, DecodingTransform):
        yield from transform.feed_in_steps(chunk)
    else:
        for at in range(0, len(chunk), STEP_BYTES):
            yield transform.feed(chunk[at : at + STEP_BYTES])


def equals_joined(whole: bytes, pieces: list[bytes]) -> bool:
    """Whether the pieces, one after the other, are the whole."""
    at = 0
    for piece in pieces:
        if not whole.startswith(piece, at):
            return False
        at += len(piece)
    return at == len(whole)


class DecodingTransform:
    """Undoes a coding of `DECODABLE`; the content passes through a transform.

    Of gzip (RFC 1952) one member may follow another.
    """

    def __init__(self, coding: str, inner: BodyTransform | None = None) -> None:
        self._inner = inner
        self._coding = coding
        self._unpack = zlib.decompressobj(_GZIP)
        self._begun = False
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """What can go on. Raises `ContentCodingError`."""
        return b"".join(self.feed_in_steps(chunk))

    def feed_in_steps(self, chunk: bytes) -> Iterator[bytes]:
        """The same, a bounded piece of the content at a time. Raises `ContentCodingError`."""
        for at in range(0, len(chunk), STEP_BYTES):
            part = chunk[at : at + STEP_BYTES]
            while part:
                plain, part = self._decode(part)
                yield self._changed(plain)

    def _decode(self, part: bytes) -> tuple[bytes, bytes]:
        """A piece of content, and what is left of the part."""
        if not self._inside:
            self._begin(part)
        try:
            plain = self._unpack.decompress(part, STEP_BYTES)
        except zlib.error:
            raise ContentCodingError from None
        if not self._unpack.eof:
            return plain, self._unpack.unconsumed_tail
        self._inside = False
        return plain, self._unpack.unused_data

    def _begin(self, part: bytes) -> None:
        if self._coding == "gzip":
            self._unpack = zlib.decompressobj(_GZIP)
        elif self._begun:
            # Deflate has no second member.
            raise ContentCodingError
        else:
            # RFC 9110 section 8.4.1.2 wants zlib's format (RFC 1950); some send bare deflate, whose
            # first byte never looks like that.
            bits = zlib.MAX_WBITS if part[0] & _CM == zlib.DEFLATED else -zlib.MAX_WBITS
            self._unpack = zlib.decompressobj(bits)
        self._begun = self._inside = True

    def finish(self) -> bytes:
        """The rest; an empty body has none, whatever its coding.

        Raises `ContentCodingError` when it is not complete.
        """
        last = b""
        if self._inside:
            # Bare deflate can have ended with content that was not asked for yet.
            last = self._changed(self._unpack.flush())
            if not self._unpack.eof:
                raise ContentCodingError
        return last + self._rest() if self._begun else b""

    def transform_complete(self, body: bytes) -> None:
        """None: it may become far more."""

    def _rest(self) -> bytes:
        return b"" if self._inner is None else self._inner.finish()

    def _changed(self, plain: bytes) -> bytes:
        return plain if self._inner is None else self._inner.feed(plain)


class RecodingTransform(DecodingTransform):
    """Applies a transform to the content of a compressed body and compresses the result again."""

    def __init__(self, coding: str, inner: BodyTransform) -> None:
        super().__init__(coding, inner)
        bits = _GZIP if coding == "gzip" else zlib.MAX_WBITS
        self._pack = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)

    def _rest(self) -> bytes:
        return self._pack.compress(super()._rest()) + self._pack.flush()

    def _changed(self, plain: bytes) -> bytes:
        return self._pack.compress(super()._changed(plain))


def gzip_compress(body: bytes) -> bytes:
    """The body in gzip, without a timestamp: the same bytes each time."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def parse_content_encoding(field: str | None) -> str | None:
    """The coding that a Content-Encoding names, None where the body is as it is.

    One that cannot be undone here, and several, are what the field says.
    """
    coding = (field or "").strip().lower()
    return "gzip" if coding == "x-gzip" else None if coding == "identity" else coding or None


def accepts_coding(field: bytes | None, coding: str) -> bool:
    """Whether an Accept-Encoding asks for a coding (RFC 9110 section 12.5.3).

    Not by its absence: any coding would then do, but who says nothing rarely can open one.
    """
    if field is None:
        return False
    weights = _weights(field)
    name = coding.encode("ascii")
    for each in (name, b"x-" + name, b"*"):
        if each in weights:
            return weights[each]
    return False


@lru_cache(maxsize=64)
def upstream_accept_encoding(field: bytes | None) -> bytes:
    """The Accept-Encoding for the platform: what the caller accepts of gzip and identity.

    In the caller's own words as far as they are about these.
    """
    if not accepts_coding(field, "gzip"):
        return b"identity"
    said = [each.strip() for each in list_elements(field or b"") if _is_supported(each)]
    if _GZIP_NAMES.isdisjoint(_weights(field or b"")):
        said.insert(0, b"gzip")  # by a "*", which would let the platform choose others
    return b", ".join(said)


def _is_supported(element: bytes) -> bool:
    name, wanted = _weighted(element.lower())
    return name in _GZIP_NAMES or name == b"identity" or (name == b"*" and not wanted)


def _weights(field: bytes) -> dict[bytes, bool]:
    """Which codings an Accept-Encoding names, and whether it wants them."""
    return dict(_weighted(each) for each in list_elements(field.lower()))


def _weighted(element: bytes) -> tuple[bytes, bool]:
    name, _, parameter = element.partition(b";")
    weight = parameter.strip().removeprefix(b"q=").strip()
    return name.strip(), weight.strip(b"0.") != b"" or not weight


def decode_body(data: bytes, coding: str, largest: int) -> bytes:
    """The content of a whole body; b"" when it is not whole or longer than `largest`."""
    opening = DecodingTransform(coding)
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in opening.feed_in_steps(data):
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                return b""
        pieces.append(opening.finish())
    except ContentCodingError:
        return b""
    return b"".join(pieces)


def decode_prefix(data: bytes, coding: str | None, size: int) -> bytes:
    """What has arrived of a body, opened up to about `size` bytes where it is compressed.

    Nothing where it cannot be opened.
    """
    if coding is None:
        return data
    pieces: list[bytes] = []
    try:
        for piece in DecodingTransform(coding).feed_in_steps(data) if coding in DECODABLE else ():
            pieces.append(piece)
            size -= len(piece)
            if size <= 0:
                break
    except ContentCodingError:
        return b""
    return b"".join(pieces)
