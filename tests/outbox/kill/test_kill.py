"""Gateways that are killed at random moments, while they keep and while they deliver."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.doubles.cut_line import CutLine
from tests.outbox.kill.ward import (
    Result,
    Scene,
    Ward,
    assert_nothing_lost_or_doubled,
    settings,
)
from tests.outbox.postgres_server import PostgresServer, postgres_server
from tests.outbox.replica import Replica

PATIENTS, EACH = 30, 8
Opened = Callable[[str, int], AbstractAsyncContextManager[Scene]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a scene with so many gateways on one outbox, whose line is cut."""

    @contextlib.asynccontextmanager
    async def opening(outbox_url: str, count: int) -> AsyncIterator[Scene]:
        platform_log: list[str] = []
        sandbox = Sandbox(SandboxOptions(port=0, lenient=True), log=platform_log.append)
        await sandbox.start()
        port = int(sandbox.origin.rpartition(":")[2])
        async with CutLine(port) as line, aiohttp.ClientSession() as session:
            made = settings(sandbox, line, outbox_url)
            replicas = [Replica(f"gateway{n}", tmp_path, made) for n in range(count)]
            try:
                await asyncio.gather(*(replica.start() for replica in replicas))
                line.cut()
                yield Scene(sandbox, line, replicas, session, platform_log)
            finally:
                for replica in replicas:
                    replica.kill()
        await sandbox.stop()

    return opening


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    yield from postgres_server()


def results() -> list[list[Result]]:
    """Hundreds of results; a few are such as must not be sent twice."""
    return [
        [Result(patient, number, conditional=number % 8 != 7) for number in range(EACH)]
        for patient in range(PATIENTS)
    ]


async def send_while(scene: Scene, kills: Callable[[], object]) -> Ward:
    """Send all results while something else happens."""
    ward = Ward(scene.replicas, scene.session)
    async with asyncio.TaskGroup() as group:
        for each in results():
            group.create_task(ward.send_all(each))
        group.create_task(kills())  # type: ignore[arg-type]
    return ward


def tear(wal: Path) -> None:
    """What a power cut leaves of a write that was not finished: a part of it at the log's end."""
    with wal.open("ab") as file:
        file.write(random.randbytes(1500))  # noqa: S311 - no secret


async def test_no_other_program_gets_the_port_of_a_killed_gateway(
    opened: Opened, tmp_path: Path
) -> None:
    """What sends to it would take the other program's responses for the gateway's."""
    async with opened(f"sqlite:///{tmp_path}/outbox.db", 1) as scene:
        (gateway,) = scene.replicas
        gateway.kill()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", gateway.ports[0]))


async def test_a_killed_gateway_loses_and_doubles_nothing(opened: Opened, tmp_path: Path) -> None:
    """Hundreds of writes without a line, SIGKILL at random moments: each is there exactly once."""
    async with opened(f"sqlite:///{tmp_path}/outbox.db", 1) as scene:
        (gateway,) = scene.replicas

        async def kill(times: int) -> None:
            for _ in range(times):
                await asyncio.sleep(random.uniform(0.2, 1.5))  # noqa: S311 - no secret
                gateway.kill()
                tear(tmp_path / "outbox.db-wal")
                await gateway.start()

        ward = await send_while(scene, lambda: kill(3))
        await scene.line.mend()
        await kill(2)
        sent = [each for series in results() for each in series]
        await assert_nothing_lost_or_doubled(sent, ward, scene, of=gateway)


async def test_a_replica_takes_over_from_a_killed_one(
    opened: Opened, server: PostgresServer
) -> None:
    """Two gateways share a PostgreSQL; each is killed and started, then one stays away."""
    url = await server.fresh_database("outbox_e2e")
    async with opened(url, 2) as scene:
        victim, survivor = scene.replicas

        async def kill() -> None:
            for replica in (victim, survivor):
                await asyncio.sleep(random.uniform(0.2, 1.5))  # noqa: S311 - no secret
                replica.kill()
                await replica.start()

        ward = await send_while(scene, kill)
        await scene.line.mend()
        await asyncio.sleep(random.uniform(0.5, 2.5))  # noqa: S311 - no secret
        victim.kill()
        sent = [each for series in results() for each in series]
        await assert_nothing_lost_or_doubled(sent, ward, scene, of=survivor)
