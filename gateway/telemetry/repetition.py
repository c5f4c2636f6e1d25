"""Keeps those who make the gateway log from filling the log: equal messages are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from gateway.errors import GatewayError, Reason

# The access log prints whole request targets; the audit takes its place.
_SILENCED: Final = frozenset({"aiohttp.access"})
# What goes wrong in there is told by `gateway.telemetry.tracing_export`, once.
_SILENCED_TREES: Final = ("opentelemetry.",)
# Loggers that outside events make repeat themselves: every caller's mistake is a line, and at the
# limit of open files asyncio logs every failed `accept`, hundreds in a second.
_LIMITED: Final = (
    *("asyncio", "aiohttp", "gateway.http", "gateway.pipeline"),
    *("gateway.outbox.intake", "gateway.outbox.sender", "gateway.login.endpoints"),
)
_MAX_MESSAGES: Final = 256

# Logger and text; of errors that the gateway answers the reason instead of the text.
_Key = tuple[str, str]


class _Seen:
    """How often a message came since `since`, and the level of those that were left out.

    The first `burst` of them go out.
    """

    __slots__ = ("burst", "count", "level", "since")

    def __init__(self, since: float, burst: int) -> None:
        self.since = since
        self.burst = burst
        self.count = 0
        self.level: int | None = None


class RateLimit(logging.Filter):
    """Lets `burst` equal messages of a chatty logger through in `period` seconds.

    Of an outage, which fails every request for the same reason, it is one line.

    The first one of the next period says in `suppressed` how many were left out; where none comes,
    `summaries` does. Its methods may be called in any thread.
    """

    def __init__(
        self, *, burst: int = 10, period: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[_Key, _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes out."""
        if record.name in _SILENCED or record.name.startswith(_SILENCED_TREES):
            return False
        if not any(record.name == name or record.name.startswith(name + ".") for name in _LIMITED):
            return True
        with self._lock:
            return self._count(record)

    @property
    def counting(self) -> bool:
        """Whether a period is under way."""
        return bool(self._seen)

    def summaries(self, *, at_end: bool = False) -> list[logging.LogRecord]:
        """What is to be said of periods that are over; `at_end` of all others too."""
        now = self._clock()
        with self._lock:
            over = [
                key
                for key, seen in self._seen.items()
                if at_end or now - seen.since >= self._period
            ]
            ended = [(key, self._seen.pop(key)) for key in over]
        return [
            _summary(key, seen.level, seen.count - seen.burst)
            for key, seen in ended
            if seen.level is not None
        ]

    def _count(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        reason = _reason(record)
        # Of all others only the first line is constant: they describe tasks and sockets.
        template = getattr(record.msg, "template", None) or str(record.msg)
        text = template.partition("\n")[0] if reason is None else reason.code
        key = record.name, text
        seen = self._seen.get(key)
        if seen is None or now - seen.since >= self._period:
            if seen is not None:
                record.suppressed = max(0, seen.count - seen.burst)
            elif len(self._seen) >= _MAX_MESSAGES:
                self._seen.clear()
            outage = reason is not None and reason.status >= 500
            seen = self._seen[key] = _Seen(now, 1 if outage else self._burst)
        seen.count += 1
        if seen.count <= seen.burst:
            return True
        seen.level = record.levelno
        return False


def _reason(record: logging.LogRecord) -> Reason | None:
    """The reason of the failure that a record tells of."""
    arguments = getattr(record.msg, "args", record.args)
    if not isinstance(arguments, tuple):
        return None
    return next((each.reason for each in arguments if isinstance(each, GatewayError)), None)


def _summary(key: _Key, level: int, count: int) -> logging.LogRecord:
    name, text = key
    record = logging.LogRecord(name, level, "", 0, "left out: %s", (text,), None)
    record.suppressed = count
    return record
