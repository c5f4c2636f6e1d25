"""The active attempts of this gateway: each verifies, sends, evaluates and reports one entry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.outbox import attempt_result
from gateway.outbox.attempt_result import (
    FinalOutcome,
    RetryLater,
    SendFailure,
    VerificationResult,
    VerificationStatus,
    VersionConflict,
)
from gateway.outbox.entry import EntryState, OutboxEvent, OutboxStep, RecoveryMode, StoredResponse
from gateway.outbox.store.store_types import AttemptOutcome
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.outbox.attempt_result import EntryTransition, SendResult
    from gateway.outbox.delivery_pacing import PlatformReachability, RetrySchedule
    from gateway.outbox.entry import OutboxEntry, QueuedRequest
    from gateway.outbox.platform_sender import LatestEntrySender
    from gateway.outbox.store.store_types import ClaimedEntry, StoreStepResult

_log = get_logger(__name__)

# Bytes of requests and responses recorded in one transaction, so that none takes long.
_MAX_BATCH_BYTES: Final = 1024 * 1024
_STEPS: Final = {
    EntryState.DELIVERED: OutboxStep.DELIVERED,
    EntryState.FAILED: OutboxStep.FAILED,
    EntryState.UNCLEAR: OutboxStep.UNCLEAR,
}


class AttemptPhase(Enum):
    """The phase of an attempt. One that is interrupted in NOT_SENT has had no effect."""

    NOT_SENT = auto()
    SENDING = auto()


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at a claimed entry.

    `request` is None where it cannot be decrypted. `failure_generation` is the value of
    `PlatformReachability.failure_generation` when the attempt began.
    """

    entry: OutboxEntry
    request: QueuedRequest | None
    failure_generation: int
    phase: AttemptPhase = AttemptPhase.NOT_SENT
    task: asyncio.Task[None] | None = None


class ActiveAttempts:
    """The attempts of this gateway, until their outcomes are recorded.

    `notify` is told every step of an entry, `on_attempt_ended` is called after each attempt.
    `index_lag` is the number of seconds before a verification. A caller of `take_outcomes` must
    call either `outcomes_recorded` or `requeue_outcomes`.
    """

    def __init__(
        self,
        *,
        sender: LatestEntrySender,
        notify: Callable[[OutboxEvent], None],
        reachability: PlatformReachability,
        schedule: RetrySchedule,
        index_lag: float,
        on_attempt_ended: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._notify = notify
        self._reachability = reachability
        self._schedule = schedule
        self._index_lag = index_lag
        self._on_attempt_ended = on_attempt_ended
        self._active: dict[str, Attempt] = {}
        self._outcomes: deque[AttemptOutcome] = deque()
        self._abandoned = False
        # Ids of the entries that this process postponed because of an outage, not because of a
        # failure of their own.
        self._awaiting_platform: set[str] = set()

    def __len__(self) -> int:
        return len(self._active)

    @property
    def entry_ids(self) -> frozenset[str]:
        """The ids of the entries with an active attempt."""
        return frozenset(self._active)

    @property
    def total_bytes(self) -> int:
        """The bytes of all entries with an active attempt."""
        return sum(attempt.entry.size for attempt in self._active.values())

    @property
    def has_unrecorded_outcomes(self) -> bool:
        """Whether there is an outcome that is not recorded in the store yet."""
        return bool(self._outcomes)

    @property
    def awaiting_platform(self) -> frozenset[str]:
        """The ids of entries that were postponed by an outage, not by a failure of their own."""
        return frozenset(self._awaiting_platform)

    def no_longer_awaiting(self, ids: Collection[str]) -> None:
        """Remove these entries from `awaiting_platform`."""
        self._awaiting_platform.difference_update(ids)

    def start(self, claimed: ClaimedEntry) -> None:
        """Start the attempt at a claimed entry as a task."""
        attempt = Attempt(claimed.entry, claimed.request, self._reachability.failure_generation)
        self._active[attempt.entry.id] = attempt
        attempt.task = asyncio.get_running_loop().create_task(self._run_attempt(attempt))
        # The callback also runs for a task that was cancelled before it started.
        attempt.task.add_done_callback(lambda _: self._finish_attempt(attempt))

    def release(self, entry: OutboxEntry, delay: float) -> None:
        """Return a claimed entry without an attempt; it is due again after `delay` seconds."""
        self._outcomes.append(AttemptOutcome(entry, RetryLater(entry.cause), delay))

    def take_outcomes(self, max_outcomes: int) -> list[AttemptOutcome]:
        """Remove and return up to `max_outcomes` outcomes to record.

        They have at most 1 MiB in all, or there is one.
        """
        outcomes: list[AttemptOutcome] = []
        remaining_bytes = _MAX_BATCH_BYTES
        while self._outcomes and len(outcomes) < max_outcomes:
            remaining_bytes -= _outcome_bytes(self._outcomes[0])
            if remaining_bytes < 0 and outcomes:
                break
            outcomes.append(self._with_current_delay(self._outcomes.popleft()))
        return outcomes

    def _with_current_delay(self, outcome: AttemptOutcome) -> AttemptOutcome:
        """Return the outcome with its delay recomputed.

        An entry postponed by an outage that has ended uses the normal delay.
        """
        transition = outcome.transition
        if (
            self._reachability.is_silent_outage
            or not isinstance(transition, RetryLater)
            or not transition.affects_all_entries
        ):
            return outcome
        return replace(
            outcome, delay=self._delay(outcome.entry, replace(transition, retry_after=None))
        )

    def requeue_outcomes(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Put outcomes that could not be recorded back at the end of the queue."""
        if not self._abandoned:
            self._outcomes.extend(outcomes)

    def outcomes_recorded(
        self, outcomes: Sequence[AttemptOutcome], progress: StoreStepResult
    ) -> None:
        """End the attempts of outcomes that the store has committed, and report their steps.

        Where the lease was lost the store has not recorded the outcome; that is logged only.
        """
        for outcome, is_recorded in zip(outcomes, progress.recorded, strict=True):
            entry, transition = outcome.entry, outcome.transition
            attempt = self._active.get(entry.id)
            if attempt is None or attempt.entry.attempts != entry.attempts:
                # The entry was released: no attempt at it is active, or only one of an earlier
                # claim.
                continue
            del self._active[entry.id]
            event = _event(attempt_result.apply_transition(entry, transition), transition)
            if is_recorded:
                if isinstance(transition, RetryLater) and transition.affects_all_entries:
                    self._awaiting_platform.add(entry.id)
                self._notify(event)
            else:
                message = (
                    f"outbox: {entry.id} was no longer held here, {event.step.value} is not noted"
                )
                _log.warning(message, **_log_fields(entry))

    def stop(self, held: Collection[str] = ()) -> None:
        """Cancel the attempts, except those at entries in `held`, whose leases are still held."""
        for attempt in self._active.values():
            if attempt.entry.id not in held and attempt.task is not None:
                attempt.task.cancel()

    async def cancel_all(self) -> None:
        """Cancel all attempts and discard their outcomes.

        Their entries are recovered when the leases end.
        """
        self._abandoned = True
        tasks = [attempt.task for attempt in self._active.values() if attempt.task is not None]
        self._active.clear()
        self._outcomes.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_attempt(self, attempt: Attempt) -> None:
        transition = await self._evaluate(attempt)
        delay = (
            self._delay(attempt.entry, transition) if isinstance(transition, RetryLater) else 0.0
        )
        self._outcomes.append(AttemptOutcome(attempt.entry, transition, delay))

    def _finish_attempt(self, attempt: Attempt) -> None:
        task = attempt.task
        error = None if task is None or task.cancelled() else task.exception()
        if error is not None:
            kind = type(error).__name__
            _log.error(
                "a result of the outbox was not kept: %s", kind, **_log_fields(attempt.entry)
            )
        if error is not None or (task is not None and task.cancelled()):
            # The entry is recovered when its lease ends.
            self._active.pop(attempt.entry.id, None)
        self._on_attempt_ended()

    async def _evaluate(self, attempt: Attempt) -> EntryTransition:
        try:
            return await self._attempt(attempt)
        except asyncio.CancelledError:
            if self._abandoned:
                raise
            _clear_cancellation()
            return _interrupted_outcome(attempt, errors.UPSTREAM_FAILED.code)
        except Exception as error:
            # The text of another library's exception may contain data of a patient.
            kind = type(error).__name__
            _log.error("an attempt of the outbox broke off: %s", kind, **_log_fields(attempt.entry))
            self._reachability.on_inconclusive_attempt()
            return _interrupted_outcome(attempt, errors.INTERNAL.code)

    async def _attempt(self, attempt: Attempt) -> EntryTransition:
        entry, request = attempt.entry, attempt.request
        if request is None:
            return attempt_result.unreadable_outcome(entry)
        in_doubt = entry.in_doubt
        if in_doubt and entry.recovery is RecoveryMode.HOLD:
            return FinalOutcome(EntryState.UNCLEAR, attempt_result.in_doubt_response(entry.cause))
        if in_doubt and entry.recovery is RecoveryMode.VERIFY:
            finding = await self._verify(attempt, request)
            transition = attempt_result.evaluate_verification(finding)
            if transition is not None:
                return transition
            in_doubt = finding == VerificationResult(VerificationStatus.SAFE_TO_RESEND)
        attempt.phase = AttemptPhase.SENDING
        self._notify(OutboxEvent(OutboxStep.SENT, entry, entry.cause))
        result = await self._sender.send(entry, request)
        self._update_reachability(attempt, result)
        evaluated = attempt_result.evaluate_result(entry, request, result, in_doubt=in_doubt)
        if isinstance(evaluated, VersionConflict):
            attempt.phase = AttemptPhase.NOT_SENT
            return attempt_result.evaluate_version_conflict(
                await self._verify(attempt, request), evaluated
            )
        return evaluated

    async def _verify(
        self, attempt: Attempt, request: QueuedRequest
    ) -> VerificationResult | SendFailure:
        finding = await self._sender.verify(attempt.entry, request)
        self._update_reachability(attempt, finding)
        return finding

    def _update_reachability(
        self, attempt: Attempt, result: SendResult | VerificationResult
    ) -> None:
        """Note what a result shows about the platform, whatever it means for the entry."""
        reachability = self._reachability
        if isinstance(result, SendFailure) and not result.affects_all_entries:
            reachability.on_inconclusive_attempt()
        elif isinstance(result, SendFailure):
            reachability.on_attempt_failure(attempt.failure_generation, result.retry_after)
        elif (
            isinstance(result, StoredResponse)
            and result.status in attempt_result.UNREACHABLE_STATUSES
        ):
            reachability.on_attempt_failure(attempt.failure_generation, None)
        else:
            reachability.on_attempt_response()

    def _delay(self, entry: OutboxEntry, transition: RetryLater) -> float:
        delay = self._schedule.entry_delay(
            entry.attempts,
            affects_all_entries=transition.affects_all_entries,
            retry_after=transition.retry_after,
        )
        needs_verification = entry.recovery is RecoveryMode.VERIFY and (
            entry.in_doubt or transition.in_doubt
        )
        return max(delay, self._index_lag) if needs_verification else delay


def _interrupted_outcome(attempt: Attempt, cause: str) -> EntryTransition:
    if attempt.phase is AttemptPhase.NOT_SENT:
        return RetryLater(cause)
    if attempt.entry.recovery is RecoveryMode.HOLD:
        return FinalOutcome(EntryState.UNCLEAR, attempt_result.in_doubt_response(cause))
    return RetryLater(cause, in_doubt=True)


def _outcome_bytes(outcome: AttemptOutcome) -> int:
    transition = outcome.transition
    response_bytes = len(transition.response.body) if isinstance(transition, FinalOutcome) else 0
    return outcome.entry.size + response_bytes


def _event(entry: OutboxEntry, transition: EntryTransition) -> OutboxEvent:
    if isinstance(transition, RetryLater):
        step = OutboxStep.BECAME_IN_DOUBT if transition.in_doubt else OutboxStep.POSTPONED
        return OutboxEvent(step, entry, transition.cause, transition.status)
    response = transition.response
    status = None if response.reason else response.status
    return OutboxEvent(_STEPS[transition.state], entry, response.reason, status)


def _log_fields(entry: OutboxEntry) -> dict[str, str]:
    return {"entry": entry.id, "caller": entry.caller}


def _clear_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
