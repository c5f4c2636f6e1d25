"""Decides whether a request may proceed now: concurrency slots, audit trail and shutdown.

The limits of rate and concurrency are a token bucket, and slots with a short queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.pipeline.request_body import MemoryBudget

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail

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
            if waiter in self._queue:
                self._queue.remove(waiter)
            elif waiter.done() and not waiter.cancelled():
                # The slot was granted in the same loop iteration in which the wait ended.
                self.release()
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


_BUFFER_BUDGET_BYTES: Final = 256 * 1024 * 1024


class LifecyclePhase(Enum):
    """The phase of the gateway's life."""

    SERVING = "serving"
    # After the shutdown signal: requests are served, each response with `Connection: close`.
    CLOSING = "closing"
    # The listeners are closed; requests that arrive on persistent connections are rejected.
    STOPPED = "stopped"


class Admission:
    """Rejects requests that cannot be served. `inflight` is the number of running exchanges.

    `buffer_bytes`: memory for responses that must be buffered completely before they can be sent.
    """

    def __init__(
        self, *, max_concurrent: int, audit: AuditTrail, buffer_bytes: int = _BUFFER_BUDGET_BYTES
    ) -> None:
        self._slots = ConcurrencyLimiter(max_concurrent)
        self._audit = audit
        self.phase = LifecyclePhase.SERVING
        self.inflight = 0
        self.buffer_budget = MemoryBudget(buffer_bytes)

    def try_admit(
        self,
        rate: TokenBucket | None,
        slots: ConcurrencyLimiter | None,
        *,
        is_first_request: bool = False,
    ) -> bool:
        """Admit a request and acquire a slot for it, which `release` returns.

        `rate` and `slots` are the limits of its caller. Return False if the request is admitted
        without a slot, because none is free or because the caller has a limit of its own:
        `wait_for_slot` then acquires one. `is_first_request` says
        that the connection was accepted for this request: it is served even in the phase STOPPED.
        Raises `GatewayError` shutting-down, audit-unavailable or rate-limited.
        """
        if self.phase is LifecyclePhase.STOPPED and not is_first_request:
            raise GatewayError(
                errors.SHUTTING_DOWN, retry_after=_RETRY_AFTER, close_connection=True
            )
        if not self._audit.is_available:
            raise GatewayError(errors.AUDIT_UNAVAILABLE, retry_after=_RETRY_AFTER)
        if rate is not None:
            rate.take()
        return slots is None and self._slots.try_acquire()

    async def wait_for_slot(self, slots: ConcurrencyLimiter | None) -> None:
        """Acquire a slot, also one of `slots`; wait briefly. Raises `GatewayError` overloaded."""
        if slots is not None:
            await slots.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            if slots is not None:
                slots.release()
            raise

    def release(self, slots: ConcurrencyLimiter | None) -> None:
        """Release the slots of a request that was admitted with `slots` as its caller's limit."""
        self._slots.release()
        if slots is not None:
            slots.release()
