"""The request path with an outbox in PostgreSQL, which may be away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import Hospital, observation
from tests.outbox.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    yield from postgres_server()


@pytest.fixture
async def hospital(opened: Open, server: PostgresServer) -> AsyncIterator[Hospital]:
    """A gateway with an outbox in PostgreSQL."""
    url = await server.fresh_database("outbox_path")
    async with opened(outbox={"url": url}) as made:
        yield made


async def test_writes_are_kept_and_delivered(hospital: Hospital) -> None:
    """As in a file; what nothing waits for goes out directly."""
    assert (await hospital.write()).status == 200
    hospital.line.cut()
    reply = await hospital.write()
    assert reply.status == 202
    assert (await hospital.mended(reply.location)).status == 200
    assert (await hospital.write()).status == 200
    assert len(hospital.writes()) == 3


async def test_a_database_that_is_away_lets_nothing_overtake(
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
