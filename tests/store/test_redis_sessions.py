"""Sessions in a real redis-server: what is kept, for how long, who can read it, who may renew."""

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
    """What a gateway makes of a store."""
    return SessionManager(
        store=store, login=LoginSettings(), identity="here", times=TimeSource(clock or FakeClock())
    )


async def begun(store: RedisSessionStore) -> tuple[str, Session]:
    """Create the session of a signed-in user."""
    return await sessions(store).create(PERSON, made(), RENEWAL)


async def test_another_process_finds_it(replica: Replica) -> None:
    """Person, tokens and their ages arrive, however far the clocks of the processes are apart."""
    identifier, session = await begun(replica())
    other = FakeClock(now=77.0)
    found = await sessions(replica(other), other).find(identifier, touch=True)
    assert found is not None
    assert (found.signed_in_user, found.renewal) == (session.signed_in_user, session.renewal)
    assert (found.token, found.token.scope) == (session.token, "a b")
    assert found.token.received_at == pytest.approx(77.0, abs=60)
    assert found.started_at == pytest.approx(77.0, abs=60)


async def test_nobody_finds_what_is_not_theirs(replica: Replica, client: Redis) -> None:
    """An unknown identifier, a key of the server, and a session moved elsewhere are nothing."""
    identifier, session = await begun(replica())
    assert await sessions(replica()).find("another", touch=False) is None
    assert await sessions(replica()).find(session.key.name, touch=False) is None
    elsewhere = store_key("attackers-own")
    place = "dhp-gateway:1:{%s}:session"
    await client.rename(place % session.key.name, place % elsewhere.name)
    assert await sessions(replica()).find("attackers-own", touch=False) is None
    assert await sessions(replica()).find(identifier, touch=False) is None


async def test_a_dump_opens_and_shows_nothing(replica: Replica, server: RedisServer) -> None:
    """Neither identifier, token, refresh token, cookie, verifier nor name can be read in it."""
    store = replica()
    identifier, session = await begun(store)
    state, binding = "planted-state", "planted-binding"
    sign_in = SignInState(Secret("planted-verifier"), "planted-nonce", "/planted-path")
    await store.save_sign_in(store_key(state, binding), sign_in)
    await server.save()
    dump = server.dump.read_bytes()
    assert session.key.name.encode() in dump
    assert b"planted" not in dump.lower()
    assert b"Planted" not in dump
    assert identifier.encode() not in dump


async def test_the_gateways_key_is_needed_too(replica: Replica) -> None:
    """With `store.encryption_key` an identifier alone opens nothing, nor is a mark known."""
    keyed = replica(encryption_key=Secret("k" * 43))
    identifier, _ = await begun(keyed)
    assert await sessions(replica()).find(identifier, touch=False) is None
    other = replica(encryption_key=Secret("x" * 43))
    assert await sessions(other).find(identifier, touch=False) is None
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 0
    assert await keyed.delete_by_mark(PERSON.logout_marks[0]) == 1


async def test_what_was_tampered_with_is_nothing(replica: Replica, client: Redis) -> None:
    identifier, session = await begun(replica())
    place = f"dhp-gateway:1:{{{session.key.name}}}:session"
    sealed = bytearray(await client.hget(place, "sealed") or b"")
    sealed[-1] ^= 1
    await client.hset(place, "sealed", bytes(sealed))
    assert await sessions(replica()).find(identifier, touch=False) is None


async def test_the_server_ends_what_is_idle(replica: Replica, client: Redis) -> None:
    """It is kept for the idle time from each use that is noted, by the server's own clock."""
    store = sessions(replica())
    identifier, session = await store.create(PERSON, made(), RENEWAL)
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


async def test_a_new_token_reaches_the_others(replica: Replica) -> None:
    """What a renewal brought is found by every process; the time that is left stays as it is."""
    first = replica()
    identifier, session = await begun(first)
    session.token, session.renewal = made("next"), RenewalGrant(Secret("next-refresh"))
    assert await first.save(session)
    found = await sessions(replica()).find(identifier, touch=False)
    assert found is not None
    assert found.token == made("next")
    assert found.renewal == RenewalGrant(Secret("next-refresh"))


async def test_an_ended_session_does_not_come_back(replica: Replica, client: Redis) -> None:
    """Neither a use nor a renewal that ends later brings back what was signed out."""
    store = replica()
    identifier, session = await begun(store)
    await sessions(replica()).end(session)
    assert await store.save(session) is False
    await store.touch(session, 100.0)
    assert await sessions(store).find(identifier, touch=False) is None
    assert await client.keys("*session*") == []


async def test_a_mark_ends_all_its_sessions(replica: Replica) -> None:
    """What the SSO's sign-out names ends in every process, and nothing else does."""
    store = replica()
    of_mark = [await begun(store) for _ in range(2)]
    other, _ = await sessions(store).create(SignedInUser("other"), made(), RENEWAL)
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 2
    for identifier, _ in of_mark:
        assert await sessions(store).find(identifier, touch=False) is None
    assert await sessions(store).find(other, touch=False) is not None
    assert await replica().delete_by_mark(PERSON.logout_marks[0]) == 0


async def test_a_sign_in_is_had_once(replica: Replica, client: Redis) -> None:
    """The callback may reach another process; a second one finds nothing, and time ends it."""
    key = store_key("state", "binding")
    sign_in = SignInState(Secret("verifier"), "nonce", "/fhir/Patient")
    await replica().save_sign_in(key, sign_in)
    place = f"dhp-gateway:1:{{{key.name}}}:sign-in"
    assert await client.pttl(place) == pytest.approx(600_000, abs=60_000)
    assert await replica().pop_sign_in(store_key("state", "another")) is None
    assert await replica().pop_sign_in(key) == sign_in
    assert await replica().pop_sign_in(key) is None
