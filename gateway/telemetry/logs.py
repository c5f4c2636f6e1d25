"""Logs on standard error: one JSON object a line, or a line for people.

Records of structlog and of the standard library (aiohttp, asyncio) take the same way: a handler of
the root logger renders and masks them. Nothing of structlog's own configuration is touched, so a
logger works before `configure`, and a test that configures can undo it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from gateway.telemetry.masking import mask_field

Format = Literal["json", "console"]

# The access log prints whole request targets; the audit takes its place.
_SILENCED: Final = frozenset({"aiohttp.access"})
# Loggers that outside events make repeat themselves: at the limit of open files asyncio logs every
# failed `accept`, hundreds in a second.
_RATE_LIMITED: Final = ("asyncio", "aiohttp")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def configure(level: str, fmt: Format, stream: TextIO | None = None) -> Callable[[], None]:
    """Send all logs from `level` (a name such as `info`) on to `stream`, by default stderr.

    Called again, it replaces what it did before. Returns a function that undoes it. Raises
    ValueError for an unknown level.
    """
    root = logging.getLogger()
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(_formatter(fmt, handler.stream))
    handler.addFilter(RateLimit())
    before = root.level
    root.setLevel(level.upper())
    for previous in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(previous)
    root.addHandler(handler)

    def undo() -> None:
        root.removeHandler(handler)
        root.setLevel(before)

    return undo


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose methods take a constant text and fields: `log.info("token fetched", x=1)`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


class RateLimit(logging.Filter):
    """Lets `burst` equal messages of a chatty logger through in `period` seconds.

    The first one of the next period says in `suppressed` how many were left out.
    """

    _MAX_MESSAGES = 256

    def __init__(
        self, *, burst: int = 5, period: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._period = period
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes out."""
        if record.name in _SILENCED:
            return False
        if record.name.partition(".")[0] not in _RATE_LIMITED:
            return True
        # Only the first line is constant: the others describe tasks and sockets.
        key = (record.name, str(record.msg).partition("\n")[0])
        now = self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._period:
            record.suppressed = max(0, count - self._burst)
            since, count = now, 0
        if len(self._seen) >= self._MAX_MESSAGES and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < self._burst


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: the standard library would print the record, unmasked."""


def _formatter(fmt: Format, stream: TextIO) -> logging.Formatter:
    shared: list[Processor] = [
        _head,
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _mask,
    ]
    if fmt == "json":
        return structlog.stdlib.ProcessorFormatter(processors=[*shared, _json])
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return structlog.stdlib.ProcessorFormatter(processors=[*shared, _printable, console])


def _head(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put first what every line has, from the record, which structlog's and others' both have."""
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
    """No control character reaches a terminal: it could hide or forge lines."""
    for key, value in event.items():
        if isinstance(value, str):
            # Only a traceback has lines of its own.
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(_CONTROLS.sub(_escaped, line) for line in lines)
    return event


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _json(_logger: object, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:
        # Lone surrogates and integers beyond 64 bits.
        return orjson.dumps({key: _encodable(value) for key, value in event.items()}).decode()


def _encodable(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
