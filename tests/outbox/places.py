"""The two places an outbox can be kept at, with a clock that tests move."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.outbox.database import Database, PostgresDatabase, SqliteDatabase
from gateway.outbox.sealing import ContentCipher
from gateway.outbox.sql_store import SqlStore
from tests.doubles.clock import FakeClock
from tests.outbox.postgres_server import PostgresServer

KEY = b"\x07" * 32
START = 1_800_000_000.0


@dataclass
class Wall:
    """Seconds since 1970, as the database sees them."""

    now: float = START

    def __call__(self) -> float:
        """The time."""
        return self.now


class ClockWall(Wall):
    """The database's time, which goes with a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def __call__(self) -> float:
        """The time."""
        return self._clock.wall()


class Place(Protocol):
    """An empty database, which any number of stores may use at once."""

    wall: Wall

    @property
    def url(self) -> str:
        """For `outbox.url`."""
        ...

    def database(self) -> Database:
        """A way to it."""
        ...

    def files(self) -> list[Path]:
        """All that is on the disk of it."""
        ...


class SteeredPostgres(PostgresDatabase):
    """Its time is the tests'."""

    def __init__(self, directory: Path, name: str, clock: Callable[[], float]) -> None:
        address = {"host": str(directory), "user": "outbox", "database": name}
        super().__init__(address, None)
        self._clock = clock

    async def now(self, connection: AsyncConnection) -> float:
        """The tests' time."""
        return self._clock()


@dataclass
class SqlitePlace:
    """A file."""

    path: Path
    wall: Wall = field(default_factory=Wall)

    @property
    def url(self) -> str:
        """For `outbox.url`."""
        return f"sqlite:///{self.path}"

    def database(self) -> Database:
        """A way to it."""
        return SqliteDatabase(self.path, self.wall)

    def files(self) -> list[Path]:
        """The file, its log and its shared memory."""
        return sorted(self.path.parent.glob(self.path.name + "*"))


@dataclass
class PostgresPlace:
    """A database of a server."""

    server: PostgresServer
    name: str
    wall: Wall = field(default_factory=Wall)

    @property
    def url(self) -> str:
        """For `outbox.url`."""
        return self.server.url(self.name)

    def database(self) -> Database:
        """A way to it."""
        return SteeredPostgres(self.server.directory, self.name, self.wall)

    def files(self) -> list[Path]:
        """Tables and the write-ahead log of the whole server."""
        return [file for file in self.server.data.rglob("*") if file.is_file()]


@contextlib.asynccontextmanager
async def opened(place: Place, key: bytes = KEY) -> AsyncIterator[SqlStore]:
    """A store at that place, as one process has it."""
    store = SqlStore(place.database(), ContentCipher(key))
    try:
        await store.prepare()
        yield store
    finally:
        await store.close()
