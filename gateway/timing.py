"""Time and chance, as whoever waits is given them, and pauses that grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, Protocol

_MAX_DOUBLINGS: Final = 16


class TimerHandle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


def _call_later(delay: float, callback: Callable[[], object]) -> TimerHandle:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, slots=True)
class TimeSource:
    """The monotonic clock, Unix time, timers on the monotonic clock; seconds all.

    `random` gives numbers from 0 to 1, which spread pauses.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    call_later: Callable[[float, Callable[[], object]], TimerHandle] = _call_later
    random: Callable[[], float] = SystemRandom().random

    async def sleep(self, seconds: float) -> None:
        """Return when `seconds` have passed."""
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event; after so much time it is set."""
        timer = self.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()


def backoff(
    failures: int, first: float, longest: float, random: Callable[[], float] | None = None
) -> float:
    """Seconds to wait after so many failures in a row: `first`, each time twice as long.

    With `random`, numbers from 0 to 1, it is up to a half shorter, so that many do not act as one.
    """
    pause = min(first * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS), longest)
    return pause if random is None else pause * (0.5 + random() / 2)
