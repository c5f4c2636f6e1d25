"""Signals: what the end of a request, or of a probe, shows about the platform.

`gateway.health.platform_judgement` judges the platform by them; metrics and alerts use their names.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from gateway import errors
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
# No connection to the platform was free: it answers slowly, or many ask.
BUSY: Final = "platform-busy"

# The possible faults of the platform, the gravest first.
FAULTS: Final = (TLS, UNREACHABLE, TIMEOUT, FAILS, REFUSES, NOT_FHIR)
# Those that are no mistake of a caller, and among them those of the line.
FAILURES: Final = frozenset((TLS, UNREACHABLE, TIMEOUT, FAILS))
LINE_FAULTS: Final = frozenset((TLS, UNREACHABLE))

_BY_REASON: Final = {
    errors.UPSTREAM_TLS.code: TLS,
    errors.UPSTREAM_UNREACHABLE.code: UNREACHABLE,
    errors.UPSTREAM_TIMEOUT.code: TIMEOUT,
    errors.UPSTREAM_BUSY.code: BUSY,
    errors.UPSTREAM_FAILED.code: FAILS,
    errors.UPSTREAM_REDIRECT.code: NOT_FHIR,
    errors.TOKEN_REJECTED.code: REFUSES,
}
# A conflict, a version or content that does not match: the platform has accepted the credential and
# processed the request.
_PROCESSED_STATUSES: Final = frozenset((304, 409, 410, 412, 422))
_WRONG_PATH_STATUSES: Final = frozenset((404, 405))
# The platform did not process the request (RFC 9110, 6585, 8470), which may succeed later: with
# another token, or at another time.
UNPROCESSED_STATUSES: Final = frozenset((401, 408, 425, 429))


def is_failure(signal: str, status: int | None) -> bool:
    """Return whether a request failed by the platform, for which the circuit breaker counts it.

    A 4xx that holds no FHIR may be the caller's mistake; `status` is the platform's.
    """
    return signal in FAILURES or (signal == NOT_FHIR and status is not None and status < 400)


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


def has_failed(status: int) -> bool:
    """Return whether the platform did not process the request, or not to its end.

    The same request may succeed later.
    """
    return status in UNPROCESSED_STATUSES or signal_of_status(status) == FAILS


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
