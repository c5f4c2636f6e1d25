"""Tokens in a Redis or Valkey that replicas share.

A token is kept as a hash of its ciphertext and its mark, and lives as long as the server's own
clock says: replicas' clocks need not agree. What cannot be understood is a miss. Every failure of
the server is an exception, soon; `gateway.oauth.store_access` decides what to do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.oauth.encryption import TokenCipher, TokenPayload
from gateway.oauth.store import StoreKey
from gateway.oauth.token import AccessToken
from gateway.secret import Secret
from gateway.timing import TimeSource

_PREFIX: Final = "dhp-gateway:1"
LEASE: Final = 3.0
_RENEW_EVERY: Final = 1.0

# Compare and act in one step: between two, another replica could have put another token.
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


class RedisTokenStore:
    """Keeps tokens in a server that others use too. The client is its maker's to close.

    `encryption_key`, if given, takes the place of the clients' secrets in deriving keys. `lease` is
    how long, in seconds, a replica that died keeps others from asking the SSO.
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

    async def get(self, key: StoreKey) -> AccessToken | None:
        """The token kept under `key`, if it has not expired."""
        place = redis_key(key.name, "token")
        asked = self._times.clock()
        async with self._client.pipeline(transaction=True) as commands:
            commands.hget(place, "sealed")
            commands.pttl(place)
            sealed, remaining = await commands.execute(raise_on_error=False)
        if not isinstance(sealed, bytes) or not isinstance(remaining, int) or remaining <= 0:
            return None
        content = self._cipher(key).decrypt(sealed)
        return None if content is None else self._token(content, asked, remaining / 1000)

    def _token(self, content: TokenPayload, asked: float, remaining: float) -> AccessToken | None:
        if not remaining <= content.lifetime:
            return None
        return AccessToken(
            content.value,
            received_at=asked + remaining - content.lifetime,
            lifetime=content.lifetime,
            wall_expiry=self._times.wall_clock() + remaining,
            scope=content.scope,
        )

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Keep `token` until it expires, in place of any other."""
        place = redis_key(key.name, "token")
        sealed = self._cipher(key).encrypt(
            TokenPayload(token.reveal(), token.lifetime, token.scope)
        )
        # The end is told by the server's clock: a command that it runs late changes nothing then.
        seconds, microseconds = await self._client.time()
        remaining = token.expires_at - self._times.clock()
        end = int((seconds + remaining) * 1000 + microseconds / 1000)
        async with self._client.pipeline(transaction=True) as commands:
            commands.delete(place)
            commands.hset(place, mapping={"sealed": sealed.ciphertext, "mark": sealed.digest})
            commands.pexpireat(place, end)
            await commands.execute()

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Forget `token`, unless another one has taken its place meanwhile."""
        mark = self._cipher(key).token_digest(token.reveal())
        await run_script(self._client, _DROP, redis_key(key.name, "token"), mark)

    async def acquire_lease(self, key: StoreKey) -> RedisLease | None:
        """The right to ask for a token, kept until it is released; None: another has it."""
        lease = RedisLease(self._client, redis_key(key.name, "lease"), self._lease)
        return lease if await lease.acquire() else None

    def _cipher(self, key: StoreKey) -> TokenCipher:
        return TokenCipher(self._encryption_key or key.material, key.name)


class RedisLease:
    """A right that ends by itself soon after its holder does; renewed while it is held."""

    def __init__(self, client: Redis, place: str, seconds: float) -> None:
        self._client = client
        self._key = place
        self._seconds = seconds
        self._holder = secrets.token_bytes(16)
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> bool:
        """Whether nobody else has it; it is kept then."""
        milliseconds = int(self._seconds * 1000)
        taken = await self._client.set(self._key, self._holder, nx=True, px=milliseconds)
        if taken:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return bool(taken)

    async def release(self) -> None:
        """Let others have it."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await run_script(self._client, _RELEASE, self._key, self._holder)

    async def _renew(self) -> None:
        milliseconds = str(int(self._seconds * 1000))
        while True:
            await asyncio.sleep(self._seconds * _RENEW_EVERY / LEASE)
            # While the server is away there is nothing to be kept.
            with contextlib.suppress(RedisError, OSError):
                await run_script(self._client, _RENEW, self._key, self._holder, milliseconds)


def redis_key(name: str, what: str) -> str:
    """Where something of a name is kept: all of one name on one node of a cluster."""
    return f"{_PREFIX}:{{{name}}}:{what}"


async def run_script(client: Redis, script: str, place: str, *arguments: bytes | str) -> Any:
    """What a script says of a place."""
    return await client.eval(script, 1, place, *arguments)
