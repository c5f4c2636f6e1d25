"""Keeps those who make the gateway log from filling the log: equal messages are counted.

A request id that a message names is not lost with it: people are asked to look for it. The ids of
messages that are left out stand together in lines of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from gateway.errors import RATE_LIMITED, GatewayError, Reason

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
# Ids that wait for the log's reader, and their bytes in one line: what is longer than PIPE_BUF can
# be torn by another process's line.
_MAX_IDS: Final = 20_000
_MAX_IDS_BYTES: Final = 3_000

# Logger and text; of errors that the gateway answers the reason instead of the text.
_Key = tuple[str, str]


class _MessageCount:
    """How often a message came since `since`, level and request ids of those that were left out.

    The first `burst` of them go out. `ids` are only those that no line has told yet.
    """

    __slots__ = ("burst", "count", "ids", "ids_bytes", "level", "since")

    def __init__(self, since: float, burst: int) -> None:
        self.since = since
        self.burst = burst
        self.count = 0
        self.level: int | None = None
        self.ids: list[str] = []
        self.ids_bytes = 0

    @property
    def suppressed(self) -> int:
        """How many were left out."""
        return max(0, self.count - self.burst)


class LogRateLimit(logging.Filter):
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
        self._seen: dict[_Key, _MessageCount] = {}
        self._id_count = 0
        self._due: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes out."""
        if record.name in _SILENCED or record.name.startswith(_SILENCED_TREES):
            return False
        if not any(record.name == name or record.name.startswith(name + ".") for name in _LIMITED):
            return True
        with self._lock:
            return self._count(record)

    @property
    def is_counting(self) -> bool:
        """Whether a period is under way, or something is to be said of one."""
        return bool(self._seen or self._due)

    def summaries(self, *, at_end: bool = False) -> list[logging.LogRecord]:
        """What is to be said of periods that are over; `at_end` of all others too.

        Of one under way only ids, once they fill a line.
        """
        now = self._clock()
        with self._lock:
            for key, seen in list(self._seen.items()):
                if at_end or now - seen.since >= self._period:
                    del self._seen[key]
                    self._tell(key, seen, seen.suppressed)
                elif seen.ids_bytes >= _MAX_IDS_BYTES:
                    self._tell(key, seen, 0)
            told, self._due = self._due, []
            self._id_count = sum(len(seen.ids) for seen in self._seen.values())
        return told

    def _tell(self, key: _Key, seen: _MessageCount, suppressed: int) -> None:
        """Have lines written of what was left out: its number, and the ids as yet untold."""
        if seen.level is None or not (seen.ids or suppressed):
            return
        ids, seen.ids, seen.ids_bytes = seen.ids, [], 0
        for chunk in _chunks(ids):
            self._due.append(_summary(key, seen.level, suppressed, chunk))
            suppressed = 0

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
                record.suppressed = seen.suppressed
                self._tell(key, seen, 0)
            elif len(self._seen) >= _MAX_MESSAGES:
                for each, before in self._seen.items():
                    self._tell(each, before, before.suppressed)
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


def _reason(record: logging.LogRecord) -> Reason | None:
    """The reason of the failure that a record tells of."""
    arguments = getattr(record.msg, "args", record.args)
    if not isinstance(arguments, tuple):
        return None
    return next((each.reason for each in arguments if isinstance(each, GatewayError)), None)


def _request_id(record: logging.LogRecord, reason: Reason | None) -> str:
    """The id that a record names, "" without one.

    Unidentified callers beyond their limit are counted and no more, as in the audit: they could
    fill the log with ids.
    """
    fields = record.msg if isinstance(record.msg, dict) else {}
    if reason is RATE_LIMITED and "credential" not in fields:
        return ""
    return str(fields.get("request_id", ""))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    """The ids in portions for a line each, an empty one where there are none."""
    chunk: list[str] = []
    room = _MAX_IDS_BYTES
    for each in ids:
        room -= len(each) + len('"",')
        if chunk and room < 0:
            yield chunk
            chunk, room = [], _MAX_IDS_BYTES - len(each) - len('"",')
        chunk.append(each)
    yield chunk


def _summary(key: _Key, level: int, suppressed: int, ids: list[str]) -> logging.LogRecord:
    name, text = key
    record = logging.LogRecord(name, level, "", 0, "left out: %s", (text,), None)
    record.suppressed = suppressed
    record.request_ids = ids
    return record
