"""Opens the store that `outbox.url` names, for a gateway or for a command.

Separate from `outbox_store`, which imports SQLAlchemy: without the extra `outbox` this module can
still be imported, and reports that the extra is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import StartError
from gateway.i18n import Message, exception_message, setting_problem
from gateway.outbox.store.store_types import (
    OutboxConfigurationError,
    OutboxInUseError,
    OutboxUnavailableError,
)

if TYPE_CHECKING:
    from gateway.config.operations_settings import OutboxSettings
    from gateway.config.setting_urls import DatabaseLocation
    from gateway.outbox.store.database import Database
    from gateway.outbox.store.outbox_store import OutboxStore

_DRIVERS: Final = {"sqlite": "sqlite3", "postgresql": "asyncpg"}
_EXTRA_MISSING: Final = Message("needs the extra `outbox`: pip install 'dhp-gateway[outbox]'")


@contextlib.asynccontextmanager
async def open_outbox_store(
    settings: OutboxSettings,
    key: bytes,
    clock: Callable[[], float] = time.time,
    *,
    delivers: bool = False,
) -> AsyncIterator[OutboxStore]:
    """Open the store and prepare it; `clock` returns seconds since 1970.

    `key` has 32 bytes and encrypts the stored writes. `delivers`: the store is opened for a
    gateway, not for a command. It then excludes other gateways from a SQLite file, and a database
    that cannot be reached is no error: the gateway calls `prepare` again. Raises `StartError`,
    which names the setting.
    """
    require_extra(settings)
    from gateway.outbox.store.outbox_store import OutboxStore
    from gateway.outbox.store.sealed_contents import ContentCipher

    store = OutboxStore(
        database=_new_database(settings.url, clock, exclusive=delivers),
        cipher=ContentCipher(key),
        settings=settings,
        clock=clock,
    )
    try:
        await _prepare_store(store, settings.url, may_be_unreachable=delivers)
        yield store
    finally:
        await store.close()


def require_extra(settings: OutboxSettings) -> None:
    """Raise `StartError` when the extra is not installed."""
    for module in ("sqlalchemy", _DRIVERS[settings.url.kind]):
        try:
            importlib.import_module(module)
        except ImportError:
            raise StartError(setting_problem("outbox.enabled", _EXTRA_MISSING)) from None


async def _prepare_store(
    store: OutboxStore, location: DatabaseLocation, *, may_be_unreachable: bool
) -> None:
    try:
        await store.prepare()
    except (OutboxConfigurationError, OutboxInUseError) as error:
        why = Message("{location} {trouble}", location=location, trouble=exception_message(error))
        raise StartError(setting_problem("outbox.url", why)) from None
    except OutboxUnavailableError as error:
        if may_be_unreachable:
            return
        why = Message(
            "{location} cannot be opened: {trouble}",
            location=location,
            trouble=exception_message(error),
        )
        raise StartError(setting_problem("outbox.url", why)) from None


def _new_database(
    location: DatabaseLocation, clock: Callable[[], float], *, exclusive: bool
) -> Database:
    from gateway.outbox.store.database import PostgresDatabase
    from gateway.outbox.store.sqlite_database import SqliteDatabase

    if location.kind == "postgresql":
        address = {
            "host": location.host,
            "port": location.port,
            "user": location.username,
            "password": None if location.password is None else location.password.reveal(),
            "database": location.database,
        }
        return PostgresDatabase(address, _postgres_ssl(location))
    return SqliteDatabase(Path(location.path), clock, exclusive=exclusive)


def _postgres_ssl(location: DatabaseLocation) -> ssl.SSLContext | str | None:
    """Return asyncpg's `ssl`: a context, or an sslmode of libpq; None for a Unix socket."""
    if location.host.startswith("/"):
        return None
    if location.ssl_mode not in ("verify-ca", "verify-full"):
        return location.ssl_mode
    try:
        context = ssl.create_default_context(cafile=location.ssl_root_cert)
    except (OSError, ssl.SSLError) as error:
        why = Message.external(error.strerror, Message("contains no certificates"))
        problem = Message("{path}: {why}", path=location.ssl_root_cert, why=why)
        raise StartError(setting_problem("outbox.url", problem)) from None
    context.check_hostname = location.ssl_mode == "verify-full"
    return context
