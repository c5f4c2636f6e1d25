"""Ends a wait that lasts too long, where there are many short ones: a timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Patience:
    """Calls `give_up` once when what was begun has not ended after `limit` seconds."""

    __slots__ = ("_give_up", "_limit", "_loop", "_since", "_timer")

    def __init__(self, limit: float, give_up: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._give_up = give_up
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From here on somebody is waited for."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit, self._look)

    def end(self) -> None:
        """The wait is over. The timer stays: most likely another wait begins soon."""
        self._since = None

    def forget(self) -> None:
        """Nobody is waited for any more."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        left = self._since + self._limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._since = None
            self._give_up()
