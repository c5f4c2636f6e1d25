"""Tasks that outlive the cancellation of their caller, and work that is done in groups.

The store uses both: what waits while a transaction is under way shares the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class ShieldedTasks:
    """The tasks that are running."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await `work` and return its result.

        Cancelling the caller does not cancel the work (asyncio.shield).
        """
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task for `work` and return it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    async def wait_all(self) -> None:
        """Wait until no task is running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Retrieved, so that asyncio does not log the exception of a task whose caller was
            # cancelled.
            task.exception()


class WorkGroups(Generic[_T]):
    """Items that come while a group is worked on form the next group, in their order.

    So an item that comes alone does not wait for others, and the more come, the less each costs.
    `work` gets one group at a time, of at least one item, with a weight of at most `max_weight` or
    a single item. It must not raise.
    """

    def __init__(
        self, work: Callable[[list[_T]], Awaitable[None]], tasks: ShieldedTasks, *, max_weight: int
    ) -> None:
        self._work = work
        self._tasks = tasks
        self._max_weight = max_weight
        self._waiting: deque[tuple[_T, int]] = deque()
        self._is_working = False

    def add(self, item: _T, weight: int) -> None:
        """Have the item worked on, in a group."""
        self._waiting.append((item, weight))
        if not self._is_working:
            self._is_working = True
            self._tasks.start(self._work_on_all())

    async def _work_on_all(self) -> None:
        try:
            while self._waiting:
                await self._work(self._next_group())
        finally:
            self._is_working = False

    def _next_group(self) -> list[_T]:
        item, weight = self._waiting.popleft()
        group = [item]
        while self._waiting and weight + self._waiting[0][1] <= self._max_weight:
            item, item_weight = self._waiting.popleft()
            group.append(item)
            weight += item_weight
        return group
