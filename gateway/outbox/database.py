"""The database below the outbox: connections, transactions, time. SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from gateway.outbox import owner
from gateway.outbox.reserve import PAGE, DiskReserve
from gateway.outbox.store import OutboxFullError, OutboxUnavailableError
from gateway.phrases import Phrase, system_error

_BUSY: Final = 5.0
_RETRY_INTERVAL: Final = 0.02
_CONNECTIONS: Final = 4
_PRIVATE: Final = 0o600
_DISK_FULL: Final = Phrase("the disk is full")
# The part of an extended result code that says what kind it is.
_PRIMARY: Final = 0xFF
# One number for everybody who uses the outbox in a PostgreSQL database: "dhp-outb" in hexadecimal.
_ADVISORY_LOCK: Final = 0x6468702D6F757462
# What SQLite says when there is no room for a page, the log or its index.
_DISK_FULL_CODES: Final = frozenset(
    ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN")
)
_PRAGMAS: Final = (
    # In WAL mode this is what survives a power cut: the log is synced at every commit.
    "PRAGMA synchronous = FULL",
    # What was erased is overwritten, encrypted as it is.
    "PRAGMA secure_delete = ON",
)


class Database(Protocol):
    """Transactions, and the time by which leases end. All raise `OutboxUnavailableError`."""

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that only reads."""
        ...

    def write_transaction(
        self, *, adds: bool = False
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that is on the disk when it was left without an exception.

        One that `adds` leaves room for all others. Raises `OutboxFullError`.
        """
        ...

    async def now(self, connection: AsyncConnection) -> float:
        """Seconds since 1970, the same clock for all who share the database."""
        ...

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """Let nobody else add entries until the end of the transaction."""
        ...

    async def release_disk_space(self) -> bool:
        """Give some of the room back to the disk that nothing needs any more; whether it did."""
        ...

    def is_known_empty(self) -> bool:
        """Whether no order has an entry, if that can be told at once."""
        ...

    def is_known_dead(self, owner: str) -> bool:
        """Whether the process that `owner.current_owner` called so has ended, if that can
        be told.
        """
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


class SqliteDatabase:
    """One file, for all processes of this machine. `clock` gives seconds since 1970."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Writers wait for each other here, in the order they came, rather than in SQLite's polling.
        self._write_lock = asyncio.Lock()
        # Seconds that whoever has the turn may still wait for other processes.
        self._busy_timeout = _BUSY
        self._path = path
        self._reserve = DiskReserve(path)
        url = sa.URL.create("sqlite+aiosqlite", database=str(path))
        self._engine = create_async_engine(url, hide_parameters=True, pool_size=_CONNECTIONS)
        sa.event.listen(self._engine.sync_engine, "connect", self._prepare)
        sa.event.listen(self._engine.sync_engine, "begin", self._begin)
        self._reader = self._engine.execution_options(reading=True)
        self._empty_check = _EmptyCheck(path)
        # Whether no order has an entry, whichever process put it in.
        self.is_known_empty = self._empty_check.is_known_empty
        # All who have the file are of this machine.
        self.is_known_dead = owner.is_owner_dead

    @contextlib.asynccontextmanager
    async def read_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads."""
        with self._with_disk_reserve(), _translate_errors():
            _make_private(self._path)
            async with self._reader.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write_transaction(self, *, adds: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that is on the disk when it was left without an exception.

        One that `adds` leaves room for all others. Raises `OutboxFullError`.
        """
        with self._with_disk_reserve(adds=adds), _translate_errors():
            _make_private(self._path)
            async with self._acquire_write_lock(), self._engine.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def _with_disk_reserve(self, *, adds: bool = False) -> Iterator[None]:
        if adds and not self._reserve.allocate():
            raise OutboxFullError(_DISK_FULL)
        try:
            yield
        except OutboxUnavailableError as error:
            if str(error) not in _DISK_FULL_CODES:
                raise
            if adds:
                raise OutboxFullError(_DISK_FULL) from None
            # Whoever has failed tries again.
            self._reserve.release()
            raise

    def _prepare(self, connection: Any, record: object) -> None:
        _prepare(connection, self._reserve.wal_checkpoint_pages())

    @contextlib.asynccontextmanager
    async def _acquire_write_lock(self) -> AsyncIterator[None]:
        """Who has waited for the turn has so much less time left to wait for other processes."""
        until = time.monotonic() + _BUSY
        async with asyncio.timeout(_BUSY):
            await self._write_lock.acquire()
        try:
            self._busy_timeout = max(0.0, until - time.monotonic())
            yield
        finally:
            self._write_lock.release()

    def _begin(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("reading", False):
            _set_busy_timeout(_BUSY, connection)
            connection.exec_driver_sql("BEGIN")
            return
        _set_busy_timeout(self._busy_timeout, connection)
        # One that turns from reading to writing could fail half way (SQLITE_BUSY_SNAPSHOT).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    async def now(self, connection: AsyncConnection) -> float:
        """This machine's time."""
        return self._clock()

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """Nothing to do: who writes is alone."""

    async def release_disk_space(self) -> bool:
        """Some pages, in a transaction of their own."""
        with _translate_errors():
            async with self._acquire_write_lock():
                return await asyncio.to_thread(self._reserve.release_disk_space, self._path)

    async def close(self) -> None:
        """End all connections."""
        self._empty_check.close()
        await self._engine.dispose()


class PostgresDatabase:
    """A database that replicas share. `address` and `tls` are asyncpg's arguments."""

    def __init__(self, address: dict[str, Any], tls: ssl.SSLContext | str | None) -> None:
        timeouts = {"timeout": _BUSY, "command_timeout": 6 * _BUSY}
        self._engine: AsyncEngine = create_async_engine(
            # The address is given as it is: in a URL a directory of a socket would be quoted.
            "postgresql+asyncpg://",
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            # A restarted server is noticed before a transaction begins, not in it.
            pool_pre_ping=True,
            pool_timeout=_BUSY,
            isolation_level="READ COMMITTED",
            connect_args={
                **address,
                **timeouts,
                "ssl": tls,
                # Whatever the server's default is: kept means on its disk.
                "server_settings": {"synchronous_commit": "on"},
            },
        )

    @contextlib.asynccontextmanager
    async def write_transaction(self, *, adds: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that is on the disk when it was left without an exception."""
        with _translate_errors():
            async with self._engine.begin() as connection:
                yield connection

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that only reads."""
        return self.write_transaction()

    async def now(self, connection: AsyncConnection) -> float:
        """The server's time: the replicas' clocks need not agree."""
        moment = sa.extract("epoch", sa.func.clock_timestamp())
        return float((await connection.execute(sa.select(moment))).scalar_one())

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """So that entries become visible in the order of their numbers."""
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))

    async def release_disk_space(self) -> bool:
        """PostgreSQL's autovacuum does it."""
        return False

    def is_known_empty(self) -> bool:
        """Another replica may have put something in at any moment."""
        return False

    def is_known_dead(self, owner: str) -> bool:
        """It may be of another machine."""
        return False

    async def close(self) -> None:
        """End all connections."""
        await self._engine.dispose()


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
        raise OutboxUnavailableError(_error_code(error)) from None
    except Exception as error:
        # What asyncpg raises while it connects; it may be missing, so that it cannot be named.
        if not type(error).__module__.startswith("asyncpg."):
            raise
        raise OutboxUnavailableError(_error_code(error)) from None


def _error_code(error: Exception) -> Phrase:
    """Without the driver's text, which may quote what it was given."""
    original = getattr(error, "orig", None) or error
    original = original.__cause__ or original
    name = getattr(original, "sqlite_errorname", type(original).__name__)
    return Phrase("{name}", name=name)


def _make_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
    except FileExistsError:
        pass
    except OSError as error:
        raise OutboxUnavailableError(system_error(error, Phrase("cannot be made"))) from None


def _prepare(connection: Any, pages_of_log: int) -> None:
    # Transactions are begun by `_begin`, not by the driver's guess.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Heeded only as long as the file is empty.
    cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _enable_wal(cursor)
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.execute(f"PRAGMA wal_autocheckpoint = {pages_of_log}")
    cursor.execute(f"PRAGMA journal_size_limit = {pages_of_log * PAGE}")
    cursor.close()


def _enable_wal(cursor: Any) -> None:
    """Fails at once, whatever the wait, while another process makes the tables of a new file."""
    left = int(_BUSY / _RETRY_INTERVAL)
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not left or error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY:
                raise
        left -= 1
        await_only(asyncio.sleep(_RETRY_INTERVAL))


def _set_busy_timeout(seconds: float, connection: sa.Connection) -> None:
    # To a tenth of a second, so that it need not be told anew where nobody has waited.
    wait = f"PRAGMA busy_timeout = {round(10 * seconds) * 100}"
    if connection.info.get("wait") != wait:
        connection.exec_driver_sql(wait).close()
        connection.info["wait"] = wait


class _EmptyCheck:
    """Tells in a few microseconds whether `outbox_orders` is empty.

    `PRAGMA data_version` changes whenever any other connection, of whatever process, has
    committed, and the table is looked at only after a change. The WAL's index, which would tell it
    sooner, is SQLite's alone: whoever opens and closes that file ends all locks that this process
    has on it (POSIX, `fcntl`: "How To Corrupt An SQLite Database File", section 2.2), and the next
    process that comes would make it anew under those who use it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen = -1
        self._empty = False

    def is_known_empty(self) -> bool:
        """False also where it cannot be told now."""
        try:
            return self._query()
        except sqlite3.Error:
            self._seen = -1
            return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self) -> bool:
        if self._connection is None:
            # It must not make the file, which would not be private.
            name = f"{self._path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(name, timeout=0, isolation_level=None, uri=True)
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            query = "SELECT EXISTS (SELECT 1 FROM outbox_orders)"
            self._empty = not self._connection.execute(query).fetchone()[0]
            self._seen = version
        return self._empty
