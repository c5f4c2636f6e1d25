"""The attempts that are under way in this process: ask, send, judge, tell."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from gateway import errors
from gateway.outbox import judging
from gateway.outbox.entry import (
    EntryState,
    OutboxEntry,
    QueuedRequest,
    RecoveryMode,
    StoredResponse,
)
from gateway.outbox.events import OutboxEvent, OutboxObserver, OutboxStep
from gateway.outbox.judging import EntryTransition, FinalOutcome, RetryLater, VersionConflict
from gateway.outbox.pacing import PlatformReachability, RetryDelays, RetrySchedule
from gateway.outbox.sending import (
    Sender,
    SendFailure,
    SendResult,
    VerificationResult,
    VerificationStatus,
)
from gateway.outbox.store import AttemptOutcome, ClaimedEntry, StoreStepResult
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# What is written down at once, in bytes of requests and answers, so that no write takes long.
_AT_ONCE: Final = 1024 * 1024
_STEPS: Final = {
    EntryState.DELIVERED: OutboxStep.DELIVERED,
    EntryState.FAILED: OutboxStep.FAILED,
    EntryState.UNCLEAR: OutboxStep.UNCLEAR,
}


class AttemptPhase(Enum):
    """How far an attempt has come, as far as it can still be stopped."""

    HARMLESS = auto()
    SENDING = auto()


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed entry; `line_turn` is what `PlatformReachability.turn` was when it began."""

    entry: OutboxEntry
    request: QueuedRequest | None
    line_turn: int
    phase: AttemptPhase = AttemptPhase.HARMLESS
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class AttemptDependencies:
    """What attempts work with."""

    sender: Sender
    observe: OutboxObserver
    line: PlatformReachability
    pacer: RetrySchedule
    pauses: RetryDelays


class ActiveAttempts:
    """Those in hand, to the moment when what they came to is written; `ended` is called after each.

    Whoever has taken outcomes writes them down and says so, or puts them again.
    """

    def __init__(self, means: AttemptDependencies, ended: Callable[[], None]) -> None:
        self._means = means
        self._ended = ended
        self._in_hand: dict[str, Attempt] = {}
        self._outcomes: deque[AttemptOutcome] = deque()
        self._abandoned = False
        # What this process has put back because of the line, not because of itself.
        self._behind_line: set[str] = set()

    def __len__(self) -> int:
        return len(self._in_hand)

    @property
    def ids(self) -> frozenset[str]:
        """The entries."""
        return frozenset(self._in_hand)

    @property
    def size(self) -> int:
        """Bytes of what is in hand."""
        return sum(attempt.entry.size for attempt in self._in_hand.values())

    @property
    def unrecorded(self) -> bool:
        """Whether an outcome is known that is not written down yet."""
        return bool(self._outcomes)

    @property
    def behind_line(self) -> frozenset[str]:
        """The entries that wait for the line and not for themselves."""
        return frozenset(self._behind_line)

    def hastened(self, ids: Collection[str]) -> None:
        """These do not wait for the line any more."""
        self._behind_line.difference_update(ids)

    def begin(self, claimed: ClaimedEntry) -> None:
        """Take a claimed entry in hand."""
        attempt = Attempt(claimed.entry, claimed.request, self._means.line.turn)
        self._in_hand[attempt.entry.id] = attempt
        attempt.task = asyncio.get_running_loop().create_task(self._carry(attempt))
        # Also called for a task that was cancelled before it began.
        attempt.task.add_done_callback(lambda _: self._end(attempt))

    def give_back(self, entry: OutboxEntry, delay: float) -> None:
        """A claimed entry is not begun."""
        self._outcomes.append(AttemptOutcome(entry, RetryLater(entry.cause), delay))

    def take(self, most: int) -> list[AttemptOutcome]:
        """Some of what is to be written down."""
        taken: list[AttemptOutcome] = []
        room = _AT_ONCE
        while self._outcomes and len(taken) < most:
            room -= _outcome_bytes(self._outcomes[0])
            if room < 0 and taken:
                break
            taken.append(self._as_of_now(self._outcomes.popleft()))
        return taken

    def _as_of_now(self, outcome: AttemptOutcome) -> AttemptOutcome:
        """Whoever was put back by a line that is back since does not wait as long as that asked."""
        verdict = outcome.verdict
        if self._means.line.silent or not isinstance(verdict, RetryLater) or not verdict.everybody:
            return outcome
        return replace(
            outcome, delay=self._delay(outcome.entry, replace(verdict, retry_after=None))
        )

    def put_again(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """They could not be written; others may have more luck first."""
        if not self._abandoned:
            self._outcomes.extend(outcomes)

    def written(self, outcomes: Sequence[AttemptOutcome], progress: StoreStepResult) -> None:
        """They are on the disk, but for those of which the lease was lost."""
        for outcome, held in zip(outcomes, progress.written, strict=True):
            entry, verdict = outcome.entry, outcome.verdict
            attempt = self._in_hand.get(entry.id)
            if attempt is None or attempt.entry.attempts != entry.attempts:
                # It was given back.
                continue
            del self._in_hand[entry.id]
            event = _event(judging.apply_transition(entry, verdict), verdict)
            if held:
                if isinstance(verdict, RetryLater) and verdict.everybody:
                    self._behind_line.add(entry.id)
                self._means.observe(event)
            else:
                told = (
                    f"outbox: {entry.id} was no longer held here, {event.step.value} is not noted"
                )
                _log.warning(told, **_log_fields(entry))

    def stop(self, held: Collection[str] = ()) -> None:
        """Stop what is being sent, but for the entries of which the lease is still held."""
        for attempt in self._in_hand.values():
            if attempt.entry.id not in held and attempt.task is not None:
                attempt.task.cancel()

    async def abandon(self) -> None:
        """End all at once; what was not written down is judged when its lease has ended."""
        self._abandoned = True
        tasks = [attempt.task for attempt in self._in_hand.values() if attempt.task is not None]
        self._in_hand.clear()
        self._outcomes.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, attempt: Attempt) -> None:
        verdict = await self._verdict(attempt)
        delay = self._delay(attempt.entry, verdict) if isinstance(verdict, RetryLater) else 0.0
        self._outcomes.append(AttemptOutcome(attempt.entry, verdict, delay))

    def _end(self, attempt: Attempt) -> None:
        task = attempt.task
        error = None if task is None or task.cancelled() else task.exception()
        if error is not None:
            kind = type(error).__name__
            _log.error(
                "a result of the outbox was not kept: %s", kind, **_log_fields(attempt.entry)
            )
        if error is not None or (task is not None and task.cancelled()):
            # Its lease's end brings the entry back.
            self._in_hand.pop(attempt.entry.id, None)
        self._ended()

    async def _verdict(self, attempt: Attempt) -> EntryTransition:
        try:
            return await self._attempt(attempt)
        except asyncio.CancelledError:
            if self._abandoned:
                raise
            _clear_cancellation()
            return _interrupted_outcome(attempt, errors.UPSTREAM_FAILED.code)
        except Exception as error:
            # The text of a foreign error may be about a patient.
            kind = type(error).__name__
            _log.error("an attempt of the outbox broke off: %s", kind, **_log_fields(attempt.entry))
            self._means.line.undecided()
            return _interrupted_outcome(attempt, errors.INTERNAL.code)

    async def _attempt(self, attempt: Attempt) -> EntryTransition:
        entry, request = attempt.entry, attempt.request
        if request is None:
            return judging.unreadable_outcome(entry)
        in_doubt = entry.doubt
        if in_doubt and entry.recovery is RecoveryMode.PARK:
            return FinalOutcome(EntryState.UNCLEAR, judging.in_doubt_response(entry.cause))
        if in_doubt and entry.recovery is RecoveryMode.ASK:
            finding = await self._ask(attempt, request)
            known = judging.evaluate_verification(finding)
            if known is not None:
                return known
            in_doubt = finding == VerificationResult(VerificationStatus.HARMLESS)
        attempt.phase = AttemptPhase.SENDING
        self._means.observe(OutboxEvent(OutboxStep.SENT, entry, entry.cause))
        result = await self._means.sender.send(entry, request)
        self._learn(attempt, result)
        verdict = judging.evaluate_result(entry, request, result, in_doubt=in_doubt)
        if isinstance(verdict, VersionConflict):
            attempt.phase = AttemptPhase.HARMLESS
            return judging.evaluate_version_conflict(await self._ask(attempt, request), verdict)
        return verdict

    async def _ask(
        self, attempt: Attempt, request: QueuedRequest
    ) -> VerificationResult | SendFailure:
        finding = await self._means.sender.ask(attempt.entry, request)
        self._learn(attempt, finding)
        return finding

    def _learn(self, attempt: Attempt, result: SendResult | VerificationResult) -> None:
        """What a result shows about the line, whatever it means for the entry."""
        line = self._means.line
        if isinstance(result, SendFailure) and not result.everybody:
            line.undecided()
        elif isinstance(result, SendFailure):
            line.failed(attempt.line_turn, result.retry_after)
        elif isinstance(result, StoredResponse) and result.status in judging.UNREACHABLE_STATUSES:
            line.failed(attempt.line_turn, None)
        else:
            line.answered()

    def _delay(self, entry: OutboxEntry, verdict: RetryLater) -> float:
        pause = self._means.pacer.of_entry(
            entry.attempts, everybody=verdict.everybody, retry_after=verdict.retry_after
        )
        asks = entry.recovery is RecoveryMode.ASK and (entry.doubt or verdict.doubt)
        return max(pause, self._means.pauses.settle) if asks else pause


def _interrupted_outcome(attempt: Attempt, cause: str) -> EntryTransition:
    if attempt.phase is AttemptPhase.HARMLESS:
        return RetryLater(cause)
    if attempt.entry.recovery is RecoveryMode.PARK:
        return FinalOutcome(EntryState.UNCLEAR, judging.in_doubt_response(cause))
    return RetryLater(cause, doubt=True)


def _outcome_bytes(outcome: AttemptOutcome) -> int:
    verdict = outcome.verdict
    answer = len(verdict.response.body) if isinstance(verdict, FinalOutcome) else 0
    return outcome.entry.size + answer


def _event(entry: OutboxEntry, verdict: EntryTransition) -> OutboxEvent:
    if isinstance(verdict, RetryLater):
        step = OutboxStep.DOUBTED if verdict.doubt else OutboxStep.POSTPONED
        return OutboxEvent(step, entry, verdict.cause, verdict.status)
    response = verdict.response
    status = None if response.reason else response.status
    return OutboxEvent(_STEPS[verdict.state], entry, response.reason, status)


def _log_fields(entry: OutboxEntry) -> dict[str, str]:
    """The fields of a line in the log."""
    return {"entry": entry.id, "caller": entry.caller}


def _clear_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
