"""A sink that lets several workers write lines to one destination, one worker at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from gateway.audit.sink import Sink

with contextlib.suppress(ImportError):
    import fcntl  # not on Windows, where the settings reject what needs this module


class LockedSink:
    """A sink that several workers share, so that no line is interrupted by that of another worker.

    `lock_fd` is the descriptor of a file that all workers have inherited. A lock on it (fcntl(2);
    it ends with the process) is held while lines are written, also between the attempts of a
    failing write: another worker would fail too, and a partial line must be completed first. The
    first byte of the file is 1 during a write. A worker that finds it set knows that the previous
    one died or gave up, and may have left a partial line.
    """

    def __init__(self, sink: Sink, lock_fd: int) -> None:
        self._sink = sink
        self._lock_fd = lock_fd
        self._held = False
        self._must_repair = False

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines (`Sink.write`)."""
        if not self._held:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
            self._held = True
            self._must_repair = os.pread(self._lock_fd, 1, 0) == b"\1"
            os.pwrite(self._lock_fd, b"\1", 0)
        self._sink.write([b"\n" + lines[0], *lines[1:]] if self._must_repair else lines)
        self._release(b"\0")

    def discard_failed(self) -> int:
        """Discard what is left (`Sink.discard_failed`)."""
        lost = self._sink.discard_failed()
        if self._held:
            self._release(b"\1")
        return lost

    def close(self) -> None:
        """Close the wrapped sink."""
        self._sink.close()

    def _release(self, state: bytes) -> None:
        os.pwrite(self._lock_fd, state, 0)
        self._held = self._must_repair = False
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)
