"""An event loop whose time passes quickly while nothing happens, for tests that wait for a timeout.

Time does not hurry while a thread of its executor works. Another process must not be waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

# Seconds without an event until the time is moved on, and by how much.
_SILENCE = 0.005
_STEP = 0.1


class _HurriedSelector(selectors.DefaultSelector):
    """Waits for the next timer only as long as something happens.

    `ahead` is the time saved, in seconds; `threads` the number of calls that threads work at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= _SILENCE or self.threads:
            return super().select(timeout)
        events = super().select(_SILENCE)
        if not events:
            self.ahead += min(timeout - _SILENCE, _STEP)
        return events


class HurriedLoop(asyncio.SelectorEventLoop):
    """The loop; its `time` is ahead of the monotonic clock."""

    def __init__(self) -> None:
        self._hurried = _HurriedSelector()
        super().__init__(self._hurried)

    def time(self) -> float:
        return super().time() + self._hurried.ahead

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._hurried.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._hurried.threads -= 1

    def leap(self, seconds: float) -> None:
        """Move the time on before the loop looks at its sockets, as if it had been blocked."""
        self._hurried.ahead += seconds
