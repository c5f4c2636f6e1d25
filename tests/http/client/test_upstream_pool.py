"""Which caller gets a connection to the platform when all are in use."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import GatewayError
from gateway.http.client.upstream_connect import ForwardProxy, UpstreamOrigin
from gateway.http.client.upstream_connection import UpstreamConnection
from gateway.http.client.upstream_pool import DELIVERIES, UpstreamPool
from tests.doubles.clock import FakeClock
from tests.doubles.platform import Platform, PlatformConnection, after, fhir, outcome, silence
from tests.doubles.processes import free_port
from tests.doubles.sections import platform_settings
from tests.doubles.waiting import wait_until
from tests.doubles.wire import Wire, fetch, get
from tests.http.client.tls_ends import read

READ = get("/fhir/Patient/1")

MakePool = Callable[..., UpstreamPool]


@pytest.fixture
async def make_pool(platform: Platform) -> AsyncIterator[MakePool]:
    """Return a function that makes pools of connections to the platform, or to another port."""
    made: list[UpstreamPool] = []

    def make(
        size: int = 1,
        port: int | None = None,
        *,
        shared: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> UpstreamPool:
        pool = UpstreamPool(
            UpstreamOrigin("127.0.0.1", port or platform.port, None),
            settings=platform_settings(max_connections=size),
            clock=clock or asyncio.get_running_loop().time,
            shared=shared,
        )
        pool.open()
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


async def exchange(connection: UpstreamConnection) -> None:
    connection.start_exchange(expect_body=True)
    connection.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await read(connection)


async def used(pool: UpstreamPool) -> UpstreamConnection:
    """Return a connection that is in use and may be reused."""
    connection = await pool.acquire()
    await exchange(connection)
    return connection


async def waiting(
    pool: UpstreamPool, caller: str = "", *, new: bool = False
) -> asyncio.Task[UpstreamConnection]:
    task = asyncio.create_task(pool.acquire(caller, force_new=new))
    await asyncio.sleep(0)
    return task


async def test_a_pipelining_caller_does_not_delay_others(start_gateway, platform: Platform) -> None:
    platform.respond(after(0.01, fhir()))
    async with (
        start_gateway(platform={"max_connections": 1, "connect_timeout": 30}) as gateway,
        await Wire.open(gateway.address) as greedy,
    ):
        await greedy.send(READ * 20)

        async def ask_on() -> None:
            while True:
                await greedy.read_response()
                await greedy.send(READ)

        asking = asyncio.create_task(ask_on())
        await platform.wait_for_requests(2)
        statuses = [(await fetch(gateway.address, READ)).status for _ in range(3)]
        asking.cancel()
        assert statuses == [200, 200, 200]


@pytest.mark.parametrize("idle", [True, False], ids=["kept", "room"])
async def test_a_freed_connection_goes_to_the_first_waiter(make_pool: MakePool, idle: bool) -> None:
    pool = make_pool()
    holder = await used(pool)
    first = await waiting(pool)
    second = await waiting(pool)
    if not idle:
        holder.data_received(b"surplus")
    pool.release(holder)
    assert pool.try_acquire_idle() is None
    third = await waiting(pool)
    for task in (first, second, third):
        connection = await task
        assert (connection is holder) is idle
        await exchange(connection)
        holder = connection
        idle = True
        pool.release(connection)


async def test_the_caller_with_the_fewest_connections_is_next(make_pool: MakePool) -> None:
    """Equals in the order of arrival."""
    pool = make_pool(size=3)
    holders = [await pool.acquire("many") for _ in range(3)]
    came = ["many", "many", "late", "some", "some", "many"]
    waiters = [(caller, await waiting(pool, caller)) for caller in came]
    order = []
    for _ in came:
        holder = holders.pop(0)
        await exchange(holder)
        pool.release(holder)
        done, _ = await asyncio.wait(
            [task for _, task in waiters], timeout=60, return_when=asyncio.FIRST_COMPLETED
        )
        for caller, task in waiters:
            if task in done:
                order.append(caller)
                holders.append(task.result())
        waiters = [each for each in waiters if each[1] not in done]
    assert order == ["late", "some", "many", "many", "some", "many"]


async def test_callers_are_served_before_deliveries(make_pool: MakePool) -> None:
    pool = make_pool(size=1)
    holder = await pool.acquire("busy")
    delivery = await waiting(pool, DELIVERIES)
    caller = await waiting(pool, "busy")
    for waiter in (caller, delivery):
        await exchange(holder)
        pool.release(holder)
        holder = await waiter


@pytest.mark.parametrize(
    ("size", "shared", "most"),
    [(1, True, 1), (2, True, 2), (32, True, 32), (33, True, 32), (40, True, 39), (40, False, 40)],
)
async def test_one_caller_cannot_have_all_of_many_connections(
    make_pool: MakePool, size: int, shared: bool, most: int
) -> None:
    """In a small pool, and where no other caller is configured, it can."""
    pool = make_pool(size, shared=shared)
    for _ in range(most):
        await pool.acquire("many")
    more = [await waiting(pool, "many", new=new) for new in (False, True)]
    others = [await pool.acquire("other") for _ in range(size - most)]
    assert [task.done() for task in more] == [False, False]
    for connection in others:
        await exchange(connection)
        pool.release(connection)
    assert [task.done() for task in more] == [False, False]
    assert pool.try_acquire_idle("many") is None
    assert pool.connection_counts() == {"idle": size - most, "active": most, "connecting": 0}
    for task in more:
        task.cancel()
    await asyncio.gather(*more, return_exceptions=True)


@pytest.mark.parametrize(
    ("announced", "seconds"),
    [
        ("timeout=5", 4.0),  # Apache httpd 2.4, Node.js 20
        ("timeout=5, max=100", 4.0),
        ("max=7,Timeout = 2", 1.0),
        ("timeout=1", 0.5),
        ("timeout=120", 15.0),
        ("max=7", 15.0),
        ("timeout=soon", 15.0),
    ],
)
async def test_an_idle_connection_is_used_again_until_shortly_before_its_announced_end(
    make_pool: MakePool, platform: Platform, announced: str, seconds: float
) -> None:
    platform.respond(fhir(b"{}", 200, ("Keep-Alive", announced)))
    clock = FakeClock()
    pool = make_pool(clock=clock)
    connection = await used(pool)
    pool.release(connection)
    clock.now += seconds - 0.1
    assert pool.try_acquire_idle() is connection
    pool.release(connection)
    clock.now += seconds
    assert pool.try_acquire_idle() is None


async def test_idle_connection_is_closed_for_waiter_that_needs_new_one(make_pool: MakePool) -> None:
    pool = make_pool()
    first = await used(pool)
    new = await waiting(pool, new=True)
    behind = await waiting(pool)
    pool.release(first)
    second = await new
    assert second is not first
    pool.release(second)
    pool.release(await behind)


@pytest.mark.parametrize("idle", [True, False], ids=["kept", "room"])
async def test_a_connection_given_to_a_cancelled_waiter_is_passed_on(
    make_pool: MakePool, idle: bool
) -> None:
    pool = make_pool()
    holder = await used(pool)
    leaver = await waiting(pool)
    behind = await waiting(pool)
    if not idle:
        holder.data_received(b"surplus")
    pool.release(holder)
    leaver.cancel()
    connection = await behind
    assert leaver.cancelled()
    assert (connection is holder) is idle
    assert pool.connection_counts() == {"idle": 0, "active": 1, "connecting": 0}
    await exchange(connection)
    pool.release(connection)
    assert pool.connection_counts() == {"idle": 1, "active": 0, "connecting": 0}


async def test_a_cancelled_waiter_is_skipped(make_pool: MakePool) -> None:
    pool = make_pool()
    holder = await used(pool)
    leaver = await waiting(pool)
    behind = await waiting(pool)
    leaver.cancel()
    pool.release(holder)
    assert await behind is holder


async def test_a_connection_lost_before_its_waiter_resumes_is_replaced(make_pool: MakePool) -> None:
    pool = make_pool()
    holder = await used(pool)
    taker = await waiting(pool)
    pool.release(holder)
    holder.abort()
    connection = await taker
    assert connection is not holder
    assert pool.connection_counts() == {"idle": 0, "active": 1, "connecting": 0}
    await exchange(connection)
    pool.release(connection)


async def test_a_failed_attempt_to_connect_frees_its_slot(make_pool: MakePool) -> None:
    pool = make_pool(port=free_port())
    waiters = [await waiting(pool) for _ in range(4)]
    results = await asyncio.gather(*waiters, return_exceptions=True)
    reasons = {each.reason.code for each in results if isinstance(each, GatewayError)}
    assert reasons == {"upstream-unreachable"}
    assert pool.connection_counts() == {"idle": 0, "active": 0, "connecting": 0}


async def test_at_most_33_connections_are_made_at_a_time(platform: Platform) -> None:
    """All 40 waiters get the error."""
    platform.respond(silence)
    pool = UpstreamPool(
        UpstreamOrigin("platform.test", 80, None, ForwardProxy("127.0.0.1", platform.port)),
        settings=platform_settings(connect_timeout=5, max_connections=40),
        clock=asyncio.get_running_loop().time,
    )
    tries = [asyncio.create_task(pool.acquire()) for _ in range(40)]
    await platform.wait_for_requests(33)
    await asyncio.sleep(0.2)
    assert len(platform.requests) == 33
    results = await asyncio.gather(*tries, return_exceptions=True)
    told = {str(result).partition(":")[0] for result in results}
    assert told == {"upstream-unreachable"}


async def test_a_draining_pool_serves_its_waiters(make_pool: MakePool) -> None:
    """And keeps no connection."""
    pool = make_pool()
    holder = await used(pool)
    waiters = [await waiting(pool) for _ in range(2)]
    pool.drain()
    pool.release(holder)
    for waiter in waiters:
        connection = await waiter
        await exchange(connection)
        pool.release(connection)
    assert pool.connection_counts() == {"idle": 0, "active": 0, "connecting": 0}


async def test_a_wait_that_was_given_up_does_not_limit_the_response(
    make_pool: MakePool, platform: Platform
) -> None:
    """What has arrived may be forwarded to a slow caller before more is awaited."""
    go_on = asyncio.Event()

    async def respond(connection: PlatformConnection) -> None:
        connection.writer.write(b"HTTP/1.1 422 X\r\nContent-Length: 2\r\n\r\n{")
        await go_on.wait()
        connection.writer.write(b"}")

    platform.script(respond, silence)
    clock = FakeClock()
    pool = make_pool(2, clock=clock)
    connection, other = await pool.acquire(), await pool.acquire()
    for each in connection, other:
        each.start_exchange(expect_body=True)
        each.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await platform.wait_for_requests(1 + (each is other))
    while connection.head() is None:
        await connection.next_event()
    assert await connection.read() == [b"{"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connection.read(), 0.01)
    clock.now += 3600
    # The sweep that ends this one's wait has seen the first one, too.
    await wait_until(lambda: other.transport is None)
    go_on.set()
    assert await connection.read() == [b"}"]


async def test_the_unread_rest_of_a_request_keeps_no_connection_open(
    make_pool: MakePool, platform: Platform
) -> None:
    size = 32 * 1024 * 1024
    arrived = asyncio.get_running_loop().create_future()

    async def refuse(connection: PlatformConnection) -> None:
        connection.writer.transport.pause_reading()
        connection.writer.write(outcome(413))
        await lost.wait()
        connection.writer.transport.resume_reading()
        got = 0
        with contextlib.suppress(ConnectionError):
            while data := await connection.reader.read(1_000_000):
                got += len(data)
        arrived.set_result(got)

    lost = asyncio.Event()
    platform.script(refuse)
    pool = make_pool()
    connection = await pool.acquire()
    connection.start_exchange(expect_body=True)
    connection.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    connection.write(bytes(size - 1))
    await read(connection)
    connection.data_received(b"surplus")
    pool.release(connection)
    await wait_until(lambda: connection.transport is None)
    lost.set()
    assert await arrived < size


@pytest.mark.parametrize("seed", range(5))
async def test_lost_and_cancelled_connections_do_not_exceed_the_limit(
    make_pool: MakePool, platform: Platform, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    # As many as one caller may have all of, but not one more.
    size = 32
    pool = make_pool(size, shared=True)
    callers = [f"caller {number}" for number in range(4)]
    served = 0

    async def visit() -> None:
        nonlocal served
        caller = chance.choice(callers)
        connection = pool.try_acquire_idle(caller) or await pool.acquire(
            caller, force_new=chance.random() < 0.2
        )
        assert sum(pool.connection_counts().values()) <= size
        try:
            await exchange(connection)
            if chance.random() < 0.2:
                connection.abort()
                pool.release(connection)
        finally:
            if not connection.complete:
                connection.abort()
            pool.release(connection)
        assert sum(pool.connection_counts().values()) <= size
        served += 1

    tasks = [asyncio.create_task(visit()) for _ in range(200)]
    for number in range(20):
        await asyncio.sleep(0.001)
        tasks[chance.randrange(200)].cancel()
        if number % 5 == 0:
            platform.drop_connections()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    unserved = [each for each in results if isinstance(each, AssertionError | GatewayError)]
    assert not unserved
    assert served > 20
    assert (pool.connection_counts()["active"], pool.connection_counts()["connecting"]) == (0, 0)
    # No connection is counted for any caller any more.
    for caller in callers:
        held = [await pool.acquire(caller) for _ in range(size)]
        for connection in held:
            connection.abort()
            pool.release(connection)
