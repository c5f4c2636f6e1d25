"""What all streaming rewriters share: the buffer, and leaving alone what holds no host name.

Only around a place where a host name of the bases occurs is the structure of a body looked at. Text
without one is sent at once; it is kept (at most `BACKLOG`) only to know where in the structure one
stands that comes later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from gateway.fhir.link_map import Swap
from gateway.fhir.link_scopes import Edit, HeldOutput
from gateway.fhir.link_text import Needles

MAX_TOKEN: Final = 64 * 1024
"""Bytes: a longer string or tag holds no URL to be rewritten, and goes out in pieces."""

MAX_DEPTH: Final = 128
"""Open objects, arrays or elements; what lies deeper passes unchanged."""

BACKLOG: Final = 256 * 1024
"""Bytes without a host name, already sent, that wait to be scanned."""


class StreamRewriter(ABC):
    """Replaces URLs in a body as it streams by; the result does not depend on the chunks.

    Broken text is passed on as it came.
    """

    __slots__ = ("_alert", "_buffer", "_mark", "_needles", "_offset", "_output", "_swap")

    _boundary: ClassVar[bytes]  # what begins every token that may be replaced

    def __init__(self, swap: Swap, needles: Needles, hold_limit: int) -> None:
        self._swap = swap
        self._needles = needles
        self._output = HeldOutput(hold_limit)
        self._buffer = b""  # not yet scanned; begins at a token
        self._offset = 0  # of the buffer in the body
        self._mark = 0  # up to where the buffer was handed to the output
        self._alert = False  # a host name occurs in the buffer

    @property
    def rewritten(self) -> int:
        """How many URLs were replaced."""
        return self._output.rewritten

    @property
    def unrewritten(self) -> int:
        """How many values with a URL under the bases were left alone."""
        return self._output.unrewritten

    @property
    def _is_pending(self) -> bool:
        """Whether something fed was not scanned or waits to be sent."""
        return bool(self._buffer) or self._output.is_waiting

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body; give what can be sent on."""
        known = len(self._buffer)
        self._buffer += chunk
        self._alert = self._alert or self._needles.occur(self._buffer, known)
        if self._alert or self._output.is_waiting or len(self._buffer) > BACKLOG:
            self._scan()
        else:
            self._pass_on()
        return self._output.take()

    def finish(self) -> bytes:
        """The body ended; give the rest."""
        if self._alert or self._output.is_waiting:
            self._scan()
            self._output.abandon()
        self._copy(len(self._buffer))
        return self._output.take()

    @abstractmethod
    def _advance(self, text: bytes, pos: int, needle: int, size: int) -> int:
        """Take what stands at `pos` of `text`, having skipped what is boring before `needle`.

        Gives the position after it; ~position of a token whose end has not come yet.
        """

    def _masked(self, text: bytes) -> bytes:
        """The text as `_advance` is to see it, as long as before."""
        return text

    def _pass_on(self) -> None:
        """Send unscanned text, but for a token at its end that may yet turn out to be a URL."""
        size = len(self._buffer)
        start = max(self._mark, size - MAX_TOKEN)
        cut = self._masked(self._buffer).rfind(self._boundary, start)
        self._copy(size if cut < 0 else cut)

    def _scan(self) -> None:
        text = self._masked(self._buffer)
        size = len(text) - text.endswith(b"\\")  # half an escape waits for its other half
        needles = self._needles.positions(self._buffer)
        pos = index = 0
        while 0 <= pos < size:
            while needles[index] < pos:
                index += 1
            pos = self._advance(text, pos, min(needles[index], size), size)
        done = pos if pos >= 0 else ~pos
        self._alert = any(at >= done for at in needles[index:-1])
        self._copy(done)
        self._buffer = self._buffer[done:]
        self._mark = max(0, self._mark - done)
        self._offset += done
        self._output.expire(self._offset)

    def _replace(self, edit: Edit) -> None:
        """Hand over the text before the edit, and the edit."""
        start = edit.position - self._offset
        self._copy(start)
        self._output.edit(edit)
        self._mark = start + len(edit.original)

    def _copy(self, upto: int) -> None:
        """Hand over the buffer up to a position as it is."""
        if upto > self._mark:
            self._output.text(self._buffer[self._mark : upto])
            self._mark = upto
