"""Recovery of the entries that a killed gateway had claimed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.outbox.delivery import OutboxMaintenance
from gateway.outbox.entry import EntryState, OutboxEvent, RecoveryMode
from gateway.outbox.open_outbox import open_outbox_store
from gateway.outbox.store.outbox_store import OutboxStore
from tests.outbox.attempts import claim
from tests.outbox.child import RAW_KEY, Child, settings
from tests.outbox.drafts import draft
from tests.outbox.places import Place, PostgresPlace, SqlitePlace

_ME = "me"


async def recover(store: OutboxStore) -> tuple[Sequence[EntryState], Sequence[int]]:
    """Recover abandoned entries. Return all states and the recovered numbers."""
    events: list[OutboxEvent] = []
    store.observers.append(events.append)
    maintenance = OutboxMaintenance(store=store, clock=time.monotonic, owner=_ME)
    await maintenance.recover_leases()
    states = [entry.state for entry in await store.entries()]
    return states, [event.entry.number for event in events]


async def leave_claimed(place: Place) -> None:
    """Leave three entries claimed by a killed gateway."""
    async with open_outbox_store(settings(place.url), RAW_KEY) as store:
        for number, recovery in enumerate(RecoveryMode):
            await store.enqueue(draft(str(number), method="POST", recovery=recovery))
    process = Child("claim", place.url)
    async for _ in process.lines():
        break
    await process.killed()


async def test_entries_of_a_killed_gateway_are_recovered_at_once_in_a_file(
    sqlite_place: SqlitePlace,
) -> None:
    await leave_claimed(sqlite_place)
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY, delivers=True) as store:
        states, recovered = await recover(store)
    assert states == [EntryState.WAITING, EntryState.WAITING, EntryState.UNCLEAR]
    assert recovered == [1, 2, 3]


async def test_own_leases_are_not_recovered(sqlite_place: SqlitePlace) -> None:
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY, delivers=True) as store:
        await store.enqueue(draft("a"))
        await claim(store, owner=_ME)
        assert await recover(store) == ([EntryState.SENDING], [])


async def test_a_command_recovers_nothing(sqlite_place: SqlitePlace) -> None:
    await leave_claimed(sqlite_place)
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY) as store:
        assert await recover(store) == ([EntryState.SENDING] * 3, [])


async def test_leases_in_a_shared_database_are_not_recovered_early(
    postgres_place: PostgresPlace,
) -> None:
    await leave_claimed(postgres_place)
    async with open_outbox_store(settings(postgres_place.url), RAW_KEY, delivers=True) as store:
        assert await recover(store) == ([EntryState.SENDING] * 3, [])
