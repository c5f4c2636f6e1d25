"""Circuit breaker: stops forwarding to a platform that fails most requests, and probes it.

    closed ─ failure ratio reached ─▶ open ─ `open_for` seconds ─▶ half-open
    half-open ─ probe succeeded ─▶ closed, probe failed ─▶ open

Closed: all requests are forwarded, and outcomes are counted over a sliding window. Open: no request
is forwarded for `open_for` seconds. Half-open: one request is forwarded as a probe; its outcome
closes the circuit or opens it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NewType

from gateway import errors
from gateway.errors import GatewayError
from gateway.health.evidence import CircuitState
from gateway.i18n import format_duration
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import CircuitBreakerSettings

_log = get_logger(__name__)

# The window advances in tenths of its length.
_SLICES: Final = 10
_PROBE_RETRY_AFTER: Final = 1.0


Ticket = NewType("Ticket", int)
"""Identifies the state of the circuit in which a request was admitted."""


class CircuitBreaker:
    """The circuit breaker of one platform. Each `admit` is followed by one `record` or `discard`.

    `on_success` is called for each successful response of the platform, to any request.
    """

    def __init__(
        self,
        settings: CircuitBreakerSettings,
        clock: Callable[[], float],
        on_success: Callable[[], None] | None = None,
    ) -> None:
        self._failure_ratio = settings.failure_ratio
        self._min_requests = settings.min_requests
        self._window = settings.window
        self._open_for = settings.open_for
        self._clock = clock
        self._on_success = on_success
        self._opened_at: float | None = None
        self._probe_in_flight = False
        self._ticket = Ticket(0)
        self._slice = 0
        self._slice_ends = -math.inf
        # Requests and failures for each slice of the window; the oldest is overwritten.
        self._counts = [[0, 0] for _ in range(_SLICES)]
        self._current = self._counts[0]

    @property
    def state(self) -> CircuitState:
        """The current state."""
        if self._opened_at is None:
            return CircuitState.CLOSED
        waited = self._clock() - self._opened_at
        return CircuitState.OPEN if waited < self._open_for else CircuitState.HALF_OPEN

    def admit(self, *, allow_when_open: bool = False) -> Ticket:
        """Admit a request and return its ticket. Raises `GatewayError` circuit-open.

        With `allow_when_open` a request is admitted while the circuit is open, too: no caller waits
        for its response, which may close the circuit.
        """
        if self._opened_at is None or allow_when_open:
            return self._ticket
        remaining = self._opened_at + self._open_for - self._clock()
        if remaining > 0 or self._probe_in_flight:
            wait = max(remaining, _PROBE_RETRY_AFTER)
            detail = f"the platform failed too often; it is tried again in {format_duration(wait)}"
            raise GatewayError(errors.CIRCUIT_OPEN, detail, retry_after=wait)
        self._probe_in_flight = True
        return self._ticket

    def record(self, ticket: Ticket, *, failed: bool, cause: str = "") -> None:
        """Record the outcome of an admitted request; `cause` is for the log."""
        if not failed and self._on_success is not None:
            self._on_success()
        if ticket != self._ticket:
            # The request began before the circuit changed its state: its outcome is outdated.
            return
        if self._opened_at is None:
            self._count(failed, cause)
            return
        if failed and self.state is CircuitState.OPEN:
            # A failed request with `allow_when_open` does not extend the time for which the circuit
            # is open.
            return
        if failed:
            _log.info("circuit stays open: %s", cause, reason=errors.CIRCUIT_OPEN.code)
        else:
            _log.warning("circuit closed: the platform answers again")
        self._transition(self._clock() if failed else None)

    def discard(self, ticket: Ticket) -> None:
        """Release an admitted request that ended without showing anything about the platform."""
        if ticket == self._ticket:
            self._probe_in_flight = False

    def _transition(self, opened_at: float | None) -> None:
        """Change the state and start a new measuring window.

        Results of earlier tickets are ignored. `opened_at` is the monotonic time of opening, None
        to close.
        """
        self._opened_at = opened_at
        self._probe_in_flight = False
        self._ticket = Ticket(self._ticket + 1)
        self._counts = [[0, 0] for _ in range(_SLICES)]
        self._slice_ends = -math.inf

    def _count(self, failed: bool, cause: str) -> None:
        if self._clock() >= self._slice_ends:
            self._advance()
        current = self._current
        current[0] += 1
        if not failed:
            return
        current[1] += 1
        requests = sum(count[0] for count in self._counts)
        failures = sum(count[1] for count in self._counts)
        if requests >= self._min_requests and failures >= self._failure_ratio * requests:
            _log.warning(
                "circuit opened for %s: %d of %d requests failed, last cause: %s",
                format_duration(self._open_for),
                failures,
                requests,
                cause,
                reason=errors.CIRCUIT_OPEN.code,
            )
            self._transition(self._clock())

    def _advance(self) -> None:
        now = int(self._clock() * _SLICES / self._window)
        for number in range(max(self._slice + 1, now - _SLICES + 1), now + 1):
            self._counts[number % _SLICES] = [0, 0]
        self._slice = now
        self._slice_ends = (now + 1) * self._window / _SLICES
        self._current = self._counts[now % _SLICES]
