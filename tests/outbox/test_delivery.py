"""Delivery as its sender and its store see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.i18n import Message
from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.delivery import LEASE_SECONDS, MAX_PARALLEL
from gateway.outbox.delivery_pacing import (
    INDEX_LAG,
    MAX_ENTRY_DELAY,
    MAX_OUTAGE_DELAY,
    MAX_RETRY_AFTER,
    RetrySchedule,
)
from gateway.outbox.entry import (
    EntryState,
    NewEntry,
    OutboxEntry,
    OutboxStep,
    QueuedRequest,
    RecoveryMode,
    StoredResponse,
)
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.store_types import OutboxUnavailableError
from gateway.outbox.store.tables import segments_table
from tests.doubles.clock import FakeClock
from tests.doubles.waiting import wait_until
from tests.outbox.attempts import present, stored_request
from tests.outbox.drafts import draft
from tests.outbox.places import ClockWall, Place, PostgresPlace, SqlitePlace, change, opened
from tests.outbox.running import SETTINGS, Process, Running, pass_time, settle
from tests.outbox.sender import LOST, NONE_FOUND, OK, UNREACHABLE, RecordingSender


class UnreliableStore:
    """A store that cannot be reached while it is `away`.

    `claim` and `record` are the two sides of `record_and_claim`.
    """

    def __init__(self, store: OutboxStore) -> None:
        self.away: set[str] = set()
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name in self.away:
            return self._refuse
        return getattr(self._store, name)

    async def record_and_claim(self, owner: str, outcomes: Any, **named: Any) -> Any:
        """Either side may be out of reach."""
        if ("record" if outcomes else "claim") in self.away:
            await self._refuse()
        return await self._store.record_and_claim(owner, outcomes, **named)

    async def _refuse(self, *_: Any, **__: Any) -> None:
        raise OutboxUnavailableError(Message("SQLITE_FULL"))


@pytest.fixture
def sender() -> RecordingSender:
    return RecordingSender()


@pytest.fixture
def unreliable(clocked_store: OutboxStore) -> UnreliableStore:
    return UnreliableStore(clocked_store)


@pytest.fixture
async def running(
    unreliable: UnreliableStore, sender: RecordingSender, clock: FakeClock
) -> AsyncIterator[Running]:
    async with Process(unreliable, sender, clock).running() as made:  # type: ignore[arg-type]
        yield made


async def put_held(running: Running, sender: RecordingSender, made: NewEntry) -> OutboxEntry:
    """Enqueue a write, and wait until its attempt is under way."""
    sender.hold(made.request.request_id)
    entry = await running.put(made)
    await wait_until(lambda: sender.seen == [made.request.request_id])
    return entry


async def test_parallel_attempts_are_limited(running: Running, sender: RecordingSender) -> None:
    for n in range(30):
        sender.hold(f"r-{n}")
    entries = [await running.put(draft(str(n))) for n in range(30)]
    await wait_until(lambda: sender.busy == MAX_PARALLEL)
    await settle(running.store)
    assert sender.busy == MAX_PARALLEL
    for gate in sender.held.values():
        gate.set()
    for entry in entries:
        await running.wait_for_state(entry, EntryState.DELIVERED)
    assert sender.busiest == MAX_PARALLEL
    assert sorted(sender.seen) == sorted(f"r-{n}" for n in range(30))


async def test_one_attempt_at_a_time_during_an_outage(
    running: Running, sender: RecordingSender
) -> None:
    sender.usual = UNREACHABLE
    entries = [await running.put(draft(str(n))) for n in range(20)]
    await wait_until(lambda: OutboxStep.POSTPONED in running.steps(entries[0]))
    await running.wait_until_idle()
    sender.seen.clear()
    # Pauses of 1, 2, 4, 8 and 16 s; the first has begun.
    await running.pass_time(1 + 2 + 4 + 8 + 16 + 6)
    assert 3 <= len(sender.seen) <= 6
    assert sender.busiest <= MAX_PARALLEL
    sender.busiest = 0
    sender.usual = OK
    await running.pass_time(31)
    for entry in entries:
        await running.wait_for_state(entry, EntryState.DELIVERED)
    later = await running.put(draft("later"))
    await running.wait_for_state(later, EntryState.DELIVERED)


async def test_a_response_to_another_request_ends_the_outage_delay(
    running: Running, sender: RecordingSender
) -> None:
    sender.usual = UNREACHABLE
    entry = await running.put_postponed(draft("a"))
    await running.pass_time(20)
    sender.usual = OK
    await running.put(draft("b"))
    await settle(running.store)
    assert await running.state(entry) is EntryState.WAITING
    running.delivery.on_platform_response()
    await running.wait_for_state(entry, EntryState.DELIVERED)


async def late_503_and_outage(
    running: Running, sender: RecordingSender
) -> tuple[OutboxEntry, OutboxEntry]:
    """Two writes: one whose 503 with Retry-After is on its way, and one that met a dead line."""
    sender.hold("r-late")
    sender.results["r-late"] = [AttemptResult(cause="upstream-busy", retry_after=3000.0)]
    late = await running.put(draft("late"))
    sender.results["r-a"] = [UNREACHABLE]
    entry = await running.put_postponed(draft("a"))
    return late, entry


async def test_a_retry_after_from_before_the_recovery_is_shortened(
    running: Running, sender: RecordingSender
) -> None:
    late, entry = await late_503_and_outage(running, sender)
    running.delivery.on_platform_response()
    await running.wait_for_state(entry, EntryState.DELIVERED)
    later = await running.put(draft("later"))
    await running.wait_for_state(later, EntryState.DELIVERED)
    sender.held["r-late"].set()
    await wait_until(lambda: OutboxStep.POSTPONED in running.steps(late))
    await running.pass_time(2)
    await running.wait_for_state(late, EntryState.DELIVERED)


async def test_a_delivery_ends_the_outage_delay_of_others(
    running: Running, sender: RecordingSender
) -> None:
    asked, entry = await late_503_and_outage(running, sender)
    sender.held["r-late"].set()
    await wait_until(lambda: OutboxStep.POSTPONED in running.steps(asked))
    await running.pass_time(3)
    await running.wait_for_state(entry, EntryState.DELIVERED)
    await running.pass_time(6)
    await running.wait_for_state(asked, EntryState.DELIVERED)


async def test_the_outage_delay_ends_once_the_store_is_available(
    running: Running, unreliable: UnreliableStore, sender: RecordingSender
) -> None:
    sender.results["r-a"] = [AttemptResult(cause="upstream-busy", retry_after=3000.0)]
    entry = await running.put_postponed(draft("a"))
    unreliable.away = {"hasten"}
    running.delivery.on_platform_response()
    await running.pass_time(3)
    unreliable.away = set()
    await running.pass_time(10)
    await running.wait_for_state(entry, EntryState.DELIVERED)


async def test_responses_to_others_do_not_cause_an_attempt_each(
    running: Running, sender: RecordingSender
) -> None:
    sender.usual = UNREACHABLE
    await running.put_postponed(draft("a"))
    for _ in range(60):
        running.delivery.on_platform_response()
        await running.pass_time(1)
    assert 8 <= len(sender.seen) <= 18


async def test_an_outage_is_probed(running: Running, sender: RecordingSender) -> None:
    await running.pass_time(20)
    assert sender.probed == 0
    sender.results["r-a"] = [AttemptResult(cause="upstream-busy", retry_after=3000.0)]
    entry = await running.put_postponed(draft("a"))
    await running.pass_time(31)
    assert 5 <= sender.probed <= 7
    running.delivery.on_platform_response()
    await running.wait_for_state(entry, EntryState.DELIVERED)
    asked = sender.probed
    await running.pass_time(20)
    assert sender.probed == asked


async def test_a_hanging_attempt_does_not_delay_others_after_the_recovery(
    running: Running, sender: RecordingSender
) -> None:
    sender.usual = UNREACHABLE
    await running.put_postponed(draft("a"))
    sender.hold("r-a")
    await running.pass_time(20)
    assert sender.busy == 1
    sender.usual = OK
    other = await running.put(draft("b"))
    await running.pass_time(5)
    assert await running.state(other) is EntryState.WAITING
    running.delivery.on_platform_response()
    await running.wait_for_state(other, EntryState.DELIVERED)


async def test_an_entry_that_always_gets_503_does_not_delay_others(
    running: Running, sender: RecordingSender
) -> None:
    busy = AttemptResult(cause="upstream-busy")
    sender.results["r-bad"] = [busy] * 1000
    bad = await running.put_postponed(draft("bad"))
    others = [await running.put(draft(str(n))) for n in range(20)]
    await running.pass_time(60)
    for entry in others:
        await running.wait_for_state(entry, EntryState.DELIVERED)
    assert await running.state(bad) is not EntryState.DELIVERED


async def test_entries_that_cannot_be_resent_are_not_attempted_first(
    running: Running, sender: RecordingSender
) -> None:
    sender.usual = UNREACHABLE
    await running.put_postponed(draft("first"))
    sender.results["r-parked"] = [LOST]
    parked = await running.put(draft("parked", method="POST", recovery=RecoveryMode.HOLD))
    safe = await running.put(draft("safe"))
    sender.usual = OK
    sender.results["r-parked"] = []
    await running.pass_time(40)
    await running.wait_for_state(safe, EntryState.DELIVERED)
    await running.wait_for_state(parked, EntryState.DELIVERED)
    assert sender.seen.index("r-safe") < sender.seen.index("r-parked")


async def test_retry_after_delays_its_own_entry_only(
    running: Running, sender: RecordingSender
) -> None:
    sender.results["r-a"] = [
        AttemptResult(cause="upstream-busy", retry_after=90.0, affects_all_entries=False)
    ]
    entry = await running.put_postponed(draft("a"))
    other = await running.put(draft("b"))
    await running.wait_for_state(other, EntryState.DELIVERED)
    await running.pass_time(88)
    assert sender.seen.count("r-a") == 1
    await running.pass_time(3)
    await running.wait_for_state(entry, EntryState.DELIVERED)


RESEND, VERIFY, HOLD = RecoveryMode.RESEND, RecoveryMode.VERIFY, RecoveryMode.HOLD
_REFUSED = StoredResponse(422, (), b'{"resourceType":"OperationOutcome"}')
_PAGE = StoredResponse(404, reason="upstream-non-fhir", note=Message("no FHIR"))
_CASES = {
    # method, recovery, in doubt already, what the platform says: the step that is told
    "delivered": ("PUT", RESEND, False, StoredResponse(201), OutboxStep.DELIVERED),
    "refused": ("PUT", RESEND, False, _REFUSED, OutboxStep.FAILED),
    "refused redirect": ("PUT", RESEND, False, StoredResponse(307), OutboxStep.FAILED),
    "refused 501": ("POST", HOLD, False, StoredResponse(501), OutboxStep.FAILED),
    "refused 412": ("PUT", RESEND, False, StoredResponse(412), OutboxStep.FAILED),
    "refused 404": ("DELETE", RESEND, False, StoredResponse(404), OutboxStep.FAILED),
    "busy": ("POST", HOLD, False, StoredResponse(503), OutboxStep.POSTPONED),
    "too many": ("POST", HOLD, False, StoredResponse(429), OutboxStep.POSTPONED),
    "no answer": ("PUT", RESEND, False, LOST, OutboxStep.BECAME_IN_DOUBT),
    "no answer, to be asked for": ("POST", VERIFY, False, LOST, OutboxStep.BECAME_IN_DOUBT),
    "no answer, parked": ("POST", HOLD, False, LOST, OutboxStep.UNCLEAR),
    "broken": ("PUT", RESEND, False, StoredResponse(500), OutboxStep.BECAME_IN_DOUBT),
    "broken, parked": ("POST", HOLD, False, StoredResponse(500), OutboxStep.UNCLEAR),
    "timed out": ("PUT", RESEND, False, StoredResponse(504), OutboxStep.BECAME_IN_DOUBT),
    "a fault of the sender": ("PUT", RESEND, False, OSError("x"), OutboxStep.BECAME_IN_DOUBT),
    "unreachable, parked": ("POST", HOLD, False, UNREACHABLE, OutboxStep.POSTPONED),
    "in doubt, delivered": ("PUT", RESEND, True, StoredResponse(200), OutboxStep.DELIVERED),
    "in doubt, never sent": ("POST", HOLD, True, StoredResponse(200), OutboxStep.UNCLEAR),
    "in doubt, invalid": ("PUT", RESEND, True, _REFUSED, OutboxStep.FAILED),
    "in doubt, conflict": ("PUT", RESEND, True, StoredResponse(409), OutboxStep.UNCLEAR),
    "in doubt, forbidden": ("PUT", RESEND, True, StoredResponse(403), OutboxStep.UNCLEAR),
    "in doubt, gone": ("DELETE", RESEND, True, StoredResponse(410), OutboxStep.DELIVERED),
    "in doubt, not there": ("DELETE", RESEND, True, StoredResponse(404), OutboxStep.DELIVERED),
    "in doubt, somebody else's 404": ("DELETE", RESEND, True, _PAGE, OutboxStep.UNCLEAR),
    "in doubt, several match": ("POST", RESEND, True, StoredResponse(412), OutboxStep.UNCLEAR),
}
_STATES = {
    OutboxStep.DELIVERED: EntryState.DELIVERED,
    OutboxStep.FAILED: EntryState.FAILED,
    OutboxStep.UNCLEAR: EntryState.UNCLEAR,
    OutboxStep.POSTPONED: EntryState.WAITING,
    OutboxStep.BECAME_IN_DOUBT: EntryState.WAITING,
}


@pytest.mark.parametrize("case", _CASES)
async def test_each_result_leads_to_its_state(
    running: Running, sender: RecordingSender, case: str
) -> None:
    method, recovery, doubt, result, step = _CASES[case]
    sender.results["r-a"] = [result]
    sender.usual = UNREACHABLE
    entry = await running.put(draft("a", method=method, recovery=recovery, in_doubt=doubt))
    await wait_until(lambda: bool(_STATES.keys() & running.steps(entry)))
    # What may not be repeated is not sent again.
    sent = [] if doubt and recovery is HOLD else [OutboxStep.SENT]
    assert running.steps(entry) == [OutboxStep.QUEUED, *sent, step]
    found = await present(running.store, entry.id)
    assert found.state is _STATES[step]
    answer = await running.store.response(entry.id)
    if found.state is EntryState.WAITING:
        assert (answer, found.in_doubt) == (None, step is OutboxStep.BECAME_IN_DOUBT)
    elif found.state is not EntryState.DELIVERED and sender.seen and result is not LOST:
        assert answer == result
    else:
        assert answer is not None
    assert (await stored_request(running.store, entry.id) is None) == (step is OutboxStep.DELIVERED)


async def test_a_create_is_verified_before_it_is_resent(
    running: Running, sender: RecordingSender
) -> None:
    sender.results["r-a"] = [LOST]
    found = StoredResponse(200, (), b"{}")
    sender.findings["r-a"] = [AttemptResult(found, VerificationStatus.PRESENT)]
    entry = await running.put(draft("a", method="POST", recovery=RecoveryMode.VERIFY))
    await wait_until(lambda: OutboxStep.BECAME_IN_DOUBT in running.steps(entry))
    await running.pass_time(INDEX_LAG - 1)
    assert sender.asked == []
    await running.pass_time(3)
    await running.wait_for_state(entry, EntryState.DELIVERED)
    assert (sender.seen, sender.asked) == (["r-a"], ["r-a"])
    assert await running.store.response(entry.id) == found


async def test_an_absent_create_is_resent(running: Running, sender: RecordingSender) -> None:
    sender.results["r-a"] = [StoredResponse(409)]
    sender.findings["r-a"] = [UNREACHABLE, NONE_FOUND]
    entry = await running.put(
        draft("a", method="POST", recovery=RecoveryMode.VERIFY, in_doubt=True)
    )
    await running.pass_time(30)
    await running.wait_for_state(entry, EntryState.FAILED)
    assert (sender.seen, sender.asked) == (["r-a"], ["r-a", "r-a"])


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (
            AttemptResult(StoredResponse(200), VerificationStatus.PRESENT),
            EntryState.DELIVERED,
        ),
        (AttemptResult(finding=VerificationStatus.ABSENT), EntryState.UNCLEAR),
        (AttemptResult(finding=VerificationStatus.INCONCLUSIVE), EntryState.UNCLEAR),
        (UNREACHABLE, EntryState.WAITING),
    ],
)
async def test_an_update_in_doubt_with_412_is_verified(
    running: Running,
    sender: RecordingSender,
    finding: AttemptResult,
    state: EntryState,
) -> None:
    sender.results["r-a"] = [StoredResponse(412)]
    sender.findings["r-a"] = [finding]
    sender.usual = UNREACHABLE
    entry = await running.put(draft("a", in_doubt=True))
    await wait_until(lambda: sender.asked == ["r-a"] and not running.delivery.active_attempts)
    await running.wait_for_state(entry, state)
    found = await present(running.store, entry.id)
    assert found.in_doubt == (state is not EntryState.DELIVERED)


async def test_leases_of_long_attempts_are_renewed(
    running: Running, sender: RecordingSender, clocked_store: OutboxStore
) -> None:
    entry = await put_held(running, sender, draft("a"))
    await running.pass_time(4 * LEASE_SECONDS)
    assert not await clocked_store.recover_leases(await clocked_store.leases(), settle=10.0)
    sender.held["r-a"].set()
    await running.wait_for_state(entry, EntryState.DELIVERED)


async def test_a_result_is_recorded_once_the_store_is_available(
    running: Running, unreliable: UnreliableStore, sender: RecordingSender
) -> None:
    entry = await put_held(running, sender, draft("a", recovery=RecoveryMode.HOLD))
    unreliable.away = {"record", "renew", "recover", "claim", "expire", "purge"}
    sender.held["r-a"].set()
    await running.pass_time(3 * LEASE_SECONDS)
    unreliable.away = {"record"}
    await running.pass_time(20)
    assert await running.state(entry) is EntryState.SENDING
    unreliable.away = set()
    await running.pass_time(2)
    await running.wait_for_state(entry, EntryState.DELIVERED)
    assert sender.seen == ["r-a"]


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_result_is_recorded_after_its_lease_expired(
    place: Place,
    sender: RecordingSender,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    given_up: bool,
) -> None:
    place.wall = ClockWall(clock)
    async with opened(place) as store, opened(place) as other:
        unreliable = UnreliableStore(store)
        async with Process(unreliable, sender, clock).running() as running:  # type: ignore[arg-type]
            unreliable.away = {"record", "renew"}
            entry = await running.put(draft("a", method="POST", recovery=RecoveryMode.HOLD))
            await wait_until(lambda: bool(caplog.records))
            clock.jump_wall(LEASE_SECONDS + 1)
            assert await other.recover_leases(await other.leases(), settle=10.0)
            assert await running.state(entry) is EntryState.UNCLEAR
            if given_up:
                await other.apply_action(entry.id, EntryState.DROPPED)
            unreliable.away = set()
            await running.pass_time(3)
            await running.wait_until_idle()
            assert await running.state(entry) is (
                EntryState.DROPPED if given_up else EntryState.DELIVERED
            )
            assert (running.steps(entry)[-1] is OutboxStep.DELIVERED) != given_up
            told = f"outbox: the lease of {entry.id} is lost, delivered is not recorded"
            assert (told in caplog.messages) == given_up
    assert sender.seen == ["r-a"]


async def test_an_attempt_is_cancelled_before_its_lease_expires(
    running: Running,
    unreliable: UnreliableStore,
    sender: RecordingSender,
    clocked_store: OutboxStore,
) -> None:
    entry = await put_held(running, sender, draft("a"))
    unreliable.away = {"renew"}
    await running.pass_time(LEASE_SECONDS * 0.6)
    assert sender.stopped == []
    await running.pass_time(LEASE_SECONDS * 0.2)
    assert sender.stopped == ["r-a"]
    assert not await clocked_store.recover_leases(await clocked_store.leases(), settle=10.0)
    await wait_until(lambda: OutboxStep.BECAME_IN_DOUBT in running.steps(entry))


async def test_a_new_lease_has_its_own_time_to_be_renewed(
    running: Running, unreliable: UnreliableStore, sender: RecordingSender
) -> None:
    await running.put(draft("a"))
    await running.wait_until_idle()
    await running.pass_time(LEASE_SECONDS * 0.6)
    unreliable.away = {"renew"}
    sender.hold("r-b")
    await running.put(draft("b"))
    await wait_until(lambda: sender.seen == ["r-a", "r-b"])
    await running.pass_time(LEASE_SECONDS * 0.2)
    assert sender.stopped == []


async def test_an_attempt_without_lease_is_cancelled(
    running: Running, sender: RecordingSender, clock: FakeClock
) -> None:
    await put_held(running, sender, draft("a"))
    clock.jump_wall(LEASE_SECONDS + 1)
    await running.pass_time(LEASE_SECONDS / 3)
    assert sender.stopped == ["r-a"]


@dataclass
class ObservingSender(RecordingSender):
    """Notes how many sends another one had in hand at each of its own."""

    other: RecordingSender = field(default_factory=RecordingSender)
    met: list[int] = field(default_factory=list)

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        self.met.append(self.other.busy)
        return await super().send(entry, request)


@pytest.mark.parametrize(
    ("jump", "away"),
    [(LEASE_SECONDS * 2, set()), (LEASE_SECONDS * 2, {"renew"}), (-7200.0, set())],
)
async def test_setting_the_clock_keeps_the_order(
    postgres_place: PostgresPlace,
    sender: RecordingSender,
    clock: FakeClock,
    jump: float,
    away: set[str],
) -> None:
    """With SQLite that is simulated."""
    postgres_place.wall = ClockWall(clock)
    sender.hold("r-1")
    second = ObservingSender(other=sender)
    async with opened(postgres_place) as store, opened(postgres_place) as other:
        unreliable = UnreliableStore(store)
        async with Process(unreliable, sender, clock).running() as holder:  # type: ignore[arg-type]
            # Of one patient, so that only the first can be in hand.
            for name in "12":
                await holder.put(draft(name, "P/a"))
            await wait_until(lambda: sender.busy == 1)
            # The second looks for leases that have ended between two looks of the first.
            await pass_time(clock, 3, store)
            async with Process(other, second, clock).running():
                await pass_time(clock, 3, store, other)
                unreliable.away = away
                clock.jump_wall(jump)
                await pass_time(clock, LEASE_SECONDS * 2, store, other)
                sender.held["r-1"].set()
                unreliable.away = set()
                while {entry.state for entry in await store.entries()} != {EntryState.DELIVERED}:
                    await pass_time(clock, 1, store, other)
    assert set(second.met) <= {0}


async def test_entries_of_a_killed_process_are_recovered(
    place: Place, sender: RecordingSender, clock: FakeClock
) -> None:
    place.wall = ClockWall(clock)
    sender.hold("r-a")
    async with contextlib.AsyncExitStack() as stack:
        store, other = [await stack.enter_async_context(opened(place)) for _ in range(2)]
        async with Process(store, sender, clock).running() as killed:
            entry = await killed.put(draft("a"))
            await wait_until(lambda: sender.busy == 1)
            beside = Process(other, RecordingSender(), clock).running()
            running = await stack.enter_async_context(beside)
            await pass_time(clock, 1, store, other)
        await pass_time(clock, LEASE_SECONDS * 4 / 3, other)
        assert await running.state(entry) is EntryState.DELIVERED


@pytest.mark.parametrize(
    ("recovery", "state"),
    [(RecoveryMode.RESEND, EntryState.WAITING), (RecoveryMode.HOLD, EntryState.UNCLEAR)],
)
async def test_draining_ends_at_its_timeout(
    running: Running, sender: RecordingSender, recovery: RecoveryMode, state: EntryState
) -> None:
    entry = await put_held(running, sender, draft("1", recovery=recovery))
    await running.delivery.drain(0.05)
    assert running.task is not None
    await asyncio.wait_for(running.task, 30)
    found = await present(running.store, entry.id)
    assert found.state is state
    assert found.in_doubt == (state is EntryState.WAITING)
    assert sender.stopped == ["r-1"]


class SlowStore:
    """A store whose steps are held back, once they are done, until they are let go.

    A step is named after what it has done.
    """

    def __init__(self, store: OutboxStore) -> None:
        self.held = {name: asyncio.Event() for name in ("claim", "release")}
        self.waiting: list[str] = []
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def record_and_claim(self, owner: str, outcomes: Any, **named: Any) -> Any:
        recorded, claimed = await self._store.record_and_claim(owner, outcomes, **named)
        name = "claim" if claimed else "release"
        if claimed or outcomes:
            self.waiting.append(name)
            await self.held[name].wait()
        return recorded, claimed


async def test_draining_releases_unsent_claims(
    place: Place, sender: RecordingSender, clock: FakeClock
) -> None:
    place.wall = ClockWall(clock)
    async with opened(place) as store:
        slow = SlowStore(store)
        async with Process(slow, sender, clock).running() as running:  # type: ignore[arg-type]
            for name in "abc":
                made = draft(name, method="POST", recovery=RecoveryMode.HOLD)
                await store.enqueue(made)
            running.delivery.wake()
            await wait_until(lambda: slow.waiting == ["claim"])
            draining = asyncio.get_running_loop().create_task(running.delivery.drain(30.0))
            for method in ("claim", "release"):
                await settle(running.store)
                assert not draining.done()
                slow.held[method].set()
                await wait_until(lambda: "release" in slow.waiting)
            await draining
        states = [entry.state for entry in await store.entries()]
    assert states == [EntryState.WAITING] * 3
    assert sender.seen == []


async def test_old_entries_expire_and_finished_ones_are_purged(
    clocked_store: OutboxStore, sender: RecordingSender, clock: FakeClock
) -> None:
    settings = SETTINGS.model_copy(update={"max_age": 300.0, "retention": 100.0})
    async with Process(clocked_store, sender, clock, settings).running() as running:
        done = await running.put(draft("done"))
        await running.wait_for_state(done, EntryState.DELIVERED)
        sender.usual = UNREACHABLE
        stuck = await running.put(draft("stuck"))
        await running.pass_time(170)
        assert await running.store.entry(done.id) is None
        assert await running.state(stuck) is not EntryState.FAILED
        await running.pass_time(200)
        await running.wait_for_state(stuck, EntryState.FAILED)
        assert running.steps(stuck)[-1] is OutboxStep.EXPIRED


async def test_an_unreadable_entry_is_not_sent(
    running: Running, sender: RecordingSender, sqlite_place: SqlitePlace
) -> None:
    sender.hold("r-1")
    await running.put(draft("1", "P/a"))
    broken = await running.put(draft("2", "P/a"))
    database = sqlite_place.database()
    where = segments_table.c.entry == broken.number
    await change(database, sa.update(segments_table).where(where).values(sealed=b"x" * 40))
    await database.close()
    sender.held["r-1"].set()
    await running.wait_for_state(broken, EntryState.FAILED)
    answer = await running.store.response(broken.id)
    assert answer is not None
    assert answer.reason == "internal"
    assert sender.seen == ["r-1"]


async def test_delivery_continues_once_the_store_is_available(
    running: Running, unreliable: UnreliableStore, caplog: pytest.LogCaptureFixture
) -> None:
    unreliable.away = {"claim", "recover"}
    entry = await running.put(draft("a"))
    await running.pass_time(10)
    assert [record.getMessage() for record in caplog.records] == [
        "the outbox cannot be reached: SQLITE_FULL"
    ]
    unreliable.away = set()
    await running.pass_time(2)
    await running.wait_for_state(entry, EntryState.DELIVERED)


async def test_draining_during_a_claim_loses_no_entry(
    clocked_store: OutboxStore, sender: RecordingSender, clock: FakeClock
) -> None:
    process = Process(clocked_store, sender, clock)
    for n in range(8):
        made = process.make()
        entry = await made.put(draft(f"{n}"))
        task = asyncio.get_running_loop().create_task(made.delivery.run())
        for _ in range(n * 4):
            await asyncio.sleep(0.0005)
        await made.delivery.drain(0.0)
        await asyncio.wait_for(task, 30)
        assert await made.state(entry) in (EntryState.WAITING, EntryState.DELIVERED)
        with contextlib.suppress(Exception):
            await made.store.apply_action(entry.id, EntryState.DROPPED)


async def test_delays_have_jitter(clocked_store: OutboxStore) -> None:
    for chance, expected in ((0.0, 0.5), (1.0, 1.0)):
        pacer = RetrySchedule(lambda chance=chance: chance)  # type: ignore[misc]
        spread = [
            pacer.entry_delay(n, affects_all_entries=False, retry_after=None) for n in (1, 2, 3, 50)
        ]
        assert spread == [expected, 2 * expected, 4 * expected, MAX_ENTRY_DELAY * expected]
        assert pacer.outage_delay(50, None) == MAX_OUTAGE_DELAY * expected
        assert pacer.outage_delay(1, 9999999.0) == MAX_RETRY_AFTER
