"""The thread that writes log lines: whoever logs never waits for whoever reads the log.

Standard error may be a pipe that nobody empties. Between it and the program stands a backlog,
bounded in lines and bytes; what does not fit is dropped, counted, and told of when there is room.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway import os_support

# Seconds between two looks at what is due without a line that would wake the thread.
_LOOK: Final = 1.0
_HANDOFF_AFTER: Final = 0.05
_HANDOFF: Final = 0.00005


@dataclass(frozen=True, slots=True)
class LogBacklogLimits:
    """How much may wait to be written."""

    max_lines: int = 10_000
    max_bytes: int = 4 * 1024 * 1024


class LogNotices(Protocol):
    """What the thread has to say beside the lines that it is given. All are called in it."""

    def dropped_lines(self, count: int) -> Iterable[bytes]:
        """The lines that tell how many were dropped."""
        ...

    def pending_lines(self) -> Iterable[bytes]:
        """Lines that need no occasion."""
        ...

    def has_pending_soon(self) -> bool:
        """Whether something will be due before long."""
        ...


class GilYielder:
    """Lets a writer's thread have the interpreter when lines have waited for `after` seconds.

    A busy loop lets go of it only for the moment of each poll, too short for a waking thread to
    take it, and often enough that Python's own switch interval never passes: the thread would
    starve for as long as the load lasts.
    """

    def __init__(self, after: float, clock: Callable[[], float]) -> None:
        self._after = after
        self._clock = clock
        self._last = 0.0

    def yield_if_due(self, waiting_since: float) -> None:
        """Pause for a moment if it is time."""
        now = self._clock()
        if now - max(waiting_since, self._last) > self._after:
            time.sleep(_HANDOFF)
            self._last = now


class LineWriter:
    """Writes lines to a file descriptor; its methods may be called in any thread.

    The first line starts the thread. It is a daemon: nothing wakes it from a write to a pipe that
    nobody reads.
    """

    def __init__(
        self,
        fd: int,
        notices: LogNotices,
        *,
        room: LogBacklogLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fd = fd
        self._notices = notices
        self._limits = room or LogBacklogLimits()
        self._clock = clock
        self._changed = threading.Condition()
        # Lines, and how many were dropped between them.
        self._queue: list[bytes | int] = []
        self._line_count = 0  # accepted and not written, the same in bytes
        self._byte_count = 0
        self._unreported = 0  # dropped and lost ones that nobody could be told of yet
        self._writing = False
        self._closing = False
        self._progress = 0.0
        self._hand_off = GilYielder(_HANDOFF_AFTER, clock)
        self._thread: threading.Thread | None = None

    def enqueue(self, line: bytes) -> None:
        """Have a line written, its newline included, or drop it. Never waits for the reader."""
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
        """Wait until all is written, at most `timeout` seconds; whether it was."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def close(self) -> None:
        """End the thread once it has written what it has; does not wait for that."""
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
        """What waits; nothing when something is due without."""
        with self._changed:
            while self._is_idle() and not self._closing:
                if not self._changed.wait(_LOOK if self._notices.has_pending_soon() else None):
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
        """What was dropped in the same gap while the lines before it were written."""
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
        """Write one line, blocking; false when that failed.

        One at a time: up to PIPE_BUF bytes no other process's line can come in between.
        """
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                # Another process made the description non-blocking: that is no failure.
                os_support.wait_writable(self.fd)
            except OSError:
                return False
        return True
