"""Bodies in gzip: opened and changed on their way, compressed again only for who accepts that.

Only gzip is spoken towards the platform: it is what every server has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from gateway.http.headers import items

STEP: Final = 64 * 1024
"""Bytes of content that are changed at once: what takes longer would hold up the event loop."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_LEVEL: Final = 4


class BrokenCoding(Exception):  # noqa: N818 - a state, not a mistake
    """The body is not what its Content-Encoding says."""


class Transform(Protocol):
    """Changes a body on its way, piece by piece."""

    def feed(self, chunk: bytes) -> bytes:
        """What can go on of what came so far."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...

    def whole(self, body: bytes) -> list[bytes] | None:
        """What both would give for a whole body of at most two steps, copied once less.

        In pieces, which are not much longer; None: only they tell.
        """
        ...


def steps(transform: Transform, chunk: bytes) -> Iterator[bytes]:
    """Feed a chunk to a transform, in steps of bounded work between which others may have a turn.

    However much a small chunk unpacks to: never more than a step of it is in memory. Raises
    `BrokenCoding`.
    """
    if isinstance(transform, Gunzip):
        yield from transform.steps(chunk)
    else:
        for at in range(0, len(chunk), STEP):
            yield transform.feed(chunk[at : at + STEP])


def is_made_of(whole: bytes, pieces: list[bytes]) -> bool:
    """Whether the pieces, one after the other, are the whole."""
    at = 0
    for piece in pieces:
        if not whole.startswith(piece, at):
            return False
        at += len(piece)
    return at == len(whole)


class Gunzip:
    """Opens a gzip body (RFC 1952), member after member; its content passes through a transform."""

    def __init__(self, inner: Transform | None = None) -> None:
        self._inner = inner
        self._unpack = zlib.decompressobj(_GZIP)
        self._members = 0
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """What can go on. Raises `BrokenCoding`."""
        return b"".join(self.steps(chunk))

    def steps(self, chunk: bytes) -> Iterator[bytes]:
        """The same, a bounded piece of the content at a time. Raises `BrokenCoding`."""
        for at in range(0, len(chunk), STEP):
            part = chunk[at : at + STEP]
            while part:
                plain, part = self._opened(part)
                yield self._changed(plain)

    def _opened(self, part: bytes) -> tuple[bytes, bytes]:
        """A piece of content, and what is left of the part."""
        self._inside = True
        try:
            plain = self._unpack.decompress(part, STEP)
        except zlib.error:
            raise BrokenCoding from None
        if not self._unpack.eof:
            return plain, self._unpack.unconsumed_tail
        rest = self._unpack.unused_data
        self._members += 1
        self._inside = False
        self._unpack = zlib.decompressobj(_GZIP)
        return plain, rest

    def finish(self) -> bytes:
        """The rest; an empty body has none, whatever its coding.

        Raises `BrokenCoding` when the last member is not complete.
        """
        if self._inside:
            raise BrokenCoding
        return self._rest() if self._members else b""

    def whole(self, body: bytes) -> None:
        """None: it may become far more."""

    def _rest(self) -> bytes:
        return b"" if self._inner is None else self._inner.finish()

    def _changed(self, plain: bytes) -> bytes:
        return plain if self._inner is None else self._inner.feed(plain)


class InsideGzip(Gunzip):
    """Applies a transform to the content of a gzip body and compresses the result again."""

    def __init__(self, inner: Transform) -> None:
        super().__init__(inner)
        self._pack = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)

    def _rest(self) -> bytes:
        return self._pack.compress(super()._rest()) + self._pack.flush()

    def _changed(self, plain: bytes) -> bytes:
        return self._pack.compress(super()._changed(plain))


def pack(body: bytes) -> bytes:
    """The body in gzip, without a timestamp: the same bytes each time."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def is_gzip(coding: str | None) -> bool:
    """Whether a Content-Encoding is gzip alone."""
    return (coding or "").strip().lower() in ("gzip", "x-gzip")


def accepts_gzip(field: bytes | None) -> bool:
    """Whether an Accept-Encoding asks for gzip (RFC 9110 section 12.5.3); not by its absence.

    Without the field any coding would do, but who says nothing rarely can open one.
    """
    weights = dict(_weighted(each) for each in items((field or b"").lower()))
    for name in (b"gzip", b"x-gzip", b"*"):
        if name in weights:
            return weights[name]
    return False


def _weighted(element: bytes) -> tuple[bytes, bool]:
    name, _, parameter = element.partition(b";")
    weight = parameter.strip().removeprefix(b"q=").strip()
    return name.strip(), weight.strip(b"0.") != b"" or not weight


def opened(data: bytes, largest: int, *, deflate: bool = False) -> bytes:
    """The content of a whole gzip body; b"" when it is not whole or longer than `largest`.

    With `deflate` it may be in the coding of that name, too (RFC 9110 section 8.4.1.2).
    """
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB if deflate else _GZIP)
    try:
        plain = unpack.decompress(data, largest)
    except zlib.error:
        return b""
    return plain if unpack.eof and not unpack.unused_data else b""


def beginning(data: bytes, coding: str | None, size: int) -> bytes:
    """What has arrived of a body, opened up to `size` bytes if it is gzip, as far as that goes."""
    if not is_gzip(coding):
        return data
    try:
        return zlib.decompressobj(_GZIP).decompress(data, size)
    except zlib.error:
        return b""
