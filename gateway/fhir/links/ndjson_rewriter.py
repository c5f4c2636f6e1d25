"""Rewrites URLs in newline-delimited JSON (bulk data), in which every line is one resource.

Consecutive lines without a URL of the known hosts pass together; only the others are scanned one by
one.
"""

from __future__ import annotations

from gateway.fhir.links.json_rewriter import JsonRewriter
from gateway.fhir.links.json_text import needles
from gateway.fhir.links.map import BaseReplacement
from gateway.fhir.links.text import END


class NdjsonRewriter:
    """Rewrites as `JsonRewriter`, line by line; an invalid line does not affect the next."""

    __slots__ = ("_is_fresh", "_line", "_needles", "_rewritten", "_swap", "_unrewritten")

    def __init__(self, swap: BaseReplacement) -> None:
        self._swap = swap
        self._needles = needles(swap)
        self._line = JsonRewriter(swap)
        self._is_fresh = True  # no byte of the current line was fed
        self._rewritten = 0
        self._unrewritten = 0

    @property
    def rewritten(self) -> int:
        """The number of URLs replaced."""
        return self._rewritten + self._line.rewritten

    @property
    def unrewritten(self) -> int:
        """The number of strings with a URL under the bases that were left unchanged."""
        return self._unrewritten + self._line.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            return self._line_chunk(chunk)
        ready: list[bytes] = []
        start = 0
        if not self._is_fresh:
            start = chunk.index(b"\n")
            ready += (self._line_chunk(chunk[:start]), self._end_line())
        ready += self._lines(chunk[start:cut])
        ready.append(self._line_chunk(chunk[cut:]))
        return b"".join(ready)

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        return self._end_line()

    def _lines(self, lines: bytes) -> list[bytes]:
        """Return complete lines, of which only those with a needle are rewritten."""
        ready: list[bytes] = []
        done = 0
        for needle in self._needles.positions(lines):
            if needle < done:
                continue  # in a line that was just rewritten
            if needle == END:
                break
            start = lines.rfind(b"\n", done, needle) + 1 or done
            end = lines.index(b"\n", needle)
            ready += (lines[done:start], self._line_chunk(lines[start:end]), self._end_line())
            done = end
        ready.append(lines[done:])
        return ready

    def _line_chunk(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        self._is_fresh = False
        return self._line.feed(chunk)

    def _end_line(self) -> bytes:
        """End the current line; return the rest of its output."""
        if self._is_fresh:
            return b""
        rest = self._line.finish()
        self._is_fresh = True
        self._rewritten += self._line.rewritten
        self._unrewritten += self._line.unrewritten
        self._line = JsonRewriter(self._swap)
        return rest
