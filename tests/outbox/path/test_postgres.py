"""The request path with an outbox in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.outbox.path.conftest import Open
from tests.outbox.path.harness import OutboxSetup, observation
from tests.outbox.postgres_server import PostgresServer


@pytest.fixture
async def setup(opened: Open, server: PostgresServer) -> AsyncIterator[OutboxSetup]:
    url = await server.fresh_database("outbox_path")
    async with opened(outbox={"url": url}) as made:
        yield made


async def test_writes_are_queued_and_delivered(setup: OutboxSetup) -> None:
    assert (await setup.write()).status == 200
    setup.relay.cut()
    reply = await setup.write()
    assert reply.status == 202
    assert (await setup.deliver(reply.location)).status == 200
    assert (await setup.write()).status == 200
    assert len(setup.writes()) == 3


async def test_queued_writes_are_not_overtaken_while_the_database_is_unavailable(
    setup: OutboxSetup, server: PostgresServer
) -> None:
    """It is unknown which writes wait, so that new ones are refused; all else passes."""
    server.stop()
    try:
        refused = await setup.write()
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "outbox-full")
        assert (await setup.ask("PUT", "/Observation/2", observation())).status == 200
        shown = await setup.ask("GET", "/_outbox/1")
        assert (shown.status, shown.headers["X-Gateway-Error"]) == (503, "overloaded")
        cancelled = await setup.ask("DELETE", "/_outbox/1")
        assert (await setup.ask("GET", "/_outbox")).status == cancelled.status == 503
        for reply in (refused, shown, cancelled):
            text = reply.json["issue"][0]["details"]["text"]
            assert text.startswith("The gateway's queue for writes cannot be reached at the moment")
            assert "Retry-After" in reply.headers
    finally:
        server.start()
    assert [target for _, target in setup.writes()] == ["/r5/Observation/2"]
    assert (await setup.write()).status == 200
