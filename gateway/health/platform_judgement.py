"""Judges the platform, once for all: the circuit breaker acts on it, and the operators read it.

The outcomes of callers' requests are counted over a sliding window; a request counts once, whatever
its attempts. Where they fail, the line may be down, the platform may fail, or one caller may ask
for what the platform cannot give. So:

* The **line** (no connection, no TLS) concerns all requests. It opens the circuit by itself.
* Any other failure only causes a probe (`GET metadata` with a token), the gateway's own question,
  which decides. A platform that answers it works, whatever happens to some requests.
* While the circuit is not open, a caller's kind of request (interaction and resource type) that
  fails too often is held off for that caller alone.

    closed ─ too many failed; line down or probe failed ─▶ open ─ `open_for` seconds ─▶ half-open
    half-open ─ the probe is answered ─▶ closed, it fails ─▶ open

No request of a caller is forwarded before the circuit is closed again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from cachetools import FIFOCache

from gateway import errors
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.health.evidence import (
    ANSWERS,
    BUSY,
    FAILURES,
    FAULTS,
    INCONCLUSIVE,
    LINE_FAULTS,
    NOT_FHIR,
    REFUSES,
    TIMEOUT,
    CircuitState,
    is_failure,
    signal_of_exchange,
)
from gateway.i18n import format_duration
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import CircuitBreakerSettings

_log = get_logger(__name__)

# A window advances in tenths of its length.
_SLICES: Final = 10
# Seconds between two probes, at least.
_PROBE_INTERVAL: Final = 5.0
# Kinds of requests, for each caller, that are counted. Of more, the oldest are forgotten.
_MAX_KINDS: Final = 4096
# Seconds of the signals by which a platform that answers is doubted, and how many are needed.
_DOUBT_WINDOW: Final = 60.0
_MIN_DOUBT_SIGNALS: Final = 3
_NEARLY_ALL: Final = 0.95
# Signals that show nothing about a kind of request.
_NOT_OF_KIND: Final = frozenset((*LINE_FAULTS, BUSY))


class OutcomeWindow:
    """Counts requests, and how many of them failed, over the last `seconds`."""

    __slots__ = ("_failures", "_requests", "_slice", "_slice_ends")

    def __init__(self) -> None:
        self._requests = [0] * _SLICES
        self._failures = [0] * _SLICES
        self._slice = 0
        self._slice_ends = -math.inf

    def count(self, now: float, seconds: float, failed: bool) -> None:
        """Count a request that ended at `now`, on a monotonic clock."""
        if now >= self._slice_ends:
            self._advance(now, seconds)
        index = self._slice % _SLICES
        self._requests[index] += 1
        if failed:
            self._failures[index] += 1

    def totals(self, now: float, seconds: float) -> tuple[int, int]:
        """Return the numbers of requests and failures."""
        if now >= self._slice_ends:
            self._advance(now, seconds)
        return sum(self._requests), sum(self._failures)

    def _advance(self, now: float, seconds: float) -> None:
        current = int(now * _SLICES / seconds)
        for number in range(max(self._slice + 1, current - _SLICES + 1), current + 1):
            self._requests[number % _SLICES] = self._failures[number % _SLICES] = 0
        self._slice = current
        self._slice_ends = (current + 1) * seconds / _SLICES


_Kind = tuple[str, str, str, str]


class PlatformJudgement:
    """The judgement of one platform.

    `probe` sends `GET metadata` and returns the signal and the credential used, None where it could
    not be sent. Where no request shows anything, a probe is sent every `interval` seconds, never if
    that is 0. `on_response` is called for each successful response, `count_probe` with the signal
    of each probe. `circuit` may be replaced at any time.
    """

    def __init__(
        self,
        *,
        circuit: CircuitBreakerSettings,
        probe: Callable[[], Awaitable[tuple[str, str] | None]],
        interval: Callable[[], float],
        on_response: Callable[[], None],
        count_probe: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.circuit = circuit
        self._probe = probe
        self._interval = interval
        self._on_response = on_response
        self._count_probe = count_probe
        self._clock = clock
        self._outcomes = OutcomeWindow()
        self._line = OutcomeWindow()
        self._kinds: FIFOCache[_Kind, OutcomeWindow] = FIFOCache(_MAX_KINDS)
        # The kinds that are held off, until when; looked at only where there are any.
        self._held: FIFOCache[_Kind, float] = FIFOCache(_MAX_KINDS)
        # The signals of the last minute: all that were not answers, and those no mistake causes.
        self._doubts = OutcomeWindow()
        self._errors = OutcomeWindow()
        self._open_until: float | None = None
        self._open_reason = ""
        self._is_probing = False
        self._has_failed = False
        self._started_at = clock()
        self._success_at = -math.inf
        # The credential of the last request that succeeded, "" for none.
        self.good_with = ""
        self.last_request_at = -math.inf
        # The last probe that gave a signal: when it began, and the signal, "" before the first.
        self.probed_at = -math.inf
        self.probe_signal = ""
        self._probe_started_at = -math.inf
        self._has_answered_probe = False
        # The credential that the platform refused last, "" for none.
        self.refused_credential = ""

    @property
    def state(self) -> CircuitState:
        """The state of the circuit."""
        if self._open_until is None:
            return CircuitState.CLOSED
        is_waiting = self._clock() < self._open_until
        return CircuitState.OPEN if is_waiting else CircuitState.HALF_OPEN

    @property
    def answers_probe(self) -> bool:
        """Whether the platform answered the last probe, and no request was made since."""
        return self.probe_signal == ANSWERS and self.probed_at > self.last_request_at

    def admit(self, exchange: Exchange) -> None:
        """Admit a request. Raises `GatewayError` circuit-open, which says what is held off."""
        if self._open_until is not None:
            wait = max(self._open_until - self._clock(), 1.0)
            raise GatewayError(
                errors.CIRCUIT_OPEN,
                f"the platform failed too often; it is tried again in {format_duration(wait)}",
                retry_after=wait,
            )
        if self._held:
            self._admit_kind(exchange, _kind_of(exchange))

    def _admit_kind(self, exchange: Exchange, kind: _Kind) -> None:
        held_until = self._held.get(kind)
        if held_until is None:
            return
        now = self._clock()
        if now >= held_until:
            # This request tries whether its kind succeeds again; others wait for its outcome.
            self._held[kind] = now + self.circuit.open_for
            return
        wait = max(held_until - now, 1.0)
        what = f"{exchange.interaction} {exchange.resource}".strip()
        raise GatewayError(
            errors.CIRCUIT_OPEN,
            f"{what} of this caller failed too often; tried again in {format_duration(wait)}",
            hint=f"held-off={what}; caller={exchange.caller}",
            retry_after=wait,
            advice_key="held-off",
        )

    def record_exchange(self, exchange: Exchange) -> None:
        """Count what an exchange shows. Has to be called at the end of every exchange."""
        signal = signal_of_exchange(exchange)
        if signal is None:
            return
        now = self.last_request_at = exchange.started_monotonic + exchange.duration
        failed = is_failure(signal, exchange.upstream_status)
        self._count(signal, exchange.credential or "", now, failed)
        if signal not in _NOT_OF_KIND and self._open_until is None:
            self._count_kind(exchange, now, failed)

    def record_delivery(self, signal: str | None, status: int | None, credential: str) -> None:
        """Count what the delivery of a queued write shows, None for nothing.

        `status` is the platform's, if it responded.
        """
        if signal is not None:
            self._count(signal, credential, self._clock(), is_failure(signal, status))

    def _count(self, signal: str, credential: str, now: float, failed: bool) -> None:
        window = self.circuit.window
        if signal != BUSY:  # the platform was not asked
            self._outcomes.count(now, window, failed)
        self._doubts.count(now, _DOUBT_WINDOW, signal != ANSWERS)
        if signal == ANSWERS:
            self._success_at, self.good_with = now, credential
            self._on_response()
            return
        if signal in FAILURES:
            self._errors.count(now, _DOUBT_WINDOW, True)
            self._line.count(now, window, signal in LINE_FAULTS)
        elif signal == REFUSES:
            self.refused_credential = credential
        if signal != INCONCLUSIVE:
            self._has_failed = True
        if signal in LINE_FAULTS and self._is_over_limit(self._line, now):
            self._open(now, signal)
        elif self._opens_circuit(self._probe_fault()) and self._is_over_limit(self._outcomes, now):
            self._open(now, self.probe_signal)

    def _count_kind(self, exchange: Exchange, now: float, failed: bool) -> None:
        kind, window = _kind_of(exchange), self.circuit.window
        try:
            outcomes = self._kinds[kind]
        except KeyError:
            outcomes = self._kinds[kind] = OutcomeWindow()
        outcomes.count(now, window, failed)
        if not failed:
            if self._held:
                self._held.pop(kind, None)
        elif kind in self._held:
            self._held[kind] = now + self.circuit.open_for
        elif self._exceeds(*outcomes.totals(now, window)):
            self._kinds[kind] = OutcomeWindow()
            self._held[kind] = now + self.circuit.open_for
            _log.warning(
                "%s %s fails too often and is held off for %s, for this caller alone",
                exchange.interaction,
                exchange.resource,
                format_duration(self.circuit.open_for),
                **{**exchange.log_fields(), "reason": errors.CIRCUIT_OPEN.code},
            )

    def _exceeds(self, requests: int, failures: int) -> bool:
        circuit = self.circuit
        return requests >= circuit.min_requests and failures >= circuit.failure_ratio * requests

    def _is_over_limit(self, failed: OutcomeWindow, now: float) -> bool:
        """Return whether the failures that a window counts exceed both numbers of the circuit."""
        window = self.circuit.window
        return self._exceeds(self._outcomes.totals(now, window)[0], failed.totals(now, window)[1])

    def _probe_fault(self) -> str:
        """Return the fault that the last probe found, "" where a caller was answered since."""
        return (
            self.probe_signal
            if self.probed_at >= self._success_at and self.probe_signal in FAULTS
            else ""
        )

    def _opens_circuit(self, fault: str) -> bool:
        """Return whether what a probe found stops all requests.

        A client that is refused was heard. A server that has never shown a statement may be one
        without it, and no probe would ever close the circuit.
        """
        return fault not in ("", REFUSES) and (fault != NOT_FHIR or self._has_answered_probe)

    def _open(self, now: float, reason: str) -> None:
        if self._open_until is None:
            requests, failures = self._outcomes.totals(now, self.circuit.window)
            _log.warning(
                "circuit opened for %s: %d of %d requests failed, last cause: %s",
                format_duration(self.circuit.open_for),
                failures,
                requests,
                reason,
                reason=errors.CIRCUIT_OPEN.code,
            )
            self._open_until, self._open_reason = now + self.circuit.open_for, reason

    async def probe_if_due(self, *, for_delivery: bool = False) -> None:
        """Probe the platform if that is due; count and log what was found.

        `for_delivery`: queued writes wait for the platform, so that the answer is wanted.
        """
        if self._is_probing or not self._is_due(for_delivery):
            return
        self._is_probing = True
        probed_at = self._probe_started_at = self._clock()
        self._has_failed = False
        try:
            result = await self._probe()
        finally:
            self._is_probing = False
        if result is None:
            # No probe could be sent, for want of a token for example. Nothing shows that the
            # platform fails still, and a line that is down opens the circuit again.
            self._has_failed = True
            if self._open_until is not None:
                self._close("no probe could be sent")
            return
        signal, credential = result
        if signal == BUSY:
            # All connections are taken: by requests that are answered, or by ones that hang.
            if self._success_at >= probed_at - _PROBE_INTERVAL:
                return
            signal = TIMEOUT
        self._conclude(signal, credential, probed_at)

    def _is_due(self, for_delivery: bool) -> bool:
        now, interval = self._clock(), self._interval()
        since = now - self._probe_started_at
        if since >= _PROBE_INTERVAL:
            if for_delivery:
                return True
            if self._open_until is not None:
                return now >= self._open_until
            if self._has_failed or self._probe_fault():
                return True
        silent_for = now - max(self._started_at, self.last_request_at)
        return self._open_until is None and 0 < interval <= min(since, silent_for)

    def _conclude(self, signal: str, credential: str, probed_at: float) -> None:
        before, self.probe_signal, self.probed_at = self.probe_signal or ANSWERS, signal, probed_at
        self._count_probe(signal)
        if signal != before:
            level = logging.INFO if signal == ANSWERS else logging.WARNING
            _log.log(level, "the gateway asked for the platform's metadata itself: %s", signal)
        now = self._clock()
        if signal == ANSWERS:
            self._success_at, self._has_answered_probe = max(self._success_at, probed_at), True
            if self._open_until is not None:
                self._close("the platform answers again")
            self._on_response()
            return
        if signal == REFUSES:
            self.refused_credential = credential
        if self._open_until is None:
            if self._opens_circuit(signal) and self._is_over_limit(self._outcomes, now):
                self._open(now, signal)
        elif self._opens_circuit(signal):
            self._open_until, self._open_reason = now + self.circuit.open_for, signal
        else:
            self._close("the platform can be reached again")

    def _close(self, why: str) -> None:
        _log.warning("circuit closed: %s", why)
        self._open_until = None
        self._kinds.clear()
        self._held.clear()
        self._outcomes, self._line = OutcomeWindow(), OutcomeWindow()
        self._doubts, self._errors = OutcomeWindow(), OutcomeWindow()

    def verdict(self) -> tuple[Literal["ok", "untried", "degraded", "failed"], str]:
        """Return the state of the platform, and the reason: a signal, or a doubt."""
        if self._open_until is not None:
            return "failed", self._open_reason
        fault = self._probe_fault()
        if fault:
            return "failed", fault
        now = self._clock()
        requests, bad = self._doubts.totals(now, _DOUBT_WINDOW)
        failed = self._errors.totals(now, _DOUBT_WINDOW)[1]
        if self.answers_probe:
            # Failures of requests are over. Whether the others were the callers' is not known.
            requests, bad, failed = requests - failed, bad - failed, 0
        if bad >= _MIN_DOUBT_SIGNALS and bad >= _NEARLY_ALL * requests:
            return "degraded", "many-errors" if failed * 2 > requests else "many-refusals"
        return ("untried", "untried") if self._success_at == -math.inf else ("ok", ANSWERS)


def _kind_of(exchange: Exchange) -> _Kind:
    """Return the caller, told apart as well as is known, and the kind of its request."""
    who = "" if exchange.is_user_asserted else exchange.user or ""
    if exchange.caller == "anonymous":
        who = exchange.remote
    return exchange.caller, who, exchange.interaction, exchange.resource
