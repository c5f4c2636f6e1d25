"""What of `store` a gateway refuses to start with, and the ways to a server."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.app import shared_stores
from gateway.app.shared_stores import open_token_store, outbox_key
from gateway.config.operations_settings import OutboxSettings
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.oauth.redis_token_store import RedisTokenStore
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreKey, token_store_breaker
from gateway.secret import Secret
from tests.store.redis_server import RedisServer, redis_failover, redis_server

KEY = StoreKey("a" * 64, Secret("s"))


@pytest.fixture
async def closing() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


def settings(**store: Any) -> Settings:
    return Settings.model_validate({"environment": "dhp-playground", "store": store})


async def can_store(store: RedisTokenStore | None) -> bool:
    assert store is not None
    token = AccessToken("t", received_at=0, lifetime=1e9, wall_expiry=0)
    await store.put(KEY, token)
    return await store.get(KEY) == token


def test_without_a_url_tokens_stay_in_memory(closing: contextlib.AsyncExitStack) -> None:
    assert open_token_store(settings(), closing) is None


async def test_a_password_is_sent(closing: contextlib.AsyncExitStack, server: RedisServer) -> None:
    await server.command("ACL", "SETUSER", "gw", "on", ">p@ss", "~dhp-gateway:*", "+@all")
    await server.command("ACL", "SETUSER", "default", "off")
    url = server.url.replace("//", "//gw:p%40ss@")
    assert await can_store(open_token_store(settings(url=url), closing))


async def test_the_documented_acl_suffices(
    closing: contextlib.AsyncExitStack, server: RedisServer
) -> None:
    rights = "+multi +exec +hget +hset +pttl +pexpireat +pexpire +del +type +get +set +time +eval"
    await server.command(
        "ACL", "SETUSER", "gw", "on", ">p", "~dhp-gateway:*", "-@all", *rights.split()
    )
    store = open_token_store(settings(url=server.url.replace("//", "//gw:p@")), closing)
    assert isinstance(store, RedisTokenStore)
    assert await can_store(store)
    lease = await store.acquire_lease(KEY)
    assert lease is not None
    await lease.release()
    await store.delete(KEY, AccessToken("t", received_at=0, lifetime=1, wall_expiry=0))
    assert await store.get(KEY) is None


async def test_sentinels_name_the_server(
    closing: contextlib.AsyncExitStack, tmp_path: Path
) -> None:
    for servers in redis_failover(tmp_path):
        assert await can_store(open_token_store(settings(url=servers.sentinel.url), closing))


async def test_a_silent_sentinel_leaves_time_for_the_next(
    closing: contextlib.AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_stores, "_TOKEN_TIMEOUT", 4.0)
    silent = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    for servers in redis_failover(tmp_path):
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{servers.sentinel.port}"
        store = open_token_store(settings(url=f"redis+sentinel://{hosts}/hospital/0"), closing)
        breaker = token_store_breaker(time.monotonic, timeout=4.0)
        assert await breaker.call(can_store, store)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[RedisServer, Path]]:
    """A server that speaks TLS only, and the file with its CA."""
    ca, directory = trustme.CA(), tmp_path / "tls"
    directory.mkdir()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    ca.cert_pem.write_to_path(directory / "ca.pem")
    files = {name: directory / f"{name}.pem" for name in ("cert", "key", "ca")}
    for server in redis_server(tmp_path, tls=files):
        yield server, files["ca"]


async def test_rediss_verifies_by_ca_file(
    closing: contextlib.AsyncExitStack, tls_server: tuple[RedisServer, Path]
) -> None:
    server, ca_file = tls_server
    url = server.url.replace("redis://", "rediss://")
    assert await can_store(open_token_store(settings(url=url, ca_file=str(ca_file)), closing))
    with pytest.raises(Exception, match=r"(?i)certificate"):
        await can_store(open_token_store(settings(url=url), closing))


async def test_a_unix_socket_with_a_database_is_opened(
    closing: contextlib.AsyncExitStack, server: RedisServer
) -> None:
    url = f"unix://{server.socket}?db=3"
    assert await can_store(open_token_store(settings(url=url), closing))
    assert await server.command("DBSIZE") == 0


KEYS = {
    "short": base64.urlsafe_b64encode(os.urandom(31)).decode(),
    "no base64": "!" * 43,
    "text": "correct horse battery staple",
}


@pytest.mark.parametrize("case", KEYS)
@pytest.mark.parametrize("url", ["memory://", "redis://127.0.0.1:1"])
def test_an_invalid_encryption_key_is_refused_and_not_shown(
    closing: contextlib.AsyncExitStack, case: str, url: str
) -> None:
    with pytest.raises(StartError, match=r"store\.encryption_key") as caught:
        open_token_store(settings(url=url, encryption_key=KEYS[case]), closing)
    assert KEYS[case] not in str(caught.value)


@pytest.mark.parametrize("padded", [True, False])
async def test_an_encryption_key_is_read_with_and_without_padding(
    closing: contextlib.AsyncExitStack, server: RedisServer, tmp_path: Path, padded: bool
) -> None:
    file = tmp_path / "key"
    text = base64.urlsafe_b64encode(bytes(range(224, 256))).decode()
    file.write_text((text if padded else text.rstrip("=")) + "\n")
    store = open_token_store(settings(url=server.url, encryption_key_file=str(file)), closing)
    assert await can_store(store)
    given = open_token_store(settings(url=server.url, encryption_key=text), closing)
    assert await given.get(StoreKey(KEY.name, Secret("of another client"))) is not None


def test_a_missing_key_file_is_refused(closing: contextlib.AsyncExitStack, tmp_path: Path) -> None:
    gone = str(tmp_path / "none")
    with pytest.raises(StartError, match=f"store.encryption_key_file: {gone}: no such file"):
        open_token_store(settings(encryption_key_file=gone), closing)


def test_an_outbox_key_may_be_written_with_and_without_padding() -> None:
    raw = bytes(range(224, 256))
    text = base64.urlsafe_b64encode(raw).decode()
    for spelling in (text, text.rstrip("="), f" {text}\n"):
        assert outbox_key(OutboxSettings.model_validate({"encryption_key": spelling})) == raw


@pytest.mark.parametrize("text", ["short", "A" * 44 + "AAAA", "ä" * 43, "A" * 42 + "!"])
def test_an_outbox_key_that_is_none_is_refused(text: str) -> None:
    chosen = OutboxSettings.model_validate({"encryption_key": text})
    with pytest.raises(StartError, match=r"outbox\.encryption_key: is not 32 bytes") as raised:
        outbox_key(chosen)
    assert "openssl rand" in str(raised.value)
    assert text not in str(raised.value)


def test_a_missing_outbox_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"outbox\.encryption_key.*is missing"):
        outbox_key(OutboxSettings())
    absent = OutboxSettings.model_validate({"encryption_key_file": str(tmp_path / "key")})
    with pytest.raises(StartError, match="key"):
        outbox_key(absent)
