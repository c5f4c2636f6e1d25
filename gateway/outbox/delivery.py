"""The delivery of the outbox's entries, as long as the process runs, and the outbox's maintenance.

Several replicas may deliver from one PostgreSQL database: each entry is leased to one of them at a
time, and an entry is not claimed while an earlier one with the same ordering key blocks it. So the
entries claimed here never depend on each other, and their attempts run concurrently.

Any gateway does the maintenance of the whole outbox, whichever one added the entries.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.outbox.delivery_attempts import ActiveAttempts
from gateway.outbox.delivery_pacing import (
    INDEX_LAG,
    PROBE_INTERVAL,
    ParallelLimit,
    PlatformReachability,
    RetrySchedule,
)
from gateway.outbox.entry import EntryContent, OutboxEvent, OutboxStep
from gateway.outbox.store.store_types import (
    Lease,
    OutboxDiskFullError,
    OutboxUnavailableError,
)
from gateway.outbox.store.transitions import is_erased_later
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.clock import TimeSource
    from gateway.outbox.attempt_result import Decision
    from gateway.outbox.platform_sender import LatestEntrySender
    from gateway.outbox.store.outbox_store import OutboxStore

_log = get_logger(__name__)

# Seconds. A lease that is not renewed for this time is lost, at the latest two checks later.
LEASE_SECONDS: Final = 30.0
# Seconds between two checks for lost leases.
_RECOVERY_INTERVAL: Final = 5.0


class OutboxMaintenance:
    """All methods raise `OutboxUnavailableError`.

    Durations are seconds, `clock` is monotonic. `owner` is the name under which this gateway leases
    entries.
    """

    def __init__(self, *, store: OutboxStore, clock: Callable[[], float], owner: str) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._seen: dict[Lease, float] = {}
        self._more = False

    async def recover_leases(self) -> None:
        """Recover entries that gateways which ended were sending.

        The store's clock may have been set ahead: a lease must also have stood unrenewed for its
        whole length by the clock of this process. Its owner has stopped by then. Where other
        gateways are kept away, every other owner has ended, and its entries are recovered at once.
        """
        found = await self._store.leases()
        # Read after the query: a lease may have been renewed while this process waited for the
        # result.
        now = self._clock()
        self._seen = {lease: self._seen.get(lease, now) for lease in found}
        dead = {lease.owner for lease in found if self._store.is_exclusive} - {self._owner}
        standing = [
            lease
            for lease, since in self._seen.items()
            if now - since >= LEASE_SECONDS or lease.owner in dead
        ]
        while standing and await self._store.recover_leases(standing, settle=INDEX_LAG, dead=dead):
            pass

    async def expire_and_purge(self) -> bool:
        """Give up entries that are too old, purge some finished ones and release disk space.

        Returns whether there is more to erase, purge or release. What a full disk has no room for
        is left for later.
        """
        try:
            while not self._more and await self._store.expire_entries():
                pass
            self._more = (
                await self._store.erase_delivered()
                or bool(await self._store.purge_finished())
                or await self._store.release_disk_space()
            )
        except OutboxDiskFullError:
            self._more = False
        return self._more


# Bytes of the requests claimed at the same time; each claim may take one larger request.
_MAX_ACTIVE_BYTES: Final = 64 * 1024 * 1024
# Seconds between two maintenance steps, so that deliveries continue meanwhile.
_PURGE_PAUSE: Final = 0.05
# Bytes of the random name under which entries are leased.
_OWNER_BYTES: Final = 8
# Seconds in which decisions can be recorded after the active attempts were stopped.
_RECORD_TIMEOUT: Final = 5.0
# Seconds since its last request for which callers are taken to be active.
_CALLERS_ACTIVE: Final = 1.0
# Seconds. The longest pause for the sake of callers.
_MAX_PAUSE: Final = 0.1
# Seconds between two looks for entries that are too old, or need not be kept any longer.
_MAX_MAINTENANCE_INTERVAL: Final = 60.0
# Attempts at the same time in this process.
MAX_PARALLEL: Final = 16
# Seconds. The longest time until an entry of another gateway is noticed.
_POLL_INTERVAL: Final = 1.0
# After these steps the entry, or one that it blocked, may be due.
_WAKING_STEPS: Final = frozenset(
    {OutboxStep.QUEUED, OutboxStep.RETRIED, OutboxStep.CANCELLED, OutboxStep.DROPPED}
)


class DeliveryLoop:
    """The delivery of this process, from `run` until `drain`.

    Entries with an attempt at the moment when `run` is cancelled are recovered as after a crash.
    """

    def __init__(
        self,
        *,
        store: OutboxStore,
        sender: LatestEntrySender,
        timing: TimeSource,
    ) -> None:
        self._store = store
        self._sender = sender
        self._timing = timing
        self._limit = ParallelLimit(MAX_PARALLEL)
        shortest = min(store.settings.max_age, store.settings.retention)
        self._maintenance_interval = min(max(shortest / 2, 1.0), _MAX_MAINTENANCE_INTERVAL)
        self._owner = secrets.token_hex(_OWNER_BYTES)
        schedule = RetrySchedule(timing.random)
        self._reachability = PlatformReachability(schedule, timing.clock)
        self._attempts = ActiveAttempts(
            sender=sender,
            notify=store.notify,
            reachability=self._reachability,
            limit=self._limit,
            schedule=schedule,
            on_attempt_ended=self.wake,
        )
        self._maintenance = OutboxMaintenance(store=store, clock=timing.clock, owner=self._owner)
        self._woken = asyncio.Event()
        store.observers.append(self._wake_for)
        self._draining = False
        self._finished = asyncio.Event()
        self._finished.set()
        self._is_store_unavailable = False
        self._batch_size = MAX_PARALLEL
        self._callers_active_until = -math.inf
        self._hasten_at = self._next_probe_at = 0.0
        self._probe_task: asyncio.Task[None] | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._renew_at = self._recover_at = self._upkeep_at = 0.0

    @property
    def active_attempts(self) -> int:
        """The number of entries that this process is sending."""
        return len(self._attempts)

    @property
    def _is_drained(self) -> bool:
        return self._draining and not self._attempts and not self._attempts.has_unrecorded_decisions

    @property
    def is_awaiting_platform(self) -> bool:
        """Whether nothing is delivered because the platform responds to no request at all."""
        return self._reachability.is_silent_outage

    def wake(self) -> None:
        """Start the next iteration at once, because there may be something to do."""
        self._woken.set()

    def _wake_for(self, event: OutboxEvent) -> None:
        if event.step in _WAKING_STEPS:
            self.wake()

    def on_caller_request(self) -> None:
        """Called for each request of a caller, so that deliveries give way for a while."""
        self._callers_active_until = self._timing.clock() + _CALLERS_ACTIVE

    def on_platform_response(self) -> None:
        """Called for each response of the platform, to end the outage delay.

        Waiting entries are then sent at once.
        """
        if not self._reachability.is_reachable and self._reachability.on_other_response(
            len(self._attempts)
        ):
            self.wake()

    async def run(self) -> None:
        """Deliver until `drain` is called and the active attempts have ended."""
        self._finished.clear()
        try:
            while not self._is_drained:
                self._woken.clear()
                started_at = self._timing.clock()
                await self._run_iteration()
                await self._give_way(started_at)
                if not self._is_drained:
                    await self._timing.wait(self._woken, self._seconds_until_next())
        finally:
            self._disarm_lease_timer()
            if self._probe_task is not None:
                self._probe_task.cancel()
            self._finished.set()
            await self._attempts.cancel_all()

    async def drain(self, grace: float) -> None:
        """Start no more attempts, and let the active ones continue for `grace` seconds.

        When this returns, `run` has ended and so have its operations on the store: entries that
        were being claimed have been returned.
        """
        self._draining = True
        self.wake()
        if not await self._finishes_within(grace):
            self._attempts.stop()
            if not await self._finishes_within(_RECORD_TIMEOUT):
                _log.error(
                    "the outbox could not store the results of %d attempts in time",
                    self.active_attempts,
                )
                await self._attempts.cancel_all()
        self.wake()

    async def _give_way(self, started_at: float) -> None:
        """While callers are active, pause for as long as the iteration since then has taken.

        On a busy machine, an iteration takes longer, and so does the pause: an operating system
        favours a process that has paused.
        """
        now = self._timing.clock()
        pause = min(now - started_at, _MAX_PAUSE)
        if pause and now < self._callers_active_until and not self._draining:
            await self._timing.sleep(pause)

    async def _run_iteration(self) -> None:
        try:
            await self._iterate()
        except OutboxUnavailableError as error:
            if not self._is_store_unavailable:
                _log.error("the outbox cannot be reached: %s", error)
            self._is_store_unavailable = True
        except Exception as error:
            # No error may end the delivery. The text of another library's exception may contain
            # data of a patient.
            _log.error("the delivery of the outbox failed: %s", type(error).__name__)
            self._is_store_unavailable = True
        else:
            if self._is_store_unavailable:
                _log.info("the outbox can be reached again")
                self.wake()
            self._is_store_unavailable = False

    async def _iterate(self) -> None:
        try:
            await self._record_and_claim()
        finally:
            # Whatever holds up the store: only a response ends what is known of an outage.
            if not self._draining and not self._store.is_known_empty():
                self._probe_if_unreachable()
            # Leases are renewed even where recording failed: on a full disk this smaller step may
            # still succeed.
            if self._attempts and self._timing.clock() >= self._renew_at:
                await self._renew()
        now = self._timing.clock()
        if now >= self._upkeep_at:
            more = await self._maintenance.expire_and_purge()
            self._upkeep_at = now + (_PURGE_PAUSE if more else self._maintenance_interval)
        if self._store.is_known_empty():
            return
        if now >= self._recover_at:
            # The leases of active attempts are renewed first: a step of the clock may have ended
            # them.
            if self._attempts:
                await self._renew()
            await self._maintenance.recover_leases()
            self._recover_at = now + _RECOVERY_INTERVAL
            self.wake()
        if not self._draining:
            await self._make_waiting_due()
            self._probe_if_unreachable()

    async def _record_and_claim(self) -> None:
        """Record the decisions and claim due entries, in one step of the store."""
        if not self._attempts.has_unrecorded_decisions and (
            self._draining or self._store.is_known_empty()
        ):
            return
        started_at = self._timing.clock()
        # Of what is delivered from a full disk, the bodies of the responses are not kept.
        with_bodies = not self._store.is_disk_full
        decisions = self._attempts.take_decisions(self._batch_size, with_bodies=with_bodies)
        try:
            recorded, claimed = await self._store_step(decisions, self._batch_size)
        except BaseException:
            self._attempts.requeue_decisions(decisions)
            self._batch_size = 1
            raise
        self._batch_size = min(2 * self._batch_size, MAX_PARALLEL)
        self._attempts.decisions_recorded(decisions, recorded)
        if any(is_erased_later(decision) for decision in decisions):
            self._upkeep_at = started_at
        # Other active attempts may have been claimed earlier: the timer already runs for them.
        if claimed and (self._lease_timer is None or not self._attempts):
            self._arm_lease_timer(started_at)
        # Attempts of one claim are concurrent: where all fail, that counts once.
        generation = self._reachability.failure_generation
        for content in claimed:
            self._start_attempt(content, generation)
            # Requests of callers that have come meanwhile are served before the next attempt.
            await asyncio.sleep(0)
        if self._attempts.has_unrecorded_decisions:
            self.wake()

    async def _store_step(
        self, decisions: Sequence[Decision], batch_size: int
    ) -> tuple[Sequence[bool], Sequence[EntryContent]]:
        active = len(self._attempts) - len(decisions)
        parallel = self._limit.current
        free_attempts = 0 if self._draining else self._reachability.free_attempts(active, parallel)
        if not free_attempts and not decisions:
            return (), ()
        return await self._store.record_and_claim(
            self._owner,
            decisions,
            max_claims=min(free_attempts, batch_size),
            max_leased=parallel if self._limit.is_reduced else None,
            size=_MAX_ACTIVE_BYTES - self._attempts.total_bytes,
            lease=LEASE_SECONDS,
            prefer_verifiable=not self._reachability.is_reachable,
        )

    def _start_attempt(self, claimed: EntryContent, failure_generation: int) -> None:
        if self._draining:
            self._attempts.release(claimed.entry, 0.0)
        elif claimed.entry.id in self._attempts.entry_ids:
            # The lease of the active attempt was lost, and that attempt is about to end.
            self._attempts.release(claimed.entry, _POLL_INTERVAL)
        else:
            self._attempts.start(claimed, failure_generation)

    async def _make_waiting_due(self) -> None:
        """Make the entries that an outage postponed due once the outage has ended.

        At most once per `PROBE_INTERVAL`: otherwise an entry whose attempts alone fail like an
        outage would be retried all the time, ahead of other entries.
        """
        now = self._timing.clock()
        waiting = frozenset(self._attempts.awaiting_platform)
        if not waiting or self._reachability.is_silent_outage or now < self._hasten_at:
            return
        await self._store.make_due(waiting)
        self._attempts.awaiting_platform -= waiting
        self.wake()
        self._hasten_at = now + PROBE_INTERVAL

    def _probe_if_unreachable(self) -> None:
        """Probe an unreachable platform when no other request does.

        A response arrives through `on_platform_response`.
        """
        now = self._timing.clock()
        if not self._reachability.is_silent_outage:
            self._next_probe_at = now + PROBE_INTERVAL
        elif now >= self._next_probe_at and self._probe_task is None:
            self._next_probe_at = now + PROBE_INTERVAL
            self._probe_task = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        try:
            await self._sender.probe()
        except Exception as error:
            _log.error("the platform could not be asked: %s", type(error).__name__)
        finally:
            self._probe_task = None

    async def _renew(self) -> None:
        started_at = self._timing.clock()
        held = await self._store.renew(self._owner, self._attempts.entry_ids, lease=LEASE_SECONDS)
        self._attempts.stop(held)
        self._arm_lease_timer(started_at)

    def _arm_lease_timer(self, started_at: float) -> None:
        """Stop the attempts after two thirds of a lease, unless this is called again.

        That is well before another replica may claim their entries. `started_at` is the monotonic
        time before the lease was requested. The next renewal is a quarter of a lease later.
        """
        self._disarm_lease_timer()
        self._renew_at = started_at + LEASE_SECONDS / 4
        until = started_at + LEASE_SECONDS * 2 / 3
        delay = max(0.0, until - self._timing.clock())
        self._lease_timer = self._timing.call_later(delay, self._stop_attempts)

    def _stop_attempts(self) -> None:
        self._lease_timer = None
        self._attempts.stop()

    def _disarm_lease_timer(self) -> None:
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None

    def _seconds_until_next(self) -> float:
        now = self._timing.clock()
        if self._is_store_unavailable:
            return _POLL_INTERVAL
        # Both moments are in the past if nothing has been done for a while.
        moments = [max(self._recover_at, now + _POLL_INTERVAL), self._upkeep_at]
        if self._attempts:
            moments.append(self._renew_at)
        if self._reachability.is_reachable:
            moments.append(now + _POLL_INTERVAL)
        elif not self._attempts:
            moments.append(max(self._reachability.next_attempt_at, now + _POLL_INTERVAL))
        if self._reachability.is_silent_outage and self._next_probe_at > now:
            moments.append(self._next_probe_at)
        return max(0.0, min(moments) - now)

    async def _finishes_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._finished.wait()
        except TimeoutError:
            return False
        return True
