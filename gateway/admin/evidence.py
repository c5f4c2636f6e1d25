"""Signals about the platform: those of callers' requests in the last minutes and of probes.

`PlatformOutcomes.record_exchange` is called at the end of every exchange; its cost and the memory
used are constant. `gateway.admin.judgement` evaluates the signals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from gateway.admin.judgement import MAX_REQUEST_KINDS, HealthEvidence
from gateway.exchange import Exchange
from gateway.pipeline.circuit import CircuitState
from gateway.telemetry.findings import ANSWERS, REFUSES, signal_of_exchange

# Signals are counted in slices of `_SLICE` seconds and retained for five minutes. The last minute
# is the current slice and the `_MINUTE` slices before it.
_SLICE: Final = 10
_WINDOW_SLICES: Final = 30
_MINUTE: Final = 6


class _TimeSlice:
    __slots__ = ("counts", "number", "since_good")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[str, int] = {}
        # The part of `counts` that was recorded after the last successful response.
        self.since_good: dict[str, int] = {}


class PlatformOutcomes:
    """The signals of the last five minutes; `clock` must be that of `started_monotonic`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slices = [_TimeSlice(-1) for _ in range(_WINDOW_SLICES)]
        self._kinds: set[tuple[str, str]] = set()
        self._bad_since = math.inf
        self._bad_at = -math.inf
        self.last_request_at = self._good_at = self.probed_at = -math.inf
        self.good_with = self._refused_credential = self._last_probe_signal = ""
        self._has_succeeded = False

    def record_exchange(self, exchange: Exchange) -> None:
        """Count the signal of an exchange that has ended, if it gives any."""
        signal = signal_of_exchange(exchange)
        if signal is None:
            return
        now = exchange.started_monotonic + exchange.duration
        self.last_request_at = now
        number = int(now) // _SLICE
        time_slice = self._slices[number % _WINDOW_SLICES]
        if time_slice.number != number:
            time_slice = self._slices[number % _WINDOW_SLICES] = _TimeSlice(number)
        time_slice.counts[signal] = time_slice.counts.get(signal, 0) + 1
        if signal == ANSWERS:
            self._good_at = now
            self.good_with = exchange.credential or ""
            self._has_succeeded = True
            if time_slice.since_good or self._kinds:
                time_slice.since_good = {}
                self._kinds = set()
                self._bad_since = math.inf
        else:
            self._record_failure(exchange, signal, time_slice, now)

    def _record_failure(
        self, exchange: Exchange, signal: str, time_slice: _TimeSlice, now: float
    ) -> None:
        time_slice.since_good[signal] = time_slice.since_good.get(signal, 0) + 1
        if now - self._bad_at > _SLICE * _WINDOW_SLICES:
            # Earlier failures have left the window of five minutes and do not count any more.
            self._kinds, self._bad_since = set(), math.inf
        self._bad_at = now
        self._bad_since = min(self._bad_since, now)
        if signal == REFUSES:
            self._refused_credential = exchange.credential or ""
        if len(self._kinds) < MAX_REQUEST_KINDS:
            self._kinds.add((exchange.interaction, exchange.resource))

    def record_probe(self, signal: str, credential: str) -> None:
        """Record the signal of a probe that used the access token of `credential`."""
        self._last_probe_signal, self.probed_at = signal, self._clock()
        if signal == ANSWERS:
            self._has_succeeded = True
        elif signal == REFUSES:
            self._refused_credential = credential

    def snapshot(self, *, circuit: CircuitState, tokens: Mapping[str, str]) -> HealthEvidence:
        """Return the health evidence at this moment."""
        newest = int(self._clock()) // _SLICE
        minute: dict[str, int] = {}
        since_good: dict[str, int] = {}
        has_found_good = False
        for age in range(_WINDOW_SLICES):
            time_slice = self._slices[(newest - age) % _WINDOW_SLICES]
            if time_slice.number != newest - age:
                continue
            if age <= _MINUTE:
                _add(minute, time_slice.counts)
            if not has_found_good:
                _add(since_good, time_slice.since_good)
            has_found_good = has_found_good or ANSWERS in time_slice.counts
        return HealthEvidence(
            last_minute=minute,
            since_good=since_good,
            kinds=len(self._kinds) if since_good else 0,
            bad_since=self._bad_since if since_good else math.inf,
            last_success_at=self._good_at,
            last_request_at=self.last_request_at,
            has_succeeded=self._has_succeeded,
            probe=self._last_probe_signal,
            probed_at=self.probed_at,
            circuit=int(circuit),
            tokens=dict(tokens),
            credential=self._refused_credential,
            now=self._clock(),
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for signal, count in counts.items():
        total[signal] = total.get(signal, 0) + count
