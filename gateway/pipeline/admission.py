"""Decides whether a request may go on now: room, audit, and the end of the process."""

from __future__ import annotations

from enum import Enum
from typing import Final

from gateway import errors
from gateway.audit.trail import AuditTrail
from gateway.errors import GatewayError
from gateway.pipeline.callers import Caller
from gateway.pipeline.limits import ConcurrencyLimiter
from gateway.pipeline.request_body import MemoryBudget

_RETRY_AFTER: Final = 1.0
_BUFFER_BUDGET_BYTES: Final = 256 * 1024 * 1024


class LifecyclePhase(Enum):
    """Where in its life the gateway is."""

    SERVING = "serving"
    # After the signal: still served, each answer with `Connection: close`.
    CLOSING = "closing"
    # The listeners are closed; what comes on kept connections is refused.
    STOPPED = "stopped"


class Admission:
    """Counts exchanges in flight and refuses those that cannot be taken."""

    def __init__(self, *, max_concurrent: int, audit: AuditTrail) -> None:
        self._slots = ConcurrencyLimiter(max_concurrent)
        self._audit = audit
        self.phase = LifecyclePhase.SERVING
        self.inflight = 0
        # What answers that have to be collected before they can go out take of the memory.
        self.buffer_budget = MemoryBudget(_BUFFER_BUDGET_BYTES)

    def exchange_started(self) -> None:
        """An exchange is in flight, whatever will become of it."""
        self.inflight += 1

    def exchange_ended(self) -> None:
        """It is over."""
        self.inflight -= 1

    def is_draining(self) -> bool:
        """Whether the end has begun."""
        return self.phase is not LifecyclePhase.SERVING

    def try_admit(self, caller: Caller, *, is_first_request: bool = False) -> bool:
        """Let a request of this caller in and take a place for it, which `release` gives back.

        False: it may come in, but there is no place at once: `wait_for_slot` waits for one.
        `is_first_request` says that its connection was accepted for it: such a request is served to
        the end. Raises `GatewayError`: shutting-down, audit-unavailable or rate-limited.
        """
        if self.phase is LifecyclePhase.STOPPED and not is_first_request:
            raise GatewayError(
                errors.SHUTTING_DOWN, retry_after=_RETRY_AFTER, close_connection=True
            )
        if not self._audit.is_available:
            raise GatewayError(errors.AUDIT_UNAVAILABLE, retry_after=_RETRY_AFTER)
        if caller.rate is not None:
            caller.rate.take()
        return caller.slots is None and self._slots.try_acquire()

    async def wait_for_slot(self, caller: Caller) -> None:
        """Wait for a place for a moment. Raises `GatewayError` overloaded."""
        if caller.slots is not None:
            await caller.slots.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            if caller.slots is not None:
                caller.slots.release()
            raise

    def release(self, caller: Caller) -> None:
        """The request that was admitted for this caller is over."""
        self._slots.release()
        if caller.slots is not None:
            caller.slots.release()
