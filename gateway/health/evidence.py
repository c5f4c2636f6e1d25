"""Signals: what the end of a request or of a probe shows about the state of the platform.

`PlatformOutcomes` keeps the signals of callers' requests in the last minutes and of probes. Its
`record_exchange` is called at the end of every exchange; its cost and the memory used are constant.
`gateway.health.health` judges the platform by them; metrics and alerts use their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from gateway import errors

if TYPE_CHECKING:
    from gateway.exchange import Exchange


class CircuitState(IntEnum):
    """The states, with the values of the gauge."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


# The platform did what was requested, or reported in FHIR a state that only a server that processed
# the request can know.
ANSWERS: Final = "answers"
# The platform rejected the request in FHIR (400, 404, 405, 429, …), mostly because of a mistake of
# the caller.
INCONCLUSIVE: Final = "unclear"
REFUSES: Final = "platform-refuses"
NOT_FHIR: Final = "platform-not-fhir"
FAILS: Final = "platform-fails"
TIMEOUT: Final = "platform-timeout"
UNREACHABLE: Final = "platform-unreachable"
TLS: Final = "platform-tls"

# The possible faults of the platform, the gravest first.
FAULTS: Final = (TLS, UNREACHABLE, TIMEOUT, FAILS, REFUSES, NOT_FHIR)

_BY_REASON: Final = {
    errors.UPSTREAM_TLS.code: TLS,
    errors.UPSTREAM_UNREACHABLE.code: UNREACHABLE,
    errors.UPSTREAM_TIMEOUT.code: TIMEOUT,
    errors.UPSTREAM_BUSY.code: TIMEOUT,
    errors.UPSTREAM_FAILED.code: FAILS,
    errors.UPSTREAM_REDIRECT.code: NOT_FHIR,
    errors.TOKEN_REJECTED.code: REFUSES,
}
# A conflict, a version or content that does not match: the platform has accepted the credential and
# processed the request.
_PROCESSED_STATUSES: Final = frozenset((304, 409, 410, 412, 422))
_WRONG_PATH_STATUSES: Final = frozenset((404, 405))


def signal_of_exchange(exchange: Exchange) -> str | None:
    """Return what a caller's request shows about the platform; None for nothing.

    If the caller had half-closed its connection, only a good signal counts: the caller may have
    given up before.
    """
    signal = _raw_signal(exchange)
    return None if exchange.half_closed and signal != ANSWERS else signal


def _raw_signal(exchange: Exchange) -> str | None:
    reason, status = exchange.reason, exchange.upstream_status
    if reason:
        signal = signal_of_reason(reason, status)
        if signal is not None:
            return signal
    if status is None:
        return None
    if status == 200 and _is_empty(exchange):
        return NOT_FHIR
    return signal_of_status(status)


def signal_of_reason(reason: str, status: int | None) -> str | None:
    """Return the signal of an error of the gateway, or None.

    `status` is the platform's status if there was a response.
    """
    signal = _BY_REASON.get(reason)
    if signal is None and reason == errors.UPSTREAM_NON_FHIR.code and status is not None:
        return signal_of_non_fhir(status)
    return signal


def signal_of_status(status: int) -> str:
    """Return the signal of a response that holds FHIR."""
    if status < 300 or status in _PROCESSED_STATUSES:
        return ANSWERS
    if status in (401, 403):
        return REFUSES
    if status < 400:
        return NOT_FHIR
    # 501 and 505 only mean that the platform does not implement what was requested.
    return FAILS if status >= 500 and status not in (501, 505) else INCONCLUSIVE


def signal_of_non_fhir(status: int) -> str:
    """Return the signal of a response that does not hold FHIR."""
    signal = signal_of_status(status)
    return signal if signal in (REFUSES, FAILS) else NOT_FHIR


def signal_of_metadata(status: int, *, is_fhir: bool) -> str:
    """Return the signal of a response to `GET metadata` with a token."""
    if not is_fhir:
        return signal_of_non_fhir(status)
    signal = signal_of_status(status)
    if signal == INCONCLUSIVE:
        # Every FHIR server has a CapabilityStatement at `metadata` (R5 http.html, section
        # 3.2.0.17).
        return NOT_FHIR if status in _WRONG_PATH_STATUSES else FAILS
    return signal


def _is_empty(exchange: Exchange) -> bool:
    """Return whether the response to a read had no body at all."""
    return (
        exchange.method == "GET"
        and exchange.resource != "Binary"
        and not exchange.response_bytes
        and not exchange.is_aborted
    )


# Signals that callers' mistakes may have caused prove a failure only with this number of kinds of
# requests (interaction and resource type) or more, and if it has lasted for `_LASTING_SECONDS`.
MAX_REQUEST_KINDS: Final = 3


@dataclass(frozen=True, slots=True)
class Evidence:
    """All signals of the platform at one moment, and the circuit; times are monotonic.

    `last_minute`: numbers of signals (`gateway.health.evidence`) of callers' requests in the
    last minute. `since_good`: the same since the last successful response, for five minutes at
    most, the first of them at `bad_since`; `kinds`: the number of kinds of these requests, up to
    `MAX_REQUEST_KINDS`. `last_request_at`: the end of the last caller's request that gave a signal.
    `has_succeeded`: the platform has responded successfully at least once. `probe`: the signal of
    the last probe, "" before the first one. `credential`: the credential that the platform refused
    last, "" for none.
    """

    last_minute: Mapping[str, int] = field(default_factory=dict)
    since_good: Mapping[str, int] = field(default_factory=dict)
    kinds: int = 0
    bad_since: float = math.inf
    last_success_at: float = -math.inf
    last_request_at: float = -math.inf
    has_succeeded: bool = False
    probe: str = ""
    probed_at: float = -math.inf
    circuit: CircuitState = CircuitState.CLOSED
    credential: str = ""
    now: float = 0.0


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

    def snapshot(self, circuit: CircuitState) -> Evidence:
        """Return the evidence at this moment."""
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
        return Evidence(
            last_minute=minute,
            since_good=since_good,
            kinds=len(self._kinds) if since_good else 0,
            bad_since=self._bad_since if since_good else math.inf,
            last_success_at=self._good_at,
            last_request_at=self.last_request_at,
            has_succeeded=self._has_succeeded,
            probe=self._last_probe_signal,
            probed_at=self.probed_at,
            circuit=circuit,
            credential=self._refused_credential,
            now=self._clock(),
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for signal, count in counts.items():
        total[signal] = total.get(signal, 0) + count
