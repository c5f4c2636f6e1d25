"""Lets several processes write lines to one place, one after the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from gateway.audit.sink import Sink

with contextlib.suppress(ImportError):
    import fcntl  # not on Windows, where the settings refuse what needs this module


class LockedSink:
    """A sink that other processes write to as well; no line is torn by another's.

    `turn` is a descriptor of a file that all of them have inherited. A lock on it (fcntl(2), which
    ends with its process) is held while lines are written, also between the attempts of a write
    that fails: nobody else would be luckier, and a begun line must be ended first. Its first byte
    says that somebody has begun to write: a process that died in that time has left half a line.
    """

    def __init__(self, sink: Sink, turn: int) -> None:
        self._sink = sink
        self._turn = turn
        self._held = False
        self._mend = False

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines; see `Sink.write`."""
        if not self._held:
            fcntl.lockf(self._turn, fcntl.LOCK_EX)
            self._held = True
            self._mend = os.pread(self._turn, 1, 0) == b"\1"
            os.pwrite(self._turn, b"\1", 0)
        self._sink.write([b"\n" + lines[0], *lines[1:]] if self._mend else lines)
        self._release(b"\0")

    def abandon(self) -> int:
        """Give up what is left; see `Sink.abandon`."""
        lost = self._sink.abandon()
        if self._held:
            self._release(b"\1")
        return lost

    def close(self) -> None:
        """Release what the sink holds."""
        self._sink.close()

    def _release(self, state: bytes) -> None:
        os.pwrite(self._turn, state, 0)
        self._held = self._mend = False
        fcntl.lockf(self._turn, fcntl.LOCK_UN)
