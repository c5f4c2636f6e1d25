"""A token store in a Redis or Valkey server that replicas share.

A token is stored as a Redis hash of its ciphertext (`sealed`) and its digest (`mark`). It expires
by the server's clock, so the clocks of the replicas need not agree. A value that cannot be
decrypted is treated as a miss. Every failure of the server raises an exception without long delay;
`gateway.oauth.token_store` decides how to handle it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.clock import TimeSource
from gateway.oauth.sealed_values import ValueCipher
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreKey
from gateway.secret import Secret

_PREFIX: Final = "dhp-gateway:1"
LEASE: Final = 3.0
_RENEWALS_PER_LEASE: Final = 3

# Comparison and change are one script, hence atomic: between two commands another replica could
# store another token.
_DROP: Final = """
if redis.call('TYPE', KEYS[1]).ok == 'hash' and redis.call('HGET', KEYS[1], 'mark') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class RedisStore:
    """A store in a server that replicas share. The creator of `client` closes it.

    `encryption_key` is a secret of the gateway that takes part in the encryption if it is given.
    `lease`: lifetime of a lease in seconds, for which a replica that died prevents the other
    replicas from requesting a token.
    """

    def __init__(
        self,
        client: Redis,
        *,
        encryption_key: Secret | None = None,
        times: TimeSource | None = None,
        lease: float = LEASE,
    ) -> None:
        self._client = client
        self._encryption_key = encryption_key
        self._times = times or TimeSource()
        self._lease = lease

    async def lease(self, lease_key: str) -> RedisLease | None:
        """Acquire a lease, which is renewed until it is released. Return None while it is held."""
        holder = secrets.token_bytes(16)
        milliseconds = int(self._lease * 1000)
        if not await self._client.set(lease_key, holder, nx=True, px=milliseconds):
            return None
        return RedisLease(self._client, lease_key, holder, self._lease, self._times)


class RedisTokenStore(RedisStore):
    """Stores tokens. Their keys are derived from `encryption_key`, else from the client secret."""

    async def get(self, key: StoreKey) -> AccessToken | None:
        """Return the token stored under `key`, or None if there is none or it has expired."""
        token_key = redis_key(key.name, "token")
        requested_at = self._times.clock()
        async with self._client.pipeline(transaction=True) as commands:
            commands.hget(token_key, "sealed")
            commands.pttl(token_key)
            sealed, remaining = await commands.execute(raise_on_error=False)
        if not isinstance(sealed, bytes) or not isinstance(remaining, int) or remaining <= 0:
            return None
        plain = self._cipher(key).decrypt(sealed)
        return None if plain is None else self._token(plain, requested_at, remaining / 1000)

    def _token(
        self, plain: Mapping[str, Any], requested_at: float, remaining: float
    ) -> AccessToken | None:
        lifetime: float = plain["lifetime"]
        if not remaining <= lifetime:
            return None
        return AccessToken(
            plain["value"],
            received_at=requested_at + remaining - lifetime,
            lifetime=lifetime,
            wall_expiry=self._times.wall_clock() + remaining,
            scope=plain["scope"],
        )

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Store `token` until it expires, replacing any other token of `key`."""
        token_key = redis_key(key.name, "token")
        cipher = self._cipher(key)
        plain = {"value": token.reveal(), "lifetime": token.lifetime, "scope": token.scope}
        sealed, mark = cipher.encrypt(plain), cipher.digest(token.reveal())
        # The expiry is a moment of the server's clock, not a duration: a command that the server
        # executes late does not postpone it.
        seconds, microseconds = await self._client.time()
        remaining = token.expires_at - self._times.clock()
        end = int((seconds + remaining) * 1000 + microseconds / 1000)
        async with self._client.pipeline(transaction=True) as commands:
            commands.delete(token_key)
            commands.hset(token_key, mapping={"sealed": sealed, "mark": mark})
            commands.pexpireat(token_key, end)
            await commands.execute()

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Delete `token`, unless another token has replaced it meanwhile."""
        mark = self._cipher(key).digest(token.reveal())
        await run_script(self._client, _DROP, redis_key(key.name, "token"), mark)

    async def acquire_lease(self, key: StoreKey) -> RedisLease | None:
        """Acquire the lease for requesting a token. Return None while another replica holds it."""
        return await self.lease(redis_key(key.name, "lease"))

    def _cipher(self, key: StoreKey) -> ValueCipher:
        return ValueCipher("token store", key.name, self._encryption_key or key.material)


class RedisLease:
    """A lease that is renewed while it is held and expires `seconds` after its holder died.

    `holder` is the random value that is stored at the key. The lock of redis-py is not used: it
    needs more commands of the server than the user of docs/operations.md may use.
    """

    def __init__(
        self, client: Redis, key: str, holder: bytes, seconds: float, times: TimeSource
    ) -> None:
        self._client = client
        self._key = key
        self._holder = holder
        self._seconds = seconds
        self._times = times
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def release(self) -> None:
        """Stop renewing the lease and release it, unless another holder has acquired it since."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        await run_script(self._client, _RELEASE, self._key, self._holder)

    async def _renew(self) -> None:
        milliseconds = str(int(self._seconds * 1000))
        while True:
            await self._times.sleep(self._seconds / _RENEWALS_PER_LEASE)
            # While the server is unreachable the lease cannot be renewed; the next round retries.
            with contextlib.suppress(RedisError, OSError):
                await run_script(self._client, _RENEW, self._key, self._holder, milliseconds)


def redis_key(name: str, what: str) -> str:
    """Return the Redis key for `what` of `name`.

    `name` is the hash tag, so that all keys of one name are on the same node of a cluster.
    """
    return f"{_PREFIX}:{{{name}}}:{what}"


async def run_script(client: Redis, script: str, key: str, *arguments: bytes | str) -> Any:
    """Run a Lua script on `key` and return the script's result."""
    return await client.eval(script, 1, key, *arguments)
