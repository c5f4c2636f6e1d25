"""Where the coroutines of a task begin. Not to be compiled."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_task_root(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work of a task.

    A coroutine of Python's own keeps the exception that is handled while it waits, in all that it
    awaits, apart from other tasks'. One that mypyc compiled does not: without this the next task
    would find it, and raise it at the end of a `finally`. Within one task that remains: where a
    compiled `finally` waits, its end raises any exception that is being handled there.
    """
    return await work
