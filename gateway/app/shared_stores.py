"""Opens the stores that `store.url` names, and reads the keys that encrypt what is stored.

Only a shared store needs the extra `redis`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gateway.app import tls_contexts
from gateway.config.section import MAKE_KEY, NO_KEY, decode_encryption_key
from gateway.errors import StartError
from gateway.i18n import Message, setting_problem
from gateway.login.session_store import MemorySessionStore, SessionStore
from gateway.secret import Secret

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.config.operations_settings import OutboxSettings, StoreSettings
    from gateway.config.settings import Settings
    from gateway.oauth.redis_token_store import RedisTokenStore

# Seconds for one socket operation. A whole access is limited elsewhere; these limits end operations
# that would linger. A shared token can be replaced by a new one, so that the wait is short; a
# session is stored nowhere else.
_TOKEN_TIMEOUT: Final = 0.25
_SESSION_TIMEOUT: Final = 0.5
# A command waits longer than a request, in all at most the second number of seconds.
_TEST_TIMEOUTS: Final = (2.0, 10.0)


def open_token_store(
    settings: Settings, closing: contextlib.AsyncExitStack
) -> RedisTokenStore | None:
    """Return the store of tokens that replicas share, None without one.

    It is not connected yet; `closing` closes it. Raises `StartError`.
    """
    store = settings.store
    encryption_key = store_key(store)
    if store.url.kind == "memory":
        return None
    # Imported here: the library is an extra.
    from gateway.oauth.redis_token_store import RedisTokenStore

    client = _client(store, _TOKEN_TIMEOUT, closing)
    return RedisTokenStore(client, encryption_key=encryption_key)


def open_session_store(
    settings: Settings, closing: contextlib.AsyncExitStack, clock: Callable[[], float]
) -> SessionStore:
    """Return the session store, not connected yet; `closing` closes it. Raises `StartError`.

    `clock` is monotonic.
    """
    store = settings.store
    if store.url.kind == "memory":
        return MemorySessionStore(clock)
    from gateway.login.redis_session_store import RedisSessionStore

    client = _client(store, _SESSION_TIMEOUT, closing)
    return RedisSessionStore(client, encryption_key=store_key(store))


async def ask_time(store: StoreSettings) -> None:
    """Sign in to a shared store and ask for its time.

    Raises `StartError` for an unusable CA, otherwise an exception of the store's library.
    """
    if store.ca_file is not None:
        tls_contexts.require_usable("store.ca_file", store.ca_file, None)
    async with contextlib.AsyncExitStack() as closing, asyncio.timeout(_TEST_TIMEOUTS[1]):
        await _client(store, _TEST_TIMEOUTS[0], closing).time()


def _client(store: StoreSettings, timeout: float, closing: contextlib.AsyncExitStack) -> Redis:
    from redis.asyncio import Redis, Sentinel
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    url = store.url
    connection: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # One retry: an idle connection may be dead since a restart of the server.
        "retry": Retry(NoBackoff(), 1),
        # Every server version of the last ten years supports RESP2.
        "protocol": 2,
        **_tls(store),
    }
    login: dict[str, Any] = {
        "db": url.database,
        "username": url.username,
        "password": None if url.password is None else url.password.reveal(),
    }
    if url.sentinels:
        # However many of them are silent, half the time is left for the server itself.
        share = timeout / (2 * len(url.sentinels))
        times = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), share)
        asking = {**connection, **times, "retry": Retry(NoBackoff(), 0)}
        # The library has no types for it.
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            url.sentinels, sentinel_kwargs=asking, **connection, **login
        )
        for each in sentinel.sentinels:
            closing.push_async_callback(each.aclose)
        client: Redis = sentinel.master_for(url.service)
    elif url.kind == "unix":
        client = Redis(unix_socket_path=url.path, **connection, **login)
    else:
        client = Redis(host=url.host, port=url.port, **connection, **login)
    closing.push_async_callback(client.aclose)
    return client


def _tls(store: StoreSettings) -> dict[str, Any]:
    if store.url.kind != "rediss":
        return {}
    trusted = {} if store.ca_file is None else {"ssl_ca_certs": str(store.ca_file)}
    return {"ssl": True, "ssl_min_version": ssl.TLSVersion.TLSv1_2, **trusted}


def outbox_key(outbox: OutboxSettings) -> bytes:
    """Return the 32 bytes of the outbox's encryption key. Raises `StartError`."""
    source = outbox.encryption_key_ref()
    text = source.read()
    if text is None:
        raise StartError(setting_problem(source.key, Message("is missing"), MAKE_KEY))
    key = decode_encryption_key(text)
    if key is None:
        raise StartError(setting_problem(source.key, NO_KEY, MAKE_KEY))
    return key


def store_key(store: StoreSettings) -> Secret | None:
    """Return the text of the store's encryption key, if it has one. Raises `StartError`."""
    source = store.encryption_key_ref()
    text = source.read()
    if text is None:
        return None
    if decode_encryption_key(text) is None:
        raise StartError(setting_problem(source.key, NO_KEY, MAKE_KEY))
    # The text, not the bytes: the keys that encrypt stored values were derived from the text.
    return Secret(text.reveal().strip().rstrip("="))
