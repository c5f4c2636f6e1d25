"""What becomes of the entries that a killed gateway had in hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.outbox.delivery import OutboxMaintenance
from gateway.outbox.entry import EntryState, OutboxEvent
from gateway.outbox.open_outbox import open_outbox_store
from gateway.outbox.store.outbox_store import OutboxStore
from tests.outbox.attempts import claim
from tests.outbox.child import RAW_KEY, RECOVERIES, Child, settings
from tests.outbox.drafts import draft
from tests.outbox.places import Place, PostgresPlace, SqlitePlace

_LEASE = 3600.0
_ME = "me"


async def recover(store: OutboxStore) -> tuple[Sequence[EntryState], Sequence[int]]:
    """Have abandoned entries recovered; the states of all, and the numbers of those."""
    events: list[OutboxEvent] = []
    store.observers.append(events.append)
    upkeep = OutboxMaintenance(store=store, clock=time.monotonic, owner=_ME)
    await upkeep.recover_leases(_LEASE, 10.0)
    states = [entry.state for entry in await store.entries()]
    return states, [event.entry.number for event in events]


async def leave_claimed(place: Place) -> None:
    """Three entries are in the hand of a gateway that is killed."""
    async with open_outbox_store(settings(place.url), RAW_KEY) as store:
        for number, recovery in enumerate(RECOVERIES):
            await store.enqueue(draft(str(number), method="POST", recovery=recovery))
    process = Child("claim", place.url)
    async for _ in process.lines():
        break
    await process.killed()


async def test_the_next_gateway_of_a_file_takes_them_at_once(sqlite_place: SqlitePlace) -> None:
    """Nobody else can have them: no lease is waited for."""
    await leave_claimed(sqlite_place)
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY, delivers=True) as store:
        states, recovered = await recover(store)
    assert states == [EntryState.WAITING, EntryState.WAITING, EntryState.UNCLEAR]
    assert recovered == [1, 2, 3]


async def test_what_it_has_itself_in_hand_it_keeps(sqlite_place: SqlitePlace) -> None:
    """Its own leases are those of a gateway that lives."""
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY, delivers=True) as store:
        await store.enqueue(draft("a"))
        await claim(store, owner=_ME)
        assert await recover(store) == ([EntryState.SENDING], [])


async def test_a_command_takes_none(sqlite_place: SqlitePlace) -> None:
    """It does not keep a gateway away, which may have them in hand."""
    await leave_claimed(sqlite_place)
    async with open_outbox_store(settings(sqlite_place.url), RAW_KEY) as store:
        assert await recover(store) == ([EntryState.SENDING] * 3, [])


async def test_in_a_shared_database_the_lease_is_waited_for(postgres_place: PostgresPlace) -> None:
    """Another replica may have them in hand."""
    await leave_claimed(postgres_place)
    async with open_outbox_store(settings(postgres_place.url), RAW_KEY, delivers=True) as store:
        assert await recover(store) == ([EntryState.SENDING] * 3, [])
