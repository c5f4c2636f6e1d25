"""Lets what was begun come to its end, also when nobody waits for it any more.

A transaction that is cancelled in the middle would leave its connection, and SQLite's lock, in the
hands of a thread that does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ShieldedTasks:
    """What is under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The work's result. Whoever is cancelled here leaves the work to go on."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def wait_all(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not report what nobody waited for.
            task.exception()


class HasShieldedTasks(Protocol):
    """Has methods that are unbroken."""

    @property
    def shielded_tasks(self) -> ShieldedTasks:
        """Where they are under way."""
        ...


_W = TypeVar("_W", bound=HasShieldedTasks)


def shielded(
    method: Callable[Concatenate[_W, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_W, _P], Coroutine[Any, Any, _T]]:
    """A method that is not cut short when its caller is cancelled."""

    async def whole(self: _W, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self.shielded_tasks.run(method(self, *args, **kwargs))

    update_wrapper(whole, method)
    return whole
