"""Statistics of the requests of the last hour, minute by minute, for the charts of `/status`.

`RecentRequests.record_exchange` is called at the end of every exchange; its cost and the memory
used are constant. Only words from closed sets, numbers and times of an exchange are stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.clock import TimestampFormatter
from gateway.exchange import Exchange

MINUTES: Final = 60
# Number of latest minutes by which the process is judged.
_RECENT: Final = 5
# From `_MIN_REQUESTS_FOR_RATIO` requests on, a ratio of `_MANY_ERRORS_RATIO` failed ones means many
# errors. With fewer requests a ratio has no significance, unless at least `_MIN_REQUESTS` requests
# were made and all of them failed.
_MIN_REQUESTS_FOR_RATIO: Final = 10
_MIN_REQUESTS: Final = 3
_MANY_ERRORS_RATIO: Final = 0.5
# Number of the slowest requests that are shown.
_MAX_SLOWEST: Final = 10
# Limits the memory: names come from the settings, and each reload may add new ones.
_MAX_CALLERS: Final = 5000
OTHERS: Final = "(others)"
# Reasons of responses of the platform, 5xx and 4xx, that the gateway forwarded.
PLATFORM_ERROR: Final = "platform-error"
PLATFORM_REFUSAL: Final = "platform-refusal"


@dataclass(slots=True)
class _Minute:
    number: int
    requests: int = 0
    errors: int = 0
    refusals: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    slowest: float = -1.0
    slowest_of: tuple[str, str, int, float] = ("", "", 0, 0.0)


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    errors: int = 0
    refusals: int = 0


class RecentRequests:
    """A ring buffer of the last hour's minutes.

    `clock` must be that of `Exchange.started_monotonic`. An error is a 5xx response, a response
    that was cut off, or none; a caller that disconnects is no error. A refusal is a 4xx response of
    the gateway or of the platform. The counts by reason cover errors and refusals.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._minutes = [_Minute(-1) for _ in range(MINUTES)]
        self._callers: dict[str, _Tally] = {}
        # By reason: time of the last occurrence (Unix time), its status, and the number in total.
        self._last: dict[str, tuple[float, int, int]] = {}
        # Monotonic time of the last error or refusal.
        self.last_error_at = -math.inf

    def record_exchange(self, exchange: Exchange) -> None:
        """Count an exchange that has ended."""
        duration = exchange.duration
        number = int((exchange.started_monotonic + duration) // 60)
        minute = self._minutes[number % MINUTES]
        if minute.number != number:
            minute = self._minutes[number % MINUTES] = _Minute(number)
        minute.requests += 1
        if duration > minute.slowest:
            minute.slowest = duration
            minute.slowest_of = (
                exchange.interaction,
                exchange.resource,
                exchange.status,
                exchange.started_at + duration,
            )
        tally = self._callers.get(exchange.caller)
        if tally is None:
            tally = self._tally_of(exchange.caller)
        tally.requests += 1
        if exchange.reason or exchange.status >= 400 or exchange.status == 0:
            self._record_error(exchange, minute, tally)

    def _tally_of(self, caller: str) -> _Tally:
        name = caller if len(self._callers) < _MAX_CALLERS else OTHERS
        return self._callers.setdefault(name, _Tally())

    def _record_error(self, exchange: Exchange, minute: _Minute, tally: _Tally) -> None:
        reason = exchange.reason
        if exchange.is_aborted and not reason:
            return
        if exchange.status >= 500 or exchange.status == 0 or exchange.is_aborted:
            minute.errors += 1
            tally.errors += 1
            reason = reason or PLATFORM_ERROR
        elif reason or exchange.upstream_status is not None:
            minute.refusals += 1
            tally.refusals += 1
            reason = reason or PLATFORM_REFUSAL
        else:
            return
        minute.reasons[reason] = minute.reasons.get(reason, 0) + 1
        before = self._last.get(reason)
        count = 1 if before is None else before[2] + 1
        self._last[reason] = (exchange.started_at + exchange.duration, exchange.status, count)
        self.last_error_at = exchange.started_monotonic + exchange.duration

    def latest(self, minutes: int = _RECENT) -> tuple[int, int]:
        """Return the numbers of requests and errors in the last minutes, the current one too."""
        last = [minute for _, minute in self._hour()][-minutes:]
        return sum(minute.requests for minute in last), sum(minute.errors for minute in last)

    def latest_count(self, reason: str) -> int:
        """Return the number of errors and refusals for a reason in five minutes and this one."""
        last = [minute for _, minute in self._hour()][-_RECENT - 1 :]
        return sum(minute.reasons.get(reason, 0) for minute in last)

    def totals(self) -> tuple[int, int]:
        """Return the numbers of requests and errors since the start."""
        tallies = self._callers.values()
        return sum(tally.requests for tally in tallies), sum(tally.errors for tally in tallies)

    def facts(self) -> dict[str, Any]:
        """Return the facts for `/status.json`: times in UTC, counts of callers since the start."""
        iso = TimestampFormatter().format
        hour = list(self._hour())
        return {
            "last_hour": {
                "requests": sum(minute.requests for _, minute in hour),
                "errors": sum(minute.errors for _, minute in hour),
                "refusals": sum(minute.refusals for _, minute in hour),
                "minutes": [
                    {
                        "from": iso(begin),
                        "requests": minute.requests,
                        "errors": minute.errors,
                        "refusals": minute.refusals,
                    }
                    for begin, minute in hour
                ],
            },
            "slowest": _slowest([minute for _, minute in hour]),
            "errors": self._errors([minute for _, minute in hour]),
            "callers": [
                {
                    "name": name,
                    "requests": tally.requests,
                    "errors": tally.errors,
                    "refusals": tally.refusals,
                }
                for name, tally in sorted(self._callers.items())
            ],
        }

    def _hour(self) -> Iterator[tuple[float, _Minute]]:
        """Yield the beginning (Unix time) and the counts of each minute, the newest last."""
        now = self._clock()
        newest = int(now // 60)
        offset = self._wall_clock() - now
        for number in range(newest - MINUTES + 1, newest + 1):
            minute = self._minutes[number % MINUTES]
            found = minute if minute.number == number else _Minute(number)
            yield number * 60 + offset, found

    def _errors(self, minutes: list[_Minute]) -> list[dict[str, Any]]:
        iso = TimestampFormatter().format
        newest_first = sorted(self._last.items(), key=lambda item: item[1][0], reverse=True)
        return [
            {
                "reason": reason,
                "last_at": iso(at),
                "last_status": status,
                "last_hour": sum(minute.reasons.get(reason, 0) for minute in minutes),
                "since_start": count,
            }
            for reason, (at, status, count) in newest_first
        ]


def many_errors(requests: int, errors: int) -> bool:
    """Return whether so many of the last requests failed that an operator should act."""
    share = 1.0 if requests < _MIN_REQUESTS_FOR_RATIO else _MANY_ERRORS_RATIO
    return requests >= _MIN_REQUESTS and errors >= share * requests


def _slowest(minutes: list[_Minute]) -> list[dict[str, Any]]:
    iso = TimestampFormatter().format
    used = sorted(
        (minute for minute in minutes if minute.requests), key=lambda minute: -minute.slowest
    )[:_MAX_SLOWEST]
    return [
        {
            "interaction": interaction,
            "resource": resource,
            "status": status,
            "at": iso(at),
            "duration_ms": round(minute.slowest * 1000, 1),
        }
        for minute in used
        for interaction, resource, status, at in (minute.slowest_of,)
    ]
