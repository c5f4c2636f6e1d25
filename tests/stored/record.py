"""Writes the files and values that `test_stored_data.py` opens with every later version.

Run `python -m tests.stored.record FOLDER`, with redis-server installed, in a checkout of the
version whose data is to be kept. The folder's files are never written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from gateway.login.redis_session_store import RedisSessionStore
from gateway.login.session_store import Session, SignedInUser, SignInState, store_key
from gateway.oauth.grants import RenewalGrant
from gateway.oauth.redis_token_store import RedisTokenStore
from gateway.oauth.token_response import AccessToken
from gateway.secret import Secret
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform, outcome, then_close
from tests.doubles.sso import Sso
from tests.outbox.path.conftest import opening
from tests.outbox.path.harness import OutboxSetup
from tests.store.redis_server import RedisServer, redis_server

CLIENT_SECRET = "planted-client-secret"
ENCRYPTION_KEY = Secret("B" * 43)
TOKEN_KEY = store_key("stored", CLIENT_SECRET)
SESSION_KEY = store_key("stored", "planted-session-identifier")
SIGN_IN_KEY = store_key("stored", "planted-sign-in-identifier")
MARK = "planted-mark"


def _token(value: str, received_at: float) -> AccessToken:
    return AccessToken(value, received_at=received_at, lifetime=3600, wall_expiry=0, scope="a b")


async def _record_outbox(folder: Path, work: Path) -> None:
    """Record entries: delivered, failed, unclear with one behind it, waiting, long, a deletion."""
    async with Platform() as platform, opening(platform, work) as setup:
        locations = {}
        setup.relay.cut()
        locations["delivered"] = (await setup.write(patient=1, number=1)).location
        await setup.relay.restore()
        await setup.final_response(locations["delivered"])
        setup.relay.cut()
        locations["failed"] = (await setup.write(patient=2, number=2)).location
        platform.script(outcome(422))
        await setup.relay.restore()
        await setup.final_response(locations["failed"])
        setup.relay.cut()
        locations["unclear"] = (await setup.write(patient=3, method="POST")).location
        platform.script(then_close(b""))
        await setup.relay.restore()
        await setup.final_response(locations["unclear"])
        locations["behind"] = (await setup.write(patient=3, number=3)).location
        setup.relay.cut()
        locations["waiting"] = (await setup.write(patient=4, number=4)).location
        locations["long"] = (await _write_long(setup)).location
        locations["deletion"] = (await setup.write(patient=5, number=6, method="DELETE")).location
    ids = {name: location.rsplit("/", 1)[1] for name, location in locations.items()}
    (folder / "outbox.json").write_text(json.dumps(ids, indent=1) + "\n")
    # Without the free pages that the outbox keeps for later.
    with contextlib.closing(sqlite3.connect(work / "outbox.db")) as source:
        source.execute("VACUUM INTO ?", (str(folder / "outbox.db"),))


async def _write_long(setup: OutboxSetup) -> Any:
    resource = {"resourceType": "Basic", "id": "5", "code": {"text": "x" * 3000}}
    return await setup.ask("PUT", "/Basic/5", json.dumps(resource).encode(), Prefer="respond-async")


async def _record_audit(folder: Path, work: Path) -> None:
    """Record a chain of two files: the first was rotated when it had reached its size."""
    async with Platform() as platform, Sso() as sso:
        audit = {"sink": "file", "path": str(work / "audit.jsonl"), "rotate_bytes": 4096}
        async with (
            running_gateway(platform.url, sso.token_url, audit=audit) as gateway,
            aiohttp.ClientSession() as session,
        ):
            for number in range(12):
                async with session.get(f"{gateway.url}/Patient/{number}") as response:
                    await response.read()
    _copy(work, folder, "*audit.jsonl*")


def _copy(source: Path, folder: Path, pattern: str) -> None:
    for file in source.glob(pattern):
        shutil.copy(file, folder)


async def _record_redis(folder: Path, server: RedisServer) -> None:
    """Record a token, a session with its mark and a sign-in, each with and without a key."""
    async with Redis(host="127.0.0.1", port=server.port, protocol=2) as client:
        kept = {}
        for name, key in (("plain", None), ("keyed", ENCRYPTION_KEY)):
            await client.flushall()
            store = RedisTokenStore(client, encryption_key=key)
            sessions = RedisSessionStore(client, encryption_key=key)
            now = asyncio.get_running_loop().time()
            await store.put(TOKEN_KEY, _token("planted-token", now))
            session = Session(
                SESSION_KEY,
                "planted-identity",
                SignedInUser("dr.karimova", "Dr. Karimova", (MARK,)),
                started_at=now,
                last_used_at=now,
                token=_token("planted-user-token", now),
                renewal=RenewalGrant(
                    Secret("planted-refresh-token"), {"sid": Secret("planted-cookie")}
                ),
                state_digest="planted-digest",
                return_to="/fhir/Patient",
            )
            await sessions.add(session, 3600, 7200)
            await sessions.save_sign_in(
                SIGN_IN_KEY, SignInState(Secret("planted-verifier"), "nonce", "/fhir/Patient")
            )
            kept[name] = {
                each.decode(): await _value(client, each) for each in sorted(await client.keys())
            }
    (folder / "redis.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


async def _value(client: Redis, key: bytes) -> Any:
    match await client.type(key):
        case b"hash":
            return {
                name.decode(): value.hex() for name, value in (await client.hgetall(key)).items()
            }
        case b"set":
            return sorted(each.hex() for each in await client.smembers(key))
        case _:
            return (await client.get(key)).hex()


async def record(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        await _record_outbox(folder, Path(work))
        await _record_audit(folder, Path(work))
        for server in redis_server(Path(work)):
            await _record_redis(folder, server)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    asyncio.run(record(Path(sys.argv[1])))
