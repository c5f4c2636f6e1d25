"""Logs on standard error: one JSON object per line, or readable text on a terminal.

Records of structlog and of the standard library (aiohttp, asyncio) are processed alike: a handler
of the root logger renders and masks them. The configuration of structlog is not touched, so that a
logger works before `configure`, and a test that configures can undo it.

A line is rendered in the thread that logs and written by a separate thread, so that logging never
blocks the event loop: standard error may be a pipe that is not being read. Lines are passed to the
thread through a backlog, which is limited in lines and bytes. Lines that do not fit are dropped and
counted, and their number is logged as soon as there is space.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import orjson

from gateway import os_support
from gateway.telemetry.bare_structlog import structlog
from gateway.telemetry.log_masking import mask_field
from gateway.telemetry.log_repetition import LogRateLimit

if TYPE_CHECKING:
    from gateway.telemetry.bare_structlog import EventDict, Processor

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


class LineWriter:
    """Writes lines to a file descriptor. Its methods may be called in any thread.

    The first line starts the thread. The thread is a daemon, since it cannot be woken from a write
    to a pipe that is not being read. It also writes the lines of `notices`, whose methods it calls.
    The backlog of lines to be written has at most `max_lines` and `max_bytes`.
    """

    def __init__(
        self,
        fd: int,
        notices: _BackgroundHandler,
        *,
        max_lines: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fd = fd
        self._notices = notices
        self._max_lines = max_lines
        self._max_bytes = max_bytes
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
                self._line_count >= self._max_lines
                or self._byte_count + len(line) > self._max_bytes
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
        if isinstance(existing, _DirectHandler | _BackgroundHandler)
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
        if isinstance(existing, _BackgroundHandler) and existing.fd == fd:
            return existing
    return _BackgroundHandler(fd)


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


class _BackgroundHandler(logging.Handler):
    """Writes in a background thread."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self._limit = LogRateLimit()
        self.addFilter(self._limit)
        self._writer = LineWriter(fd, self)
        self._previous_excepthook = sys.excepthook
        sys.excepthook = self._flush_before_traceback

    def emit(self, record: logging.LogRecord) -> None:
        """Render the record and queue its line (logging.Handler)."""
        line = self._line(record)
        if line is not None:
            self._writer.enqueue(line)

    def flush(self) -> None:
        """Write everything, for a limited time. The interpreter calls this at its end."""
        for record in self._limit.summaries(at_end=True):
            self.emit(record)
        self._writer.flush(_FINAL_FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread once everything is written."""
        if sys.excepthook == self._flush_before_traceback:
            sys.excepthook = self._previous_excepthook
        self._writer.close()
        super().close()

    def _flush_before_traceback(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Write the queued lines before a traceback, which the interpreter writes in fragments."""
        self.flush()
        self._previous_excepthook(kind, error, trace)

    # Methods that the writer's thread calls.

    def dropped_lines(self, count: int) -> list[bytes]:
        """Return the line that reports how many lines were dropped."""
        text, level = "%d log lines were dropped: nobody read them", logging.WARNING
        record = logging.LogRecord(__name__, level, "", 0, text, (count,), None)
        return self._lines([record])

    def pending_lines(self) -> list[bytes]:
        """Return the summaries of suppressed messages that are due, whatever is queued."""
        return self._lines(self._limit.summaries())

    def has_pending_soon(self) -> bool:
        """Return whether a summary will become due, so that the thread has to poll."""
        return self._limit.is_counting

    def _lines(self, records: Iterable[logging.LogRecord]) -> list[bytes]:
        return [line for record in records if (line := self._line(record)) is not None]

    def _line(self, record: logging.LogRecord) -> bytes | None:
        try:
            return self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            # An argument cannot be formatted. The standard library would print it unmasked.
            return None


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
    if request_ids := getattr(record, "request_ids", None):
        head["request_ids"] = request_ids
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
