"""Decides whether a request may go on now: room, audit, and the end of the process."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from gateway import errors
from gateway.errors import GatewayError

_RETRY_AFTER: Final = 1.0


class Phase(Enum):
    """Where in its life the gateway is."""

    SERVING = "serving"
    # After the signal: still served, each answer with `Connection: close`.
    CLOSING = "closing"
    # The listeners are closed; what comes on kept connections is refused.
    STOPPED = "stopped"


class Admission:
    """Counts exchanges in flight and refuses those that cannot be taken."""

    def __init__(self, *, max_concurrent: int, audit_available: Callable[[], bool]) -> None:
        self._max_concurrent = max_concurrent
        self._audit_available = audit_available
        self.phase = Phase.SERVING
        self.inflight = 0

    def is_draining(self) -> bool:
        """Whether the end has begun."""
        return self.phase is not Phase.SERVING

    def admit(self) -> None:
        """Raises `GatewayError`: shutting-down, overloaded or audit-unavailable.

        To be called with the exchange counted in `inflight` already.
        """
        if self.phase is Phase.STOPPED:
            raise GatewayError(errors.SHUTTING_DOWN, retry_after=_RETRY_AFTER, close=True)
        if self.inflight > self._max_concurrent:
            raise GatewayError(errors.OVERLOADED, "requests in flight", retry_after=_RETRY_AFTER)
        if not self._audit_available():
            raise GatewayError(errors.AUDIT_UNAVAILABLE, retry_after=_RETRY_AFTER)
