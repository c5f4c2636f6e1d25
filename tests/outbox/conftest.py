"""Outboxes in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.outbox.store.outbox_store import OutboxStore
from tests.doubles.clock import FakeClock
from tests.outbox.places import ClockWall, Place, PostgresPlace, SqlitePlace, opened
from tests.outbox.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    yield from postgres_server()


@pytest.fixture
async def postgres_place(server: PostgresServer) -> PostgresPlace:
    """Return an empty database."""
    await server.fresh_database("outbox")
    return PostgresPlace(server, "outbox")


@pytest.fixture
def sqlite_place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "outbox.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    name = {"sqlite": "sqlite_place", "postgresql": "postgres_place"}[request.param]
    found: Place = request.getfixturevalue(name)
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(place: Place) -> AsyncIterator[OutboxStore]:
    async with opened(place) as made:
        yield made


@pytest.fixture
async def clocked_store(sqlite_place: SqlitePlace, clock: FakeClock) -> AsyncIterator[OutboxStore]:
    """Yield an outbox in SQLite whose time is that of the clock."""
    async with opened(replace(sqlite_place, wall=ClockWall(clock))) as made:
        yield made
