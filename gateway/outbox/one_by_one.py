"""Work on large bodies, which takes much memory and time, in a thread of its own: one by one.

Several at once would take several times the memory, and the event loop would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from weakref import WeakValueDictionary

# More than this at once would hold up the event loop.
INLINE: Final = 64 * 1024
# Seconds that a body waits for its turn, and for its end.
_MAX_WAIT: Final = 10.0

_Result = TypeVar("_Result")


class SerialExecutor:
    """Made once for a process. Each of those who wait has one piece of work in line."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "bodies")
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, size: int | None, caller: str, work: Callable[[], _Result]) -> _Result:
        """What `work` returns for a body of that size, None for any, at once if it is small.

        Raises `TimeoutError` when that takes too long; whoever is cancelled while its work is under
        way leaves it there, and nobody else begins before its end.
        """
        if size is not None and size <= INLINE:
            return work()
        line = self._queues.setdefault(caller, asyncio.Lock())
        async with asyncio.timeout(_MAX_WAIT), line:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
