"""Methods that run to their end, also when their caller is cancelled.

A transaction that is cancelled midway would leave its connection, and SQLite's lock, to a thread
that does not know of the cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ShieldedTasks:
    """The tasks that are running."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await `work` and return its result.

        Cancelling the caller does not cancel the work (asyncio.shield).
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

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


class HasShieldedTasks(Protocol):
    """An object with `shielded` methods."""

    @property
    def shielded_tasks(self) -> ShieldedTasks:
        """The tasks of its shielded methods."""
        ...


_W = TypeVar("_W", bound=HasShieldedTasks)


def shielded(
    method: Callable[Concatenate[_W, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_W, _P], Coroutine[Any, Any, _T]]:
    """Return the method as one that completes even if its caller is cancelled."""

    async def run_to_end(self: _W, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self.shielded_tasks.run(method(self, *args, **kwargs))

    update_wrapper(run_to_end, method)
    return run_to_end
