"""The attempts that are under way in this process: ask, send, judge, write down, tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from gateway import errors
from gateway.outbox import judging
from gateway.outbox.entry import Entry, Recovery, Request, Response, State
from gateway.outbox.events import Event, Observer, Step
from gateway.outbox.judging import Contradicted, Ended, Postponed, Verdict
from gateway.outbox.pacing import Line, Pacer, Pauses
from gateway.outbox.sending import Comparison, Failure, Found, Result, Sender
from gateway.outbox.store import OutboxUnavailable, OutboxUnusable, Store
from gateway.telemetry.logs import get_logger
from gateway.timing import TimeSource

_log = get_logger(__name__)

# How soon a result is written again that the store could not take, in seconds.
_AGAIN: Final = 1.0
_STEPS: Final = {
    State.DELIVERED: Step.DELIVERED,
    State.FAILED: Step.FAILED,
    State.UNCLEAR: Step.UNCLEAR,
}


class AttemptPhase(Enum):
    """How far an attempt has come, as far as it can still be stopped."""

    HARMLESS = auto()
    SENDING = auto()
    RECORDING = auto()


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed entry; `line_turn` is what `Line.turn` was when it began."""

    entry: Entry
    line_turn: int
    phase: AttemptPhase = AttemptPhase.HARMLESS
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts work with. `owner` is who holds the leases."""

    owner: str
    store: Store
    sender: Sender
    observe: Observer
    line: Line
    pacer: Pacer
    pauses: Pauses
    timing: TimeSource


class Attempts:
    """Those in hand; `ended` is called after each.

    A result that the store cannot take is written as soon as it can.
    """

    def __init__(self, means: Means, ended: Callable[[], None]) -> None:
        self._means = means
        self._ended = ended
        self._in_hand: dict[str, Attempt] = {}
        # What this process has put back because of the line, not because of itself.
        self._behind_line: set[str] = set()

    def __len__(self) -> int:
        return len(self._in_hand)

    @property
    def ids(self) -> frozenset[str]:
        """The entries."""
        return frozenset(self._in_hand)

    @property
    def unrecorded(self) -> bool:
        """Whether a result is known that the store has not taken yet."""
        return any(attempt.phase is AttemptPhase.RECORDING for attempt in self._in_hand.values())

    def behind_line(self) -> Collection[str]:
        """The entries that wait for the line and not for themselves, each told once."""
        found, self._behind_line = self._behind_line, set()
        return found

    def begin(self, entry: Entry) -> None:
        """Take a claimed entry in hand."""
        attempt = Attempt(entry, self._means.line.turn)
        self._in_hand[entry.id] = attempt
        attempt.task = asyncio.get_running_loop().create_task(self._carry(attempt))
        # Also called for a task that was cancelled before it began.
        attempt.task.add_done_callback(lambda _: self._end(attempt))

    def stop(self, held: Collection[str] = ()) -> None:
        """Stop what is being sent, but for the entries of which the lease is still held."""
        for attempt in self._in_hand.values():
            stoppable = attempt.phase is not AttemptPhase.RECORDING and attempt.entry.id not in held
            if stoppable and attempt.task is not None:
                attempt.task.cancel()

    async def abandon(self) -> None:
        """End all at once; what was not written down is judged when its lease has ended."""
        tasks = [attempt.task for attempt in self._in_hand.values() if attempt.task is not None]
        for attempt in self._in_hand.values():
            attempt.phase = AttemptPhase.RECORDING
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, attempt: Attempt) -> None:
        try:
            verdict = await self._verdict(attempt)
            attempt.phase = AttemptPhase.RECORDING
            await self._record(attempt.entry, verdict)
        except Exception as error:
            # The lease's end brings the entry back.
            kind = type(error).__name__
            _log.error("a result of the outbox was not kept: %s", kind, **_facts(attempt.entry))

    def _end(self, attempt: Attempt) -> None:
        del self._in_hand[attempt.entry.id]
        self._ended()

    async def _verdict(self, attempt: Attempt) -> Verdict:
        try:
            return await self._attempt(attempt)
        except asyncio.CancelledError:
            if attempt.phase is AttemptPhase.RECORDING:
                raise
            _go_on()
            return _interrupted(attempt, errors.UPSTREAM_FAILED.code)
        except Exception as error:
            # The text of a foreign error may be about a patient.
            kind = type(error).__name__
            _log.error("an attempt of the outbox broke off: %s", kind, **_facts(attempt.entry))
            self._means.line.undecided()
            return _interrupted(attempt, errors.INTERNAL.code)

    async def _attempt(self, attempt: Attempt) -> Verdict:
        entry = attempt.entry
        request = await self._request(entry)
        if request is None:
            return judging.unreadable(entry)
        in_doubt = entry.doubt
        if in_doubt and entry.recovery is Recovery.PARK:
            return Ended(State.UNCLEAR, judging.unclear(entry.cause))
        if in_doubt and entry.recovery is Recovery.ASK:
            finding = await self._ask(attempt, request)
            known = judging.judge_finding(finding)
            if known is not None:
                return known
            in_doubt = finding == Comparison(Found.HARMLESS)
        attempt.phase = AttemptPhase.SENDING
        self._means.observe(Event(Step.SENT, entry, entry.cause))
        result = await self._means.sender.send(entry, request)
        self._learn(attempt, result)
        verdict = judging.judge(entry, request, result, in_doubt=in_doubt)
        if isinstance(verdict, Contradicted):
            attempt.phase = AttemptPhase.HARMLESS
            return judging.judge_content(await self._ask(attempt, request), verdict)
        return verdict

    async def _ask(self, attempt: Attempt, request: Request) -> Comparison | Failure:
        finding = await self._means.sender.ask(attempt.entry, request)
        self._learn(attempt, finding)
        return finding

    async def _request(self, entry: Entry) -> Request | None:
        while True:
            try:
                return await self._means.store.request(entry.id)
            except OutboxUnusable:
                return None
            except OutboxUnavailable:
                await self._means.timing.sleep(_AGAIN)

    def _learn(self, attempt: Attempt, result: Result | Comparison) -> None:
        """What a result shows about the line, whatever it means for the entry."""
        line = self._means.line
        if isinstance(result, Failure) and not result.everybody:
            line.undecided()
        elif isinstance(result, Failure):
            line.failed(attempt.line_turn, result.retry_after)
        elif isinstance(result, Response) and result.status in judging.LINE:
            line.failed(attempt.line_turn, None)
        else:
            line.answered()

    async def _record(self, entry: Entry, verdict: Verdict) -> None:
        told = False
        while True:
            try:
                held = await self._write(entry, verdict)
                break
            except OutboxUnavailable as error:
                if not told:
                    _log.error("the outbox cannot take a result now: %s", error, **_facts(entry))
                told = True
                await self._means.timing.sleep(_AGAIN)
        event = _event(judging.after(entry, verdict), verdict)
        if held:
            if isinstance(verdict, Postponed) and verdict.everybody:
                self._behind_line.add(entry.id)
            self._means.observe(event)
        else:
            step = event.step.value
            _log.warning(
                "outbox: %s was no longer held here, %s is not noted",
                entry.id,
                step,
                **_facts(entry),
            )

    async def _write(self, entry: Entry, verdict: Verdict) -> bool:
        store, owner = self._means.store, self._means.owner
        if isinstance(verdict, Ended):
            return await store.finish(owner, entry, verdict.state, verdict.response)
        put_back = store.doubt if verdict.doubt else store.release
        return await put_back(owner, entry, delay=self._delay(entry, verdict), cause=verdict.cause)

    def _delay(self, entry: Entry, verdict: Postponed) -> float:
        pause = self._means.pacer.of_entry(
            entry.attempts, everybody=verdict.everybody, retry_after=verdict.retry_after
        )
        asks = entry.recovery is Recovery.ASK and (entry.doubt or verdict.doubt)
        return max(pause, self._means.pauses.settle) if asks else pause


def _interrupted(attempt: Attempt, cause: str) -> Verdict:
    if attempt.phase is AttemptPhase.HARMLESS:
        return Postponed(cause)
    if attempt.entry.recovery is Recovery.PARK:
        return Ended(State.UNCLEAR, judging.unclear(cause))
    return Postponed(cause, doubt=True)


def _event(entry: Entry, verdict: Verdict) -> Event:
    if isinstance(verdict, Postponed):
        step = Step.DOUBTED if verdict.doubt else Step.POSTPONED
        return Event(step, entry, verdict.cause, verdict.status)
    response = verdict.response
    status = None if response.reason else response.status
    return Event(_STEPS[verdict.state], entry, response.reason, status)


def _facts(entry: Entry) -> dict[str, str]:
    """The fields of a line in the log."""
    return {"entry": entry.id, "caller": entry.caller}


def _go_on() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
