"""The store in SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import sqlalchemy as sa

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.attempt_result import Decision
from gateway.outbox.entry import EntryState, OutboxEntry, OutboxEvent, RecoveryMode, StoredResponse
from gateway.outbox.store.database import PostgresDatabase
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import (
    EntryStateError,
    OutboxConfigurationError,
    OutboxFullError,
    OutboxUnavailableError,
)
from gateway.outbox.store.tables import meta_table, segments_table
from tests.outbox.attempts import LEASE, ME, claim, doubt, finish, present, release, stored_request
from tests.outbox.drafts import draft, write
from tests.outbox.places import Place, PostgresPlace, change, opened, rows_of

DONE = StoredResponse(201, ((b"etag", b'W/"1"'),), b'{"resourceType":"Observation"}')


async def events_of(store: OutboxStore, change: Awaitable[bool]) -> list[OutboxEvent]:
    events: list[OutboxEvent] = []
    store.observers.append(events.append)
    assert await change == bool(events)
    return events


async def recover(store: OutboxStore) -> list[OutboxEvent]:
    return await events_of(store, store.recover_leases(await store.leases(), settle=10.0))


async def names(store: OutboxStore, found: list[OutboxEntry]) -> list[str]:
    requests = [await stored_request(store, entry.id) for entry in found]
    return [request.request_id for request in requests if request is not None]


async def state_of(store: OutboxStore, entry: OutboxEntry) -> EntryState:
    return (await present(store, entry.id)).state


async def entry_in_state(store: OutboxStore, state: EntryState) -> OutboxEntry:
    entry = await store.enqueue(draft("a"))
    if state in (EntryState.CANCELLED, EntryState.DROPPED):
        await store.apply_action(entry.id, state)
    elif state is not EntryState.WAITING:
        [claimed] = await claim(store)
        if state is not EntryState.SENDING:
            await finish(store, ME, claimed, state, DONE)
    return await present(store, entry.id)


async def test_a_write_is_stored_unchanged(place: Place) -> None:
    body = bytes(range(256)) * 12_000
    request = write("a", body=body)
    async with opened(place) as store:
        entry = await store.enqueue(replace(draft("a"), request=request))
    async with opened(place) as store:
        assert await stored_request(store, entry.id) == request
        assert await store.entry(entry.id) == entry
        assert await store.response(entry.id) is None
        [claimed] = await claim(store)
        answer = StoredResponse(200, ((b"etag", b"\xff"),), body[:2_000_000])
        assert await finish(store, ME, claimed, EntryState.DELIVERED, answer)
        assert await store.response(entry.id) == answer
        # A large request is erased piece by piece.
        assert [await store.erase_delivered() for _ in range(4)] == [True, True, True, False]
        assert await stored_request(store, entry.id) is None


async def test_entries_of_one_key_are_claimed_one_by_one(store: OutboxStore) -> None:
    for name, *orders in (("1", "P/a"), ("2", "P/a", "P/b"), ("3", "P/b"), ("4", "P/c")):
        await store.enqueue(draft(name, *orders))
    first = await claim(store)
    assert await names(store, first) == ["r-1", "r-4"]
    assert await claim(store) == []
    await finish(store, ME, first[0], EntryState.DELIVERED, DONE)
    second = await claim(store)
    assert await names(store, second) == ["r-2"]
    await finish(store, ME, second[0], EntryState.DELIVERED, DONE)
    assert await names(store, await claim(store)) == ["r-3"]


async def test_the_number_of_claims_is_limited(store: OutboxStore) -> None:
    for name in "123":
        await store.enqueue(draft(name))
    [first] = await claim(store, most=1)
    await release(store, ME, first, delay=0.0, cause="upstream-busy")
    assert await names(store, await claim(store, most=1)) in (["r-1"], ["r-2"])
    assert len(await claim(store, most=5)) == 2


async def test_the_size_of_claims_is_limited(store: OutboxStore) -> None:
    first, *_ = [await store.enqueue(draft(name)) for name in "123"]
    for size, count in ((0, 1), (2 * first.size, 2)):
        _, claimed = await store.record_and_claim(ME, (), max_claims=3, size=size, lease=LEASE)
        assert len(claimed) == count


async def test_outcomes_are_recorded_together(store: OutboxStore) -> None:
    for name, order in (("1", "P/a"), ("2", "P/a"), ("3", "P/b"), ("4", "P/b"), ("5", "P/c")):
        await store.enqueue(draft(name, order))
    delivered, failed, postponed = await claim(store)
    entry_with_expired_lease = replace(failed, attempts=failed.attempts - 1)
    decisions = [
        Decision(delivered, EntryState.DELIVERED, DONE),
        Decision(entry_with_expired_lease, EntryState.DELIVERED, DONE),
        Decision(failed, EntryState.FAILED, StoredResponse(422)),
        Decision(postponed, EntryState.WAITING, cause="upstream-busy", delay=5.0),
    ]
    recorded, claimed = await store.record_and_claim(
        ME, decisions, max_claims=9, size=1 << 20, lease=LEASE
    )
    assert list(recorded) == [True, False, True, True]
    requests = [content.request for content in claimed]
    assert [request.request_id for request in requests if request is not None] == ["r-2"]
    found = [await state_of(store, entry) for entry in (delivered, failed, postponed)]
    assert found == [EntryState.DELIVERED, EntryState.FAILED, EntryState.WAITING]


async def test_an_entry_enqueued_while_its_blocker_ends_is_not_blocked(
    place: Place, store: OutboxStore
) -> None:
    async with opened(place) as second:
        for n in range(20):
            await store.enqueue(draft(f"{n}-1", "P/a"))
            [before] = await claim(store)
            ending = finish(store, ME, before, EntryState.DELIVERED, DONE)
            coming = second.enqueue(draft(f"{n}-2", "P/a"))
            await asyncio.gather(*((ending, coming) if n % 2 else (coming, ending)))
            [after] = await claim(store)
            await finish(store, ME, after, EntryState.DELIVERED, DONE)


@pytest.mark.parametrize(
    "state", [EntryState.WAITING, EntryState.SENDING, EntryState.FAILED, EntryState.UNCLEAR]
)
async def test_undelivered_entries_block(store: OutboxStore, state: EntryState) -> None:
    await entry_in_state(store, state)
    assert await store.is_blocked("lis", ["P/x", "Observation/a"])
    assert not await store.is_blocked("lis", ["P/x"])
    assert not await store.is_blocked("his", ["Observation/a"])
    assert not store.is_known_empty()


@pytest.mark.parametrize("state", [EntryState.DELIVERED, EntryState.CANCELLED, EntryState.DROPPED])
async def test_finished_entries_block_nothing(store: OutboxStore, state: EntryState) -> None:
    await entry_in_state(store, state)
    assert not await store.is_blocked("lis", ["Observation/a"])
    store.settings = OutboxSettings(max_entries=1, max_bytes=1 << 20)
    await store.enqueue(draft("b"))
    with pytest.raises(OutboxFullError):
        await store.enqueue(draft("c"))


async def test_the_outbox_takes_exactly_its_bytes(store: OutboxStore) -> None:
    first = await store.enqueue(draft("a"))
    store.settings = OutboxSettings(max_entries=9, max_bytes=2 * first.size)
    await store.enqueue(draft("b"))
    store.settings = OutboxSettings(max_entries=9, max_bytes=3 * first.size - 1)
    with pytest.raises(OutboxFullError):
        await store.enqueue(draft("c"))


async def test_confirmation_follows_the_lock(place: Place, store: OutboxStore) -> None:
    asked: list[int] = []
    other = place.database()
    async with other.write_transaction() as transaction:
        await transaction.run(other.lock_inserts)
        putting = asyncio.create_task(store.enqueue(draft("a"), lambda: asked.append(1)))
        # It has all the time it needs to come as far as it can.
        await asyncio.sleep(0.2)
        assert asked == []
    await putting
    await other.close()
    assert asked == [1]


async def test_a_renewed_lease_is_extended(place: Place, store: OutboxStore) -> None:
    await store.enqueue(draft("a"))
    [entry] = await claim(store)
    place.wall.now += LEASE - 1
    assert set(await store.renew("other", [entry.id], lease=LEASE)) == set()
    assert set(await store.renew(ME, [entry.id, "nonesuch"], lease=LEASE)) == {entry.id}
    place.wall.now += LEASE - 1
    assert await recover(store) == []
    place.wall.now += 2
    assert set(await store.renew(ME, [entry.id], lease=LEASE)) == set()
    [changed] = await recover(store)
    assert changed.entry.id == entry.id
    assert set(await store.renew(ME, [entry.id], lease=LEASE)) == set()


@pytest.mark.parametrize(
    ("recovery", "state", "due_in"),
    [
        (RecoveryMode.RESEND, EntryState.WAITING, 0.0),
        (RecoveryMode.VERIFY, EntryState.WAITING, 10.0),
        (RecoveryMode.HOLD, EntryState.UNCLEAR, None),
    ],
)
async def test_an_expired_lease_is_recovered(
    place: Place,
    store: OutboxStore,
    recovery: RecoveryMode,
    state: EntryState,
    due_in: float | None,
) -> None:
    await store.enqueue(draft("a", recovery=recovery))
    [entry] = await claim(store)
    place.wall.now += LEASE + 1
    [changed] = await recover(store)
    assert (changed.entry.state, changed.cause) == (state, "upstream-failed")
    answer = await store.response(entry.id)
    if due_in is None:
        assert answer is not None
        assert answer.reason == "upstream-failed"
    else:
        assert changed.entry.in_doubt
        # At once is said so that no change of the clock makes it later.
        due_at = place.wall.now + due_in if due_in else entry.queued_at
        assert changed.entry.due_at == due_at
        assert answer is None
    assert await recover(store) == []


async def test_a_lost_lease_records_nothing(place: Place, store: OutboxStore) -> None:
    await store.enqueue(draft("a"))
    [old] = await claim(store)
    place.wall.now += LEASE + 1
    await recover(store)
    [new] = await claim(store)
    for owner, entry in ((ME, old), ("other", new)):
        assert not await finish(store, owner, entry, EntryState.DELIVERED, DONE)
        assert not await release(store, owner, entry, delay=0.0, cause="upstream-busy")
        assert not await doubt(store, owner, entry, delay=0.0, cause="upstream-failed")
    assert await state_of(store, new) is EntryState.SENDING
    assert await store.response(new.id) is None
    assert await finish(store, ME, new, EntryState.DELIVERED, DONE)


async def entry_with_expired_lease(
    place: Place, store: OutboxStore, recovery: RecoveryMode
) -> OutboxEntry:
    """Return a claimed entry whose lease has expired and was recovered."""
    await store.enqueue(draft("a", recovery=recovery))
    [entry] = await claim(store)
    place.wall.now += LEASE + 1
    assert len(await recover(store)) == 1
    return entry


@pytest.mark.parametrize("recovery", list(RecoveryMode))
async def test_a_late_delivery_is_recorded(
    place: Place, store: OutboxStore, recovery: RecoveryMode
) -> None:
    entry = await entry_with_expired_lease(place, store, recovery)
    assert not await finish(store, ME, entry, EntryState.FAILED, StoredResponse(422))
    assert not await finish(store, ME, entry, EntryState.UNCLEAR, StoredResponse(500))
    assert await finish(store, ME, entry, EntryState.DELIVERED, DONE)
    found = await present(store, entry.id)
    assert (found.state, found.in_doubt, found.cause) == (EntryState.DELIVERED, False, "")
    assert await store.response(entry.id) == DONE
    assert await stored_request(store, entry.id) is None
    assert not await store.is_blocked("lis", ["Observation/a"])
    place.wall.now += 100
    assert await claim(store) == []


async def test_a_delivery_may_be_recorded_again(store: OutboxStore) -> None:
    await store.enqueue(draft("a"))
    [entry] = await claim(store)
    assert await finish(store, ME, entry, EntryState.DELIVERED, DONE)
    assert await finish(store, ME, entry, EntryState.DELIVERED, DONE)
    assert await state_of(store, entry) is EntryState.DELIVERED
    assert await store.response(entry.id) == DONE
    assert not await finish(store, ME, entry, EntryState.FAILED, DONE)


async def claimed(store: OutboxStore, entry: OutboxEntry) -> None:
    await claim(store, owner="other")


async def released_by_other(store: OutboxStore, entry: OutboxEntry) -> None:
    [again] = await claim(store, owner="other")
    await release(store, "other", again, delay=0.0, cause="upstream-unreachable")


async def put_in_doubt_by_other(store: OutboxStore, entry: OutboxEntry) -> None:
    """Let another process send the entry and put it back in doubt."""
    [again] = await claim(store, owner="other")
    await doubt(store, "other", again, delay=0.0, cause="upstream-timeout")


async def made_unclear_by_other(store: OutboxStore, entry: OutboxEntry) -> None:
    [again] = await claim(store, owner="other")
    await finish(store, "other", again, EntryState.UNCLEAR, StoredResponse(500))


async def dropped(store: OutboxStore, entry: OutboxEntry) -> None:
    await store.apply_action(entry.id, EntryState.DROPPED)


async def retried(store: OutboxStore, entry: OutboxEntry) -> None:
    await store.apply_action(entry.id, EntryState.WAITING)


async def retried_and_expired(store: OutboxStore, entry: OutboxEntry) -> None:
    await retried(store, entry)
    store.settings = store.settings.model_copy(update={"max_age": -1.0})
    await store.expire_entries()


@pytest.mark.parametrize(
    ("recovery", "act"),
    [
        *(
            (RecoveryMode.RESEND, act)
            for act in (
                claimed,
                released_by_other,
                put_in_doubt_by_other,
                made_unclear_by_other,
                dropped,
            )
        ),
        *((RecoveryMode.HOLD, act) for act in (dropped, retried, retried_and_expired)),
    ],
)
async def test_a_late_delivery_does_not_change_later_decisions(
    place: Place, store: OutboxStore, recovery: RecoveryMode, act: Callable[..., Awaitable[None]]
) -> None:
    entry = await entry_with_expired_lease(place, store, recovery)
    await act(store, entry)
    before = await store.entry(entry.id), await store.response(entry.id)
    assert not await finish(store, ME, entry, EntryState.DELIVERED, DONE)
    assert (await store.entry(entry.id), await store.response(entry.id)) == before
    assert (await stored_request(store, entry.id) is None) == (act is dropped)


@pytest.mark.parametrize("to", [EntryState.SENDING, EntryState.WAITING, EntryState.DROPPED])
async def test_a_late_delivery_and_another_change_are_atomic(
    place: Place, store: OutboxStore, to: EntryState
) -> None:
    recovery = RecoveryMode.RESEND if to is EntryState.SENDING else RecoveryMode.HOLD
    async with opened(place) as second:
        for n in range(8):
            entry = await entry_with_expired_lease(place, store, recovery)
            other = claim(second) if to is EntryState.SENDING else second.apply_action(entry.id, to)
            both = [finish(store, ME, entry, EntryState.DELIVERED, DONE), other]
            begun = both if n % 2 else both[::-1]
            done = await asyncio.gather(*begun, return_exceptions=True)
            delivered, gone_on = done if n % 2 else done[::-1]
            assert isinstance(gone_on, EntryStateError) or delivered is not bool(gone_on)
            assert await state_of(store, entry) is (EntryState.DELIVERED if delivered else to)
            assert (await store.response(entry.id) == DONE) == delivered
            if to is not EntryState.DROPPED and not delivered:
                now = await claim(store) if to is EntryState.WAITING else gone_on
                assert isinstance(now, list)
                assert await finish(store, ME, now[0], EntryState.DELIVERED, DONE)


async def test_released_entries_are_due_after_their_delay(place: Place, store: OutboxStore) -> None:
    await store.enqueue(draft("a"))
    [entry] = await claim(store)
    assert await doubt(store, ME, entry, delay=20.0, cause="upstream-timeout")
    place.wall.now += 19
    assert await claim(store) == []
    place.wall.now += 1
    [entry] = await claim(store)
    assert (entry.in_doubt, entry.cause, entry.attempts) == (True, "upstream-timeout", 2)
    assert await release(store, ME, entry, delay=5.0, cause="circuit-open")
    place.wall.now += 5
    [entry] = await claim(store)
    assert (entry.in_doubt, entry.cause, entry.attempts) == (True, "circuit-open", 3)


async def test_a_new_entry_may_be_due_later(place: Place, store: OutboxStore) -> None:
    made = await store.enqueue(draft("a", in_doubt=True, cause="upstream-timeout", delay=10.0))
    assert (made.in_doubt, made.cause) == (True, "upstream-timeout")
    assert await claim(store) == []
    place.wall.now += 10
    assert [entry.id for entry in await claim(store)] == [made.id]


_SET_BACK = [61.0, 3600.0, 3900.0, 5 * 3600.0, 365 * 86400.0]
# A process that starts knows the step from the database, a smaller one too.
_NOTICED = [(False, by) for by in _SET_BACK] + [(True, by) for by in (30.0, *_SET_BACK)]


@pytest.mark.parametrize("by", _SET_BACK)
async def test_due_entries_stay_due_when_the_clock_is_set_back(
    place: Place, store: OutboxStore, by: float
) -> None:
    kinds = ("new", "retried", "given back", "interrupted")
    new, retried, given_back, _ = [await store.enqueue(draft(kind)) for kind in kinds]
    by_id = {entry.id: entry for entry in await claim(store)}
    for entry, delay in ((new, 0.0), (given_back, 0.0), (retried, 300.0)):
        await release(store, ME, by_id[entry.id], delay=delay, cause="")
    place.wall.now += LEASE + 1
    assert len(await recover(store)) == 1
    await store.apply_action(retried.id, EntryState.WAITING)
    place.wall.now -= by
    async with opened(place) as restarted:
        assert len(await claim(restarted)) == len(kinds)


@pytest.mark.parametrize(("restart", "by"), _NOTICED)
async def test_setting_the_clock_back_ends_delays(
    place: Place, store: OutboxStore, restart: bool, by: float
) -> None:
    def opened_now() -> AbstractAsyncContextManager[OutboxStore]:
        return opened(place) if restart else contextlib.nullcontext(store)

    await store.enqueue(draft("a"))
    await store.enqueue(draft("b", method="POST", recovery=RecoveryMode.VERIFY))
    first, second = await claim(store)
    await release(store, ME, first, delay=3600.0, cause="upstream-busy")
    await doubt(store, ME, second, delay=300.0, cause="upstream-failed")
    place.wall.now -= by
    async with opened_now() as now:
        assert [entry.id for entry in await claim(now)] == [first.id]
        place.wall.now += 9
        assert await claim(now) == []
    async with opened_now() as now:
        assert await claim(now) == []
        place.wall.now += 2
        assert [entry.id for entry in await claim(now)] == [second.id]


async def test_a_delay_by_a_wrong_clock_ends_with_its_correction(
    place: Place, store: OutboxStore
) -> None:
    await store.enqueue(draft("a"))
    [first] = await claim(store)
    place.wall.now += 365 * 86400
    await release(store, ME, first, delay=300.0, cause="upstream-busy")
    place.wall.now -= 364 * 86400
    assert [entry.id for entry in await claim(store)] == [first.id]


async def test_a_restart_after_setting_the_clock_back_ends_the_delay_of_a_new_entry(
    place: Place,
) -> None:
    async with opened(place) as before:
        entry = await before.enqueue(draft("a", in_doubt=True, delay=300.0))
    place.wall.now -= 60
    async with opened(place) as restarted:
        assert [claimed.id for claimed in await claim(restarted)] == [entry.id]


@pytest.mark.parametrize("by", [-0.9, 0.0, 10.0, 290.0])
async def test_a_restart_keeps_valid_delays(place: Place, store: OutboxStore, by: float) -> None:
    await store.enqueue(draft("a"))
    [entry] = await claim(store)
    await release(store, ME, entry, delay=300.0, cause="upstream-busy")
    place.wall.now += by
    async with opened(place) as started:
        assert await claim(started) == []
        place.wall.now += 300 - by
        assert [claimed.id for claimed in await claim(started)] == [entry.id]


async def test_a_clock_step_ends_delays_once(place: Place) -> None:
    async with opened(place) as before:
        for name in "ab":
            await before.enqueue(draft(name, method="POST", recovery=RecoveryMode.VERIFY))
        first, second = await claim(before)
        await release(before, ME, first, delay=300.0, cause="upstream-busy")
        await doubt(before, ME, second, delay=300.0, cause="upstream-failed")
    place.wall.now -= 3600
    async with opened(place) as restarted:
        [again] = await claim(restarted)
        await release(restarted, ME, again, delay=300.0, cause="upstream-busy")
    async with opened(place) as restarted:
        assert await claim(restarted) == []


async def test_a_failed_claim_keeps_the_clock_step(place: Place, store: OutboxStore) -> None:
    await store.enqueue(draft("a"))
    [entry] = await claim(store)
    await release(store, ME, entry, delay=300.0, cause="upstream-busy")
    place.wall.now -= 60
    database = place.database()
    await change(database, sa.text("ALTER TABLE outbox_pieces RENAME TO away"))
    with pytest.raises(OutboxUnavailableError):
        await claim(store)
    await change(database, sa.text("ALTER TABLE away RENAME TO outbox_pieces"))
    await database.close()
    assert [claimed.id for claimed in await claim(store)] == [entry.id]


@pytest.mark.parametrize("by", _SET_BACK)
async def test_a_lease_longer_than_possible_has_expired(
    place: Place, store: OutboxStore, by: float
) -> None:
    await store.enqueue(draft("a"))
    await claim(store)
    place.wall.now -= by
    assert len(await recover(store)) == 1


@pytest.mark.parametrize(
    ("doubt", "state"), [(False, EntryState.FAILED), (True, EntryState.UNCLEAR)]
)
async def test_entries_over_max_age_expire(
    place: Place, store: OutboxStore, doubt: bool, state: EntryState
) -> None:
    store.settings = store.settings.model_copy(update={"max_age": 100.0})
    entry = await store.enqueue(draft("a", in_doubt=doubt))
    place.wall.now += 100
    assert not await store.expire_entries()
    place.wall.now += 1
    [changed] = await events_of(store, store.expire_entries())
    assert (changed.entry.id, changed.entry.state, changed.cause) == (entry.id, state, "expired")
    assert changed.entry.cause == "expired"
    answer = await store.response(entry.id)
    assert answer is not None
    assert answer.note
    assert await stored_request(store, entry.id) is not None
    assert await store.is_blocked("lis", ["Observation/a"])


@pytest.mark.parametrize("state", list(EntryState))
async def test_only_finished_entries_are_purged(
    place: Place, store: OutboxStore, state: EntryState
) -> None:
    entry = await entry_in_state(store, state)
    over = state in (EntryState.DELIVERED, EntryState.CANCELLED, EntryState.DROPPED)
    store.settings = store.settings.model_copy(update={"retention": 60.0})
    place.wall.now += 50
    assert await store.purge_finished() == 0
    place.wall.now += 11
    assert await store.purge_finished() == (1 if over else 0)
    assert (await store.entry(entry.id) is None) == over


_POSSIBLE = {
    EntryState.WAITING: {EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR},
    EntryState.CANCELLED: {EntryState.WAITING, EntryState.FAILED},
    EntryState.DROPPED: {EntryState.WAITING, EntryState.FAILED, EntryState.UNCLEAR},
}


@pytest.mark.parametrize("to", _POSSIBLE)
@pytest.mark.parametrize("state", list(EntryState))
async def test_actions_of_operators(store: OutboxStore, state: EntryState, to: EntryState) -> None:
    entry = await entry_in_state(store, state)
    if state not in _POSSIBLE[to]:
        with pytest.raises(EntryStateError) as raised:
            await store.apply_action(entry.id, to)
        assert raised.value.state is state
        assert await state_of(store, entry) is state
        return
    moved = await store.apply_action(entry.id, to)
    assert moved is not None
    assert moved.state is to
    assert await store.response(entry.id) is None
    assert (await stored_request(store, entry.id) is None) == (to is not EntryState.WAITING)
    assert await store.is_blocked("lis", ["Observation/a"]) == (to is EntryState.WAITING)
    assert len(await claim(store)) == (1 if to is EntryState.WAITING else 0)


async def test_a_retried_entry_keeps_its_order(place: Place, store: OutboxStore) -> None:
    first = await store.enqueue(draft("1", "P/a", recovery=RecoveryMode.HOLD))
    await store.enqueue(draft("2", "P/a"))
    await claim(store)
    place.wall.now += LEASE + 1
    await recover(store)
    assert await state_of(store, first) is EntryState.UNCLEAR
    assert await claim(store) == []
    moved = await store.apply_action(first.id, EntryState.WAITING)
    assert moved is not None
    assert (moved.in_doubt, moved.queued_at, moved.cause) == (False, place.wall.now, "")
    assert await names(store, await claim(store)) == ["r-1"]


async def test_a_caller_cannot_cancel_an_entry_in_doubt(store: OutboxStore) -> None:
    entry = await store.enqueue(draft("a", in_doubt=True))
    with pytest.raises(EntryStateError):
        await store.apply_action(entry.id, EntryState.CANCELLED, caller="lis")
    assert await store.apply_action(entry.id, EntryState.DROPPED) is not None


async def test_a_rejection_ends_the_doubt(store: OutboxStore) -> None:
    await store.enqueue(draft("a", in_doubt=True))
    [entry] = await claim(store)
    await finish(store, ME, entry, EntryState.FAILED, StoredResponse(422))
    assert await store.apply_action(entry.id, EntryState.CANCELLED, caller="lis") is not None


async def test_entries_are_paged(store: OutboxStore) -> None:
    made = [await store.enqueue(draft(str(n))) for n in range(5)]
    assert list(await store.entries(limit=2)) == made[:2]
    assert list(await store.entries(after=made[1].number)) == made[2:]
    await store.apply_action(made[2].id, EntryState.DROPPED)
    dropped = await store.entries(states=[EntryState.DROPPED, EntryState.CANCELLED])
    assert [entry.id for entry in dropped] == [made[2].id]


async def test_depth(place: Place, store: OutboxStore) -> None:
    assert (await store.depth()).oldest is None
    gone = await store.enqueue(draft("gone"))
    await store.apply_action(gone.id, EntryState.DROPPED)
    place.wall.now += 5
    kept = [await store.enqueue(draft(name)) for name in "ab"]
    [claimed] = await claim(store, most=1)
    await finish(store, ME, claimed, EntryState.FAILED, StoredResponse(422))
    depth = await store.depth()
    assert depth.counts == {EntryState.DROPPED: 1, EntryState.WAITING: 1, EntryState.FAILED: 1}
    assert depth.size == sum(entry.size for entry in kept)
    assert depth.oldest == place.wall.now


async def test_stores_of_one_database_claim_different_entries(
    place: Place, store: OutboxStore
) -> None:
    for n in range(40):
        await store.enqueue(draft(str(n), f"P/{n % 10}"))
    async with opened(place) as second, opened(place) as third:
        claims = (claim(s, most=2, owner=str(n)) for n, s in enumerate((store, second, third) * 4))
        taken = [entry for batch in await asyncio.gather(*claims) for entry in batch]
    assert len({entry.id for entry in taken}) == len(taken)
    assert len(taken) <= 10
    owners = await names(store, taken)
    assert len({int(name[2:]) % 10 for name in owners}) == len(taken)


async def test_an_empty_outbox_accepts_a_new_key(place: Place, store: OutboxStore) -> None:
    async with opened(place, b"\x08" * 32) as renewed:
        entry = await renewed.enqueue(draft("a"))
        for access in (
            store.enqueue(draft("b")),
            claim(store, most=1),
            store.recover_leases([], settle=10.0),
            store.expire_entries(),
        ):
            with pytest.raises(OutboxUnavailableError, match="another key"):
                await access
        assert list(await renewed.entries()) == [entry]
    with pytest.raises(OutboxConfigurationError, match="another key"):
        async with opened(place):
            pass


async def test_another_schema_is_rejected(place: Place, store: OutboxStore) -> None:
    database = place.database()
    newer = sa.update(meta_table).where(meta_table.c.name == "schema").values(value="99")
    await change(database, newer)
    await database.close()
    with pytest.raises(OutboxConfigurationError, match=r"schema 99"):
        async with opened(place):
            pass


@pytest.mark.parametrize("changed", ["swapped", "cut", "flipped", "moved"])
async def test_modified_contents_are_detected(
    place: Place, store: OutboxStore, changed: str
) -> None:
    large = replace(draft("a"), request=write("a", body=b"x" * 2_500_000))
    entry = await store.enqueue(large)
    other = await store.enqueue(replace(large, ordering_keys=frozenset({"P/b"})))
    database = place.database()
    mine = segments_table.c.entry == entry.number
    rows = await rows_of(database, sa.select(segments_table).where(mine))
    sealed = {row.place: row.sealed for row in rows}

    async def put(at: int, value: bytes) -> None:
        where = (mine, segments_table.c.place == at)
        await change(database, sa.update(segments_table).where(*where).values(sealed=value))

    if changed == "swapped":
        await put(0, sealed[1])
        await put(1, sealed[0])
    elif changed == "flipped":
        await put(1, sealed[1][:-1] + bytes([sealed[1][-1] ^ 1]))
    elif changed == "cut":
        where = (mine, segments_table.c.place == max(sealed))
        await change(database, sa.delete(segments_table).where(*where))
    else:
        theirs = (segments_table.c.entry == other.number, segments_table.c.place == 0)
        [found] = await rows_of(database, sa.select(segments_table.c.sealed).where(*theirs))
        await put(0, found.sealed)
    await database.close()
    with pytest.raises(OutboxConfigurationError, match="changed from outside"):
        await stored_request(store, entry.id)


async def test_cancelled_writes_are_complete_or_absent(store: OutboxStore) -> None:
    async def hasty(n: int) -> None:
        try:
            async with asyncio.timeout(n * 0.0002):
                await store.enqueue(draft(str(n), "P/one"))
        except TimeoutError:
            pass

    for n in range(40):
        await hasty(n)
    # A slow server may otherwise take the last one before some of these.
    await store.shielded_tasks.wait_all()
    last = await store.enqueue(draft("last", "P/one"))
    listed = await store.entries(limit=1000)
    assert listed[-1] == last
    for entry in listed:
        assert await stored_request(store, entry.id) is not None
    for _ in listed:
        [claimed] = await claim(store)
        assert await finish(store, ME, claimed, EntryState.DELIVERED, DONE)
    assert await claim(store) == []


async def test_the_servers_clock_is_used(postgres_place: PostgresPlace) -> None:
    address = {"host": str(postgres_place.server.directory), "user": "outbox"}
    database = PostgresDatabase({**address, "database": postgres_place.name}, None)
    watcher = await postgres_place.server.connect()
    try:
        before = await watcher.fetchval("SELECT extract(epoch FROM clock_timestamp())")
        now = await database.read(database.now)
        after = await watcher.fetchval("SELECT extract(epoch FROM clock_timestamp())")
        assert float(before) <= now <= float(after)
    finally:
        await watcher.close()
        await database.close()
