"""The database of the outbox: connections, transactions and time, for SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.i18n import Message
from gateway.outbox.store.store_types import OutboxDiskFullError, OutboxUnavailableError

BUSY_TIMEOUT: Final = 5.0
MAX_CONNECTIONS: Final = 4
# The key of the advisory lock, the same for all processes that use the outbox in a PostgreSQL
# database: the ASCII codes of "dhp-outb".
_ADVISORY_LOCK: Final = 0x6468702D6F757462
_LOCK_INSERTS: Final = sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK))
DISK_FULL: Final = Message("the disk is full")
# SQLite's error names when there is no space for a page, for the WAL or for its index.
_DISK_FULL_CODES: Final = frozenset(("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"))
_SERVER_TIME: Final = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))


_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


class Transaction:
    """An open transaction for writing, in several steps.

    `run_work` calls a function with the connection, and returns what the function returns.
    """

    def __init__(self, run_work: Callable[..., Awaitable[Any]]) -> None:
        self._run_work = run_work

    async def run(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        """Return what `work` returns for the connection and the other arguments.

        It must return values, not a `sa.CursorResult`, which would read from the connection later.
        """
        result: _T = await self._run_work(work, *args)
        return result


class Database(Protocol):
    """Transactions, and the clock of the leases. All methods raise `OutboxUnavailableError`.

    What is done in a transaction is a plain function of the connection: with SQLite it runs in a
    thread, with PostgreSQL it waits for the server in a greenlet.

    `is_exclusive`: no other gateway uses the database, so that leases of others have no holder.
    """

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk has no space but for what deliveries need."""

    async def read(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        """Return what `work`, which only reads, returns in a transaction of its own."""

    async def write(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        """Return what `work` returns in a transaction of its own, which is on disk then.

        On a full disk it is called a second time, and `OutboxDiskFullError` is raised at last.
        """

    def write_transaction(
        self, *, adds: int = 0
    ) -> contextlib.AbstractAsyncContextManager[Transaction]:
        """Open a transaction, which is on disk once its context exits without an exception.

        On a full disk one that `adds` so many bytes raises `OutboxFullError`, others
        `OutboxDiskFullError`.
        """

    def now(self, connection: sa.Connection) -> float:
        """Return the seconds since 1970 by one clock for all processes that share the database."""

    def lock_inserts(self, connection: sa.Connection) -> None:
        """Prevent other transactions from inserting entries until the end of this one."""

    async def release_disk_space(self) -> bool:
        """Return some unused space to the file system. Return whether any was returned."""

    def is_known_empty(self) -> bool:
        """Return True if no entry blocks an ordering key, False where that is not known at once."""

    async def close(self) -> None:
        """Close all connections."""


class PostgresDatabase:
    """A database that replicas share (`Database`). `address` and `tls` are arguments of asyncpg."""

    is_exclusive: Final = False
    is_disk_full: Final = False

    def __init__(self, address: dict[str, Any], tls: ssl.SSLContext | str | None) -> None:
        timeouts = {"timeout": BUSY_TIMEOUT, "command_timeout": 6 * BUSY_TIMEOUT}
        self._engine: AsyncEngine = create_async_engine(
            # The address is passed as arguments: in a URL the directory of a Unix socket would be
            # quoted.
            "postgresql+asyncpg://",
            hide_parameters=True,
            pool_size=MAX_CONNECTIONS,
            # A restart of the server is noticed before a transaction begins, not within it.
            pool_pre_ping=True,
            pool_timeout=BUSY_TIMEOUT,
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
    async def write_transaction(self, *, adds: int = 0) -> AsyncIterator[Transaction]:
        with translate_errors():
            async with self._engine.begin() as connection:
                yield Transaction(connection.run_sync)

    async def write(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        async with self.write_transaction() as transaction:
            return await transaction.run(work, *args)

    async def read(
        self,
        work: Callable[[sa.Connection, *_Ts], _T],
        *args: *_Ts,
    ) -> _T:
        return await self.write(work, *args)

    def now(self, connection: sa.Connection) -> float:
        """Return the server's time, because the clocks of replicas may differ."""
        return float(connection.execute(_SERVER_TIME).scalar_one())

    def lock_inserts(self, connection: sa.Connection) -> None:
        """Take the advisory lock, so that entries become visible in the order of their numbers."""
        connection.execute(_LOCK_INSERTS)

    async def release_disk_space(self) -> bool:
        """Return False: PostgreSQL's autovacuum releases the space."""
        return False

    def is_known_empty(self) -> bool:
        """Return False: another replica may insert an entry at any moment."""
        return False

    async def close(self) -> None:
        await self._engine.dispose()


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `OutboxUnavailableError` in the place of the database's and the system's errors."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
        code = _error_code(error)
        if code in _DISK_FULL_CODES:
            raise OutboxDiskFullError(DISK_FULL) from None
        raise OutboxUnavailableError(code) from None
    except Exception as error:
        # Exceptions that asyncpg raises while connecting. asyncpg may not be installed, so that its
        # classes cannot be named here.
        if not type(error).__module__.startswith("asyncpg."):
            raise
        raise OutboxUnavailableError(_error_code(error)) from None


def _error_code(error: Exception) -> Message:
    """Return the name of the error, without the driver's text, which may quote values."""
    original = getattr(error, "orig", None) or error
    # A CancelledError, the cause of asyncio's TimeoutError, is no Exception.
    if isinstance(original.__cause__, Exception):
        original = original.__cause__
    name = getattr(original, "sqlite_errorname", type(original).__name__)
    return Message("{name}", name=name)
