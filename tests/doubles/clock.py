"""A clock that stands still until a test moves it, with its timers."""

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
        self.cancelled = True


class FakeClock:
    """A call returns the monotonic time, `wall` Unix time, which can jump on its own."""

    def __init__(self, now: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self.now = now
        self._wall_offset = wall - now
        self.timers: list[FakeTimer] = []

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._wall_offset

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as a correction of the machine's clock does."""
        self._wall_offset += seconds

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        """Call `callback` once the clock has moved by `delay` seconds."""
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def next_due(self) -> float | None:
        """Return the seconds until the next timer, None without one."""
        self._forget()
        return min(timer.due for timer in self.timers) - self.now if self.timers else None

    async def advance(self, seconds: float) -> None:
        """Move the clock on and call each timer when it is due.

        The event loop runs a few iterations after each timer.
        """
        end = self.now + seconds
        await run_pending_tasks()
        while (due := self.next_due()) is not None and self.now + due <= end:
            timer = min(self.timers, key=lambda timer: timer.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.callback()
            await run_pending_tasks()
        self.now = end
        await run_pending_tasks()

    def _forget(self) -> None:
        self.timers = [timer for timer in self.timers if not timer.cancelled]


async def run_pending_tasks() -> None:
    """Run a few loop iterations, so that all tasks run that wait for no socket."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
