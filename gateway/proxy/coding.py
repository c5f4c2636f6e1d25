"""A transform inside gzip: what the platform compressed is opened, changed and compressed again."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

_GZIP: Final = 16 + zlib.MAX_WBITS
# So much is unpacked at once: a small body that unpacks to a huge one must not fill the memory.
_PIECE: Final = 256 * 1024
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


class InsideGzip:
    """Applies a transform to the content of a gzip body (RFC 1952), member after member."""

    def __init__(self, inner: Transform) -> None:
        self._inner = inner
        self._unpack = zlib.decompressobj(_GZIP)
        self._pack = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._members = 0
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """Raises `BrokenCoding`."""
        packed = []
        try:
            while chunk:
                self._inside = True
                plain = self._unpack.decompress(chunk, _PIECE)
                packed.append(self._pack.compress(self._inner.feed(plain)))
                chunk = self._unpack.unconsumed_tail
                if self._unpack.eof:
                    chunk = self._unpack.unused_data
                    self._members += 1
                    self._inside = False
                    self._unpack = zlib.decompressobj(_GZIP)
        except zlib.error:
            raise BrokenCoding from None
        return b"".join(packed)

    def finish(self) -> bytes:
        """The rest; an empty body has none, whatever its coding.

        Raises `BrokenCoding` when the last member is not complete.
        """
        if self._inside:
            raise BrokenCoding
        if not self._members:
            return b""
        return self._pack.compress(self._inner.finish()) + self._pack.flush()
