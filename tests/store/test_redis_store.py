"""Tokens in a real redis-server."""

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

    async def test_a_token_is_read_by_another_replica(self, replica: Replica) -> None:
        await replica().put(KEY, token())
        got = await replica().get(KEY)
        assert got == token()
        assert got is not None
        assert (got.lifetime, got.scope) == (300.0, "a b")
        assert await replica().get(StoreKey("b" * 64, KEY.material)) is None

    async def test_clocks_need_not_agree(self, replica: Replica) -> None:
        clock, other = FakeClock(1000), FakeClock(9_000_000, wall=5.0)
        await replica(clock).put(KEY, token(at=800))
        got = await replica(other).get(KEY)
        assert got is not None
        remaining = got.expires_at - other()
        assert 90 < remaining <= 100
        assert got.wall_expiry - other.wall() == pytest.approx(remaining)

    async def test_an_entry_expires_with_its_token(self, replica: Replica, client: Redis) -> None:
        await replica().put(KEY, token(at=800))
        assert 90_000 < await client.pttl(PLACE) <= 100_000
        await replica().put(KEY, token(at=600))
        assert await client.exists(PLACE) == 0
        assert await replica().get(KEY) is None

    async def test_a_lifetime_is_kept_to_the_millisecond(
        self, replica: Replica, client: Redis
    ) -> None:
        seconds, microseconds = await client.time()
        await replica().put(KEY, token(at=1000, lifetime=9.05))
        remaining = await client.pttl(PLACE)
        end, fraction = await client.time()
        elapsed = (end - seconds) * 1000 + (fraction - microseconds) / 1000
        assert 9049 - elapsed <= remaining <= 9050

    async def test_a_short_lifetime_ends(self, replica: Replica) -> None:
        await replica().put(KEY, token(at=1000, lifetime=0.05))
        while await replica().get(KEY) is not None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)

    async def test_put_replaces_a_token(self, replica: Replica) -> None:
        store = replica()
        await store.put(KEY, token("one"))
        await store.put(KEY, token("two"))
        assert await store.get(KEY) == token("two")

    async def test_a_delayed_command_does_not_extend_a_lifetime(
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

    async def test_delete_removes_only_the_named_token(self, replica: Replica) -> None:
        await replica().put(KEY, token("new"))
        await replica().delete(KEY, token("old"))
        assert await replica().get(KEY) == token("new")
        await replica().delete(KEY, token("new"))
        assert await replica().get(KEY) is None
        await replica().delete(KEY, token("new"))

    async def test_concurrent_deletes_keep_a_new_token(self, replica: Replica) -> None:
        await replica().put(KEY, token("old"))
        stores = [replica() for _ in range(5)]
        drops = [stores[n % 5].delete(KEY, token("old")) for n in range(100)]
        await asyncio.gather(*drops[:50], replica().put(KEY, token("new")), *drops[50:])
        assert await replica().get(KEY) == token("new")


class TestSecrecy:
    """The memory of the server reveals no token."""

    async def test_another_client_secret_neither_reads_nor_deletes(self, replica: Replica) -> None:
        await replica().put(KEY, token())
        assert await replica().get(OTHER_SECRET) is None
        await replica().delete(OTHER_SECRET, token())
        assert await replica().get(KEY) == token()

    async def test_a_configured_encryption_key_is_used(self, replica: Replica) -> None:
        key = Secret("k" * 43)
        await replica(encryption_key=key).put(KEY, token())
        assert await replica().get(KEY) is None
        assert await replica(encryption_key=key).get(OTHER_SECRET) == token()

    async def test_a_ciphertext_of_another_key_is_a_miss(
        self, replica: Replica, client: Redis
    ) -> None:
        elsewhere = StoreKey("c" * 64, KEY.material)
        await replica().put(KEY, token())
        await client.copy(PLACE, PLACE.replace(KEY.name, elsewhere.name))
        assert await replica().get(elsewhere) is None

    async def test_equal_tokens_have_different_ciphertexts(
        self, replica: Replica, client: Redis
    ) -> None:
        seen = set()
        for _ in range(5):
            await replica().put(KEY, token())
            seen.add(await client.hget(PLACE, "sealed"))
        assert len(seen) == 5


class TestPoisoned:
    """What this version cannot understand is a miss, and is overwritten."""

    @pytest.mark.parametrize("value", [b"", b"x", b"\x00" * 12, b"\x00" * 200, b"{}"])
    async def test_invalid_data_is_a_miss(
        self, replica: Replica, client: Redis, value: bytes
    ) -> None:
        await client.hset(PLACE, mapping={"sealed": value, "mark": b"x"})
        await client.pexpire(PLACE, 60_000)
        await self.recovers(replica())

    async def test_a_modified_ciphertext_is_a_miss(self, replica: Replica, client: Redis) -> None:
        await replica().put(KEY, token())
        sealed = bytearray(await client.hget(PLACE, "sealed"))
        sealed[20] ^= 1
        await client.hset(PLACE, "sealed", bytes(sealed))
        await self.recovers(replica())

    async def test_an_invalid_expiry_is_a_miss(self, replica: Replica, client: Redis) -> None:
        await replica().put(KEY, token())
        await client.pexpire(PLACE, 86_400_000)
        assert await replica().get(KEY) is None
        await client.persist(PLACE)
        await self.recovers(replica())

    async def test_another_redis_type_is_a_miss(self, replica: Replica, client: Redis) -> None:
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

    async def test_a_lease_has_one_holder(self, replica: Replica) -> None:
        stores = [replica() for _ in range(8)]
        claims = await asyncio.gather(*(store.acquire_lease(KEY) for store in stores * 5))
        (lease,) = [claim for claim in claims if claim is not None]
        await lease.release()
        following = await replica().acquire_lease(KEY)
        assert following is not None
        await following.release()

    async def test_a_held_lease_is_renewed(self, replica: Replica, client: Redis) -> None:
        lease = await replica(lease=6.0).acquire_lease(KEY)
        assert lease is not None
        left = await client.pttl(LEASE)
        while (now := await client.pttl(LEASE)) <= left:
            left = now
            assert await replica().acquire_lease(KEY) is None
            await asyncio.sleep(0.1)
        await lease.release()
        assert not await client.exists(LEASE)

    async def test_the_lease_of_a_killed_holder_expires(
        self, replica: Replica, client: Redis
    ) -> None:
        await client.set(LEASE, b"of a process that was killed", nx=True, px=600_000)
        assert await replica().acquire_lease(KEY) is None
        await client.pexpire(LEASE, 1)
        while (lease := await replica().acquire_lease(KEY)) is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
        await lease.release()

    async def test_a_lost_lease_is_not_released_for_its_next_holder(
        self, replica: Replica, client: Redis
    ) -> None:
        lease = await replica().acquire_lease(KEY)
        assert lease is not None
        await client.set(LEASE, b"somebody else")
        await lease.release()
        assert await client.get(LEASE) == b"somebody else"

    async def test_an_outage_ends_a_lease_without_an_error(
        self, replica: Replica, server: RedisServer
    ) -> None:
        lease = await replica(lease=0.3).acquire_lease(KEY)
        assert lease is not None
        server.kill()
        await asyncio.sleep(0.3)
        with pytest.raises(RedisError):
            await lease.release()
