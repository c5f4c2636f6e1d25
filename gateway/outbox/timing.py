"""Time and chance, as whoever waits is given them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from time import monotonic
from typing import Protocol


class Timer(Protocol):
    """Of `call_later`."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


def _call_later(delay: float, callback: Callable[[], object]) -> Timer:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, slots=True)
class Timing:
    """The monotonic time, timers on it, and the random numbers (0 to 1) that spread pauses."""

    clock: Callable[[], float] = monotonic
    call_later: Callable[[float, Callable[[], object]], Timer] = _call_later
    random: Callable[[], float] = SystemRandom().random

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event; after so much time it is set."""
        timer = self.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
