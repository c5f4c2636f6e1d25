"""The thread that writes audit lines to their sink, and the protocol of sinks.

A sink may block for any time: only the writer's thread waits for it. The event loop passes lines to
that thread through a backlog, whose size in bytes is limited. `DescriptorSink` writes to a file
descriptor such as standard output; the other sinks have modules of their own.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Literal, Protocol

from gateway import os_support
from gateway.telemetry.logs import GilYielder, get_logger


class SinkError(OSError):
    """A failure with a text of the gateway, which is safe to log."""


class Sink(Protocol):
    """Takes complete lines with their line feeds. All methods are called in the writer's thread."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines, blocking.

        Raises OSError on failure. The caller then either passes the same lines again, and the sink
        continues after the last byte that it has written, or calls `discard_failed`.
        """

    def discard_failed(self) -> int:
        """Discard the lines of the failed `write`. Return how many were not written completely."""

    def close(self) -> None:
        """Release the resources of the sink."""


class DescriptorSink:
    """Writes lines to a file descriptor, by default standard output. Does not close it."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._rest = memoryview(b"")
        self._handed = 0
        self._torn = False  # whether the last byte written is not a line feed

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines (`Sink.write`)."""
        if not self._rest:
            # A discarded partial line must not run into the next line.
            self._rest = memoryview((b"\n" if self._torn else b"") + b"".join(lines))
            self._handed = len(lines)
        while self._rest:
            written = os_support.write(self._fd, self._rest)
            self._torn = self._rest[written - 1] != _NEWLINE
            self._rest = self._rest[written:]

    def discard_failed(self) -> int:
        """Discard what is left (`Sink.discard_failed`)."""
        ends = bytes(self._rest).count(b"\n")
        self._rest = memoryview(b"")
        return min(ends, self._handed)

    def close(self) -> None:
        """Do nothing: the descriptor does not belong to the sink."""


_NEWLINE: Final = ord("\n")


OnFailure = Literal["block", "drop"]

RETRY_DELAY: Final = 0.5
# Half a minute of a busy hospital.
MAX_BYTES: Final = 16 * 1024 * 1024
_STALLED_BYTES: Final = 256 * 1024
_HANDOFF_AFTER: Final = 0.02

_log = get_logger("gateway.audit")


class WriterThread:
    """A limited backlog of lines, and the thread that writes it to a sink.

    `on_records(outcome, n)` counts records as `written` or `dropped`; it is called in any thread.
    With `on_failure` `block` a failed write is retried every `retry_delay` seconds until it
    succeeds; with `drop` the lines of a failed write are discarded.

    A backlog of more than `max_bytes` is over the limit in any case. More than `stalled_bytes` is
    over the limit if nothing was written for `stuck_after` seconds, which means that the pipe is
    not being read. That makes the trail unavailable, but is no reason to discard records.
    """

    # What the log calls the lines.
    log_name: ClassVar[str] = "audit records"
    # Retry failed writes also with `on_failure: drop`. Only a backlog over its limit makes the
    # trail unavailable.
    retries_forever: ClassVar[bool] = False
    # The maximum number of lines per call of the sink; None: unlimited.
    max_lines_per_write: ClassVar[int | None] = None

    def __init__(
        self,
        sink: Sink,
        *,
        on_failure: OnFailure,
        on_records: Callable[[str, int], None],
        max_bytes: int = MAX_BYTES,
        stalled_bytes: int = _STALLED_BYTES,
        stuck_after: float = 1.0,
        retry_delay: float = RETRY_DELAY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_failure = on_failure
        self.on_records = on_records
        self._sink = sink
        self._max_bytes = max_bytes
        self._stalled_bytes = stalled_bytes
        self._stuck_after = stuck_after
        self._retry_delay = retry_delay
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: list[bytes] = []
        self._backlog = 0  # accepted and not yet written, in bytes
        self._unwritten = 0  # the same as a number of records
        self._accepted = 0  # all records ever accepted
        self.lost = 0  # records that were discarded
        self._progress = 0.0  # clock time of the last write, or of the first line of the backlog
        self._gil_yielder = GilYielder(_HANDOFF_AFTER, clock)
        self._full = False
        self._failing = False
        self._closing = False
        self._is_abandoned = False
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        """Whether the backlog exceeded a limit and has not shrunk to half of `max_bytes` since."""
        return self._full

    @property
    def free_bytes(self) -> int:
        """The bytes of `max_bytes` that the backlog has left; less than 0 if it exceeds them."""
        return self._max_bytes - self._backlog

    @property
    def is_available(self) -> bool:
        """Whether the records of new requests are sure to be written; always true with `drop`."""
        if self.on_failure == "drop":
            return True
        return not (self._full or (self._failing and not self.retries_forever))

    def enqueue(self, lines: list[bytes]) -> None:
        """Add lines to the backlog, also over its limit. The first call starts the thread."""
        with self._changed:
            if not self._backlog:
                self._progress = self._clock()
            self._queue.extend(lines)
            self._unwritten += len(lines)
            self._accepted += len(lines)
            self._backlog += sum(map(len, lines))
            self._full = self._full or self._over_limit()
            self._changed.notify_all()
            if self._thread is None:
                # A daemon: a thread that is blocked in a write to an unread pipe cannot be woken.
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
        self._gil_yielder.yield_if_due(self._progress)

    async def flush(self, timeout: float) -> bool:
        """Return whether all lines accepted by now are written or `lost` in `timeout` seconds."""
        return await asyncio.to_thread(self._until_settled, self._accepted, timeout)

    async def close(self, timeout: float) -> int:
        """Write accepted lines for at most `timeout` seconds. Return the number of lost records."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is None:
            self._sink.close()
        else:
            await asyncio.to_thread(self._thread.join, timeout)
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()
            lost = self._unwritten
        if lost:
            self.on_records("dropped", lost)
        return lost

    def _until_settled(self, accepted: int, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._accepted - self._unwritten >= accepted, timeout
            )

    def _over_limit(self) -> bool:
        if self._backlog > self._max_bytes:
            return True
        waited = self._clock() - self._progress
        return self._backlog > self._stalled_bytes and waited > self._stuck_after

    def _run(self) -> None:
        while lines := self._next():
            if not self._write(lines):
                break
        self._sink.close()

    def _next(self) -> list[bytes]:
        """Wait for lines and return them.

        Return none if the writer is closing and none are left.
        """
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            lines = self._queue[: self.max_lines_per_write]
            del self._queue[: self.max_lines_per_write]
            return lines

    def _write(self, lines: list[bytes]) -> bool:
        """Write lines with as many attempts as it takes. Return False if closing stopped that."""
        while not self._is_abandoned:
            try:
                self._sink.write(lines)
            except Exception as error:
                self._failed(error)
            else:
                self._done(lines, lost=0)
                return True
            if self.on_failure == "drop" and not self.retries_forever:
                self._done(lines, lost=self._sink.discard_failed())
                return True
            with self._changed:
                self._changed.wait_for(lambda: self._is_abandoned, self._retry_delay)
        return False

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            # The number of an SSLError is OpenSSL's: 1 would be read as EPERM.
            is_numbered = not isinstance(error, ssl.SSLError)
            number = error.errno if isinstance(error, OSError) and is_numbered else None
            name = str(error) if isinstance(error, SinkError) else type(error).__name__
            _log.error(
                f"{self.log_name} cannot be written",
                error=errno.errorcode.get(number or 0, name),
                on_failure=self.on_failure,
            )

    def _done(self, lines: list[bytes], *, lost: int) -> None:
        if self._failing and not lost:
            self._failing = False
            _log.info(f"{self.log_name} can be written again")
        with self._changed:
            self._backlog -= sum(map(len, lines))
            self._unwritten -= len(lines)
            self.lost += lost
            self._progress = self._clock()
            self._full = self._full and self._backlog > self._max_bytes // 2
            self._changed.notify_all()
        if lost < len(lines):
            self.on_records("written", len(lines) - lost)
        if lost:
            self.on_records("dropped", lost)
