"""The outbox in a SQLite file: its lock against a second gateway, transactions, disk space."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple

import sqlalchemy as sa

from gateway import os_support
from gateway.i18n import Message, system_error
from gateway.outbox.store.database import (
    BUSY_TIMEOUT,
    DISK_FULL,
    MAX_CONNECTIONS,
    Transaction,
    translate_errors,
)
from gateway.outbox.store.disk_reserve import DiskReserve
from gateway.outbox.store.store_types import (
    OutboxDiskFullError,
    OutboxFullError,
    OutboxInUseError,
    OutboxUnavailableError,
)

_PRIVATE: Final = 0o600
# Free pages that the next writes will use.
_SPARE_PAGES: Final = 512
_INCREMENTAL: Final = 2
# Pages that are released to the disk in one step.
_SHRINK_PAGES: Final = 256


def _shrink(path: Path) -> bool:
    """Release some pages that are not kept free. Return whether any were released."""
    name = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(name, timeout=BUSY_TIMEOUT, isolation_level=None, uri=True)
        ) as connection:
            free = _count_free_pages(connection)
            if free <= _SPARE_PAGES:
                return False
            # `executescript` steps the statement to its end; `execute` would release one page only.
            step = min(_SHRINK_PAGES, free - _SPARE_PAGES)
            connection.executescript(f"PRAGMA incremental_vacuum({step})")
            left = _count_free_pages(connection)
            if left <= _SPARE_PAGES:
                # The file itself shrinks only at a checkpoint of the WAL.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return left < free
    except sqlite3.Error:
        # One reason is a full disk: finished entries will free space.
        return False


def _count_free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


_RETRY_INTERVAL: Final = 0.02
# The mask of the primary result code in an extended result code of SQLite.
_PRIMARY: Final = 0xFF
_PRAGMAS: Final = (
    # In WAL mode FULL syncs the WAL at every commit, so that the commit survives a power failure.
    "PRAGMA synchronous = FULL",
    # Deleted content is overwritten with zeros, although it is encrypted.
    "PRAGMA secure_delete = ON",
    # The undo log of a statement would need the disk of temporary files.
    "PRAGMA temp_store = MEMORY",
    # The WAL is cut to this length, not below. It is checkpointed at half of it, by default.
    "PRAGMA journal_size_limit = 8388608",
)


_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


class SqliteDatabase:
    """One file, for processes of this machine (`database.Database`).

    Everything that SQLite does is done in threads: the event loop never waits for the disk.

    `clock` returns seconds since 1970, `monotonic` measures how long a transaction has waited.
    `exclusive`: no other gateway may use the file; while one does, every transaction raises
    `OutboxInUseError`. Commands use it without that.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        *,
        exclusive: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        # Writers of this process wait here in the order of their arrival, rather than in SQLite's
        # polling.
        self._write_lock = asyncio.Lock()
        # Seconds for which the holder of `_write_lock` may still wait for other processes.
        self._busy_timeout = BUSY_TIMEOUT
        self._path = path
        self._reserve = DiskReserve(path)
        self._excludes_others = exclusive and os_support.HAS_FILE_LOCKS
        self._lock_fd = -1
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, "outbox")
        url = sa.URL.create("sqlite", database=str(path))
        # One connection for each thread, and the one of a transaction that is between two steps.
        self._engine = sa.create_engine(url, hide_parameters=True, pool_size=MAX_CONNECTIONS + 1)
        sa.event.listen(self._engine, "connect", self._prepare)
        sa.event.listen(self._engine, "begin", self._begin)
        self._reader = self._engine.execution_options(reading=True)
        self._empty_check = _EmptyCheck(path)
        # True if no entry of any process blocks an ordering key.
        self.is_known_empty = self._empty_check.is_known_empty

    @property
    def is_exclusive(self) -> bool:
        return self._lock_fd >= 0

    @property
    def is_disk_full(self) -> bool:
        return not self._reserve.exists()

    async def read(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        with translate_errors():
            self._require_file()
            return await self._in_thread(self._read, lambda connection: work(connection, *args))

    def _read(self, work: Callable[[sa.Connection], _T]) -> _T:
        with self._reader.begin() as connection:
            return work(connection)

    async def _in_thread(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *args)

    async def write(self, work: Callable[[sa.Connection, *_Ts], _T], *args: *_Ts) -> _T:
        with translate_errors():
            self._require_file()
            async with self._acquire_write_lock():
                return await self._in_thread(
                    self._write_with_reserve, lambda connection: work(connection, *args)
                )

    def _write_with_reserve(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Return what a transaction returns; if the disk is full, in the space of the reserve."""
        # What is delivered does not need the file.
        with contextlib.suppress(OSError):
            self._reserve.make()
        try:
            return self._write(work)
        except OutboxDiskFullError:
            if not self._reserve.give_up():
                raise
            return self._write(work)

    def _write(self, work: Callable[[sa.Connection], _T]) -> _T:
        with translate_errors(), contextlib.closing(self._begin_writing()) as connection:
            result = work(connection)
            connection.commit()
            return result

    @contextlib.asynccontextmanager
    async def write_transaction(self, *, adds: int = 0) -> AsyncIterator[Transaction]:
        try:
            async with self._open_transaction(adds) as transaction:
                yield transaction
        except OutboxDiskFullError:
            if adds:
                raise OutboxFullError(DISK_FULL) from None
            with translate_errors():
                await self._in_thread(self._reserve.give_up)
            raise

    @contextlib.asynccontextmanager
    async def _open_transaction(self, adds: int) -> AsyncIterator[Transaction]:
        with translate_errors():
            self._require_file()
            # It begins with its first step, in the same visit to the thread.
            begun: list[sa.Connection] = []

            def run(work: Callable[..., Any], args: tuple[object, ...]) -> Any:
                if not begun:
                    if adds and not self._reserve.admits(adds):
                        raise OutboxDiskFullError(DISK_FULL)
                    begun.append(self._begin_writing())
                return work(begun[0], *args)

            def run_in_thread(work: Callable[..., Any], *args: object) -> Awaitable[Any]:
                return self._in_thread(run, work, args)

            async with self._acquire_write_lock():
                try:
                    yield Transaction(run_in_thread)
                    for connection in begun:
                        await self._in_thread(connection.commit)
                finally:
                    for connection in begun:
                        await self._in_thread(connection.close)

    def _begin_writing(self) -> sa.Connection:
        connection = self._engine.connect()
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_file(self) -> None:
        """Make the file if it is missing, and exclude other gateways."""
        _make_private(self._path)
        if self._excludes_others and not self.is_exclusive:
            self._lock_fd = _locked(self._path.with_name(f"{self._path.name}-lock"))

    def _prepare(self, connection: Any, record: object) -> None:
        # `_begin` starts transactions, not the implicit BEGIN of the driver.
        connection.isolation_level = None
        cursor = connection.cursor()
        _retry_races(lambda: _enable_wal(cursor), self._monotonic)
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @contextlib.asynccontextmanager
    async def _acquire_write_lock(self) -> AsyncIterator[None]:
        """Hold the in-process write lock.

        Time spent waiting for it is subtracted from SQLite's busy timeout: with a limit for each,
        the caller of the last of many writes would have left long before the end.
        """
        until = self._monotonic() + BUSY_TIMEOUT
        async with asyncio.timeout(BUSY_TIMEOUT):
            await self._write_lock.acquire()
        try:
            self._busy_timeout = max(0.0, until - self._monotonic())
            yield
        finally:
            self._write_lock.release()

    def _begin(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("reading", False):
            _set_busy_timeout(BUSY_TIMEOUT, connection)
            connection.exec_driver_sql("BEGIN")
            return
        _set_busy_timeout(self._busy_timeout, connection)
        # A transaction that first reads and then writes could fail midway (SQLITE_BUSY_SNAPSHOT).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def now(self, connection: sa.Connection) -> float:
        """Return this machine's time."""
        return self._clock()

    def lock_inserts(self, connection: sa.Connection) -> None:
        """Do nothing: a write transaction excludes all others."""

    async def release_disk_space(self) -> bool:
        """Release some pages in a separate transaction. Return whether any were released."""
        with translate_errors():
            async with self._acquire_write_lock():
                return await self._in_thread(_shrink, self._path)

    async def close(self) -> None:
        self._empty_check.close()
        await self._in_thread(self._engine.dispose)
        self._threads.shutdown()
        if self.is_exclusive:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _make_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
    except FileExistsError:
        pass
    except OSError as error:
        raise OutboxUnavailableError(system_error(error, Message("cannot be created"))) from None


def _locked(path: Path) -> int:
    """Return the descriptor of a file that this process has locked.

    The lock ends with the process. A lock of the database file itself would end as soon as this
    process closes any descriptor of it (POSIX), and would exclude commands as well. Raises
    `OutboxInUseError` where another gateway has the lock.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
    try:
        os_support.lock_file(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise OutboxInUseError(Message("is in use by another gateway")) from None
    return descriptor


def _enable_wal(cursor: Any) -> None:
    cursor.execute("PRAGMA auto_vacuum")
    if cursor.fetchone()[0] != _INCREMENTAL:
        # SQLite applies it only while the file is empty, and takes the lock for writing each time.
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    cursor.execute("PRAGMA journal_mode = WAL")


def _retry_races(use: Callable[[], None], clock: Callable[[], float]) -> None:
    """Use a file which other processes may be the first to use, with retries for `BUSY_TIMEOUT`.

    While another process creates the tables of a new file, the switch to WAL mode fails at once,
    whatever the busy timeout. A log beside a file without pages is deleted by SQLite, and fails
    where another process has deleted it first.
    """
    until = clock() + BUSY_TIMEOUT
    while True:
        try:
            return use()
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode
            if clock() >= until or (
                code != sqlite3.SQLITE_IOERR_DELETE_NOENT and code & _PRIMARY != sqlite3.SQLITE_BUSY
            ):
                raise
        time.sleep(_RETRY_INTERVAL)


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
