"""Deliveries give way to the requests of callers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.outbox.store.outbox_store import OutboxStore
from tests.doubles.clock import FakeClock, run_pending_tasks
from tests.doubles.waiting import wait_until
from tests.outbox.drafts import draft
from tests.outbox.running import Process, settle
from tests.outbox.sender import RecordingSender

# Seconds that the step of the store takes which claims.
STEP = 0.05


class SlowStore:
    """A store whose claims take time of the clock."""

    def __init__(self, store: OutboxStore, clock: FakeClock) -> None:
        self._store = store
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def record_and_claim(self, owner: str, outcomes: Any, **named: Any) -> Any:
        self._clock.now += STEP
        return await self._store.record_and_claim(owner, outcomes, **named)


@pytest.mark.parametrize("is_active", [True, False], ids=["active", "gone"])
async def test_deliveries_pause_while_callers_are_active(
    clocked_store: OutboxStore, clock: FakeClock, is_active: bool
) -> None:
    sender = RecordingSender()
    process = Process(SlowStore(clocked_store, clock), sender, clock)  # type: ignore[arg-type]
    async with process.running() as running:
        running.delivery.on_caller_request()
        if not is_active:
            # That was more than a second ago.
            clock.now += 1.0
        await running.put(draft("1"))
        await wait_until(lambda: sender.seen == ["r-1"])
        await running.put(draft("2"))
        if is_active:
            await settle(clocked_store)
            assert sender.seen == ["r-1"]
            await clock.advance(STEP)
        await wait_until(lambda: sender.seen == ["r-1", "r-2"])


async def test_attempts_of_a_claim_begin_one_by_one(
    clocked_store: OutboxStore, clock: FakeClock
) -> None:
    """The event loop looks for requests of callers before each."""
    for number in range(8):
        await clocked_store.enqueue(draft(str(number)))
    sender = RecordingSender()
    begun = []
    async with Process(clocked_store, sender, clock).running():
        while len(sender.seen) < 8:
            begun.append(len(sender.seen))
            await asyncio.sleep(0)
    steps = [later - earlier for earlier, later in zip(begun, [*begun[1:], 8], strict=True)]
    assert max(steps) == 1
    await run_pending_tasks()
