"""A thread for work on large bodies, which needs much memory and time: one body at a time.

Several at the same time would need several times the memory, and the event loop would wait for all
of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from weakref import WeakValueDictionary

# Bytes. Work on a larger body would block the event loop for too long.
MAX_INLINE_BYTES: Final = 64 * 1024
# Seconds for which a body waits for the thread and for the end of its work.
_MAX_WAIT: Final = 10.0

_Result = TypeVar("_Result")


class SerialExecutor:
    """The thread for large bodies, made once for a process.

    Each caller has at most one piece of work in the queue of the thread.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "bodies")
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, size: int | None, caller: str, work: Callable[[], _Result]) -> _Result:
        """Return what `work` returns for a body of `size` bytes, None where the size is unknown.

        Work on a small body runs at once, in the event loop. Raises `TimeoutError` when waiting and
        work together take too long. Cancelling this does not stop work that has started, and no
        other work starts before its end.
        """
        if size is not None and size <= MAX_INLINE_BYTES:
            return work()
        lock = self._queues.setdefault(caller, asyncio.Lock())
        async with asyncio.timeout(_MAX_WAIT), lock:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Start no more work."""
        self._thread.shutdown(wait=False, cancel_futures=True)
