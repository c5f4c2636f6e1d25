"""Platforms that respond 409 to concurrent writes, as those with serializable transactions do."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.http.client.upstream_response import UpstreamResponse
from gateway.outbox.delivery import MAX_PARALLEL
from gateway.outbox.delivery_pacing import ParallelLimit
from gateway.outbox.entry import EntryState, NewEntry, QueuedRequest, RecoveryMode
from gateway.outbox.store.outbox_store import OutboxStore
from tests.doubles.clock import FakeClock
from tests.doubles.platform import Platform as ServedPlatform
from tests.doubles.platform import PlatformConnection, fhir, outcome, read_body
from tests.doubles.waiting import wait_until
from tests.outbox.attempts import present
from tests.outbox.path.conftest import opening
from tests.outbox.path.harness import ASYNC, OutboxSetup, observation
from tests.outbox.path.test_platform_sender import Platform, answer, bundle, new_sender, request
from tests.outbox.postgres_server import PostgresServer
from tests.outbox.running import Process, Running

OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "conflict"}]}
MATCH = (b"If-Match", b'W/"3"')


def conflicts(count: int) -> list[UpstreamResponse]:
    return [answer(409, OUTCOME) for _ in range(count)]


def transaction(version: str = "", coding: str = "", xml: bool = False) -> QueuedRequest:
    made = bundle("transaction")
    if xml:
        match = f"<ifMatch value='{version}'/>" if version else ""
        body = f"<Bundle xmlns='http://hl7.org/fhir'><entry><request>{match}</request></entry>"
        plain = f"{body}</Bundle>".encode()
    else:
        named = {"ifMatch": version} if version else {}
        entry = {"request": {"method": "PUT", "url": "Patient/5", **named}}
        plain = json.dumps({"resourceType": "Bundle", "entry": [entry]}).encode()
    if not coding:
        return replace(made, body=plain)
    fields = (*made.fields, (b"Content-Encoding", coding.encode()))
    return replace(made, body=gzip.compress(plain), fields=fields)


def matching(write: QueuedRequest) -> QueuedRequest:
    return replace(write, fields=(*write.fields, MATCH))


DELETION = replace(request("DELETE"), interaction="delete", body=b"")
WITHOUT = {
    "create": request(),
    "update": request("PUT"),
    "delete": DELETION,
    "conditional create": request(condition=b"identifier=urn:lab|7"),
    "transaction": transaction(),
    "transaction, gzip": transaction(coding="gzip"),
    "transaction, XML": transaction(xml=True),
}
WITH = {
    **{name: matching(WITHOUT[name]) for name in ("create", "update", "delete")},
    "conditional create": matching(WITHOUT["conditional create"]),
    "transaction": transaction('W/"3"'),
    "transaction, gzip": transaction('W/"3"', coding="x-gzip"),
    "transaction, unknown coding": transaction(coding="br"),
    "transaction, XML": transaction('W/"3"', xml=True),
    "transaction, field": matching(transaction()),
}
# A write, whether it names a version, and the number of 409 that it gets.
EVERY_WRITE = [
    *((write, False, collisions) for write in WITHOUT.values() for collisions in (8, 9)),
    *((write, True, 9) for write in WITH.values()),
]


def entry_of(write: QueuedRequest, key: str = "", **named: object) -> NewEntry:
    """A new entry that is not to be sent again after a doubt."""
    keys = frozenset((key or write.request_id,))
    return NewEntry("lis", write, keys, RecoveryMode.HOLD, **named)  # type: ignore[arg-type]


async def final_state(running: Running, entry_id: str) -> EntryState:
    """Move the clock until the entry has ended, and return its state."""
    for _ in range(100):
        await running.wait_until_idle()
        found = await present(running.store, entry_id)
        if found.finished_at is not None:
            return found.state
        await running.pass_time(1)
    raise AssertionError("still waiting")


@pytest.mark.parametrize(
    ("write", "has_version", "collisions"),
    EVERY_WRITE,
    ids=[
        *(f"{name}, {count}" for name in WITHOUT for count in (8, 9)),
        *(f"{n}, version" for n in WITH),
    ],
)
async def test_a_409_is_retried_without_a_version_only(
    clocked_store: OutboxStore,
    clock: FakeClock,
    write: QueuedRequest,
    has_version: bool,
    collisions: int,
) -> None:
    platform = Platform(*conflicts(collisions), answer(201))
    async with Process(clocked_store, new_sender(platform), clock).running() as running:
        entry = await running.put(entry_of(write))
        began = clock()
        state = await final_state(running, entry.id)
    is_refused = has_version or collisions > 8
    assert state is (EntryState.FAILED if is_refused else EntryState.DELIVERED)
    assert len(platform.requests) == (1 if has_version else min(9, collisions + 1))
    # Pauses of 62 s, and up to a second each until the delivery looks; the clock also moves while
    # a thread decodes.
    assert clock() - began < 90
    response = await clocked_store.response(entry.id)
    assert response is not None
    if is_refused:
        assert (response.status, response.reason) == (409, "")
        assert json.loads(response.body) == OUTCOME


async def test_delays_after_409_grow(clocked_store: OutboxStore, clock: FakeClock) -> None:
    moments = []

    class Watched(Platform):
        async def send(self, *passed: object) -> object:  # type: ignore[override]
            moments.append(clock())
            return await super().send(*passed)  # type: ignore[arg-type]

    platform = Watched(*conflicts(9))
    async with Process(clocked_store, new_sender(platform), clock).running() as running:
        entry = await running.put(entry_of(request()))
        await final_state(running, entry.id)
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    # The delivery looks for due entries once a second.
    for pause, least in zip(pauses, (0.25, 0.5, 1, 2, 4, 8, 16, 30), strict=True):
        assert least <= pause <= least + 2


async def test_the_number_of_409_survives_a_restart(
    clocked_store: OutboxStore, clock: FakeClock
) -> None:
    first = Platform(*conflicts(5))
    async with Process(clocked_store, new_sender(first), clock).running() as running:
        entry = await running.put(entry_of(request()))
        while len(first.requests) < 5:
            await running.pass_time(1)
        await running.wait_for_state(entry, EntryState.WAITING)
    second = Platform(*conflicts(4))
    async with Process(clocked_store, new_sender(second), clock).running() as running:
        assert await final_state(running, entry.id) is EntryState.FAILED
        assert len(second.requests) == 4
        second._answers += [*conflicts(1), answer(201)]
        await clocked_store.apply_action(entry.id, EntryState.WAITING)
        assert await final_state(running, entry.id) is EntryState.DELIVERED


async def test_a_409_delays_its_own_patient_only(
    clocked_store: OutboxStore, clock: FakeClock
) -> None:
    platform = Platform(answer(409, OUTCOME), answer(201), answer(201), answer(201))
    async with Process(clocked_store, new_sender(platform), clock).running() as running:
        named = [replace(request("PUT"), target_suffix=f"/Observation/{n}") for n in range(3)]
        first = await running.put(entry_of(named[0], "a"))
        second = await running.put(entry_of(named[1], "a"))
        await wait_until(lambda: len(platform.requests) == 1)
        other = await running.put(entry_of(named[2], "b"))
        await running.wait_for_state(other, EntryState.DELIVERED)
        assert await running.state(second) is EntryState.WAITING
        assert await final_state(running, second.id) is EntryState.DELIVERED
        assert await running.state(first) is EntryState.DELIVERED
    targets = [seen.target.decode()[-1] for seen in platform.requests]
    assert targets == ["0", "2", "0", "1"]


def test_409_halves_the_number_of_parallel_attempts() -> None:
    limit = ParallelLimit(MAX_PARALLEL)
    seen = []
    for _ in range(6):
        limit.on_collision()
        seen.append(limit.current)
    assert seen == [8, 4, 2, 1, 1, 1]
    for _ in range(15 * 16 - 1):
        limit.on_success()
    assert (limit.current, limit.is_reduced) == (15, True)
    limit.on_success()
    limit.on_success()
    assert (limit.current, limit.is_reduced) == (16, False)


# So many that each gateway has several rounds of parallel attempts.
WRITES = 60


@dataclass
class SerializingPlatform:
    """A server whose writes are serializable transactions, such as Medplum on PostgreSQL.

    Of two writes that overlap in time the first to commit is done. The other is told 409 at its end
    and has done nothing.
    """

    done: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    _commits: int = 0

    async def respond(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        if connection.request.method == "GET":
            connection.writer.write(fhir())
            return
        snapshot = self._commits
        await asyncio.sleep(0.01)
        if self._commits != snapshot:
            self.refused += 1
            connection.writer.write(outcome(409))
            return
        self._commits += 1
        self.done[connection.request.target] += 1
        connection.writer.write(fhir(code=200))


async def test_two_gateways_deliver_to_a_platform_that_cannot_serialize(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = await server.fresh_database("outbox_collisions")
    serializing = SerializingPlatform()
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(ServedPlatform())
        platform.respond(serializing.respond)
        shared = {"url": url}
        first, second = [
            await stack.enter_async_context(opening(platform, tmp_path, outbox=shared))
            for _ in range(2)
        ]
        for setup in (first, second):
            setup.relay.cut()
        for number in range(WRITES):
            setup = (first, second)[number % 2]
            kept = await setup.ask(
                "PUT", f"/Observation/{number}", observation(number, number), **ASYNC
            )
            assert kept.status == 202
        await first.relay.restore()
        await second.relay.restore()
        await wait_until_delivered(first, WRITES)
    assert serializing.refused > 0
    assert set(serializing.done.values()) == {1}


async def wait_until_delivered(setup: OutboxSetup, count: int) -> None:
    """Wait until so many entries are delivered; none may fail."""
    name = "dhp_gateway_outbox_entries"
    while await setup.gateway.metric(name, state="delivered") < count:
        assert await setup.gateway.metric(name, state="failed") == 0
        await asyncio.sleep(0.1)
