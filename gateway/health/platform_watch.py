"""Monitors the platform by the signals of callers' requests, and by probes when there are none."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from gateway.health.evidence import ANSWERS, CircuitState, PlatformOutcomes
from gateway.health.health import HealthEvaluator, needs_probe, token_statuses
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.health.evidence import HealthEvidence
    from gateway.oauth.tokens import TokenState

_log = get_logger(__name__)

_CHECK_INTERVAL: Final = 1.0
# Seconds. A doubt that ends sooner does not justify a probe.
_PROBE_DELAY: Final = 5.0


class PlatformMonitor:
    """Everything that the gateway knows about whether its requests can succeed.

    `tokens`: states of the credentials in use. `probe` probes the platform, preferably with the
    credential of the given name, and returns the signal and the credential used, None if no probe
    could be sent. At most one probe is sent in `interval` seconds, none if that is 0. `count_probe`
    is called with the signal of each probe.
    """

    def __init__(
        self,
        *,
        tokens: Callable[[], Mapping[str, TokenState]],
        circuit: Callable[[], CircuitState],
        probe: Callable[[str], Awaitable[tuple[str, str] | None]],
        interval: Callable[[], float],
        count_probe: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._circuit = circuit
        self._probe = probe
        self._interval = interval
        self._count_probe = count_probe
        self._clock = clock
        self._outcomes = PlatformOutcomes(clock)
        self.evaluator = HealthEvaluator(self.evidence, wall_clock)
        self._started_at = clock()
        self._last_probe_at = -math.inf
        self._last_signal = ANSWERS

    def reset(self) -> None:
        """Discard all signals, because the settings name another platform or another client now."""
        self._outcomes = PlatformOutcomes(self._clock)

    def record_exchange(self, exchange: Exchange) -> None:
        """Count the signal of an exchange. Has to be called at the end of every exchange."""
        self._outcomes.record_exchange(exchange)

    def evidence(self) -> HealthEvidence:
        """Return the health evidence at this moment."""
        return self._outcomes.snapshot(
            circuit=self._circuit(), tokens=token_statuses(self._tokens())
        )

    def is_failing(self) -> bool:
        """Return whether the platform is known to be unusable."""
        return self.evaluator.evaluate().is_platform_at_fault

    def usability(self) -> tuple[bool, str]:
        """Return whether requests can succeed as far as is known, and the reason."""
        health = self.evaluator.evaluate()
        return health.is_usable, health.reason

    async def run(self) -> None:
        """Call `probe_if_due` once a second until cancelled; failures are logged."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            try:
                await self.probe_if_due()
            except Exception as error:
                # The error's text could quote a response, so that only its type is logged.
                _log.error("the platform could not be asked: %s", type(error).__name__)

    async def probe_if_due(self) -> None:
        """Send a probe if one is due; record, count and log its signal."""
        # `HealthEvaluator.since` is only accurate if the health is evaluated regularly.
        self.evaluator.evaluate()
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
