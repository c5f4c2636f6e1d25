"""The active attempts of this gateway: each verifies, sends, evaluates and reports one entry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.outbox.attempt_result import (
    AttemptResult,
    Decision,
    VerificationStatus,
    decide,
    decide_interrupted,
    decide_on_conflict,
    decide_on_finding,
    decide_unreadable,
)
from gateway.outbox.delivery_pacing import (
    INDEX_LAG,
    ParallelLimit,
    PlatformReachability,
    RetrySchedule,
)
from gateway.outbox.entry import (
    EntryContent,
    EntryState,
    OutboxEntry,
    OutboxEvent,
    OutboxStep,
    QueuedRequest,
    RecoveryMode,
)
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.outbox.platform_sender import LatestEntrySender

_log = get_logger(__name__)

# Bytes of requests and responses recorded in one transaction, so that none takes long.
_MAX_BATCH_BYTES: Final = 1024 * 1024
_FIRST_REFUSAL: Final = 300


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at a claimed entry.

    `request` is None where it cannot be decrypted. `failure_generation` is the value of
    `PlatformReachability.failure_generation` when the entry was claimed. Until `is_sending` the
    attempt has had no effect.
    """

    entry: OutboxEntry
    request: QueuedRequest | None
    failure_generation: int
    is_sending: bool = False
    task: asyncio.Task[None] | None = None


class ActiveAttempts:
    """The attempts of this gateway, until the decisions about them are recorded.

    `notify` is told every step of an entry, `on_attempt_ended` is called after each attempt.
    `limit` is told which writes collided and which did not.
    A caller of `take_decisions` must
    call either `decisions_recorded` or `requeue_decisions`.
    """

    def __init__(
        self,
        *,
        sender: LatestEntrySender,
        notify: Callable[[OutboxEvent], None],
        reachability: PlatformReachability,
        limit: ParallelLimit,
        schedule: RetrySchedule,
        on_attempt_ended: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._notify = notify
        self._reachability = reachability
        self._limit = limit
        self._schedule = schedule
        self._on_attempt_ended = on_attempt_ended
        self._active: dict[str, Attempt] = {}
        self._decisions: deque[Decision] = deque()
        self._abandoned = False
        # Ids of the entries that this process postponed because of an outage, not because of a
        # failure of their own.
        self.awaiting_platform: set[str] = set()

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
    def has_unrecorded_decisions(self) -> bool:
        """Whether there is a decision that is not recorded in the store yet."""
        return bool(self._decisions)

    def start(self, claimed: EntryContent, failure_generation: int) -> None:
        """Start the attempt at a claimed entry as a task."""
        attempt = Attempt(claimed.entry, claimed.request, failure_generation)
        self._active[attempt.entry.id] = attempt
        attempt.task = asyncio.get_running_loop().create_task(self._run_attempt(attempt))
        # The callback also runs for a task that was cancelled before it started.
        attempt.task.add_done_callback(lambda task: self._finish_attempt(attempt, task))

    def release(self, entry: OutboxEntry, delay: float) -> None:
        """Return a claimed entry without an attempt; it is due again after `delay` seconds."""
        self._decisions.append(Decision(entry, EntryState.WAITING, cause=entry.cause, delay=delay))

    def take_decisions(self, max_decisions: int, *, with_bodies: bool = True) -> list[Decision]:
        """Remove and return up to `max_decisions` decisions to record.

        They have at most 1 MiB in all, or there is one.
        """
        decisions: list[Decision] = []
        remaining_bytes = _MAX_BATCH_BYTES
        while self._decisions and len(decisions) < max_decisions:
            remaining_bytes -= _decision_bytes(self._decisions[0])
            if remaining_bytes < 0 and decisions:
                break
            decision = self._with_current_delay(self._decisions.popleft())
            decisions.append(decision if with_bodies else decision.without_body())
        return decisions

    def _with_current_delay(self, decision: Decision) -> Decision:
        """Return the decision with its delay recomputed.

        An entry postponed by an outage that has ended uses the normal delay.
        """
        if self._reachability.is_silent_outage or not decision.affects_all_entries:
            return decision
        return self._with_delay(replace(decision, retry_after=None))

    def requeue_decisions(self, decisions: Sequence[Decision]) -> None:
        """Put decisions that could not be recorded back at the end of the queue."""
        if not self._abandoned:
            self._decisions.extend(decisions)

    def decisions_recorded(self, decisions: Sequence[Decision], recorded: Sequence[bool]) -> None:
        """End the attempts of decisions that the store has committed, and report their steps.

        Where the lease was lost the store has not recorded the decision; that is logged only.
        """
        for decision, is_recorded in zip(decisions, recorded, strict=True):
            entry = decision.entry
            attempt = self._active.get(entry.id)
            if attempt is None or attempt.entry.attempts != entry.attempts:
                # The entry was released: no attempt at it is active, or only one of an earlier
                # claim.
                continue
            del self._active[entry.id]
            event = decision.event()
            if is_recorded:
                if decision.affects_all_entries:
                    self.awaiting_platform.add(entry.id)
                self._notify(event)
            else:
                _log.warning(
                    f"outbox: the lease of {entry.id} is lost, {event.step.value} is not recorded",
                    **_log_fields(entry),
                )

    def stop(self, held: Collection[str] = ()) -> None:
        """Cancel the attempts, except those at entries in `held`, whose leases are still held."""
        for attempt in self._active.values():
            if attempt.entry.id not in held and attempt.task is not None:
                attempt.task.cancel()

    async def cancel_all(self) -> None:
        """Cancel all attempts and discard the decisions.

        Their entries are recovered when the leases end.
        """
        self._abandoned = True
        tasks = [attempt.task for attempt in self._active.values() if attempt.task is not None]
        self._active.clear()
        self._decisions.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_attempt(self, attempt: Attempt) -> None:
        decision = await self._decide(attempt)
        self._decisions.append(
            self._with_delay(decision) if decision.state is EntryState.WAITING else decision
        )

    def _finish_attempt(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error(
                "the outbox could not store a result: %s",
                type(error).__name__,
                **_log_fields(attempt.entry),
            )
        if error is not None or task.cancelled():
            # The entry is recovered when its lease ends.
            self._active.pop(attempt.entry.id, None)
        self._on_attempt_ended()

    async def _decide(self, attempt: Attempt) -> Decision:
        try:
            return await self._attempt(attempt)
        except asyncio.CancelledError:
            if self._abandoned:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            cause = errors.UPSTREAM_FAILED.code
        except Exception as error:
            # The text of another library's exception may contain data of a patient.
            _log.error(
                "an attempt of the outbox failed: %s",
                type(error).__name__,
                **_log_fields(attempt.entry),
            )
            self._reachability.on_inconclusive_attempt()
            cause = errors.INTERNAL.code
        return decide_interrupted(attempt.entry, cause, is_sent=attempt.is_sending)

    async def _attempt(self, attempt: Attempt) -> Decision:
        entry, request = attempt.entry, attempt.request
        if request is None:
            return decide_unreadable(entry)
        in_doubt = entry.in_doubt
        if in_doubt and entry.recovery is RecoveryMode.HOLD:
            return decide_interrupted(entry, entry.cause, is_sent=True)
        if in_doubt and entry.recovery is RecoveryMode.VERIFY:
            result = await self._verify(attempt, request)
            decision = decide_on_finding(entry, result)
            if decision is not None:
                return decision
            in_doubt = result.finding is VerificationStatus.SAFE_TO_RESEND
        attempt.is_sending = True
        self._notify(OutboxEvent(OutboxStep.SENT, entry, entry.cause))
        result = await self._sender.send(entry, request)
        self._update_reachability(attempt, result)
        decision = decide(entry, request, result, in_doubt=in_doubt)
        if decision is None:
            attempt.is_sending = False
            finding = await self._verify(attempt, request)
            return decide_on_conflict(entry, finding, result.response)
        return decision

    async def _verify(self, attempt: Attempt, request: QueuedRequest) -> AttemptResult:
        result = await self._sender.verify(attempt.entry, request)
        self._update_reachability(attempt, result)
        return result

    def _update_reachability(self, attempt: Attempt, result: AttemptResult) -> None:
        """Note what a result shows about the platform, whatever it means for the entry."""
        if result.is_collision:
            self._limit.on_collision()
        elif result.response is not None and result.response.status < _FIRST_REFUSAL:
            self._limit.on_success()
        if result.is_outage:
            self._reachability.on_attempt_failure(attempt.failure_generation, result.retry_after)
        elif result.cause:
            self._reachability.on_inconclusive_attempt()
        else:
            self._reachability.on_attempt_response()

    def _with_delay(self, decision: Decision) -> Decision:
        """Return the decision for another attempt with the delay before that."""
        entry = decision.entry
        if decision.is_collision:
            delay = self._schedule.collision_delay(entry.collisions + 1)
        else:
            delay = self._schedule.entry_delay(
                entry.attempts,
                affects_all_entries=decision.affects_all_entries,
                retry_after=decision.retry_after,
            )
        if entry.recovery is RecoveryMode.VERIFY and (entry.in_doubt or decision.in_doubt):
            delay = max(delay, INDEX_LAG)
        return replace(decision, delay=delay)


def _decision_bytes(decision: Decision) -> int:
    response_bytes = 0 if decision.response is None else len(decision.response.body)
    return decision.entry.size + response_bytes


def _log_fields(entry: OutboxEntry) -> dict[str, str]:
    return {"entry": entry.id, "caller": entry.caller}
