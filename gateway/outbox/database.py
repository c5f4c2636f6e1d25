"""The database of the outbox: connections, transactions and time, for SQLite or PostgreSQL."""

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

from gateway import os_support
from gateway.i18n import Message, system_error
from gateway.outbox.reserve import PAGE, DiskReserve
from gateway.outbox.store import (
    OutboxFullError,
    OutboxInUseError,
    OutboxUnavailableError,
)

_BUSY_TIMEOUT: Final = 5.0
_RETRY_INTERVAL: Final = 0.02
_CONNECTIONS: Final = 4
_PRIVATE: Final = 0o600
_DISK_FULL: Final = Message("the disk is full")
# The mask of the primary result code in an extended result code of SQLite.
_PRIMARY: Final = 0xFF
# The key of the advisory lock, the same for all processes that use the outbox in a PostgreSQL
# database: the ASCII codes of "dhp-outb".
_ADVISORY_LOCK: Final = 0x6468702D6F757462
# SQLite's error names when there is no space for a page, for the WAL or for its index.
_DISK_FULL_CODES: Final = frozenset(
    ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN")
)
_PRAGMAS: Final = (
    # In WAL mode FULL syncs the WAL at every commit, so that the commit survives a power failure.
    "PRAGMA synchronous = FULL",
    # Deleted content is overwritten with zeros, although it is encrypted.
    "PRAGMA secure_delete = ON",
)


class Database(Protocol):
    """Transactions, and the clock of the leases. All methods raise `OutboxUnavailableError`.

    `is_exclusive`: no other gateway uses the database, so that leases of others have no holder.
    """

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""
        ...

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction that only reads."""
        ...

    def write_transaction(
        self, *, adds: bool = False
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which is on disk once its context exits without an exception.

        One that `adds` must leave the disk space that all others need. Raises `OutboxFullError`.
        """
        ...

    async def now(self, connection: AsyncConnection) -> float:
        """Return the seconds since 1970 by one clock for all processes that share the database."""
        ...

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """Prevent other transactions from inserting entries until the end of this one."""
        ...

    async def release_disk_space(self) -> bool:
        """Return some unused space to the file system. Return whether any was returned."""
        ...

    def is_known_empty(self) -> bool:
        """Return True if no entry blocks an ordering key, False where that is not known at once."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class SqliteDatabase:
    """One file, for processes of this machine. `clock` returns seconds since 1970.

    `exclusive`: no other gateway may use the file; while one does, every transaction raises
    `OutboxInUseError`. Commands use it without that.
    """

    def __init__(self, path: Path, clock: Callable[[], float], *, exclusive: bool = False) -> None:
        self._clock = clock
        # Writers of this process wait here in the order of their arrival, rather than in SQLite's
        # polling.
        self._write_lock = asyncio.Lock()
        # Seconds for which the holder of `_write_lock` may still wait for other processes.
        self._busy_timeout = _BUSY_TIMEOUT
        self._path = path
        self._reserve = DiskReserve(path)
        self._excludes_others = exclusive and os_support.HAS_FILE_LOCKS
        self._lock_fd = -1
        url = sa.URL.create("sqlite+aiosqlite", database=str(path))
        self._engine = create_async_engine(url, hide_parameters=True, pool_size=_CONNECTIONS)
        sa.event.listen(self._engine.sync_engine, "connect", self._prepare)
        sa.event.listen(self._engine.sync_engine, "begin", self._begin)
        self._reader = self._engine.execution_options(reading=True)
        self._empty_check = _EmptyCheck(path)
        # True if no entry of any process blocks an ordering key.
        self.is_known_empty = self._empty_check.is_known_empty

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""
        return self._lock_fd >= 0

    @contextlib.asynccontextmanager
    async def read_transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads."""
        with self._with_disk_reserve(), _translate_errors():
            self._require_file()
            async with self._reader.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def write_transaction(self, *, adds: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a transaction, which is on disk once its context exits without an exception.

        One that `adds` must leave the disk space that all others need. Raises `OutboxFullError`.
        """
        with self._with_disk_reserve(adds=adds), _translate_errors():
            self._require_file()
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
            # The released space is there when the failed operation is retried.
            self._reserve.release()
            raise

    def _require_file(self) -> None:
        """Make the file if it is missing, and exclude other gateways."""
        _make_private(self._path)
        if self._excludes_others and not self.is_exclusive:
            self._lock_fd = _locked(self._path.with_name(f"{self._path.name}-lock"))

    def _prepare(self, connection: Any, record: object) -> None:
        _prepare(connection, self._reserve.wal_checkpoint_pages())

    @contextlib.asynccontextmanager
    async def _acquire_write_lock(self) -> AsyncIterator[None]:
        """Hold the in-process write lock.

        Time spent waiting for it is subtracted from SQLite's busy timeout.
        """
        until = time.monotonic() + _BUSY_TIMEOUT
        async with asyncio.timeout(_BUSY_TIMEOUT):
            await self._write_lock.acquire()
        try:
            self._busy_timeout = max(0.0, until - time.monotonic())
            yield
        finally:
            self._write_lock.release()

    def _begin(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("reading", False):
            _set_busy_timeout(_BUSY_TIMEOUT, connection)
            connection.exec_driver_sql("BEGIN")
            return
        _set_busy_timeout(self._busy_timeout, connection)
        # A transaction that first reads and then writes could fail midway (SQLITE_BUSY_SNAPSHOT).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    async def now(self, connection: AsyncConnection) -> float:
        """Return this machine's time."""
        return self._clock()

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """Do nothing: a write transaction excludes all others."""

    async def release_disk_space(self) -> bool:
        """Release some pages in a separate transaction. Return whether any were released."""
        with _translate_errors():
            async with self._acquire_write_lock():
                return await asyncio.to_thread(self._reserve.release_disk_space, self._path)

    async def close(self) -> None:
        """Close all connections."""
        self._empty_check.close()
        await self._engine.dispose()
        if self.is_exclusive:
            os.close(self._lock_fd)
            self._lock_fd = -1


class PostgresDatabase:
    """A database that replicas share. `address` and `tls` are arguments of asyncpg."""

    is_exclusive: Final = False

    def __init__(self, address: dict[str, Any], tls: ssl.SSLContext | str | None) -> None:
        timeouts = {"timeout": _BUSY_TIMEOUT, "command_timeout": 6 * _BUSY_TIMEOUT}
        self._engine: AsyncEngine = create_async_engine(
            # The address is passed as arguments: in a URL the directory of a Unix socket would be
            # quoted.
            "postgresql+asyncpg://",
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            # A restart of the server is noticed before a transaction begins, not within it.
            pool_pre_ping=True,
            pool_timeout=_BUSY_TIMEOUT,
            isolation_level="READ COMMITTED",
            connect_args={
                **address,
                **timeouts,
                "ssl": tls,
                # Overrides the server's default: a committed write must be on the server's disk.
                "server_settings": {"synchronous_commit": "on"},
            },
        )

    @contextlib.asynccontextmanager
    async def write_transaction(self, *, adds: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a transaction, which is on disk once its context exits without an exception."""
        with _translate_errors():
            async with self._engine.begin() as connection:
                yield connection

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction that only reads."""
        return self.write_transaction()

    async def now(self, connection: AsyncConnection) -> float:
        """Return the server's time, because the clocks of replicas may differ."""
        moment = sa.extract("epoch", sa.func.clock_timestamp())
        return float((await connection.execute(sa.select(moment))).scalar_one())

    async def lock_inserts(self, connection: AsyncConnection) -> None:
        """Take the advisory lock, so that entries become visible in the order of their numbers."""
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))

    async def release_disk_space(self) -> bool:
        """Return False: PostgreSQL's autovacuum releases the space."""
        return False

    def is_known_empty(self) -> bool:
        """Return False: another replica may insert an entry at any moment."""
        return False

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `OutboxUnavailableError` in the place of the database's and the system's errors."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
        raise OutboxUnavailableError(_error_code(error)) from None
    except Exception as error:
        # Exceptions that asyncpg raises while connecting. asyncpg may not be installed, so that its
        # classes cannot be named here.
        if not type(error).__module__.startswith("asyncpg."):
            raise
        raise OutboxUnavailableError(_error_code(error)) from None


def _error_code(error: Exception) -> Message:
    """Return the name of the error, without the driver's text, which may quote values."""
    original = getattr(error, "orig", None) or error
    original = original.__cause__ or original
    name = getattr(original, "sqlite_errorname", type(original).__name__)
    return Message("{name}", name=name)


def _make_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
    except FileExistsError:
        pass
    except OSError as error:
        raise OutboxUnavailableError(system_error(error, Message("cannot be made"))) from None


def _locked(path: Path) -> int:
    """Return the descriptor of a file that this process has locked.

    The lock ends with the process. Raises `OutboxInUseError` where another gateway has it.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
    try:
        os_support.lock_file(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise OutboxInUseError(Message("is in use by another gateway")) from None
    return descriptor


def _prepare(connection: Any, wal_pages: int) -> None:
    # `_begin` starts transactions, not the implicit BEGIN of the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    # SQLite applies it only while the file is empty.
    cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _enable_wal(cursor)
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
    cursor.execute(f"PRAGMA journal_size_limit = {wal_pages * PAGE}")
    cursor.close()


def _enable_wal(cursor: Any) -> None:
    """Switch to WAL mode, with retries for `_BUSY_TIMEOUT` seconds.

    The PRAGMA ignores the busy timeout and fails at once while another process creates the tables
    of a new file.
    """
    left = int(_BUSY_TIMEOUT / _RETRY_INTERVAL)
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
    # Rounded to 0.1 s, so that the PRAGMA is not repeated where the write lock was free.
    pragma = f"PRAGMA busy_timeout = {round(10 * seconds) * 100}"
    if connection.info.get("wait") != pragma:
        connection.exec_driver_sql(pragma).close()
        connection.info["wait"] = pragma


class _EmptyCheck:
    """A check of a few microseconds whether `outbox_orders` is empty.

    `PRAGMA data_version` changes whenever another connection of any process has committed, and the
    table is read only after a change. The index of the WAL would show a change sooner, but only
    SQLite may open it: closing that file releases all locks that this process has on it (POSIX,
    `fcntl`: "How To Corrupt An SQLite Database File", section 2.2), and the next process that opens
    the database would re-create the index while others use it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen = -1
        self._empty = False

    def is_known_empty(self) -> bool:
        """Return whether the table is empty; False also where it cannot be read now."""
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
            # SQLite must not create the file here: it would not have mode 0600.
            name = f"{self._path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(name, timeout=0, isolation_level=None, uri=True)
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            query = "SELECT EXISTS (SELECT 1 FROM outbox_orders)"
            self._empty = not self._connection.execute(query).fetchone()[0]
            self._seen = version
        return self._empty
