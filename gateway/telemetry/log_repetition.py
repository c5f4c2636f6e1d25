"""Rate limit of log messages: equal ones are counted, so that callers cannot fill the log.

The request id of a suppressed message is not lost, because operators are asked to search for it.
The ids of suppressed messages are logged together in separate lines.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import RATE_LIMITED, GatewayError, Reason

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
# The number of ids that are retained until the log is read, and their bytes in one line: a line
# longer than PIPE_BUF can be interrupted by a line of another process.
_MAX_IDS: Final = 20_000
_MAX_IDS_BYTES: Final = 3_000

# A placeholder of the operator `%` (printf-style formatting), with its type.
_PLACEHOLDER: Final = re.compile(
    r"%(?:\([^)]*\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?[hlL]?([diouxXeEfFgGcrsa%])"
)

# Logger and the constant text of its messages; for errors that the gateway sends as a response, the
# reason instead of the text.
_Key = tuple[str, str]


@dataclass(slots=True)
class _MessageCount:
    """Number of equal messages since `since`; level and request ids of the suppressed ones.

    The first `burst` messages are logged. `ids` holds only ids that are not logged yet.
    """

    since: float
    burst: int
    count: int = 0
    level: int | None = None
    ids: list[str] = field(default_factory=list)
    ids_bytes: int = 0

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
        self._id_count = 0
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
        """Return the summaries of finished periods; with `at_end` also those of running ones.

        A running period is summarized only when its ids fill a line.
        """
        now = self._clock()
        with self._lock:
            for key, seen in list(self._seen.items()):
                if at_end or now - seen.since >= self._period:
                    del self._seen[key]
                    self._add_summaries(key, seen, seen.suppressed)
                elif seen.ids_bytes >= _MAX_IDS_BYTES:
                    self._add_summaries(key, seen, 0)
            due, self._due = self._due, []
            self._id_count = sum(len(seen.ids) for seen in self._seen.values())
        return due

    def _add_summaries(self, key: _Key, seen: _MessageCount, suppressed: int) -> None:
        """Add summaries of suppressed messages: their number, and the ids not logged yet."""
        if seen.level is None or not (seen.ids or suppressed):
            return
        ids, seen.ids, seen.ids_bytes = seen.ids, [], 0
        for chunk in _chunks(ids):
            self._due.append(_summary(key, seen.level, suppressed, chunk))
            suppressed = 0

    def _count(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        reason = _reason(record)
        key = record.name, _constant_text(record) if reason is None else reason.code
        seen = self._seen.get(key)
        if seen is None or now - seen.since >= self._period:
            if seen is not None:
                record.suppressed = seen.suppressed
                self._add_summaries(key, seen, 0)
            elif len(self._seen) >= _MAX_MESSAGES:
                for other_key, before in self._seen.items():
                    self._add_summaries(other_key, before, before.suppressed)
                self._seen.clear()
            outage = reason is not None and reason.status >= 500
            seen = self._seen[key] = _MessageCount(now, 1 if outage else self._burst)
        seen.count += 1
        if seen.count <= seen.burst:
            return True
        seen.level = record.levelno
        request_id = _request_id(record, reason)
        if request_id and self._id_count < _MAX_IDS:
            seen.ids.append(request_id)
            seen.ids_bytes += len(request_id) + len('"",')
            self._id_count += 1
        return False


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


def _request_id(record: logging.LogRecord, reason: Reason | None) -> str:
    """Return the request id of a record, "" if there is none.

    Unidentified callers over their limit are only counted, as in the audit trail: they could fill
    the log with ids.
    """
    fields = record.msg if isinstance(record.msg, dict) else {}
    if reason is RATE_LIMITED and "credential" not in fields:
        return ""
    return str(fields.get("request_id", ""))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    """Split ids into chunks for one line each. Yields one empty chunk if there are none."""
    chunk: list[str] = []
    free_bytes = _MAX_IDS_BYTES
    for request_id in ids:
        free_bytes -= len(request_id) + len('"",')
        if chunk and free_bytes < 0:
            yield chunk
            chunk, free_bytes = [], _MAX_IDS_BYTES - len(request_id) - len('"",')
        chunk.append(request_id)
    yield chunk


def _summary(key: _Key, level: int, suppressed: int, ids: list[str]) -> logging.LogRecord:
    name, text = key
    record = logging.LogRecord(name, level, "", 0, "left out: %s", (text,), None)
    record.suppressed = suppressed
    record.request_ids = ids
    return record
