"""The request path with an outbox in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import Hospital, observation
from tests.outbox.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    yield from postgres_server()


@pytest.fixture
async def hospital(opened: Open, server: PostgresServer) -> AsyncIterator[Hospital]:
    url = await server.fresh_database("outbox_path")
    async with opened(outbox={"url": url}) as made:
        yield made


async def test_writes_are_queued_and_delivered(hospital: Hospital) -> None:
    assert (await hospital.write()).status == 200
    hospital.line.cut()
    reply = await hospital.write()
    assert reply.status == 202
    assert (await hospital.mended(reply.location)).status == 200
    assert (await hospital.write()).status == 200
    assert len(hospital.writes()) == 3


async def test_queued_writes_are_not_overtaken_while_the_database_is_unavailable(
    hospital: Hospital, server: PostgresServer
) -> None:
    """It is unknown which writes wait, so that new ones are refused; all else passes."""
    server.stop()
    try:
        refused = await hospital.write()
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "outbox-full")
        assert (await hospital.ask("PUT", "/Observation/2", observation())).status == 200
        assert (await hospital.ask("GET", "/_outbox")).status == 503
    finally:
        server.start()
    assert [target for _, target in hospital.writes()] == ["/r5/Observation/2"]
    assert (await hospital.write()).status == 200
