"""Logs on standard error: one JSON object per line, or readable text on a terminal.

Records of structlog and of the standard library (aiohttp, asyncio) are processed alike: a handler
of the root logger renders and masks them. The configuration of structlog is not touched, so that a
logger works before `configure`, and a test that configures can undo it.

A line is rendered in the thread that logs and written by a separate thread, so that logging never
blocks the event loop: standard error may be a pipe that is not being read. Lines are passed to the
thread through a queue, which is limited in lines and bytes. Lines that do not fit are dropped and
counted, and their number is logged as soon as there is space. The standard library's
`QueueListener` is not used: its `stop` waits for a thread that a pipe without a reader may block
for ever, and for a place in a full queue.
"""

from __future__ import annotations

import contextlib
import io
import logging
import logging.handlers
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import orjson
import structlog

from gateway import os_support
from gateway.telemetry.log_masking import mask_field
from gateway.telemetry.log_repetition import LogRateLimit

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

# Seconds between two checks for notices that are due while no line wakes the thread.
_NOTICE_INTERVAL: Final = 1.0
_HANDOFF_AFTER: Final = 0.05
_HANDOFF: Final = 0.00005


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


Format = Literal["auto", "json", "console"]

# Seconds that the process waits at its end until the last lines are written.
_FINAL_FLUSH_SECONDS: Final = 2.0
_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def configure(level: str, fmt: Format, stream: TextIO | None = None) -> Callable[[], None]:
    """Send all logs from `level` (a name such as `info`) on to stderr, without waiting for it.

    If `stream` is set, each line is written to it at once. A later call replaces the configuration
    of an earlier one. Returns a function that undoes it. Raises ValueError for an unknown level.
    """
    root = logging.getLogger()  # noqa: TID251 - messages of libraries end there too
    before = root.level
    root.setLevel(level.upper())
    present = [
        existing
        for existing in root.handlers
        if isinstance(existing, _DirectHandler | BackgroundHandler)
    ]
    handler = _handler(stream, present)
    handler.setFormatter(_formatter(fmt, sys.stderr if stream is None else stream))
    for previous in present:
        if previous is not handler:
            root.removeHandler(previous)
            previous.close()
    root.addHandler(handler)

    def undo() -> None:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()

    return undo


def _handler(stream: TextIO | None, present: Iterable[logging.Handler]) -> logging.Handler:
    if stream is not None:
        return _DirectHandler(stream)
    fd = _descriptor(sys.stderr)
    if fd is None:
        return _DirectHandler(sys.stderr or _NullStream())
    for existing in present:
        # The same thread is used again, so that no line overtakes another.
        if isinstance(existing, BackgroundHandler) and existing.fd == fd:
            return existing
    return BackgroundHandler(fd, LogRateLimit())


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the stream's file descriptor; None if there is no stream or it has none."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose methods take a text, its arguments, and fields.

    For example: `log.info("%s!", x, y=1)`.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),  # noqa: TID251 - wrapped
        processors=[
            structlog.stdlib.filter_by_level,
            _record,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def silence_libraries(*names: str) -> None:
    """Suppress all messages of these libraries, because they quote secrets."""
    for name in names:
        # By the level and not by `disabled`, which child loggers would not inherit.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # noqa: TID251 - a library's


class LogEvent(dict[str, Any]):
    """The fields of a log event for structlog's formatter. `str` returns only the message.

    The message is `template` formatted with `args`. `LogRateLimit` recognizes equal messages by the
    template.
    """

    def __init__(self, fields: EventDict, args: tuple[object, ...]) -> None:
        super().__init__(fields)
        self.template, self.args = str(fields["event"]), args
        self["event"] = self.template % args if args else self.template

    def __str__(self) -> str:
        return str(self["event"])


def _record(logger: Any, method: str, event: EventDict) -> tuple[tuple[LogEvent], dict[str, Any]]:
    args = tuple(event.pop("positional_args", ()))
    return (LogEvent(event, args),), {"extra": {"_logger": logger, "_name": method}}


class _NullStream(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


class _DirectHandler(logging.StreamHandler[TextIO]):
    """Writes synchronously in the calling thread."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._limit = LogRateLimit()
        self.addFilter(self._limit)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, and then the summaries of earlier messages that are due."""
        for entry in (record, *self._limit.summaries()):
            super().emit(entry)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing (logging.Handler): the standard library would print the record unmasked."""


class BackgroundHandler(logging.handlers.QueueHandler):
    """Renders lines in the thread that logs, and writes them in a thread of its own.

    That thread is a daemon, since it cannot be woken from a write to a pipe that is not being read.
    The queue between the threads has at most `max_lines` and `max_bytes`. Lines that do not fit are
    dropped, and where they would have been a line reports how many they were.
    """

    # Lines in order, each with the number of all lines dropped before it.
    queue: Queue[tuple[int, bytes]]

    def __init__(
        self,
        fd: int,
        limit: LogRateLimit,
        *,
        max_lines: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(Queue(max_lines))
        self.fd = fd
        self._max_bytes = max_bytes
        self._limit = limit
        self.addFilter(limit)
        # These change under the handler's lock only.
        self._dropped = 0
        self._accepted_bytes = 0
        # These change in the writing thread only.
        self._written_bytes = 0
        self._lost = 0  # lines that could not be written
        self._reported = 0  # lines, of those dropped and lost
        self._progress = 0.0
        self._clock = clock
        self._hand_off = GilYielder(_HANDOFF_AFTER, clock)
        self._closing = False
        self._previous_excepthook = sys.excepthook
        sys.excepthook = self._flush_before_traceback
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def prepare(self, record: logging.LogRecord) -> bytes:
        """Return the rendered line with its line feed (QueueHandler)."""
        try:
            return self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            # An argument cannot be formatted. The standard library would print it unmasked.
            return b""

    def enqueue(self, record: Any) -> None:
        """Queue a line that `prepare` has made, or drop it (QueueHandler). Never waits."""
        line: bytes = record
        if self.queue.empty():
            self._progress = self._clock()
        try:
            if self._accepted_bytes - self._written_bytes + len(line) > self._max_bytes:
                raise Full
            self.queue.put_nowait((self._dropped, line))
        except Full:
            self._dropped += 1
        else:
            self._accepted_bytes += len(line)
        self._hand_off.yield_if_due(self._progress)

    def flush(self) -> None:
        """Write everything, for a limited time. The interpreter calls this at its end."""
        self.acquire()
        try:
            for record in self._limit.summaries(at_end=True):
                self.emit(record)
        finally:
            self.release()
        with self.queue.all_tasks_done:
            self.queue.all_tasks_done.wait_for(
                lambda: not self.queue.unfinished_tasks, _FINAL_FLUSH_SECONDS
            )

    def close(self) -> None:
        """End the thread once it has written everything. Does not wait for that."""
        if sys.excepthook == self._flush_before_traceback:
            sys.excepthook = self._previous_excepthook
        self._closing = True
        # Wakes the thread; in front of a full queue it is awake.
        with contextlib.suppress(Full):
            self.queue.put_nowait((self._dropped, b""))
        super().close()

    def _flush_before_traceback(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Write the queued lines before a traceback, which the interpreter writes in fragments."""
        self.flush()
        self._previous_excepthook(kind, error, trace)

    # Methods that run in the writing thread. They acquire no lock that `flush` may be called with.

    def _run(self) -> None:
        while not (self._closing and self.queue.empty()):
            try:
                # While messages are counted, a summary may become due without a line.
                timeout = _NOTICE_INTERVAL if self._limit.is_counting else None
                dropped, line = self.queue.get(timeout=timeout)
            except Empty:
                self._write_summaries()
                continue
            self._report(dropped)
            if not self._write(line):
                self._lost += 1
            self._write_summaries()
            self._written_bytes += len(line)
            self._progress = self._clock()
            if self.queue.empty():
                self._report(self._dropped)
            self.queue.task_done()

    def _report(self, dropped: int) -> None:
        """Write how many lines are missing that were not reported yet, if there are any."""
        missing = dropped + self._lost - self._reported
        if missing <= 0:
            # More were dropped after the queue was found empty: they are reported already.
            return
        text, level = "%d log lines were dropped: they were not read", logging.WARNING
        record = logging.LogRecord(__name__, level, "", 0, text, (missing,), None)
        if self._write(self.prepare(record)):
            self._reported += missing

    def _write_summaries(self) -> None:
        """Write the summaries of suppressed messages that are due, whatever is queued."""
        for record in self._limit.summaries():
            self._write(self.prepare(record))

    def _write(self, line: bytes) -> bool:
        """Write one line, blocking. Return False if that failed.

        Each line is a separate write: up to PIPE_BUF bytes it cannot be interrupted by a line of
        another process.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os_support.write(self.fd, rest) :]
        except OSError:
            return False
        return True


def _formatter(fmt: Format, stream: TextIO | None) -> logging.Formatter:
    on_terminal = stream is not None and stream.isatty()
    shared: list[Processor] = [
        _head,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _mask,
    ]
    if fmt == "json" or (fmt == "auto" and not on_terminal):
        return structlog.stdlib.ProcessorFormatter(processors=[*shared, _json])
    console = structlog.dev.ConsoleRenderer(
        colors=on_terminal,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return structlog.stdlib.ProcessorFormatter(processors=[*shared, _printable, console])


def _head(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put the fields that every line has first.

    They are taken from the record, which messages of structlog and of other libraries both have.
    """
    record: logging.LogRecord = event["_record"]
    moment = datetime.fromtimestamp(record.created, UTC)
    head: EventDict = {
        "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": event.pop("event", ""),
    }
    if suppressed := getattr(record, "suppressed", 0):
        head["suppressed"] = suppressed
    head.update(event)
    return head


def _mask(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {key: mask_field(key, value) for key, value in event.items()}


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, which could hide or forge lines on a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            # Only a traceback has several lines.
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(_CONTROL_CHARACTERS.sub(_escaped, line) for line in lines)
    return event


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _json(_logger: object, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:
        # Lone surrogates, or integers beyond 64 bits.
        return orjson.dumps({key: _json_safe(value) for key, value in event.items()}).decode()


def _json_safe(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
