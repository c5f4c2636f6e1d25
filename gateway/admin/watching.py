"""Watches the platform: by what callers get, and by a question of its own where nobody asks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.admin.evidence import PlatformOutcomes
from gateway.admin.judgement import HealthEvaluator, HealthEvidence, needs_probe, token_statuses
from gateway.oauth.tokens import TokenState
from gateway.pipeline.circuit import CircuitState
from gateway.telemetry.findings import ANSWERS
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_CHECK_INTERVAL: Final = 1.0
# A doubt that is over sooner is not worth a question, in seconds.
_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSources:
    """Whom the watch asks.

    `tokens` of the credentials in use. `probe` asks the platform, rather with the credential of
    that name, and gives what was found and with which, None if nothing could be asked; at most once
    in `interval` seconds, 0 for never. `count_probe` is told what was found. Of several workers one
    `is_probing` for all; the others only where their own circuit waits for it.
    """

    tokens: Callable[[], Mapping[str, TokenState]]
    circuit: Callable[[], CircuitState]
    probe: Callable[[str], Awaitable[tuple[str, str] | None]]
    interval: Callable[[], float]
    count_probe: Callable[[str], None]
    is_probing: bool = True


class PlatformMonitor:
    """All that one process knows of whether its requests can succeed."""

    def __init__(
        self,
        watched: MonitorSources,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources = watched
        self._clock = clock
        self._outcomes = PlatformOutcomes(clock)
        # To be told of every exchange at its end.
        self.record_exchange = self._outcomes.record_exchange
        self.evaluator = HealthEvaluator(self.evidence, wall_clock)
        self._started_at = clock()
        self._last_probe_at = -math.inf
        self._last_signal = ANSWERS

    def reset(self) -> None:
        """The settings lead to another platform now, or know another client."""
        self._outcomes = PlatformOutcomes(self._clock)

    def evidence(self) -> HealthEvidence:
        """What is known now."""
        watched = self._sources
        return self._outcomes.snapshot(
            circuit=watched.circuit(),
            tokens=token_statuses(watched.tokens()),
            probing=bool(watched.interval()),
        )

    def is_failing(self) -> bool:
        """Whether the platform is known to be unusable."""
        return self.evaluator.evaluate().is_platform_at_fault

    def usability(self) -> tuple[bool, str]:
        """Whether requests can succeed as far as is known, and the reason."""
        health = self.evaluator.evaluate()
        return health.is_usable, health.reason

    async def run(self) -> None:
        """Look whether it is time to ask, again and again."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            try:
                await self.probe_if_due()
            except Exception as error:
                # Its text could quote an answer.
                _log.error("the platform could not be asked: %s", type(error).__name__)

    async def probe_if_due(self) -> None:
        """Ask if it is time to."""
        # So that it is known since when it is as it is.
        self.evaluator.evaluate()
        if not self._is_probe_due():
            return
        asked_at, outcomes = self._clock(), self._outcomes
        result = await self._sources.probe(outcomes.good_with)
        if result is None or outcomes is not self._outcomes:
            # Nothing could be asked, or it was asked of what the settings no longer lead to.
            return
        self._last_probe_at = asked_at
        found, credential = result
        self._outcomes.record_probe(found, credential)
        self._sources.count_probe(found)
        if found != self._last_signal:
            level = logging.INFO if found == ANSWERS else logging.WARNING
            _log.log(level, "the gateway asked for the platform's metadata itself: %s", found)
            self._last_signal = found

    def _is_probe_due(self) -> bool:
        interval, now = self._sources.interval(), self._clock()
        if not interval or now - self._last_probe_at < interval:
            return False
        evidence = self.evidence()
        if evidence.circuit != CircuitState.CLOSED:
            # Each worker has its own, which nothing but a request closes again.
            return evidence.circuit == CircuitState.HALF_OPEN
        if not self._sources.is_probing:
            return False
        silent = now - max(self._started_at, evidence.last_request_at) >= interval
        return silent or needs_probe(evidence, _PAUSE)
