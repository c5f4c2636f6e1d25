"""Threads that run in the event loop, one step after the other, at moments that the seed chooses.

A simulated thread is a greenlet. Where it would block (in `Condition.wait`, `Thread.join`, a busy
database, a flush to the disk) it returns to the loop, which resumes it later. So threads of the
gateway need no second implementation, only these classes in place of those of `threading`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

_unfinished: dict[SimulatedThread, None] = {}


class _Greenlet(greenlet):
    thread: SimulatedThread


class SimulatedThread:
    """A thread (`threading.Thread`), which belongs to the host that starts it."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target, self._args, self._kwargs = target, tuple(args), dict(kwargs or {})
        self._greenlet = _Greenlet(self._run)
        self._greenlet.thread = self
        self._greenlet.gr_context = copy_context()
        self._context = copy_context()
        self._ended = Condition()
        self._alarm: asyncio.Handle | None = None
        self._is_abandoned = False

    def start(self) -> None:
        self._loop: Any = asyncio.get_running_loop()
        _unfinished[self] = None
        self.wake(self._loop.thread_delay())

    def wake(self, delay: float | None = None) -> None:
        """Let the thread go on after a delay (None: one by the seed) instead of when it would."""
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = self._loop.thread_delay() if delay is None else delay
        self._alarm = self._loop.call_later(seconds, self._resume, context=self._context)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait_for(lambda: not self.is_alive(), timeout)

    def is_alive(self) -> bool:
        return self in _unfinished

    def pause(self, delay: float | None) -> None:
        """Let others run for some seconds; None: until `wake`."""
        if delay is not None and not self._is_abandoned:
            self.wake(delay)
        if not self._is_abandoned:
            self._greenlet.parent.switch()
        if self._is_abandoned:
            raise GreenletExit

    def abandon(self) -> None:
        """End the thread where it is."""
        self._is_abandoned = True
        _unfinished.pop(self, None)
        self._greenlet.parent = getcurrent()
        # It may go on to an end of its own, as one of SQLite does that is called back.
        with contextlib.suppress(Exception):
            self._greenlet.throw(GreenletExit)

    def _resume(self) -> None:
        self._alarm = None
        # Nothing goes on in a process that was killed.
        if self._loop.is_host_alive():
            self._greenlet.parent = getcurrent()
            self._greenlet.switch()

    def _run(self) -> None:
        try:
            if self._target is not None and not self._is_abandoned:
                self._target(*self._args, **self._kwargs)
        finally:
            _unfinished.pop(self, None)
            self._ended.notify_all()


def current_thread() -> SimulatedThread | None:
    """Return the simulated thread that runs now, None in the loop itself."""
    running = getcurrent()
    return running.thread if isinstance(running, _Greenlet) else None


def abandon_all() -> None:
    """End the threads that a run leaves."""
    while _unfinished:
        next(iter(_unfinished)).abandon()


def sleep(seconds: float) -> None:
    """Wait in a thread (`time.sleep`)."""
    thread = current_thread()
    if thread is None:
        raise RuntimeError("the event loop would block")
    thread.pause(seconds)


class Condition:
    """A condition (`threading.Condition`); its lock is free whenever a thread runs."""

    def __init__(self) -> None:
        self._waiting: list[SimulatedThread] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> None:
        thread = current_thread()
        if thread is None:
            raise RuntimeError("the event loop would block")
        self._waiting.append(thread)
        try:
            thread.pause(timeout)
        finally:
            self._waiting.remove(thread)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while not predicate():
            left = None if until is None else until - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def notify_all(self) -> None:
        for thread in self._waiting:
            thread.wake()

    notify = notify_all
