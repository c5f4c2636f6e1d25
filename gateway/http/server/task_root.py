"""The outermost coroutine of a task. This module must not be compiled by mypyc."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_task_root(work: Coroutine[Any, Any, Result]) -> Result:
    """Await the work of a task and return its result.

    While an interpreted coroutine waits, the exception that it is handling, or that anything it
    awaits is handling, is invisible to other tasks. A coroutine compiled by mypyc does not ensure
    that: without this function the next task would see the exception and raise it at the end of a
    `finally`. Within one task the problem remains: at its end a compiled `finally` that waits
    raises any exception that is being handled there.
    """
    return await work
