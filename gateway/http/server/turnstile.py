"""Lets those through one behind the other who have more to ask and need not wait for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

# In each of the loop's turns: a fraction of a millisecond for each.
_BATCH: Final = 4


class FairScheduler:
    """A few pass in each turn of the event loop, however many wait; needs a running loop.

    Who sends many requests ahead, on many connections, would else take all of the loop's time.
    """

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def schedule(self, turn: asyncio.Future[None]) -> None:
        """Let `turn` be done when it is."""
        if not self._waiting:
            self._loop.call_soon(self._run_batch)
        self._waiting.append(turn)

    def _run_batch(self) -> None:
        for _ in range(min(_BATCH, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._run_batch)
