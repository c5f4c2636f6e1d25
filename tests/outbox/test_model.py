"""Random failures, crashes, restarts, retries and drops, checked against a model.

Whatever happens: what is of one order takes effect in the order of arrival, nothing is lost, and
nothing is done twice that must not be.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.delivery import LEASE_SECONDS
from gateway.outbox.entry import (
    ALL_KEYS,
    BLOCKING,
    NEEDS_OPERATOR,
    EntryState,
    OutboxEntry,
    QueuedRequest,
    RecoveryMode,
    StoredResponse,
)
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.sealed_contents import ContentCipher
from gateway.outbox.store.store_types import EntryStateError
from tests.doubles.clock import FakeClock
from tests.outbox.drafts import ROOMY, draft
from tests.outbox.places import KEY, ClockWall, Place, PostgresPlace, SqlitePlace, Wall
from tests.outbox.postgres_server import PostgresServer
from tests.outbox.running import Process, Running

KINDS = {
    "PUT": ("PUT", RecoveryMode.RESEND),
    "DELETE": ("DELETE", RecoveryMode.RESEND),
    "conditional create": ("POST", RecoveryMode.RESEND),
    "create with identifier": ("POST", RecoveryMode.VERIFY),
    "create": ("POST", RecoveryMode.HOLD),
}


class Fault(Enum):
    """What happens to one request on its way to the platform and back."""

    FINE = "it arrives, and so does the answer"
    DOWN = "no connection"
    LOST = "it does not arrive, which nobody can tell"
    ANSWER_LOST = "it has its effect, the answer is lost"
    BROKEN = "500, without effect"
    BROKEN_AFTER = "500, after the effect"
    BUSY = "503"
    HANGS = "no answer until somebody gives up; without effect"
    HANGS_AFTER = "it has its effect, and no answer until somebody gives up"


_EFFECTIVE = {Fault.FINE, Fault.ANSWER_LOST, Fault.BROKEN_AFTER, Fault.HANGS_AFTER}


@dataclass
class Known:
    """The model's record of an entry."""

    entry: OutboxEntry
    orders: frozenset[str]
    kind: str
    is_rejected: bool
    applied: int = 0
    retries: int = 0
    closed: bool = False

    def meets(self, other: Known) -> bool:
        return bool(self.orders & other.orders) or ALL_KEYS in (self.orders, other.orders)


@dataclass
class ModelPlatform:
    """A `Sender` to a platform that remembers every effect."""

    known: dict[str, Known] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    effects: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hanging: int = 0

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        known = self.known[entry.id]
        self._check_order(known)
        faults = self.faults.popleft() if self.faults else Fault.FINE
        if faults in (Fault.DOWN, Fault.BUSY):
            return AttemptResult(cause="upstream-unreachable")
        if faults in _EFFECTIVE and not known.is_rejected:
            self._apply(known)
        if faults in (Fault.HANGS, Fault.HANGS_AFTER):
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
        if faults in (Fault.LOST, Fault.ANSWER_LOST):
            return AttemptResult(cause="upstream-timeout", may_have_effect=True)
        if faults in (Fault.BROKEN, Fault.BROKEN_AFTER):
            return AttemptResult(StoredResponse(500))
        return AttemptResult(StoredResponse(422 if known.is_rejected else 200))

    async def probe(self) -> None:
        """Do nothing: this platform serves no other requests."""

    async def verify(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        known = self.known[entry.id]
        faults = self.faults.popleft() if self.faults else Fault.FINE
        if faults is not Fault.FINE:
            return AttemptResult(cause="upstream-unreachable")
        if known.applied:
            return AttemptResult(StoredResponse(200), VerificationStatus.PRESENT)
        return AttemptResult(finding=VerificationStatus.ABSENT)

    def _check_order(self, known: Known) -> None:
        number = known.entry.number
        for other in self.known.values():
            before = other.entry.number < number and other.meets(known)
            if before and not other.applied and not other.closed:
                self.wrong.append(f"{number} was sent before {other.entry.number}")

    def _apply(self, known: Known) -> None:
        number = known.entry.number
        for other in self.known.values():
            after = other.entry.number > number and other.meets(known)
            if after and other.entry.number in self.effects:
                self.wrong.append(f"{number} took effect after {other.entry.number}")
        self.effects.append(number)
        known.applied += 1
        once = known.kind in ("create", "create with identifier")
        if once and known.applied > 1 + known.retries:
            self.wrong.append(f"{number} ({known.kind}) was done twice")


@dataclass
class Shared:
    """The processes that deliver from one outbox."""

    loop: asyncio.Runner
    place: Place
    platform: ModelPlatform
    clock: FakeClock
    processes: list[tuple[OutboxStore, Running]] = field(default_factory=list)

    async def start(self) -> None:
        store = OutboxStore(
            database=self.place.database(), cipher=ContentCipher(KEY), settings=ROOMY
        )
        await store.prepare()
        running = Process(store, self.platform, self.clock).make()
        running.task = asyncio.get_running_loop().create_task(running.delivery.run())
        self.processes.append((store, running))

    async def crash(self, index: int) -> None:
        store, running = self.processes.pop(index)
        assert running.task is not None
        running.task.cancel()
        await asyncio.wait([running.task])
        await store.close()

    async def drain(self, index: int) -> None:
        store, running = self.processes.pop(index)
        await running.delivery.drain(0.05)
        assert running.task is not None
        await running.task
        await store.close()

    async def wait_until_quiet(self) -> None:
        """Wait until nothing moves but what hangs."""
        calm = 0
        while calm < 4:
            await asyncio.sleep(0.0005)
            busy = any(store.shielded_tasks._tasks for store, _ in self.processes)
            in_hand = sum(running.delivery.active_attempts for _, running in self.processes)
            calm = 0 if busy or in_hand > self.platform.hanging else calm + 1

    async def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            await self.clock.advance(min(seconds, 5.0))
            seconds -= 5.0
            await self.wait_until_quiet()


@dataclass(frozen=True)
class Write:
    """What comes in."""

    orders: frozenset[str]
    kind: str
    is_rejected: bool


WRITES = st.builds(
    Write,
    st.frozensets(st.sampled_from("abcdef"), min_size=1, max_size=2) | st.just(ALL_KEYS),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([False] * 9 + [True]),
)
FAULTS = st.lists(st.sampled_from(Fault), min_size=2, max_size=12)


MakePlace = Callable[[asyncio.Runner, Wall], Place]


class OutboxMachine(RuleBasedStateMachine):
    """Two processes at most share one outbox; the platform remembers all."""

    def __init__(self, make_place: MakePlace) -> None:
        super().__init__()
        clock = FakeClock()
        self.platform = ModelPlatform()
        self.runner = asyncio.Runner()
        place = make_place(self.runner, ClockWall(clock))
        self.shared = Shared(self.runner, place, self.platform, clock)
        self.runner.run(self.shared.start())

    @property
    def running(self) -> Running:
        return self.shared.processes[0][1]

    @initialize(writes=st.lists(WRITES, min_size=4, max_size=12), faults=FAULTS)
    def begin(self, writes: list[Write], faults: list[Fault]) -> None:
        self.platform.faults.extend(faults)
        for each in writes:
            self.runner.run(self._put(each))

    @rule(write=WRITES, faults=FAULTS)
    def put(self, write: Write, faults: list[Fault]) -> None:
        self.platform.faults.extend(faults)
        self.runner.run(self._put(write))

    @rule(faults=FAULTS)
    def change_faults(self, faults: list[Fault]) -> None:
        self.platform.faults.extend(faults)

    @rule(seconds=st.sampled_from([1, 5, 15, 40]))
    def pass_time(self, seconds: float) -> None:
        self.runner.run(self.shared.pass_time(seconds))

    @precondition(lambda self: len(self.shared.processes) < 2)
    @rule()
    def start_another(self) -> None:
        self.runner.run(self.shared.start())

    @rule(index=st.integers(0, 1), gently=st.booleans())
    def restart(self, index: int, gently: bool) -> None:
        """A process ends, by a crash or in good order, and another one takes its place."""
        self.runner.run(self._restart(index, gently))

    @precondition(lambda self: self.platform.known)
    @rule(
        data=st.data(),
        to=st.sampled_from([EntryState.WAITING, EntryState.CANCELLED, EntryState.DROPPED]),
    )
    def decide(self, data: st.DataObject, to: EntryState) -> None:
        entry_id = data.draw(st.sampled_from(list(self.platform.known)))
        self.runner.run(self._decide(entry_id, to))

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.platform.wrong == []

    @invariant()
    def states_tell_the_truth(self) -> None:
        """Delivered means done; cancelled, and what may be cancelled, means not done."""
        for entry in self.runner.run(self._listed()):
            known = self.platform.known[entry.id]
            if entry.state is EntryState.DELIVERED:
                assert known.applied, f"{entry.number} counts as delivered"
            surely_not = entry.state is EntryState.CANCELLED or (
                entry.state in (EntryState.WAITING, EntryState.FAILED) and not entry.in_doubt
            )
            if surely_not and not known.retries:
                assert not known.applied, f"{entry.number} counts as not delivered"

    def teardown(self) -> None:
        """Without faults every entry is delivered, or waits for an operator's decision."""
        try:
            self.platform.faults.clear()
            self.runner.run(self._calm_down())
            assert self.platform.wrong == []
            self.states_tell_the_truth()
            assert len(self.runner.run(self._listed())) == len(self.platform.known)
        finally:
            self.runner.run(self._end())
            self.runner.close()

    async def _put(self, write: Write) -> None:
        method, recovery = KINDS[write.kind]
        made = draft(str(len(self.platform.known)), method=method, recovery=recovery)
        store = self.shared.processes[0][0]
        # The model must know it before the delivery does.
        entry = await store.enqueue(replace(made, ordering_keys=write.orders))
        self.platform.known[entry.id] = Known(entry, write.orders, write.kind, write.is_rejected)
        self.running.delivery.wake()
        await self.shared.wait_until_quiet()

    async def _restart(self, index: int, gently: bool) -> None:
        index %= len(self.shared.processes)
        await (self.shared.drain(index) if gently else self.shared.crash(index))
        await self.shared.start()
        await self.shared.wait_until_quiet()

    async def _decide(self, entry_id: str, to: EntryState) -> None:
        known = self.platform.known[entry_id]
        store = self.running.store
        before = await store.entry(entry_id)
        assert before is not None
        try:
            if to is EntryState.CANCELLED:
                await store.apply_action(entry_id, to, caller="lis")
            else:
                known.retries += to is EntryState.WAITING and before.state is EntryState.UNCLEAR
                await store.apply_action(entry_id, to)
        except EntryStateError:
            return
        known.closed = known.closed or to is not EntryState.WAITING
        await self.shared.wait_until_quiet()

    async def _listed(self) -> list[OutboxEntry]:
        return list(await self.running.store.entries(limit=10_000))

    async def _calm_down(self) -> None:
        # Also what hangs is given up, and asked for, and sent again.
        for _ in range(len(self.shared.processes)):
            await self._restart(0, gently=False)
        for _ in range(60):
            await self.shared.pass_time(LEASE_SECONDS)
            left = [entry for entry in await self._listed() if entry.state in BLOCKING]
            if not left:
                return
            for entry in left:
                if entry.state in NEEDS_OPERATOR:
                    self._check_stuck(entry)
                    await self._decide(entry.id, EntryState.DROPPED)
        raise AssertionError(f"still there: {left}")

    def _check_stuck(self, entry: OutboxEntry) -> None:
        known = self.platform.known[entry.id]
        if entry.state is EntryState.FAILED:
            assert known.is_rejected, f"{entry.number} failed"
        else:
            assert known.kind == "create", f"{entry.number} ({known.kind}) is unclear"

    async def _end(self) -> None:
        while self.shared.processes:
            await self.shared.crash(0)


EFFORT = settings(
    # Each takes long.
    max_examples=settings.default.max_examples // 6,
    stateful_step_count=15,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        # Each example makes a place of its own.
        HealthCheck.function_scoped_fixture,
    ],
)


def test_sqlite_conforms_to_the_model(tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(_: asyncio.Runner, wall: Wall) -> Place:
        return SqlitePlace(tmp_path / f"{next(numbers)}.db", wall)

    run_state_machine_as_test(lambda: OutboxMachine(make), settings=EFFORT)


def test_postgresql_conforms_to_the_model(server: PostgresServer) -> None:
    def make(runner: asyncio.Runner, wall: Wall) -> Place:
        runner.run(server.fresh_database("model"))
        return PostgresPlace(server, "model", wall)

    run_state_machine_as_test(lambda: OutboxMachine(make), settings=EFFORT)
