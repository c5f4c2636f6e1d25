"""What comes of an attempt at an entry, and what is decided from that.

`gateway.outbox.platform_sender` returns the results. The functions read and write neither the
platform nor the store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from gateway import errors
from gateway.health.evidence import UNPROCESSED_STATUSES, has_failed
from gateway.i18n import Message
from gateway.outbox.entry import (
    COLLISION,
    SENT_NOTE,
    UNREADABLE_NOTE,
    EntryState,
    OutboxEntry,
    OutboxEvent,
    OutboxStep,
    QueuedRequest,
    RecoveryMode,
    StoredResponse,
)


class VerificationStatus(StrEnum):
    """Whether the platform holds a resource that an earlier attempt may have written.

    `SAFE_TO_RESEND`: that does not matter, because the platform itself prevents a second one.
    """

    PRESENT = "yes"
    ABSENT = "no"
    SAFE_TO_RESEND = "harmless"
    INCONCLUSIVE = "unclear"


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What a request to the platform came to: it sends a write, or verifies one.

    * `response`: the outcome of the write, or the error that a verification met; None where the
      request failed, and where a verification has nothing for the caller.
    * `finding`: that of a verification which did not fail; several matches are inconclusive.
    * `cause`: the reason of `gateway.errors` why there is no usable response; "" for none. The
      other members describe such a failure:
    * `may_have_effect`: the write may have taken effect.
    * `retry_after`: seconds for which the platform asked.
    * `affects_all_entries`: other entries would fail the same way, because the platform or the SSO
      cannot be reached.

    `is_collision`: the response is a 409 to a write that names no version. Platforms with
    serializable transactions answer so when two writes meet, and did nothing (RFC 9110, section
    15.5.10).
    """

    response: StoredResponse | None = None
    finding: VerificationStatus | None = None
    cause: str = ""
    may_have_effect: bool = False
    retry_after: float | None = None
    affects_all_entries: bool = True
    is_collision: bool = False

    @property
    def is_outage(self) -> bool:
        """Whether the result is what every attempt meets while the platform is unreachable."""
        if self.cause:
            return self.affects_all_entries
        if self.response is None:
            return False
        return self.response.status in UNREACHABLE_STATUSES


# Sent by an intermediary before the platform's own server, or by a server that is overloaded.
UNREACHABLE_STATUSES: Final = frozenset({502, 503, 504})
# The connection failed after the request may have reached the platform.
UNKNOWN_EFFECT_REASONS: Final = frozenset((errors.UPSTREAM_FAILED, errors.UPSTREAM_TIMEOUT))
# These depend on the request alone, whatever the platform holds: an earlier attempt met the same.
_REQUEST_ERROR_STATUSES: Final = frozenset({400, 413, 414, 415, 422})
_ABSENT_STATUSES: Final = frozenset({404, 410})
# How often a write is sent again after a collision; what still collides contradicts what the
# platform has.
MAX_COLLISIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows for an entry: another attempt, or the end with a `response`.

    * `entry`: the entry as it was claimed.
    * `state`: WAITING before another attempt; DELIVERED, FAILED or UNCLEAR at the end.
    * `cause`: the reason of another attempt; the response has that of an end.
    * `in_doubt`: the attempt before the next one may have taken effect.
    * `status`: the platform's status where it responded and another attempt follows.
    * `retry_after`, `affects_all_entries`: those of the result.
    * `is_collision`: the write met another one at the platform and had no effect.
    * `delay`: the seconds until the next attempt is due; 0 for at once.
    """

    entry: OutboxEntry
    state: EntryState
    response: StoredResponse | None = None
    cause: str = ""
    in_doubt: bool = False
    status: int | None = None
    retry_after: float | None = None
    affects_all_entries: bool = False
    is_collision: bool = False
    delay: float = 0.0

    def changed_entry(self) -> OutboxEntry:
        """Return the entry after the decision."""
        entry, response = self.entry, self.response
        if response is None:
            in_doubt = entry.in_doubt or self.in_doubt
            return replace(
                entry,
                state=self.state,
                cause=self.cause,
                in_doubt=in_doubt,
                collisions=entry.collisions + self.is_collision,
            )
        is_explained = response.reason or self.state is EntryState.DELIVERED
        return replace(
            entry,
            state=self.state,
            cause=response.reason if is_explained else f"platform-status {response.status}",
            in_doubt=entry.in_doubt and self.state is EntryState.UNCLEAR,
        )

    def without_body(self) -> Decision:
        """Return the decision without the response's body."""
        response = self.response
        return self if response is None else replace(self, response=replace(response, body=b""))

    def event(self) -> OutboxEvent:
        """Return the step of the entry that the decision is."""
        entry, response = self.changed_entry(), self.response
        if response is None:
            step = OutboxStep.BECAME_IN_DOUBT if self.in_doubt else OutboxStep.POSTPONED
            return OutboxEvent(step, entry, self.cause, self.status)
        status = None if response.reason else response.status
        # The steps that end an entry have the names of its states.
        return OutboxEvent(OutboxStep(self.state.value), entry, response.reason, status)


def decide(
    entry: OutboxEntry, request: QueuedRequest, result: AttemptResult, *, in_doubt: bool
) -> Decision | None:
    """Return the decision that follows from the result of sending a write.

    `in_doubt`: an earlier attempt may have taken effect. None after a 412: that attempt has changed
    the version, or another client has, which a verification has to show.
    """
    response = result.response
    if response is None:
        return _decide_failure(entry, result)
    status = response.status
    is_outage = status in UNREACHABLE_STATUSES
    if 200 <= status < 300:
        return Decision(entry, EntryState.DELIVERED, response)
    if result.is_collision and entry.collisions < MAX_COLLISIONS:
        return Decision(
            entry, EntryState.WAITING, cause=COLLISION, status=status, is_collision=True
        )
    if status in UNPROCESSED_STATUSES or status == 503:
        cause = (errors.TOKEN_REJECTED if status == 401 else errors.UPSTREAM_BUSY).code
        return Decision(
            entry, EntryState.WAITING, cause=cause, affects_all_entries=is_outage, status=status
        )
    if has_failed(status):
        # The failure may follow after the write took effect.
        if entry.recovery is RecoveryMode.HOLD:
            return Decision(entry, EntryState.UNCLEAR, response)
        cause = errors.UPSTREAM_FAILED.code
        return Decision(
            entry,
            EntryState.WAITING,
            cause=cause,
            in_doubt=True,
            affects_all_entries=is_outage,
            status=status,
        )
    # A response with a `reason` may be an intermediary's, which shows nothing about earlier
    # attempts.
    if not in_doubt or (status in _REQUEST_ERROR_STATUSES and not response.reason):
        return Decision(entry, EntryState.FAILED, response)
    if response.reason:
        return Decision(entry, EntryState.UNCLEAR, response)
    if request.method == "DELETE" and status in _ABSENT_STATUSES:
        # The resource is gone, which is what the earlier attempt was for.
        return Decision(entry, EntryState.DELIVERED, StoredResponse(204))
    is_conflict = request.method == "PUT" and status == 412
    return None if is_conflict else Decision(entry, EntryState.UNCLEAR, response)


def decide_on_finding(entry: OutboxEntry, result: AttemptResult) -> Decision | None:
    """Return the decision that follows from a verification; None to send the write again."""
    finding, response = result.finding, result.response
    if finding is None:
        # A verification only reads, so that it cannot cause a doubt: it is repeated until the entry
        # is too old.
        return Decision(
            entry,
            EntryState.WAITING,
            cause=result.cause or errors.UPSTREAM_FAILED.code,
            status=None if response is None else response.status,
            retry_after=result.retry_after,
            affects_all_entries=result.is_outage,
        )
    if finding is VerificationStatus.PRESENT:
        return Decision(entry, EntryState.DELIVERED, response or StoredResponse(200))
    if finding is VerificationStatus.INCONCLUSIVE:
        return Decision(
            entry, EntryState.UNCLEAR, response or _in_doubt_response(errors.UPSTREAM_FAILED.code)
        )
    return None


def decide_on_conflict(
    entry: OutboxEntry, result: AttemptResult, conflict: StoredResponse | None
) -> Decision:
    """Return the decision after a 412, from a verification of the platform's present version."""
    decision = decide_on_finding(entry, result)
    if decision is not None and decision.state is not EntryState.UNCLEAR:
        return decision
    return Decision(entry, EntryState.UNCLEAR, conflict)


def decide_unreadable(entry: OutboxEntry) -> Decision:
    """Return the decision about an entry whose request does not decrypt, or is missing."""
    state = EntryState.UNCLEAR if entry.in_doubt else EntryState.FAILED
    return Decision(entry, state, _in_doubt_response(errors.INTERNAL.code, UNREADABLE_NOTE))


def decide_interrupted(entry: OutboxEntry, cause: str, *, is_sent: bool) -> Decision:
    """Return the decision after an attempt without a result; `is_sent`: it may have had effect."""
    return _decide_failure(
        entry, AttemptResult(cause=cause, may_have_effect=is_sent, affects_all_entries=False)
    )


def _decide_failure(entry: OutboxEntry, failure: AttemptResult) -> Decision:
    if failure.may_have_effect and entry.recovery is RecoveryMode.HOLD:
        return Decision(entry, EntryState.UNCLEAR, _in_doubt_response(failure.cause))
    return Decision(
        entry,
        EntryState.WAITING,
        cause=failure.cause,
        in_doubt=failure.may_have_effect,
        retry_after=failure.retry_after,
        affects_all_entries=failure.affects_all_entries,
    )


def _in_doubt_response(cause: str, note: Message = SENT_NOTE) -> StoredResponse:
    """Return the outcome of a write that may have taken effect."""
    reason = errors.REASONS.get(cause, errors.UPSTREAM_FAILED)
    return StoredResponse(reason.status, reason=reason.code, note=note)
