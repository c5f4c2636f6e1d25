"""The shared store against a real redis-server: what is kept, for how long, and who can read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.clock import TimeSource
from gateway.oauth.redis_token_store import RedisTokenStore
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreKey
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.store.redis_server import RedisServer

KEY = StoreKey("a" * 64, Secret("planted-client-secret"))
OTHER_SECRET = StoreKey(KEY.name, Secret("another"))
PLACE = f"dhp-gateway:1:{{{KEY.name}}}:token"
LEASE = f"dhp-gateway:1:{{{KEY.name}}}:lease"


def token(
    value: str = "planted-token", *, at: float = 1000.0, lifetime: float = 300.0
) -> AccessToken:
    """A token that was asked for at a moment of the fake clock."""
    return AccessToken(value, received_at=at, lifetime=lifetime, wall_expiry=0, scope="a b")


@pytest.fixture
def clock() -> FakeClock:
    """Time as the test wants it."""
    return FakeClock()


Replica = Callable[..., RedisTokenStore]


@pytest.fixture
async def replica(server: RedisServer, clock: FakeClock) -> AsyncIterator[Replica]:
    """Makes stores of several replicas, each with a client and perhaps a clock of its own."""
    clients: list[Redis] = []

    def made(own: FakeClock | None = None, **options: object) -> RedisTokenStore:
        clients.append(Redis(host="127.0.0.1", port=server.port, protocol=2))
        mine = own or clock
        return RedisTokenStore(clients[-1], times=TimeSource(mine, mine.wall), **options)

    yield made
    for client in clients:
        await client.aclose()


class TestKeeping:
    """What one replica puts another gets."""

    async def test_shared(self, replica: Replica) -> None:
        """Value, lifetime and scope arrive; an unknown key is a miss."""
        await replica().put(KEY, token())
        got = await replica().get(KEY)
        assert got == token()
        assert got is not None
        assert (got.lifetime, got.scope) == (300.0, "a b")
        assert await replica().get(StoreKey("b" * 64, KEY.material)) is None

    async def test_clocks_need_not_agree(self, replica: Replica) -> None:
        """What is left of a token's life is the same for a replica whose clocks stand elsewhere."""
        clock, other = FakeClock(1000), FakeClock(9_000_000, wall=5.0)
        await replica(clock).put(KEY, token(at=800))
        got = await replica(other).get(KEY)
        assert got is not None
        remaining = got.expires_at - other()
        assert 90 < remaining <= 100
        assert got.wall_expiry - other.wall() == pytest.approx(remaining)

    async def test_ends_with_the_token(self, replica: Replica, client: Redis) -> None:
        """Nothing is kept longer than it lives."""
        await replica().put(KEY, token(at=800))
        assert 90_000 < await client.pttl(PLACE) <= 100_000
        await replica().put(KEY, token(at=600))
        assert await client.exists(PLACE) == 0
        assert await replica().get(KEY) is None

    async def test_short_life(self, replica: Replica) -> None:
        await replica().put(KEY, token(at=1000, lifetime=0.05))
        while await replica().get(KEY) is not None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)

    async def test_put_replaces(self, replica: Replica) -> None:
        store = replica()
        await store.put(KEY, token("one"))
        await store.put(KEY, token("two"))
        assert await store.get(KEY) == token("two")

    async def test_late_command(
        self, replica: Replica, server: RedisServer, client: Redis, clock: FakeClock
    ) -> None:
        """A server that hangs and runs a command later does not lengthen a token's life."""
        store = replica()
        await store.get(KEY)
        server.freeze()
        putting = asyncio.ensure_future(store.put(KEY, token(lifetime=60)))
        await asyncio.sleep(0.05)
        clock.now += 50
        server.thaw()
        await putting
        assert await client.pttl(PLACE) <= 10_000


class TestDropping:
    """A token that the platform rejected disappears; its successor does not."""

    async def test_compare_and_delete(self, replica: Replica) -> None:
        """Only the named token is deleted, whichever replica put it."""
        await replica().put(KEY, token("new"))
        await replica().delete(KEY, token("old"))
        assert await replica().get(KEY) == token("new")
        await replica().delete(KEY, token("new"))
        assert await replica().get(KEY) is None
        await replica().delete(KEY, token("new"))

    async def test_race(self, replica: Replica) -> None:
        """Whatever the order of a hundred drops and one put, the new token stays."""
        await replica().put(KEY, token("old"))
        stores = [replica() for _ in range(5)]
        drops = [stores[n % 5].delete(KEY, token("old")) for n in range(100)]
        await asyncio.gather(*drops[:50], replica().put(KEY, token("new")), *drops[50:])
        assert await replica().get(KEY) == token("new")


class TestSecrecy:
    """Who gets hold of the server's memory has no token."""

    async def test_other_secret(self, replica: Replica) -> None:
        """A client with another secret cannot open a token, nor drop it."""
        await replica().put(KEY, token())
        assert await replica().get(OTHER_SECRET) is None
        await replica().delete(OTHER_SECRET, token())
        assert await replica().get(KEY) == token()

    async def test_given_key(self, replica: Replica) -> None:
        key = Secret("k" * 43)
        await replica(encryption_key=key).put(KEY, token())
        assert await replica().get(KEY) is None
        assert await replica(encryption_key=key).get(OTHER_SECRET) == token()

    async def test_moved(self, replica: Replica, client: Redis) -> None:
        """A ciphertext that was copied to another key is a miss there."""
        elsewhere = StoreKey("c" * 64, KEY.material)
        await replica().put(KEY, token())
        await client.copy(PLACE, PLACE.replace(KEY.name, elsewhere.name))
        assert await replica().get(elsewhere) is None

    async def test_never_the_same(self, replica: Replica, client: Redis) -> None:
        seen = set()
        for _ in range(5):
            await replica().put(KEY, token())
            seen.add(await client.hget(PLACE, "sealed"))
        assert len(seen) == 5


class TestPoisoned:
    """What this version cannot understand is a miss, and is overwritten."""

    @pytest.mark.parametrize("value", [b"", b"x", b"\x00" * 12, b"\x00" * 200, b"{}"])
    async def test_garbage(self, replica: Replica, client: Redis, value: bytes) -> None:
        await client.hset(PLACE, mapping={"sealed": value, "mark": b"x"})
        await client.pexpire(PLACE, 60_000)
        await self.recovers(replica())

    async def test_changed_bit(self, replica: Replica, client: Redis) -> None:
        await replica().put(KEY, token())
        sealed = bytearray(await client.hget(PLACE, "sealed"))
        sealed[20] ^= 1
        await client.hset(PLACE, "sealed", bytes(sealed))
        await self.recovers(replica())

    async def test_no_end(self, replica: Replica, client: Redis) -> None:
        """A token without an end, or with one beyond its lifetime."""
        await replica().put(KEY, token())
        await client.pexpire(PLACE, 86_400_000)
        assert await replica().get(KEY) is None
        await client.persist(PLACE)
        await self.recovers(replica())

    async def test_other_type(self, replica: Replica, client: Redis) -> None:
        await client.set(PLACE, b"text")
        await replica().delete(KEY, token())
        await self.recovers(replica())

    async def recovers(self, store: RedisTokenStore) -> None:
        """A miss, then as if nothing had been."""
        assert await store.get(KEY) is None
        await store.put(KEY, token())
        assert await store.get(KEY) == token()


class TestLease:
    """One replica at a time has the right to ask the SSO."""

    async def test_exclusive(self, replica: Replica) -> None:
        """Of many replicas that claim it at once one gets it; after its release another can."""
        stores = [replica() for _ in range(8)]
        claims = await asyncio.gather(*(store.acquire_lease(KEY) for store in stores * 5))
        (lease,) = [claim for claim in claims if claim is not None]
        await lease.release()
        following = await replica().acquire_lease(KEY)
        assert following is not None
        await following.release()

    async def test_renewed(self, replica: Replica, client: Redis) -> None:
        """It lasts longer than its term while it is held."""
        lease = await replica(lease=6.0).acquire_lease(KEY)
        assert lease is not None
        left = await client.pttl(LEASE)
        while (now := await client.pttl(LEASE)) <= left:
            left = now
            assert await replica().acquire_lease(KEY) is None
            await asyncio.sleep(0.1)
        await lease.release()
        assert not await client.exists(LEASE)

    async def test_holder_dies(self, replica: Replica, client: Redis) -> None:
        await client.set(LEASE, b"of a process that was killed", nx=True, px=600_000)
        assert await replica().acquire_lease(KEY) is None
        await client.pexpire(LEASE, 1)
        while (lease := await replica().acquire_lease(KEY)) is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
        await lease.release()

    async def test_release_of_a_lost_one(self, replica: Replica, client: Redis) -> None:
        """Who has lost it does not take it from its next holder."""
        lease = await replica().acquire_lease(KEY)
        assert lease is not None
        await client.set(LEASE, b"somebody else")
        await lease.release()
        assert await client.get(LEASE) == b"somebody else"

    async def test_away_while_held(self, replica: Replica, server: RedisServer) -> None:
        """A server that disappears meanwhile ends the holding, not the holder."""
        lease = await replica(lease=0.3).acquire_lease(KEY)
        assert lease is not None
        server.kill()
        await asyncio.sleep(0.3)
        with pytest.raises(RedisError):
            await lease.release()
