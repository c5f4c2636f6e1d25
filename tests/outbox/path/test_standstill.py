"""Deliveries without progress are reported."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.app.outbox_service import StandstillClock
from gateway.health import health
from gateway.health.health import judge_outbox
from gateway.outbox.delivery import DeliveryLoop
from gateway.outbox.entry import EntryState, StoredResponse
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import QueueDepth
from tests.doubles.clock import FakeClock
from tests.doubles.platform import outcome
from tests.outbox.attempts import ME, claim, finish
from tests.outbox.drafts import draft
from tests.outbox.path.conftest import Open
from tests.outbox.path.harness import OutboxSetup
from tests.outbox.places import SqlitePlace, opened

WAITS = QueueDepth(is_deliverable=True)


def test_a_standstill_is_measured_from_the_last_progress() -> None:
    clock = FakeClock()
    standstill = StandstillClock(clock)

    def after(seconds: float, depth: QueueDepth, *, away: bool = False) -> float:
        clock.now += seconds
        standstill.update(depth, is_awaiting_platform=away)
        return standstill.seconds()

    assert after(100, QueueDepth()) == 0
    assert after(100, WAITS) == 0
    assert after(30, WAITS) == 30
    assert after(30, replace(WAITS, last_end=7.0)) == 0
    assert after(30, replace(WAITS, last_end=7.0)) == 30
    standstill.on_progress()
    assert after(5, replace(WAITS, last_end=7.0)) == 5
    assert after(5, WAITS, away=True) == 0
    assert after(5, WAITS) == 0
    # No update: the store hangs, or what looks at it has ended.
    clock.now += 50
    assert standstill.seconds() == 50


@pytest.mark.parametrize(
    ("report", "failing", "reason"),
    [
        ({"stalled_seconds": 39.0, "entries": {"waiting": 1}}, False, "outbox-waiting"),
        ({"stalled_seconds": 40.0, "entries": {"waiting": 1}}, False, "outbox-standstill"),
        ({"stalled_seconds": 90.0, "entries": {"failed": 1}}, False, "outbox-standstill"),
        ({"stalled_seconds": 90.0, "entries": {"waiting": 1}}, True, "outbox-waiting"),
        ({"stalled_seconds": 90.0, "available": False}, False, "outbox-away"),
    ],
)
def test_a_standstill_is_reported_unless_the_platform_fails(
    report: dict[str, object], failing: bool, reason: str
) -> None:
    assert judge_outbox(report, is_platform_failing=failing).reason == reason


async def test_blocked_entries_are_not_deliverable(tmp_path: Path) -> None:
    async with opened(SqlitePlace(tmp_path / "outbox.db")) as store:
        assert (await store.depth()).is_deliverable is False
        first = await store.enqueue(draft("a", "P/1"))
        await store.enqueue(draft("b", "P/1"))
        assert await deliverable(store) == (True, False)
        await claim(store)
        assert await deliverable(store) == (True, False)
        [held] = [each for each in await store.entries() if each.id == first.id]
        await finish(store, ME, held, EntryState.FAILED, StoredResponse(422))
        assert await deliverable(store) == (False, True)


async def deliverable(store: OutboxStore) -> tuple[bool, bool]:
    """Whether something can be delivered, and whether anything has ended."""
    depth = await store.depth()
    return depth.is_deliverable, depth.last_end is not None


@contextlib.asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


async def wait_until_reads_succeed(setup: OutboxSetup) -> None:
    """Wait until the gateway takes the platform for usable again."""
    while (await setup.ask("GET", "/Patient/1")).status != 200:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.1)


async def wait_until_care(setup: OutboxSetup, *reasons: str) -> None:
    """Wait until the status page's facts give one of these reasons."""
    while True:
        shown = await setup.ask("GET", f"{setup.gateway.admin_url}/status.json")
        if shown.json["care"]["reason"] in reasons:
            return
        await asyncio.sleep(0.1)


@pytest.fixture
def short_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STANDSTILL_SECONDS", 0.5)


async def wait_until_reported(setup: OutboxSetup) -> None:
    """Wait until page and metrics report the standstill; the gateway stays ready."""
    await wait_until_care(setup, "outbox-standstill")
    assert (await setup.gateway.ready())[0] == 200
    page = await setup.ask("GET", f"{setup.gateway.admin_url}/status")
    assert b"deliveries stand still" in page.body
    assert await setup.gateway.metric("dhp_gateway_outbox_stalled_seconds") > 0


@pytest.mark.usefixtures("short_standstill")
async def test_a_locked_database_is_reported(opened: Open, tmp_path: Path) -> None:
    async with opened() as setup:
        setup.relay.cut()
        kept = await setup.write()
        async with locked(tmp_path / "outbox.db"):
            await setup.relay.restore()
            await wait_until_reads_succeed(setup)
            await wait_until_reported(setup)
        assert (await setup.final_response(kept.location)).status == 200
        await wait_until_care(setup, "fine", "answers")


@pytest.mark.usefixtures("short_standstill")
async def test_a_write_that_fails_repeatedly_is_reported(opened: Open) -> None:
    async with opened() as setup:
        setup.relay.cut()
        await setup.write()
        setup.answer_writes(*[outcome(500)] * 1000)
        await setup.relay.restore()
        await wait_until_reads_succeed(setup)
        await wait_until_reported(setup)


@pytest.mark.usefixtures("short_standstill")
async def test_a_stopped_delivery_is_reported(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended(self: DeliveryLoop) -> None:
        return

    monkeypatch.setattr(DeliveryLoop, "run", ended)
    async with opened() as setup:
        setup.relay.cut()
        assert (await setup.write()).status == 202
        await setup.relay.restore()
        await wait_until_reads_succeed(setup)
        await wait_until_reported(setup)
