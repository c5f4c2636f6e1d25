"""The interface of token stores, and the store in memory.

`gateway.oauth.tokens` reads the store before it requests a token from the SSO. A store in memory
preserves tokens over a reload of the settings. A store that replicas share saves token requests,
because one replica requests the token for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cachetools import TLRUCache

from gateway.oauth.token import AccessToken
from gateway.secret import Secret

_MAX_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The key of tokens or sessions in a store.

    `name` is a digest that identifies the entry without revealing anything of it. For tokens it
    covers issuer, client, secret and request. `material` is the secret from which a store outside
    of this process derives its encryption key.
    """

    name: str
    material: Secret


class TokenLease(Protocol):
    """The exclusive right to request the tokens of one key; one replica holds it at a time."""

    async def release(self) -> None:
        """Release the lease, so that another replica can acquire it."""
        ...


class _NullLease:
    async def release(self) -> None:
        """Do nothing: an in-process lease excludes no other replica."""


NULL_LEASE: Final[TokenLease] = _NullLease()


class TokenStore(Protocol):
    """Stores tokens until they expire.

    A store that cannot be reached raises an exception without long delay, which the caller treats
    as a miss.
    """

    async def get(self, key: StoreKey) -> AccessToken | None:
        """Return the token stored under `key`, or None if there is none or it has expired."""
        ...

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Store `token` until it expires, replacing any other token of `key`."""
        ...

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Delete `token`, unless another token has replaced it meanwhile."""
        ...

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        """Acquire the lease for requesting a token. Return None while another replica holds it."""
        ...


class MemoryTokenStore:
    """Stores tokens in this process, at most 4096; each entry expires with its token.

    `clock` is the monotonic clock of the tokens' times.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache: TLRUCache[StoreKey, AccessToken] = TLRUCache(
            _MAX_TOKENS, lambda _key, token, _now: token.expires_at, timer=clock
        )

    async def get(self, key: StoreKey) -> AccessToken | None:
        """Return the token stored under `key`, or None if there is none or it has expired."""
        return self._cache.get(key)

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Store `token` until it expires, replacing any other token of `key`."""
        self._cache[key] = token

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Delete `token`, unless another token has replaced it meanwhile."""
        if self._cache.get(key) == token:
            self._cache.pop(key, None)

    async def acquire_lease(self, key: StoreKey) -> TokenLease:
        """Return a lease without effect: no other replica uses this store."""
        return NULL_LEASE
