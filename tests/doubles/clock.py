"""A clock that stands still until a test moves it, with the timers that hang on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TURNS = 10


class FakeTimer:
    """A timer of a `FakeClock`."""

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call back."""
        self.cancelled = True


class FakeClock:
    """Calling it gives the monotonic time, `wall` gives Unix time, which can jump by itself."""

    def __init__(self, now: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self.now = now
        self._wall_offset = wall - now
        self.timers: list[FakeTimer] = []

    def __call__(self) -> float:
        """The monotonic time."""
        return self.now

    def wall(self) -> float:
        """Unix time."""
        return self.now + self._wall_offset

    def jump_wall(self, seconds: float) -> None:
        """Somebody sets the machine's clock."""
        self._wall_offset += seconds

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        """Call back once `delay` seconds have been moved over."""
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def next_due(self) -> float | None:
        """Seconds until the next timer."""
        self._forget()
        return min(timer.due for timer in self.timers) - self.now if self.timers else None

    async def advance(self, seconds: float) -> None:
        """Move on, stopping at every timer; the loop turns a few times after each."""
        end = self.now + seconds
        await turn()
        while (due := self.next_due()) is not None and self.now + due <= end:
            timer = min(self.timers, key=lambda timer: timer.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.callback()
            await turn()
        self.now = end
        await turn()

    def _forget(self) -> None:
        self.timers = [timer for timer in self.timers if not timer.cancelled]


async def turn() -> None:
    """Let everything run that can run without waiting for a socket."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
