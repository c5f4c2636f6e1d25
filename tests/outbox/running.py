"""A running delivery, on a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from gateway.clock import TimeSource
from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.delivery import DeliveryLoop
from gateway.outbox.entry import EntryState, NewEntry, OutboxEntry, OutboxEvent, OutboxStep
from gateway.outbox.store.outbox_store import OutboxStore
from tests.doubles.clock import FakeClock, run_pending_tasks
from tests.doubles.waiting import wait_until
from tests.outbox.attempts import present

PATIENCE = 60.0
SETTINGS = OutboxSettings(max_age=7 * 86400, retention=86400)


@dataclass
class Running:
    """One process: its store and its delivery."""

    store: OutboxStore
    delivery: DeliveryLoop
    clock: FakeClock
    events: list[OutboxEvent]
    task: asyncio.Task[None] | None = None

    async def put(self, draft: NewEntry) -> OutboxEntry:
        return await self.store.enqueue(draft)

    async def put_postponed(self, draft: NewEntry) -> OutboxEntry:
        """Enqueue a write, and wait until its first attempt has failed."""
        entry = await self.put(draft)
        await wait_until(lambda: OutboxStep.POSTPONED in self.steps(entry))
        return entry

    async def state(self, entry: OutboxEntry) -> EntryState:
        return (await present(self.store, entry.id)).state

    async def wait_for_state(self, entry: OutboxEntry, state: EntryState) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.state(entry) is not state:
                await settle(self.store)
                await asyncio.sleep(0.001)

    async def wait_until_idle(self) -> None:
        await wait_until(lambda: not self.delivery.active_attempts)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock in steps of at most a second, and let everything due run in between."""
        while seconds > 0:
            await self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            await settle(self.store)

    def steps(self, entry: OutboxEntry) -> list[OutboxStep]:
        return [event.step for event in self.events if event.entry.id == entry.id]


async def pass_time(clock: FakeClock, seconds: float, *stores: OutboxStore) -> None:
    """Move the clock second by second, each until the stores have finished their work."""
    for _ in range(math.ceil(seconds)):
        await clock.advance(1.0)
        await settle(*stores)


async def settle(*stores: OutboxStore) -> None:
    """Let everything that is due run, until the stores have nothing to do."""
    await run_pending_tasks()
    while any(store.shielded_tasks._tasks for store in stores):
        for store in stores:
            await store.shielded_tasks.wait_all()
        await run_pending_tasks()


@dataclass
class Process:
    """Makes instances of `Running` over one store; delays of entries have no jitter."""

    store: OutboxStore
    sender: Any
    clock: FakeClock
    settings: OutboxSettings = SETTINGS

    def make(self) -> Running:
        events: list[OutboxEvent] = []
        timing = TimeSource(self.clock, call_later=self.clock.call_later, random=lambda: 1.0)
        self.store.settings = self.settings
        self.store.observers.append(events.append)
        delivery = DeliveryLoop(store=self.store, sender=self.sender, timing=timing)
        return Running(self.store, delivery, self.clock, events)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Yield a running instance and cancel it at the end, as by a crash."""
        made = self.make()
        made.task = asyncio.get_running_loop().create_task(made.delivery.run())
        try:
            yield made
        finally:
            made.task.cancel()
            await asyncio.wait([made.task])
            if not made.task.cancelled():
                made.task.result()
