"""Rate and concurrency limits: a token bucket, and slots with a short queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from gateway import errors
from gateway.errors import GatewayError

# Seconds: long enough for a burst to pass, too short for a user to notice.
_MAX_WAIT: Final = 0.1
_QUEUED_SHARE: Final = 10
_RETRY_AFTER: Final = 1.0


class TokenBucket:
    """Admits `rate` requests a second on average, and up to `burst` at once after a pause."""

    def __init__(self, rate: float, burst: int | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._size = max(1.0, float(burst) if burst is not None else rate)
        self._clock = clock
        self._tokens = self._size
        self._filled = clock()

    def take(self) -> None:
        """Take a token.

        Raises `GatewayError` rate-limited with the seconds until the next request may pass.
        """
        wait = self.seconds_until_available()
        if wait:
            raise GatewayError(errors.RATE_LIMITED, "requests a second", retry_after=wait)
        self._tokens -= 1

    def seconds_until_available(self) -> float:
        """Return the seconds until a request may pass; 0.0 if one may now."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate


class ConcurrencyLimiter:
    """Grants `size` slots at once; a tenth as many requests may wait briefly for one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._in_use = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._max_queue_length = max(1, size // _QUEUED_SHARE)

    def try_acquire(self) -> bool:
        """Acquire a slot if one is free and no request waits for it; False if not."""
        if self._in_use < self._size and not self._queue:
            self._in_use += 1
            return True
        return False

    async def acquire(self) -> None:
        """Acquire a slot; wait at most `_MAX_WAIT` seconds. Raises `GatewayError` overloaded."""
        if self.try_acquire():
            return
        if len(self._queue) >= self._max_queue_length:
            raise _overloaded()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(_MAX_WAIT):
                await waiter
        except BaseException as error:
            self._on_wait_timeout(waiter)
            if isinstance(error, TimeoutError):
                raise _overloaded() from None
            raise

    def release(self) -> None:
        """Release a slot: to the first waiter in the queue, if there is one."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._in_use -= 1

    def _on_wait_timeout(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._queue:
            self._queue.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            # The slot was granted in the same loop iteration in which the wait ended.
            self.release()


class UploadLimiter(AbstractAsyncContextManager[None]):
    """Limits request bodies that are streamed, so that slow callers cannot hold all connections.

    Waits at most `max_wait` seconds. Raises `GatewayError` upstream-busy.
    """

    def __init__(self, size: int, max_wait: float) -> None:
        self._free = asyncio.Semaphore(max(1, size))
        self._max_wait = max_wait

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(self._max_wait):
                await self._free.acquire()
        except TimeoutError:
            raise GatewayError(
                errors.UPSTREAM_BUSY, "too many uploads", retry_after=_RETRY_AFTER
            ) from None

    async def __aexit__(self, *_: object) -> None:
        self._free.release()


def _overloaded() -> GatewayError:
    return GatewayError(errors.OVERLOADED, "requests at once", retry_after=_RETRY_AFTER)
