"""The database of the outbox: connections, transactions and time, for SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.i18n import Message
from gateway.outbox.store.store_types import OutboxUnavailableError

BUSY_TIMEOUT: Final = 5.0
MAX_CONNECTIONS: Final = 4
# The key of the advisory lock, the same for all processes that use the outbox in a PostgreSQL
# database: the ASCII codes of "dhp-outb".
_ADVISORY_LOCK: Final = 0x6468702D6F757462


class Database(Protocol):
    """Transactions, and the clock of the leases. All methods raise `OutboxUnavailableError`.

    `is_exclusive`: no other gateway uses the database, so that leases of others have no holder.
    """

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction that only reads."""

    def write_transaction(
        self, *, adds: bool = False, leaves: float = 0.0
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which is on disk once its context exits without an exception.

        One that `adds` must leave the disk space that is reserved for all others, and raises
        `OutboxFullError`. Others must leave a part of it, from 0 to 1; they raise
        `OutboxDiskFullError`.
        """

    async def now(self, connection: AsyncConnection) -> float:
        """Return the seconds since 1970 by one clock for all processes that share the database."""

    async def lock_inserts(self, connection: AsyncConnection) -> None:
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
    async def write_transaction(
        self, *, adds: bool = False, leaves: float = 0.0
    ) -> AsyncIterator[AsyncConnection]:
        with translate_errors():
            async with self._engine.begin() as connection:
                yield connection

    def read_transaction(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
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
        await self._engine.dispose()


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
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
    # A CancelledError, the cause of asyncio's TimeoutError, is no Exception.
    if isinstance(original.__cause__, Exception):
        original = original.__cause__
    name = getattr(original, "sqlite_errorname", type(original).__name__)
    return Message("{name}", name=name)
