"""Decides whether a request may proceed now: concurrency slots, audit trail and shutdown."""

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
    """The phase of the gateway's life."""

    SERVING = "serving"
    # After the shutdown signal: requests are served, each response with `Connection: close`.
    CLOSING = "closing"
    # The listeners are closed; requests that arrive on persistent connections are rejected.
    STOPPED = "stopped"


class Admission:
    """Counts exchanges in flight and rejects requests that cannot be served."""

    def __init__(self, *, max_concurrent: int, audit: AuditTrail) -> None:
        self._slots = ConcurrencyLimiter(max_concurrent)
        self._audit = audit
        self.phase = LifecyclePhase.SERVING
        self.inflight = 0
        # Memory for responses that must be buffered completely before they can be sent.
        self.buffer_budget = MemoryBudget(_BUFFER_BUDGET_BYTES)

    def exchange_started(self) -> None:
        """Count an exchange as in flight, whatever its outcome will be."""
        self.inflight += 1

    def exchange_ended(self) -> None:
        """Count an exchange as finished."""
        self.inflight -= 1

    def is_draining(self) -> bool:
        """Return whether shutdown has begun."""
        return self.phase is not LifecyclePhase.SERVING

    def try_admit(self, caller: Caller, *, is_first_request: bool = False) -> bool:
        """Admit a request of this caller and acquire a slot for it, which `release` returns.

        Return False if the request is admitted without a slot, because none is free or because the
        caller has a limit of its own: `wait_for_slot` then acquires one. `is_first_request` says
        that the connection was accepted for this request: it is served even in the phase STOPPED.
        Raises `GatewayError` shutting-down, audit-unavailable or rate-limited.
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
        """Acquire a slot, waiting briefly for it. Raises `GatewayError` overloaded."""
        if caller.slots is not None:
            await caller.slots.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            if caller.slots is not None:
                caller.slots.release()
            raise

    def release(self, caller: Caller) -> None:
        """Release the slots of a request that was admitted for this caller."""
        self._slots.release()
        if caller.slots is not None:
            caller.slots.release()
