"""Several gateways on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.audit.chained import records
from tests.doubles.command import dhp
from tests.doubles.load import Load
from tests.doubles.platform import Platform, after, fhir
from tests.doubles.processes import free_port
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch, get
from tests.lifecycle.conftest import Service, StartService
from tests.store.redis_server import RedisServer, patient, redis_server

SHARED = {"reuse_port": True}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    yield from redis_server(tmp_path)


@pytest.fixture
def port() -> int:
    return free_port()


def on(port: int, **more: Any) -> dict[str, Any]:
    return {"address": f"127.0.0.1:{port}", **more}


async def start_error(service: Service) -> str:
    """Return the last line of the log of a gateway that does not start."""
    assert await service.ended() == 3
    return service.process.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("first", "second"), [({}, {}), (SHARED, {}), ({}, SHARED)], ids=["none", "first", "second"]
)
async def test_a_port_is_shared_only_where_all_have_reuse_port(
    start_service: StartService, port: int, first: dict[str, Any], second: dict[str, Any]
) -> None:
    running = await start_service.ready(listen=on(port, **first))
    added = start_service(listen=on(port, **second))
    assert f"listen.address: cannot listen on 127.0.0.1:{port}" in await start_error(added)
    assert (await fetch(running.address, get("/fhir/Patient/1"))).status == 200


async def test_admin_ports_are_never_shared(start_service: StartService, port: int) -> None:
    operators = free_port()
    await start_service.ready(listen=on(port, **SHARED), admin=on(operators))
    added = start_service(listen=on(port, **SHARED), admin=on(operators))
    assert f"admin.address: cannot listen on 127.0.0.1:{operators}" in await start_error(added)


async def test_restarting_replicas_in_turn_loses_nothing(
    start_service: StartService,
    platform: Platform,
    sso: Sso,
    server: RedisServer,
    tmp_path: Path,
    port: int,
) -> None:
    """One token serves all of them; each exchange is in one of two valid audits."""
    platform.respond(after(0.02, fhir()))
    files = [tmp_path / f"audit-{number}.jsonl" for number in range(2)]

    async def started(file: Path) -> Service:
        return await start_service.ready(
            *patient(),
            listen=on(port, **SHARED),
            store={"url": server.url},
            audit={"sink": "file", "path": str(file), "on_failure": "block"},
        )

    services = [await started(file) for file in files]
    loads = [Load(services[0].address, 40), Load(services[0].address, 10, once=True)]
    for load in loads:
        load.start()
    for _ in range(2):
        for number, file in enumerate(files):
            await asyncio.gather(*(load.wait_until_served(load.served + 200) for load in loads))
            await services[number].end()
            await asyncio.gather(*(load.wait_until_served(load.served + 200) for load in loads))
            services[number] = await started(file)
    for load in loads:
        await load.finish()
    for service in services:
        await service.end()
    assert [(load.failures, load.refused) for load in loads] == [({}, 0)] * 2
    assert len(sso.requests) == 1
    exchanges = [[r for r in records(file) if r["event"] == "exchange"] for file in files]
    assert all(exchanges)
    found = [record["request_id"] for each in exchanges for record in each]
    assert len(set(found)) == len(found) == sum(load.served for load in loads)
    for file in files:
        assert (await dhp("audit", "verify", file)).code == 0
