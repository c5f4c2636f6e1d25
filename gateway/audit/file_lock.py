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
        self._lock_fd = turn
        self._held = False
        self._must_repair = False

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines; see `Sink.write`."""
        if not self._held:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
            self._held = True
            self._must_repair = os.pread(self._lock_fd, 1, 0) == b"\1"
            os.pwrite(self._lock_fd, b"\1", 0)
        self._sink.write([b"\n" + lines[0], *lines[1:]] if self._must_repair else lines)
        self._release(b"\0")

    def discard_failed(self) -> int:
        """Give up what is left; see `Sink.discard_failed`."""
        lost = self._sink.discard_failed()
        if self._held:
            self._release(b"\1")
        return lost

    def close(self) -> None:
        """Release what the sink holds."""
        self._sink.close()

    def _release(self, state: bytes) -> None:
        os.pwrite(self._lock_fd, state, 0)
        self._held = self._must_repair = False
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)
