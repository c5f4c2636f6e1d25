"""Injectable clock, timers and random source, exponential backoff, and formatted timestamps.

Timestamps have the format of audit records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

_MAX_DOUBLINGS: Final = 16


def _call_later(delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, slots=True)
class TimeSource:
    """Monotonic clock, Unix time and timers on the monotonic clock, all in seconds.

    `random` returns numbers from 0 to 1, for jitter.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    call_later: Callable[[float, Callable[[], object]], asyncio.TimerHandle] = _call_later
    random: Callable[[], float] = SystemRandom().random

    async def sleep(self, seconds: float) -> None:
        """Return when `seconds` have passed."""
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event, which is set after `seconds` at the latest."""
        timer = self.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()


def backoff(
    failures: int, first: float, max_delay: float, random: Callable[[], float] | None = None
) -> float:
    """Return the seconds to wait after this number of failures in a row.

    It is `first`, doubled with each further failure, at most `max_delay`. With `random` (numbers
    from 0 to 1) it is up to a half shorter, so that many processes do not act at the same time.
    """
    delay = min(first * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS), max_delay)
    return delay if random is None else delay * (0.5 + random() / 2)


_FRACTIONS: Final = [f".{milliseconds:03d}Z" for milliseconds in range(1000)]


class TimestampFormatter:
    """Formats ISO 8601 in UTC with milliseconds. The text of the current second is cached.

    An object must be used in one thread only.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, seconds: float) -> str:
        """Return a text such as `2026-03-01T08:30:00.125Z` for a Unix time in seconds."""
        milliseconds = int(seconds * 1000 + 0.5)
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._text + _FRACTIONS[milliseconds - second * 1000]
