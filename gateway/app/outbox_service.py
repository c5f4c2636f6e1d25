"""The outbox of this gateway: its store, its delivery and its monitoring.

Replicas do the same on one PostgreSQL database; all report the same depth.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.admin.outbox_admin_api import OutboxAdminApi
from gateway.audit.audit_trail import AuditTrail, NullAuditTrail
from gateway.clock import TimeSource, TimestampFormatter
from gateway.config.settings import Settings
from gateway.health.platform_judgement import PlatformJudgement
from gateway.oauth.tokens import Tokens
from gateway.outbox.async_status import OutboxApi
from gateway.outbox.delivery import DeliveryLoop
from gateway.outbox.entry import COLLISION, EntryState, OutboxEvent, OutboxStep, PendingAuditRecord
from gateway.outbox.intake import LastWrites, OutboxWriteQueue
from gateway.outbox.platform_sender import EntrySender, LatestEntrySender
from gateway.outbox.store.store_types import OutboxError, QueueDepth
from gateway.pipeline.body_worker import SerialExecutor
from gateway.pipeline.guards import ConditionGuard
from gateway.pipeline.platform_client import CapabilityCache, PlatformClient
from gateway.pipeline.request_body import MemoryBudget
from gateway.pipeline.request_composer import RequestComposer
from gateway.telemetry.logs import get_logger
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.outbox.store.outbox_store import OutboxStore

_log = get_logger(__name__)

# The memory budget for bodies retained while they may have to be queued, in bodies of the greatest
# size.
_LARGE_BODIES: Final = 4
# Seconds between two refreshes of the depth: at least, while entries wait, and at most.
_MIN_REFRESH_INTERVAL: Final = 1.0
_ACTIVE_REFRESH_INTERVAL: Final = 5.0
_IDLE_REFRESH_INTERVAL: Final = 60.0
# Seconds for which an operator's page waits until the audit has recorded access to an entry.
_AUDIT_FLUSH: Final = 5.0
# Steps after which an operator must act, or should have acted.
_WARNING_STEPS: Final = frozenset({OutboxStep.FAILED, OutboxStep.UNCLEAR, OutboxStep.EXPIRED})


class StandstillClock:
    """For how long nothing has been delivered although there is something to deliver.

    `clock` is monotonic. Whatever holds up the deliveries, the time passes: a full disk, a locked
    database, a dead gateway's leases, an attempt that hangs, an error of the code.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._last_end = 0.0

    def update(self, depth: QueueDepth, *, is_awaiting_platform: bool) -> None:
        """Note the state of the outbox; to be called every few seconds."""
        # A purge may make it an earlier one.
        has_progressed = (depth.last_end or 0.0) > self._last_end
        if has_progressed:
            self._last_end = depth.last_end or 0.0
        if is_awaiting_platform or not depth.is_deliverable:
            self._since = None
        elif has_progressed or self._since is None:
            self._since = self._clock()

    def on_progress(self) -> None:
        """Note that an attempt has ended with a response of the platform."""
        if self._since is not None:
            self._since = self._clock()

    def seconds(self) -> float:
        """Return the seconds of the standstill, 0 while there is none."""
        return 0.0 if self._since is None else max(0.0, self._clock() - self._since)


class OutboxService:
    """An outbox and its delivery, which does not begin before `start`.

    `acquire_sender` returns the newest `EntrySender` and a function that releases it; `probe` sends
    a cheap probe to the platform.
    """

    def __init__(
        self,
        *,
        store: OutboxStore,
        times: TimeSource,
        acquire_sender: Callable[[], tuple[EntrySender, Callable[[], None]]],
        probe: Callable[[], Awaitable[object]],
        metrics: Metrics,
        audit: AuditTrail,
    ) -> None:
        self._last_writes = LastWrites()
        self._serial_executor = SerialExecutor()
        self._metrics = metrics
        self._audit = audit
        self._iso = TimestampFormatter().format
        self._store = store
        self._times = times
        self._depth = QueueDepth()
        self._standstill = StandstillClock(times.clock)
        # Whether the store could be reached at the last refresh.
        self.is_available = True
        self._ready = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.delivery = DeliveryLoop(
            store=store,
            sender=LatestEntrySender(
                acquire_sender=acquire_sender, can_record=lambda: audit.is_available, probe=probe
            ),
            timing=times,
        )
        store.observers.append(self._observe)
        is_audited = not isinstance(audit, NullAuditTrail)
        self.admin_api = OutboxAdminApi(
            store, self._record_durably if is_audited else None, clock=times.wall_clock
        )
        metrics.observe_outbox(self.report, tuple(EntryState), tuple(OutboxStep))

    def report(self) -> Mapping[str, Any]:
        """Return the state of the outbox for metrics and the status report.

        `available`, `entries` by state, `oldest_seconds`, None where no entry waits, and
        `stalled_seconds`, for which nothing has been delivered that could be.
        """
        now, oldest = self._times.wall_clock(), self._depth.oldest
        return {
            "available": self.is_available,
            "entries": {state.value: self._depth.counts.get(state, 0) for state in EntryState},
            "oldest_seconds": None if oldest is None else max(0.0, now - oldest),
            "stalled_seconds": self._standstill.seconds(),
        }

    def write_queue(self, settings: Settings, forwarder: RequestComposer) -> OutboxWriteQueue:
        """Return the outbox's part of the request path, for one version of the settings."""
        return OutboxWriteQueue(
            store=self._store,
            api=OutboxApi(self._store, self._serial_executor, self._times.wall_clock),
            forwarder=forwarder,
            listen=settings.listen,
            fhir=settings.fhir,
            # Writes of signed-in users are never queued.
            has_several_callers=sum(caller.outbox != "off" for caller in settings.callers) > 1,
            body_budget=MemoryBudget(_LARGE_BODIES * settings.limits.max_body_bytes),
            last_writes=self._last_writes,
            on_request=self.delivery.on_caller_request,
            serial_executor=self._serial_executor,
            clock=self._times.clock,
        )

    def entry_sender(
        self,
        settings: Settings,
        client: PlatformClient,
        tokens: Mapping[str, Tokens],
        statement: CapabilityCache,
        condition_guard: ConditionGuard | None,
        judgement: PlatformJudgement,
    ) -> EntrySender:
        """Return the sender of queued writes, for one version of the settings."""
        return EntrySender(
            tokens=tokens,
            client=client,
            statement=statement,
            condition_guard=condition_guard,
            record=judgement.record_delivery,
            fhir=settings.fhir,
            serial_executor=self._serial_executor,
            wall_clock=self._times.wall_clock,
        )

    async def start(self) -> None:
        """Start to deliver."""
        await self._refresh_and_log()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.delivery.run()),
            loop.create_task(self._refresh_depth_forever()),
        ]

    async def stop(self) -> None:
        """Stop at once; running attempts are cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._serial_executor.close()

    def _observe(self, event: OutboxEvent) -> None:
        entry = event.entry
        if event.step is OutboxStep.POSTPONED and event.cause == COLLISION:
            self._standstill.on_progress()
        self._metrics.count_outbox_step(event.step)
        if not event.is_audit_pending:
            self._audit.record_event(
                "outbox",
                step=event.step.value,
                entry=entry.id,
                caller=entry.caller,
                attempts=entry.attempts,
                cause=event.cause,
                upstream_status=event.status,
            )
        level = logging.WARNING if event.step in _WARNING_STEPS else logging.DEBUG
        why = event.cause or ("" if event.status is None else f"platform-status {event.status}")
        known = {"entry": entry.id, "caller": entry.caller, **({"reason": why} if why else {})}
        _log.log(level, "outbox: %s %s %s", entry.id, event.step.value, why, **known)
        self._changed.set()

    async def _refresh_depth_forever(self) -> None:
        """Keep the depth up to date, including changes by replicas and commands."""
        while True:
            await self._wait_for_refresh()
            await self._refresh_and_log()

    async def _refresh_and_log(self) -> None:
        try:
            await self._refresh_depth()
        except Exception as error:
            if self.is_available:
                # The text of another library's exception may contain data of a patient.
                is_own = isinstance(error, OutboxError)
                why = "new writes are refused, and what waits is not delivered"
                what = error if is_own else type(error).__name__
                _log.error("the outbox cannot be reached, %s: %s", why, what)
            self.is_available = False
        else:
            if not self.is_available:
                _log.warning("the outbox can be reached")
            self.is_available = True

    async def _wait_for_refresh(self) -> None:
        idle = self.is_available and self._store.is_known_empty() and self._depth.oldest is None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                _IDLE_REFRESH_INTERVAL if idle else _ACTIVE_REFRESH_INTERVAL
            ):
                await self._changed.wait()
        # Events that follow in quick succession cause one refresh.
        await asyncio.sleep(_MIN_REFRESH_INTERVAL)
        self._changed.clear()

    async def _refresh_depth(self) -> None:
        if not self._ready:
            await self._store.prepare()
            self._ready = True
            self.delivery.wake()
        self._depth = await self._store.depth()
        self._standstill.update(
            self._depth, is_awaiting_platform=self.delivery.is_awaiting_platform
        )
        if not isinstance(self._audit, NullAuditTrail):
            await self._store.record_pending(self._record_pending)

    async def _record_pending(self, notes: Sequence[PendingAuditRecord]) -> bool:
        """Record what commands did without an audit trail.

        Return False while the audit trail of this process is unavailable.
        """
        if not self._audit.is_available:
            return False
        for note in notes:
            self._audit.record_event("outbox", **note.record_fields(self._iso))
        return True

    async def _record_durably(self, notes: Sequence[PendingAuditRecord]) -> bool:
        """Record the same and return whether the records are written."""
        return await self._record_pending(notes) and await self._audit.flush(_AUDIT_FLUSH)
