"""The two databases that can hold an outbox, with a clock that tests move."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import BLOCKING
from gateway.outbox.store import queries
from gateway.outbox.store.database import Database, PostgresDatabase
from gateway.outbox.store.outbox_store import OutboxStore
from gateway.outbox.store.sealed_contents import ContentCipher
from gateway.outbox.store.sqlite_database import SqliteDatabase
from gateway.outbox.store.store_types import OutboxUnavailableError
from gateway.outbox.store.tables import entries_table, usage_table
from tests.doubles.clock import FakeClock
from tests.outbox.drafts import ROOMY
from tests.outbox.postgres_server import PostgresServer

KEY = b"\x07" * 32
START = 1_800_000_000.0


@dataclass
class Wall:
    """Unix time in seconds, as the database sees it."""

    now: float = START

    def __call__(self) -> float:
        return self.now


class ClockWall(Wall):
    """The database's time, which follows a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def __call__(self) -> float:
        return self._clock.wall()


class Place(Protocol):
    """An empty database, which any number of stores may use at once."""

    wall: Wall

    @property
    def url(self) -> str: ...

    def database(self) -> Database: ...

    def files(self) -> list[Path]: ...


class SteeredPostgres(PostgresDatabase):
    """A PostgreSQL database whose time a test sets."""

    def __init__(self, directory: Path, name: str, clock: Callable[[], float]) -> None:
        address = {"host": str(directory), "user": "outbox", "database": name}
        super().__init__(address, None)
        self._clock = clock

    def now(self, connection: sa.Connection) -> float:
        return self._clock()


@dataclass
class SqlitePlace:
    """A SQLite file."""

    path: Path
    wall: Wall = field(default_factory=Wall)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def database(self) -> Database:
        return SqliteDatabase(self.path, self.wall)

    def files(self) -> list[Path]:
        return sorted(self.path.parent.glob(self.path.name + "*"))


@dataclass
class PostgresPlace:
    """A database of a PostgreSQL server."""

    server: PostgresServer
    name: str
    wall: Wall = field(default_factory=Wall)

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def database(self) -> Database:
        return SteeredPostgres(self.server.directory, self.name, self.wall)

    def files(self) -> list[Path]:
        return [file for file in self.server.data.rglob("*") if file.is_file()]


@contextlib.asynccontextmanager
async def opened(
    place: Place, key: bytes = KEY, settings: OutboxSettings = ROOMY
) -> AsyncIterator[OutboxStore]:
    """Open the store; at the end its sums must be those of its entries."""
    database = place.database()
    store = OutboxStore(database=database, cipher=ContentCipher(key), settings=settings)
    try:
        await store.prepare()
        yield store
        await store.shielded_tasks.wait_all()
        with contextlib.suppress(OutboxUnavailableError):
            noted, counted = await database.read(_usage)
            assert noted == counted
    finally:
        await store.close()


def _usage(connection: sa.Connection) -> tuple[set[sa.Row[Any]], set[sa.Row[Any]]]:
    """Return what callers use by the sums, and by the entries."""
    noted = connection.execute(sa.select(usage_table).where(usage_table.c.entries != 0))
    counted = queries.COUNT_USAGE.where(entries_table.c.state.in_(BLOCKING))
    return set(noted), set(connection.execute(counted))


async def change(
    database: Database, statement: sa.Executable, rows: Sequence[dict[str, Any]] | None = None
) -> None:
    """Execute a statement in a transaction of its own."""

    def execute(connection: sa.Connection) -> None:
        connection.execute(statement, rows)

    await database.write(execute)


async def rows_of(database: Database, query: sa.Select[Any]) -> Sequence[Any]:
    return await database.read(lambda connection: connection.execute(query).all())


def value_of(connection: sa.Connection, query: str) -> object:
    return connection.exec_driver_sql(query).scalar_one()
