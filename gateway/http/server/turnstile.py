"""Distributes the event loop's time among connections with pipelined requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

# Requests per loop iteration, each of which takes a fraction of a millisecond.
_MAX_BATCH: Final = 4


class FairScheduler:
    """Resumes at most four waiting tasks in each iteration of the event loop, in FIFO order.

    Without it, callers that pipeline requests on many connections would starve all others. The
    class needs a running loop.
    """

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def schedule(self, future: asyncio.Future[None]) -> None:
        """Enqueue `future`, which completes when its task may continue."""
        if not self._waiting:
            self._loop.call_soon(self._run_batch)
        self._waiting.append(future)

    def _run_batch(self) -> None:
        for _ in range(min(_MAX_BATCH, len(self._waiting))):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._run_batch)
