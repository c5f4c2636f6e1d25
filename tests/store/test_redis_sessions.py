"""Sessions in a real redis-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from gateway.clock import TimeSource
from gateway.config.operations_settings import LoginSettings
from gateway.login.redis_session_store import RedisSessionStore
from gateway.login.session_store import Session, SignedInUser, SignInState, digest, store_key
from gateway.login.sessions import SessionManager
from gateway.oauth.grants import RenewalGrant
from gateway.oauth.token_response import AccessToken
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.store.redis_server import RedisServer

PERSON = SignedInUser("planted-subject", "Planted Name", (digest("sub", "a"), digest("sid", "b")))
SIGN_IN = {"state": "planted-state", "return_to": "/planted-target"}
RENEWAL = RenewalGrant(Secret("planted-refresh"), {"RefreshToken": Secret("planted-cookie")})


def made(value: str = "planted-token", *, at: float = 1000.0) -> AccessToken:
    """A token that was asked for at a moment of a fake clock."""
    return AccessToken(value, received_at=at, lifetime=300.0, wall_expiry=0, scope="a b")


Replica = Callable[..., RedisSessionStore]


@pytest.fixture
async def replica(server: RedisServer) -> AsyncIterator[Replica]:
    """Makes stores of several processes, each with a client and a clock of its own."""
    clients: list[Redis] = []

    def one(clock: FakeClock | None = None, **options: object) -> RedisSessionStore:
        clients.append(Redis(host="127.0.0.1", port=server.port, protocol=2))
        mine = clock or FakeClock()
        return RedisSessionStore(clients[-1], times=TimeSource(mine, mine.wall), **options)  # type: ignore[arg-type]

    yield one
    for client in clients:
        await client.aclose()


def sessions(store: RedisSessionStore, clock: FakeClock | None = None) -> SessionManager:
    return SessionManager(
        store=store, login=LoginSettings(), identity="here", times=TimeSource(clock or FakeClock())
    )


async def create_session(store: RedisSessionStore) -> tuple[str, Session]:
    return await sessions(store).create(PERSON, made(), RENEWAL, **SIGN_IN)


async def test_another_replica_reads_the_session(replica: Replica) -> None:
    identifier, session = await create_session(replica())
    other = FakeClock(now=77.0)
    found = await sessions(replica(other), other).find(identifier, touch=True)
    assert found is not None
    assert (found.signed_in_user, found.renewal) == (session.signed_in_user, session.renewal)
    assert (found.state_digest, found.return_to) == (session.state_digest, "/planted-target")
    assert (found.token, found.token.scope) == (session.token, "a b")
    assert found.token.received_at == pytest.approx(77.0, abs=60)
    assert found.started_at == pytest.approx(77.0, abs=60)


async def test_unknown_identifiers_give_no_session(replica: Replica, client: Redis) -> None:
    identifier, session = await create_session(replica())
    assert await sessions(replica()).find("another", touch=False) is None
    assert await sessions(replica()).find(session.key.name, touch=False) is None
    elsewhere = store_key("attackers-own")
    place = "dhp-gateway:1:{%s}:session"
    await client.rename(place % session.key.name, place % elsewhere.name)
    assert await sessions(replica()).find("attackers-own", touch=False) is None
    assert await sessions(replica()).find(identifier, touch=False) is None


async def test_a_dump_reveals_nothing(replica: Replica, server: RedisServer) -> None:
    store = replica()
    identifier, session = await create_session(store)
    state, binding = "planted-state", "planted-binding"
    sign_in = SignInState(Secret("planted-verifier"), "planted-nonce", "/planted-path")
    await store.save_sign_in(store_key(state, binding), sign_in)
    await server.save()
    dump = server.dump.read_bytes()
    assert session.key.name.encode() in dump
    assert b"planted" not in dump.lower()
    assert b"Planted" not in dump
    assert identifier.encode() not in dump


async def test_the_encryption_key_is_needed_as_well(replica: Replica) -> None:
    keyed = replica(encryption_key=Secret("k" * 43))
    identifier, _ = await create_session(keyed)
    assert await sessions(replica()).find(identifier, touch=False) is None
    other = replica(encryption_key=Secret("x" * 43))
    assert await sessions(other).find(identifier, touch=False) is None
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 0
    assert await keyed.delete_by_mark(PERSON.logout_marks[0]) == 1


async def test_a_modified_session_is_ignored(replica: Replica, client: Redis) -> None:
    identifier, session = await create_session(replica())
    place = f"dhp-gateway:1:{{{session.key.name}}}:session"
    sealed = bytearray(await client.hget(place, "sealed") or b"")
    sealed[-1] ^= 1
    await client.hset(place, "sealed", bytes(sealed))
    assert await sessions(replica()).find(identifier, touch=False) is None


async def test_idle_sessions_expire_in_redis(replica: Replica, client: Redis) -> None:
    store = sessions(replica())
    identifier, session = await store.create(PERSON, made(), RENEWAL, **SIGN_IN)
    place = f"dhp-gateway:1:{{{session.key.name}}}:session"
    assert await client.pttl(place) == pytest.approx(1_800_000, abs=60_000)
    long_ago = float(await client.hget(place, "used") or 0) - 20
    await client.hset(place, "used", repr(long_ago))
    await client.pexpire(place, 100_000)
    assert await store.find(identifier, touch=False) is not None
    assert await client.pttl(place) <= 100_000
    assert await store.find(identifier, touch=True) is not None
    assert await client.pttl(place) == pytest.approx(1_800_000, abs=60_000)
    await client.pexpire(place, 1)
    while await client.exists(place):
        pass
    assert await store.find(identifier, touch=True) is None


async def test_replicas_read_a_refreshed_token(replica: Replica) -> None:
    first = replica()
    identifier, session = await create_session(first)
    session.token, session.renewal = made("next"), RenewalGrant(Secret("next-refresh"))
    assert await first.save(session)
    found = await sessions(replica()).find(identifier, touch=False)
    assert found is not None
    assert found.token == made("next")
    assert found.renewal == RenewalGrant(Secret("next-refresh"))


async def test_an_ended_session_is_not_restored(replica: Replica, client: Redis) -> None:
    store = replica()
    identifier, session = await create_session(store)
    await sessions(replica()).end(session)
    assert await store.save(session) is False
    await store.touch(session, 100.0)
    assert await sessions(store).find(identifier, touch=False) is None
    assert await client.keys("*session*") == []


async def test_a_logout_mark_ends_its_sessions(replica: Replica) -> None:
    store = replica()
    of_mark = [await create_session(store) for _ in range(2)]
    other, _ = await sessions(store).create(SignedInUser("other"), made(), RENEWAL, **SIGN_IN)
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 2
    for identifier, _ in of_mark:
        assert await sessions(store).find(identifier, touch=False) is None
    assert await sessions(store).find(other, touch=False) is not None
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 0


async def test_a_pending_sign_in_is_read_once(replica: Replica, client: Redis) -> None:
    key = store_key("state", "binding")
    sign_in = SignInState(Secret("verifier"), "nonce", "/fhir/Patient")
    await replica().save_sign_in(key, sign_in)
    place = f"dhp-gateway:1:{{{key.name}}}:sign-in"
    assert await client.pttl(place) == pytest.approx(600_000, abs=60_000)
    assert await replica().pop_sign_in(store_key("state", "another")) is None
    assert await replica().pop_sign_in(key) == sign_in
    assert await replica().pop_sign_in(key) is None
