"""Several gateways as processes of their own that share a redis-server."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body, unauthorized
from tests.doubles.sections import CLIENT_SECRET
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso, token
from tests.lifecycle.conftest import Service, StartService
from tests.store.redis_server import Failover, RedisServer, patient, redis_failover

REPLICAS = 4
REQUESTS = 50
AWAY = "tokens are not shared until it is back"
BACK = "tokens are shared again"


async def statuses(services: list[Service], requests: int) -> Counter[int]:
    """The answers to so many requests to each gateway, all at the same moment."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(url: str) -> int:
            async with session.get(url) as answer:
                await answer.read()
                return answer.status

        urls = [f"http://{service.address}/fhir/Patient/1" for service in services]
        return Counter(await asyncio.gather(*(one(url) for url in urls * requests)))


async def served(service: Service) -> Service:
    await service.wait_until(lambda: bool(service.logged("serving")), "a listener")
    return service


def alone(services: list[Service]) -> int:
    """Return how often a gateway fetched a token alone, because the server was slow."""
    return sum(len(service.logged(AWAY)) for service in services)


class NumberedSso(Sso):
    """Issues numbered tokens of a lifetime."""

    def __init__(self, lifetime: float) -> None:
        super().__init__()
        self.lifetime = lifetime
        self.numbers = itertools.count(1)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        return token(f"planted-token-{next(self.numbers)}", expires_in=self.lifetime)


async def test_replicas_share_one_token_request(
    start_service: StartService, platform: Platform, sso: Sso, server: RedisServer
) -> None:
    sso.hold()
    services = [
        start_service(
            *patient(),
            store={"url": server.url},
            sso={"token_url": sso.token_url, "timeout": 480},
            platform={"fhir_base_url": platform.url, "max_connections": 16, "connect_timeout": 40},
        )
        for _ in range(REPLICAS)
    ]
    for service in services:
        await served(service)
    answers = asyncio.ensure_future(statuses(services, REQUESTS))
    for service in services:
        await service.wait_for_metric(REQUESTS, "dhp_gateway_token_waiters")
    sso.release()
    assert await answers == {200: REPLICAS * REQUESTS}
    assert 1 <= len(sso.requests) <= 1 + alone(services)
    tokens = {f"Bearer token-{number}" for number in range(1, len(sso.requests) + 1)}
    assert [seen for seen in platform.requests if seen.header("authorization") not in tokens] == []


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    yield from redis_failover(tmp_path)


async def test_tokens_are_shared_by_the_server_that_sentinels_name_next(
    start_service: StartService, platform: Platform, failover: Failover
) -> None:
    async with NumberedSso(lifetime=2) as sso:
        shared = {"store": {"url": failover.sentinel.url}, "sso": {"token_url": sso.token_url}}
        services = [start_service(**shared) for _ in range(3)]
        for service in services:
            await service.wait_until_ready()
        await failover.sentinel.wait_for_replica()
        loads = [Load(service.address, callers=3, pause=0.01) for service in services]
        for load in loads:
            load.start()
        await sso.wait_for_requests(3)
        failover.master.kill()
        for service in services:
            await service.wait_until(
                lambda service=service: bool(service.logged(BACK)), "the next server"
            )
        for load in loads:
            await load.finish()
    assert [load.failures for load in loads] == [{}] * 3


async def test_a_restart_of_redis_costs_no_request(
    start_service: StartService, platform: Platform, server: RedisServer
) -> None:
    async with NumberedSso(lifetime=2) as sso:
        services = [
            start_service(store={"url": server.url}, sso={"token_url": sso.token_url})
            for _ in range(3)
        ]
        for service in services:
            await service.wait_until_ready()
        loads = [Load(service.address, callers=3, pause=0.01) for service in services]
        for load in loads:
            load.start()
        await sso.wait_for_requests(3)
        server.kill()
        for service in services:
            await service.wait_until(
                lambda service=service: bool(service.logged(AWAY)), "a warning"
            )
        # Each has asked the SSO by itself meanwhile.
        await sso.wait_for_requests(len(sso.requests) + 3)
        warnings = [len(service.logged(AWAY)) for service in services]
        server.start()
        for service in services:
            await service.wait_until(
                lambda service=service: bool(service.logged(BACK)), "its return"
            )
        returns = [len(service.logged(BACK)) for service in services]
        await sso.wait_for_requests(len(sso.requests) + 2)
        for load in loads:
            await load.finish()
    assert [load.failures for load in loads] == [{}] * 3
    assert all(load.served > 50 for load in loads)
    assert warnings == returns == [1] * 3


async def test_a_hanging_redis_costs_no_request(
    start_service: StartService, platform: Platform, server: RedisServer
) -> None:
    async with NumberedSso(lifetime=2) as sso:
        service = await start_service.ready(
            store={"url": server.url}, sso={"token_url": sso.token_url}
        )
        load = Load(service.address, callers=3, pause=0.01)
        load.start()
        await sso.wait_for_requests(2)
        server.freeze()
        await service.wait_until(lambda: bool(service.logged(AWAY)), "a warning")
        await sso.wait_for_requests(len(sso.requests) + 2)
        server.thaw()
        await service.wait_until(lambda: bool(service.logged(BACK)), "its return")
        await load.finish()
    assert load.failures == {}


async def test_a_gateway_starts_without_redis(
    start_service: StartService, platform: Platform, sso: Sso, server: RedisServer
) -> None:
    server.kill()
    service = await start_service.ready(store={"url": server.url})
    assert await statuses([service], 3) == {200: 3}
    assert len(service.logged(AWAY)) == 1


async def test_rejected_token_is_replaced_for_all(
    start_service: StartService, platform: Platform, sso: Sso, server: RedisServer
) -> None:
    async def judge(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        good = connection.request.header("authorization") != "Bearer token-1"
        connection.writer.write(fhir() if good else unauthorized())
        await connection.writer.drain()

    services = [start_service(*patient(), store={"url": server.url}) for _ in range(3)]
    for service in services:
        await service.wait_until_ready()
    assert 1 <= len(sso.requests) <= 1 + alone(services)
    platform.respond(judge)
    assert await statuses(services, 20) == {200: 60}
    assert 2 <= len(sso.requests) <= 2 + alone(services)


async def test_a_gateway_killed_during_its_token_request(
    start_service: StartService, platform: Platform, sso: Sso, server: RedisServer
) -> None:
    sso.hold()
    first = start_service(*patient(lease=15), store={"url": server.url})
    await sso.wait_for_requests(1)
    others = [start_service(*patient(), store={"url": server.url}) for _ in range(2)]
    for service in others:
        await served(service)
    assert len(sso.requests) <= 1 + alone(others)
    first.send(signal.SIGKILL)
    sso.release()
    for service in others:
        await service.wait_until_ready()
    assert await statuses(others, 5) == {200: 10}
    assert 2 <= len(sso.requests) <= 2 + alone(others)


async def test_a_stolen_dump_holds_no_token(
    start_service: StartService, platform: Platform, server: RedisServer
) -> None:
    async with NumberedSso(lifetime=300) as sso:
        await start_service.ready(store={"url": server.url}, sso={"token_url": sso.token_url})
        await server.save()
    dump = server.dump.read_bytes()
    assert b"dhp-gateway:1:" in dump
    assert b"planted-token" not in dump
    assert CLIENT_SECRET.encode() not in dump


async def test_the_password_is_never_shown(
    start_service: StartService, platform: Platform, sso: Sso, server: RedisServer
) -> None:
    url = server.url.replace("//", "//user:planted-password@")
    service = await start_service.ready(store={"url": url}, log={"level": "debug"})
    await service.wait_until(lambda: bool(service.logged(AWAY)), "a warning")
    assert "planted-password" not in service.process.stderr + service.process.stdout
