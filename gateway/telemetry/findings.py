"""What the end of a request says of the platform: the evidence by which it is judged."""

from __future__ import annotations

from typing import Final

from gateway import errors
from gateway.exchange import Exchange

# It did what was asked, or said in FHIR what only somebody says who knows the data.
ANSWERS: Final = "answers"
# It said no in FHIR (400, 404, 405, 429, …), as a rule because of a caller's mistake.
INCONCLUSIVE: Final = "unclear"
REFUSES: Final = "platform-refuses"
NOT_FHIR: Final = "platform-not-fhir"
FAILS: Final = "platform-fails"
TIMEOUT: Final = "platform-timeout"
UNREACHABLE: Final = "platform-unreachable"
TLS: Final = "platform-tls"

# What can be found to be wrong with the platform, the gravest first.
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
# A conflict, a version or content that does not fit: whoever says so let the request in.
_KNOWING: Final = frozenset((304, 409, 410, 412, 422))


def signal_of_exchange(exchange: Exchange) -> str | None:
    """What a caller's request tells of the platform; None for nothing.

    Nothing bad where the caller may have given up before.
    """
    found = _of_answered(exchange)
    return None if exchange.half_closed and found != ANSWERS else found


def _of_answered(exchange: Exchange) -> str | None:
    reason, status = exchange.reason, exchange.upstream_status
    if reason:
        found = signal_of_reason(reason, status)
        if found is not None:
            return found
    if status is None:
        return None
    if status == 200 and _is_empty(exchange):
        return NOT_FHIR
    return signal_of_status(status)


def signal_of_reason(reason: str, status: int | None) -> str | None:
    """What an error of the gateway's own tells, where the platform had this status; or None."""
    found = _BY_REASON.get(reason)
    if found is None and reason == errors.UPSTREAM_NON_FHIR.code and status is not None:
        return signal_of_non_fhir(status)
    return found


def signal_of_status(status: int) -> str:
    """What an answer in FHIR tells."""
    if status < 300 or status in _KNOWING:
        return ANSWERS
    if status in (401, 403):
        return REFUSES
    if status < 400:
        return NOT_FHIR
    # 501 and 505 only say that it lacks what was asked for.
    return FAILS if status >= 500 and status not in (501, 505) else INCONCLUSIVE


def signal_of_non_fhir(status: int) -> str:
    """What an answer tells that holds no FHIR."""
    found = signal_of_status(status)
    return found if found in (REFUSES, FAILS) else NOT_FHIR


def _is_empty(exchange: Exchange) -> bool:
    """Whether a read was answered with nothing at all."""
    return (
        exchange.method == "GET"
        and exchange.resource != "Binary"
        and not exchange.response_bytes
        and not exchange.is_aborted
    )
