"""The results of an attempt, and the transition of an entry that follows from a result.

`gateway.outbox.platform_sender` returns the results. The functions read and write neither the
platform nor the store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.outbox.entry import (
    SENT_NOTE,
    UNREADABLE_NOTE,
    EntryState,
    RecoveryMode,
    StoredResponse,
)

if TYPE_CHECKING:
    from gateway.i18n import Message
    from gateway.outbox.entry import OutboxEntry, QueuedRequest


class Effect(StrEnum):
    """What an attempt without a response may have done at the platform."""

    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SendFailure:
    """An attempt without a usable response.

    `cause` is a reason of `gateway.errors`, `retry_after` is in seconds. `affects_all_entries`:
    other entries would fail the same way, because the platform or the SSO cannot be reached.
    """

    effect: Effect
    cause: str
    retry_after: float | None = None
    affects_all_entries: bool = True


SendResult = StoredResponse | SendFailure


class VerificationStatus(StrEnum):
    """Whether the platform holds a resource that an earlier attempt may have written.

    `SAFE_TO_RESEND`: that does not matter, because the platform itself prevents a second one.
    """

    PRESENT = "yes"
    ABSENT = "no"
    SAFE_TO_RESEND = "harmless"
    INCONCLUSIVE = "unclear"


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of a verification; several matches are inconclusive.

    `response` is the response for the caller about the resource that was found.
    """

    status: VerificationStatus
    response: StoredResponse | None = None


# The platform reports that the write had no effect and may be retried (RFC 9110, 6585, 8470).
_RETRYABLE_STATUSES: Final = {
    401: errors.TOKEN_REJECTED.code,
    408: errors.UPSTREAM_BUSY.code,
    425: errors.UPSTREAM_BUSY.code,
    429: errors.UPSTREAM_BUSY.code,
    503: errors.UPSTREAM_BUSY.code,
}
# The platform does not support the request. Every other 5xx may follow after the write took effect.
_UNSUPPORTED_STATUSES: Final = frozenset({501, 505})
# Sent by an intermediary before the platform's own server, or by a server that is overloaded.
UNREACHABLE_STATUSES: Final = frozenset({502, 503, 504})
# These depend on the request alone, whatever the platform holds: an earlier attempt met the same.
_REQUEST_ERROR_STATUSES: Final = frozenset({400, 413, 414, 415, 422})
_ABSENT_STATUSES: Final = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """The end of the attempts at an entry: `state` is DELIVERED, FAILED or UNCLEAR."""

    state: EntryState
    response: StoredResponse


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Another attempt follows; with `in_doubt` this one may have taken effect.

    `affects_all_entries` and `retry_after` (seconds) are those of `SendFailure`. `status` is the
    platform's status where it responded.
    """

    cause: str
    in_doubt: bool = False
    retry_after: float | None = None
    affects_all_entries: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class VersionConflict:
    """A 412: an earlier attempt has changed the version, or another client; to be verified."""

    response: StoredResponse


EntryTransition = FinalOutcome | RetryLater


def evaluate_result(
    entry: OutboxEntry, request: QueuedRequest, result: SendResult, *, in_doubt: bool
) -> EntryTransition | VersionConflict:
    """Return the transition that follows from the result of an attempt.

    `in_doubt`: an earlier attempt may have taken effect. A `VersionConflict` needs a verification
    first.
    """
    if isinstance(result, SendFailure):
        return _evaluate_failure(entry, result)
    status = result.status
    if 200 <= status < 300:
        return FinalOutcome(EntryState.DELIVERED, result)
    if status in _RETRYABLE_STATUSES:
        return RetryLater(
            _RETRYABLE_STATUSES[status],
            affects_all_entries=status in UNREACHABLE_STATUSES,
            status=status,
        )
    if status >= 500 and status not in _UNSUPPORTED_STATUSES:
        if entry.recovery is RecoveryMode.HOLD:
            return FinalOutcome(EntryState.UNCLEAR, result)
        cause = errors.UPSTREAM_FAILED.code
        return RetryLater(
            cause, in_doubt=True, affects_all_entries=status in UNREACHABLE_STATUSES, status=status
        )
    # A response with a `reason` may be an intermediary's, which shows nothing about earlier
    # attempts.
    if not in_doubt or (status in _REQUEST_ERROR_STATUSES and not result.reason):
        return FinalOutcome(EntryState.FAILED, result)
    return _evaluate_refusal_in_doubt(request, result)


def evaluate_verification(finding: VerificationResult | SendFailure) -> EntryTransition | None:
    """Return the transition that follows from a verification; None to send the write again."""
    if isinstance(finding, SendFailure):
        # A verification only reads, so that it cannot cause a doubt.
        return RetryLater(
            finding.cause,
            retry_after=finding.retry_after,
            affects_all_entries=finding.affects_all_entries,
        )
    if finding.status in (VerificationStatus.ABSENT, VerificationStatus.SAFE_TO_RESEND):
        return None
    if finding.status is VerificationStatus.PRESENT:
        return FinalOutcome(
            EntryState.DELIVERED, finding.response or StoredResponse(200, is_verified=True)
        )
    return FinalOutcome(
        EntryState.UNCLEAR, finding.response or in_doubt_response(errors.UPSTREAM_FAILED.code)
    )


def evaluate_version_conflict(
    finding: VerificationResult | SendFailure, conflict: VersionConflict
) -> EntryTransition:
    """Return the transition after a 412, from the platform's present version in `finding`."""
    transition = evaluate_verification(finding)
    if isinstance(transition, RetryLater):
        return transition
    if transition is not None and transition.state is EntryState.DELIVERED:
        return transition
    return FinalOutcome(EntryState.UNCLEAR, conflict.response)


def in_doubt_response(cause: str, note: Message = SENT_NOTE) -> StoredResponse:
    """Return the outcome of a write that may have taken effect."""
    reason = errors.REASONS.get(cause, errors.UPSTREAM_FAILED)
    return StoredResponse(reason.status, reason=reason.code, note=note)


def unreadable_outcome(entry: OutboxEntry) -> FinalOutcome:
    """Return the outcome of an entry whose stored request does not decrypt, or is missing."""
    state = EntryState.UNCLEAR if entry.in_doubt else EntryState.FAILED
    return FinalOutcome(state, in_doubt_response(errors.INTERNAL.code, UNREADABLE_NOTE))


def apply_transition(entry: OutboxEntry, transition: EntryTransition) -> OutboxEntry:
    """Return the entry with the transition applied."""
    if isinstance(transition, FinalOutcome):
        return replace(
            entry,
            state=transition.state,
            cause=_cause(transition),
            in_doubt=entry.in_doubt and transition.state is EntryState.UNCLEAR,
        )
    in_doubt = entry.in_doubt or transition.in_doubt
    return replace(entry, state=EntryState.WAITING, cause=transition.cause, in_doubt=in_doubt)


def _cause(outcome: FinalOutcome) -> str:
    response = outcome.response
    if response.reason or outcome.state is EntryState.DELIVERED:
        return response.reason
    return f"platform-status {response.status}"


def _evaluate_failure(entry: OutboxEntry, failure: SendFailure) -> EntryTransition:
    in_doubt = failure.effect is Effect.UNKNOWN
    if in_doubt and entry.recovery is RecoveryMode.HOLD:
        return FinalOutcome(EntryState.UNCLEAR, in_doubt_response(failure.cause))
    return RetryLater(failure.cause, in_doubt, failure.retry_after, failure.affects_all_entries)


def _evaluate_refusal_in_doubt(
    request: QueuedRequest, response: StoredResponse
) -> EntryTransition | VersionConflict:
    if response.reason:
        return FinalOutcome(EntryState.UNCLEAR, response)
    if request.method == "DELETE" and response.status in _ABSENT_STATUSES:
        # The resource is gone, which is what the earlier attempt was for.
        return FinalOutcome(EntryState.DELIVERED, StoredResponse(204, is_verified=True))
    if request.method == "PUT" and response.status == 412:
        return VersionConflict(response)
    return FinalOutcome(EntryState.UNCLEAR, response)
