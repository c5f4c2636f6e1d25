"""Rewrites URLs in newline-delimited JSON (bulk data): every line is a resource of its own."""

from __future__ import annotations

from gateway.fhir.json_links import JsonRewriter
from gateway.fhir.json_text import needles
from gateway.fhir.link_map import Swap


class NdjsonRewriter:
    """The same as JsonRewriter, line by line; a broken line does no harm to the next."""

    __slots__ = ("_is_fresh", "_line", "_needles", "_rewritten", "_swap", "_unrewritten")

    def __init__(self, swap: Swap) -> None:
        self._swap = swap
        self._needles = needles(swap)
        self._line = JsonRewriter(swap)
        self._is_fresh = True  # no byte of the line was fed
        self._rewritten = 0
        self._unrewritten = 0

    @property
    def rewritten(self) -> int:
        """How many URLs were replaced."""
        return self._rewritten + self._line.rewritten

    @property
    def unrewritten(self) -> int:
        """How many strings with a URL under the bases were left alone."""
        return self._unrewritten + self._line.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body; give what can be sent on."""
        cut = chunk.rfind(b"\n") + 1
        if self._is_fresh and cut and not self._needles.occur(chunk[:cut], 0):
            return chunk[:cut] + self._piece(chunk[cut:])
        *lines, rest = chunk.split(b"\n")
        ready = [self._piece(line) + self._end_line() + b"\n" for line in lines]
        ready.append(self._piece(rest))
        return b"".join(ready)

    def finish(self) -> bytes:
        """The body ended; give the rest."""
        return self._end_line()

    def _piece(self, piece: bytes) -> bytes:
        if not piece:
            return b""
        self._is_fresh = False
        return self._line.feed(piece)

    def _end_line(self) -> bytes:
        if self._is_fresh:
            return b""
        rest = self._line.finish()
        self._rewritten += self._line.rewritten
        self._unrewritten += self._line.unrewritten
        self._line = JsonRewriter(self._swap)
        self._is_fresh = True
        return rest
