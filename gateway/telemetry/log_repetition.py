"""Rate limit of log messages: equal ones are counted, so that callers cannot fill the log.

The request ids of suppressed messages are in the audit trail.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError, Reason

# The access log contains whole request targets; the audit trail replaces it.
_SILENCED: Final = frozenset({"aiohttp.access"})
# `gateway.telemetry.otlp_export` logs these failures, once.
_SILENCED_TREES: Final = ("opentelemetry.",)
# Loggers whose messages are repeated by external events: each mistake of a caller is a line, and at
# the limit of open files asyncio logs every failed `accept`, hundreds per second.
_LIMITED: Final = (
    "asyncio",
    "aiohttp",
    "gateway.http",
    "gateway.pipeline",
    "gateway.outbox.intake",
    "gateway.outbox.platform_sender",
    "gateway.login.auth_routes",
)
_MAX_MESSAGES: Final = 256

# A placeholder of the operator `%` (printf-style formatting), with its type.
_PLACEHOLDER: Final = re.compile(
    r"%(?:\([^)]*\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?[hlL]?([diouxXeEfFgGcrsa%])"
)

# Logger and the constant text of its messages; for errors that the gateway sends as a response, the
# reason instead of the text.
_Key = tuple[str, str]


@dataclass(slots=True)
class _MessageCount:
    """Number of equal messages since `since`, of which the first `burst` are logged."""

    since: float
    burst: int
    level: int
    count: int = 0

    @property
    def suppressed(self) -> int:
        """The number of suppressed messages."""
        return max(0, self.count - self.burst)


class LogRateLimit(logging.Filter):
    """Lets `burst` equal messages of a rate-limited logger through per `period` seconds.

    For an outage (a reason with a 5xx status), which fails every request for the same reason, only
    one message per period is logged.

    The first message of the next period has the number of suppressed ones in `suppressed`; without
    a next message, `summaries` reports it. The methods may be called in any thread.
    """

    def __init__(
        self, *, burst: int = 10, period: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[_Key, _MessageCount] = {}
        self._due: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged (logging.Filter)."""
        if record.name in _SILENCED or record.name.startswith(_SILENCED_TREES):
            return False
        if not any(record.name == name or record.name.startswith(name + ".") for name in _LIMITED):
            return True
        with self._lock:
            return self._count(record)

    @property
    def is_counting(self) -> bool:
        """Whether a period is running, or a summary is due."""
        return bool(self._seen or self._due)

    def summaries(self, *, at_end: bool = False) -> list[logging.LogRecord]:
        """Return the summaries of finished periods; with `at_end` also those of running ones."""
        now = self._clock()
        with self._lock:
            for key, seen in list(self._seen.items()):
                if at_end or now - seen.since >= self._period:
                    del self._seen[key]
                    self._add_summary(key, seen)
            due, self._due = self._due, []
        return due

    def _add_summary(self, key: _Key, seen: _MessageCount) -> None:
        if seen.suppressed:
            name, text = key
            record = logging.LogRecord(name, seen.level, "", 0, "left out: %s", (text,), None)
            record.suppressed = seen.suppressed
            self._due.append(record)

    def _count(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        reason = _reason(record)
        key = record.name, _constant_text(record) if reason is None else reason.code
        seen = self._seen.get(key)
        if seen is None or now - seen.since >= self._period:
            if seen is not None:
                record.suppressed = seen.suppressed
            elif len(self._seen) >= _MAX_MESSAGES:
                for other_key, before in self._seen.items():
                    self._add_summary(other_key, before)
                self._seen.clear()
            outage = reason is not None and reason.status >= 500
            burst = 1 if outage else self._burst
            seen = self._seen[key] = _MessageCount(now, burst, record.levelno)
        seen.count += 1
        return seen.count <= seen.burst


def _arguments(record: logging.LogRecord) -> object:
    return getattr(record.msg, "args", record.args)


def _constant_text(record: logging.LogRecord) -> str:
    """Return what messages of this kind have in common: the template, its placeholders as `…`.

    Only the first line is constant: asyncio appends tasks and sockets.
    """
    template: str = getattr(record.msg, "template", None) or str(record.msg)
    text = template.partition("\n")[0]
    return _PLACEHOLDER.sub(_ellipsis, text) if _arguments(record) else text


def _ellipsis(placeholder: re.Match[str]) -> str:
    return "%" if placeholder[1] == "%" else "…"


def _reason(record: logging.LogRecord) -> Reason | None:
    """Return the reason of the failure that a record reports, if any."""
    arguments = _arguments(record)
    if not isinstance(arguments, tuple):
        return None
    return next(
        (argument.reason for argument in arguments if isinstance(argument, GatewayError)), None
    )
