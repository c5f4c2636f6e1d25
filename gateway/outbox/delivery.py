"""Delivers what waits in the outbox, as long as the process runs.

Any number of processes may deliver from one store: each entry is leased to one of them at a time,
and an entry is not given out while an earlier one of its orders is there. So what is in hand here
never depends on each other, and attempts run side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.outbox.attempts import ActiveAttempts, AttemptDependencies
from gateway.outbox.events import OutboxObserver
from gateway.outbox.owner import current_owner
from gateway.outbox.pacing import PlatformReachability, RetryDelays, RetrySchedule
from gateway.outbox.sending import Sender
from gateway.outbox.store import (
    AttemptOutcome,
    ClaimedEntry,
    OutboxUnavailableError,
    StoreStepResult,
)
from gateway.outbox.upkeep import OutboxMaintenance
from gateway.telemetry.logs import get_logger
from gateway.timing import TimerHandle, TimeSource

if TYPE_CHECKING:
    # Its database's library is an extra.
    from gateway.outbox.sql_store import SqlStore

_log = get_logger(__name__)

# So many bytes of requests are taken in hand beside one that is larger.
_MAX_ACTIVE_BYTES: Final = 64 * 1024 * 1024
# Between two steps of the upkeep, so that deliveries go on meanwhile, in seconds.
_PURGE_PAUSE: Final = 0.05
# What is left to write results down after what is being sent was stopped, in seconds.
_RECORD_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """`parallel` attempts at most in this process; the rest is in seconds.

    Who does not renew its leases for `lease` loses them, at the latest twice `recovery` later. What
    another process put in is noticed after `poll` at the latest; `recovery` and `upkeep` are how
    often to look for what other processes left, and for what is too old.
    """

    max_age: float
    retention: float
    parallel: int = 16
    lease: float = 30.0
    poll: float = 1.0
    recovery: float = 5.0
    upkeep: float = 60.0
    pauses: RetryDelays = field(default_factory=RetryDelays)


class DeliveryLoop:
    """`run` delivers until `drain`.

    What was being sent when `run` was cancelled is judged as after a crash.
    """

    def __init__(
        self,
        store: SqlStore,
        sender: Sender,
        observe: OutboxObserver,
        options: DeliveryOptions,
        timing: TimeSource,
    ) -> None:
        self._store = store
        self._sender = sender
        self._options = options
        self._timing = timing
        self._owner = current_owner()
        pacer = RetrySchedule(options.pauses, timing.random)
        self._line = PlatformReachability(pacer, timing.clock)
        means = AttemptDependencies(sender, observe, self._line, pacer, options.pauses)
        self._attempts = ActiveAttempts(means, self.wake)
        self._upkeep = OutboxMaintenance(store, observe, timing.clock)
        self._woken = asyncio.Event()
        self._draining = False
        self._over = asyncio.Event()
        self._over.set()
        self._away = False
        self._hasten_at = self._question_at = 0.0
        self._question: asyncio.Task[None] | None = None
        self._guard: TimerHandle | None = None
        self._renew_at = self._recover_at = self._upkeep_at = 0.0

    @property
    def line_is_up(self) -> bool:
        """False while the platform cannot be reached, as far as attempts have shown."""
        return self._line.up

    @property
    def in_hand(self) -> int:
        """How many entries are being sent by this process."""
        return len(self._attempts)

    @property
    def _drained(self) -> bool:
        return self._draining and not self._attempts and not self._attempts.unrecorded

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def platform_answered(self) -> None:
        """Somebody was answered: what waits for the line goes on at once."""
        if not self._line.up and self._line.heard(len(self._attempts)):
            self.wake()

    async def run(self) -> None:
        """Deliver until `drain`."""
        self._over.clear()
        try:
            while not self._drained:
                self._woken.clear()
                await self._guarded_turn()
                if not self._drained:
                    await self._timing.wait(self._woken, self._idle_for())
        finally:
            self._stop_guard()
            if self._question is not None:
                self._question.cancel()
            self._over.set()
            await self._attempts.abandon()

    async def drain(self, grace: float) -> None:
        """Begin nothing more, and give what is being sent `grace` seconds; `run` is then over.

        So is what it had begun with the store: what was just being claimed has been given back.
        """
        self._draining = True
        self.wake()
        if not await self._ended_within(grace):
            self._attempts.stop()
            if not await self._ended_within(_RECORD_TIMEOUT):
                _log.error("the outbox was too slow to take what %d attempts came to", self.in_hand)
                await self._attempts.abandon()
        self.wake()

    async def _guarded_turn(self) -> None:
        try:
            await self._turn()
        except OutboxUnavailableError as error:
            if not self._away:
                _log.error("the outbox cannot be reached: %s", error)
            self._away = True
        except Exception as error:
            # Nothing may end the delivery; the text of a foreign error may be about a patient.
            _log.error("the delivery of the outbox stumbled: %s", type(error).__name__)
            self._away = True
        else:
            if self._away:
                _log.info("the outbox can be reached again")
                self.wake()
            self._away = False

    async def _turn(self) -> None:
        try:
            await self._proceed()
        finally:
            # Also while nothing can be written down: there may be room for this.
            if self._attempts and self._timing.clock() >= self._renew_at:
                await self._renew()
        now = self._timing.clock()
        if now >= self._upkeep_at:
            more = await self._upkeep.tidy(self._options.max_age, self._options.retention)
            self._upkeep_at = now + (_PURGE_PAUSE if more else self._options.upkeep)
        if self._store.surely_empty():
            return
        if now >= self._recover_at:
            # What is in hand here is known better: its lease may have ended by a change of clocks.
            if self._attempts:
                await self._renew()
            await self._upkeep.recover(self._options.lease, self._options.pauses.settle)
            self._recover_at = now + self._options.recovery
            self.wake()
        if not self._draining:
            await self._hasten()
            self._ask_for_the_line()

    async def _proceed(self) -> None:
        """Write down what is known and take in hand what may go, in one step."""
        if not self._attempts.unrecorded and (self._draining or self._store.surely_empty()):
            return
        # Where the disk is nearly full a small step may still succeed.
        at_once = 1 if self._away else self._options.parallel
        outcomes = self._attempts.take(at_once)
        begun = self._timing.clock()
        try:
            progress = await self._step(outcomes, at_once)
        except BaseException:
            self._attempts.put_again(outcomes)
            raise
        self._attempts.written(outcomes, progress)
        # What else is in hand was perhaps claimed earlier, and is watched already.
        if progress.claimed and (self._guard is None or not self._attempts):
            self._watch_leases(begun)
        for claimed in progress.claimed:
            self._begin(claimed)
        if self._attempts.unrecorded:
            self.wake()

    async def _step(self, outcomes: Sequence[AttemptOutcome], at_once: int) -> StoreStepResult:
        left = len(self._attempts) - len(outcomes)
        room = 0 if self._draining else self._line.room(left, self._options.parallel)
        if not room and not outcomes:
            return StoreStepResult((), ())
        return await self._store.proceed(
            self._owner,
            outcomes,
            most=min(room, at_once),
            size=_MAX_ACTIVE_BYTES - self._attempts.size,
            lease=self._options.lease,
            cautious=not self._line.up,
        )

    def _begin(self, claimed: ClaimedEntry) -> None:
        if self._draining:
            self._attempts.give_back(claimed.entry, 0.0)
        elif claimed.entry.id in self._attempts.ids:
            # Its lease was lost, and the attempt that had it is about to end.
            self._attempts.give_back(claimed.entry, self._options.poll)
        else:
            self._attempts.begin(claimed)

    async def _hasten(self) -> None:
        """What was put back because of the line does not wait any longer than the line itself.

        Not all the time: an entry that alone meets a line that is down would take others' place.
        """
        now = self._timing.clock()
        waiting = self._attempts.behind_line
        if not waiting or self._line.silent or now < self._hasten_at:
            return
        await self._store.hasten(waiting)
        self._attempts.hastened(waiting)
        self.wake()
        self._hasten_at = now + self._options.pauses.between_questions

    def _ask_for_the_line(self) -> None:
        """Where nobody else asks the platform; an answer comes by way of `platform_answered`."""
        now = self._timing.clock()
        if not self._line.silent:
            self._question_at = now + self._options.pauses.between_questions
        elif now >= self._question_at and self._question is None:
            self._question_at = now + self._options.pauses.between_questions
            self._question = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        try:
            await self._sender.probe()
        except Exception as error:
            _log.error("the platform could not be asked: %s", type(error).__name__)
        finally:
            self._question = None

    async def _renew(self) -> None:
        begun = self._timing.clock()
        held = await self._store.renew(self._owner, self._attempts.ids, lease=self._options.lease)
        self._attempts.stop(held)
        self._watch_leases(begun)

    def _watch_leases(self, begun: float) -> None:
        """What is being sent stops well before others may take it, unless this is called again."""
        self._stop_guard()
        lease = self._options.lease
        self._renew_at = begun + lease / 4
        until = begun + lease * 2 / 3
        delay = max(0.0, until - self._timing.clock())
        self._guard = self._timing.call_later(delay, self._stop_attempts)

    def _stop_attempts(self) -> None:
        self._guard = None
        self._attempts.stop()

    def _stop_guard(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def _idle_for(self) -> float:
        now = self._timing.clock()
        if self._away:
            return self._options.poll
        # Both are in the past while there was nothing to do.
        moments = [max(self._recover_at, now + self._options.poll), self._upkeep_at]
        if self._attempts:
            moments.append(self._renew_at)
        if self._line.up:
            moments.append(now + self._options.poll)
        elif not self._attempts:
            moments.append(max(self._line.next_at, now + self._options.poll))
        if self._line.silent and self._question_at > now:
            moments.append(self._question_at)
        return max(0.0, min(moments) - now)

    async def _ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return True
