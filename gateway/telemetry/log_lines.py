"""A thread that writes log lines, so that logging never blocks on the reader of standard error.

Standard error may be a pipe that is not being read. Lines are passed to the thread through a
backlog, which is limited in lines and bytes. Lines that do not fit are dropped and counted, and
their number is logged as soon as there is space.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway import os_support

# Seconds between two checks for notices that are due while no line wakes the thread.
_NOTICE_INTERVAL: Final = 1.0
_HANDOFF_AFTER: Final = 0.05
_HANDOFF: Final = 0.00005


@dataclass(frozen=True, slots=True)
class LogBacklogLimits:
    """Limits of the backlog of lines to be written."""

    max_lines: int = 10_000
    max_bytes: int = 4 * 1024 * 1024


class LogNotices(Protocol):
    """Lines that the thread writes besides the queued ones.

    All methods are called in the thread.
    """

    def dropped_lines(self, count: int) -> Iterable[bytes]:
        """Return the lines that report how many lines were dropped."""
        ...

    def pending_lines(self) -> Iterable[bytes]:
        """Return the lines that are due now, independent of queued lines."""
        ...

    def has_pending_soon(self) -> bool:
        """Return whether lines may become due soon, so that the thread has to poll."""
        ...


class GilYielder:
    """Yields the GIL to a writer's thread when lines have waited for `after` seconds.

    A busy event loop releases the GIL only during each poll. That is too short for a waking thread
    to acquire it, and so frequent that Python's switch interval never passes: the thread would
    starve for as long as the load lasts.
    """

    def __init__(self, after: float, clock: Callable[[], float]) -> None:
        self._after = after
        self._clock = clock
        self._last = 0.0

    def yield_if_due(self, waiting_since: float) -> None:
        """Sleep for a moment if lines have waited `after` seconds since the last sleep."""
        now = self._clock()
        if now - max(waiting_since, self._last) > self._after:
            time.sleep(_HANDOFF)
            self._last = now


class LineWriter:
    """Writes lines to a file descriptor. Its methods may be called in any thread.

    The first line starts the thread. The thread is a daemon, since it cannot be woken from a write
    to a pipe that is not being read.
    """

    def __init__(
        self,
        fd: int,
        notices: LogNotices,
        *,
        limits: LogBacklogLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fd = fd
        self._notices = notices
        self._limits = limits or LogBacklogLimits()
        self._clock = clock
        self._changed = threading.Condition()
        # Lines in order. An int is the number of lines dropped at that point.
        self._queue: list[bytes | int] = []
        self._line_count = 0  # accepted and not yet written; below the same in bytes
        self._byte_count = 0
        self._unreported = 0  # dropped or lost lines that are not reported yet
        self._writing = False
        self._closing = False
        self._progress = 0.0
        self._hand_off = GilYielder(_HANDOFF_AFTER, clock)
        self._thread: threading.Thread | None = None

    def enqueue(self, line: bytes) -> None:
        """Queue a line, which includes its line feed, or drop it. Never waits for the reader."""
        with self._changed:
            if (
                self._line_count >= self._limits.max_lines
                or self._byte_count + len(line) > self._limits.max_bytes
            ):
                self._drop()
            else:
                if not self._line_count:
                    self._progress = self._clock()
                self._queue.append(line)
                self._line_count += 1
                self._byte_count += len(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
        self._hand_off.yield_if_due(self._progress)

    def flush(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds until all is written. Return whether it was."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def close(self) -> None:
        """End the thread once it has written its backlog. Does not wait for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not (self._queue or self._writing)

    def _drop(self) -> None:
        if self._queue and isinstance(self._queue[-1], int):
            self._queue[-1] += 1
        else:
            self._queue.append(1)

    def _run(self) -> None:
        while True:
            entries = self._next()
            for entry in entries:
                self._serve(entry)
            for line in self._notices.pending_lines():
                self._write(line)
            with self._changed:
                self._done(entries)
                if self._closing and self._is_idle():
                    return

    def _next(self) -> list[bytes | int]:
        """Wait and return the queue.

        It is empty when a notice may be due or the writer is closing.
        """
        with self._changed:
            while self._is_idle() and not self._closing:
                if not self._changed.wait(
                    _NOTICE_INTERVAL if self._notices.has_pending_soon() else None
                ):
                    break
            entries, self._queue = self._queue, []
            self._writing = True
            return entries

    def _serve(self, entry: bytes | int) -> None:
        if isinstance(entry, int):
            self._unreported += entry + self._dropped_since()
        elif not self._write(entry):
            self._unreported += 1
            return
        if self._unreported and all(
            map(self._write, self._notices.dropped_lines(self._unreported))
        ):
            self._unreported = 0

    def _dropped_since(self) -> int:
        """Return the number of lines dropped in the same gap while earlier lines were written."""
        with self._changed:
            first = self._queue[0] if self._queue else b""
            if not isinstance(first, int):
                return 0
            del self._queue[0]
            return first

    def _done(self, entries: list[bytes | int]) -> None:
        lines = [entry for entry in entries if isinstance(entry, bytes)]
        self._line_count -= len(lines)
        self._byte_count -= sum(map(len, lines))
        self._writing = False
        self._progress = self._clock()
        self._changed.notify_all()

    def _write(self, line: bytes) -> bool:
        """Write one line, blocking. Return False if that failed.

        Each line is a separate write: up to PIPE_BUF bytes it cannot be interrupted by a line of
        another process.
        """
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                # Another process has made the open file description non-blocking, which is not a
                # failure.
                os_support.wait_writable(self.fd)
            except OSError:
                return False
        return True
