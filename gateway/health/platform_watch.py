"""Collects evidence about the platform by callers' requests, and by probes when there are none."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from gateway.health.evidence import ANSWERS, CircuitState, PlatformOutcomes
from gateway.health.health import needs_probe
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.health.evidence import Evidence

_log = get_logger(__name__)

# Seconds. A doubt that ends sooner does not justify a probe.
_PROBE_DELAY: Final = 5.0


class PlatformMonitor:
    """All evidence about the platform.

    `probe` probes the platform, preferably with the credential of the given name, and returns the
    signal and the credential used, None if no probe could be sent. At most one probe is sent in
    `interval` seconds, none if that is 0. `count_probe` is called with the signal of each probe.
    """

    def __init__(
        self,
        *,
        circuit: Callable[[], CircuitState],
        probe: Callable[[str], Awaitable[tuple[str, str] | None]],
        interval: Callable[[], float],
        count_probe: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._circuit = circuit
        self._probe = probe
        self._interval = interval
        self._count_probe = count_probe
        self._clock = clock
        self._outcomes = PlatformOutcomes(clock)
        self._started_at = clock()
        self._last_probe_at = -math.inf
        self._last_signal = ANSWERS

    def reset(self) -> None:
        """Discard all signals, because the settings name another platform or another client now."""
        self._outcomes = PlatformOutcomes(self._clock)

    def record_exchange(self, exchange: Exchange) -> None:
        """Count the signal of an exchange. Has to be called at the end of every exchange."""
        self._outcomes.record_exchange(exchange)

    def evidence(self) -> Evidence:
        """Return the evidence at this moment."""
        return self._outcomes.snapshot(self._circuit())

    async def probe_if_due(self) -> None:
        """Send a probe if one is due; record, count and log its signal."""
        if not self._is_probe_due():
            return
        sent_at, outcomes = self._clock(), self._outcomes
        result = await self._probe(outcomes.good_with)
        if result is None or outcomes is not self._outcomes:
            # No probe could be sent, or it went to a platform that the settings no longer name.
            return
        self._last_probe_at = sent_at
        signal, credential = result
        self._outcomes.record_probe(signal, credential)
        self._count_probe(signal)
        if signal != self._last_signal:
            level = logging.INFO if signal == ANSWERS else logging.WARNING
            _log.log(level, "the gateway asked for the platform's metadata itself: %s", signal)
            self._last_signal = signal

    def _is_probe_due(self) -> bool:
        interval, now = self._interval(), self._clock()
        if not interval or now - self._last_probe_at < interval:
            return False
        evidence = self.evidence()
        if evidence.circuit != CircuitState.CLOSED:
            return evidence.circuit == CircuitState.HALF_OPEN
        silent = now - max(self._started_at, evidence.last_request_at) >= interval
        return silent or needs_probe(evidence, _PROBE_DELAY)
