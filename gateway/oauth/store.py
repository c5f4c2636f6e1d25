"""Where tokens are kept beside the object that uses them, so that others can share them.

`gateway.oauth.tokens` asks the store before it asks the SSO. A store in memory lets tokens outlive
a reload of the settings; one that replicas share spares the SSO their separate requests.
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
    """Under which tokens are kept: `name` tells issuer, client, secret and request, and shows none.

    `material` is the secret that a store outside of this process derives its encryption key from.
    """

    name: str
    material: Secret


class TokenLease(Protocol):
    """The right to ask for the tokens of one key, which one replica has at a time."""

    async def release(self) -> None:
        """Let others have it."""
        ...


class _NullLease:
    async def release(self) -> None:
        """Nobody waits for it."""


NULL_LEASE: Final[TokenLease] = _NullLease()


class TokenStore(Protocol):
    """Keeps tokens for as long as they live.

    A store that cannot be reached says so by an exception, soon; its user takes it for a miss.
    """

    async def get(self, key: StoreKey) -> AccessToken | None:
        """The token kept under `key`, if it has not expired."""
        ...

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Keep `token` until it expires, in place of any other."""
        ...

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Forget `token`, unless another one has taken its place meanwhile."""
        ...

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        """The right to ask for a token in the others' place; None: another has it now."""
        ...


class MemoryTokenStore:
    """Keeps tokens in this process; each entry lives as long as its token.

    `clock` is the monotonic clock that the tokens' times are of.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache: TLRUCache[StoreKey, AccessToken] = TLRUCache(
            _MAX_TOKENS, lambda _key, token, _now: token.expires_at, timer=clock
        )

    async def get(self, key: StoreKey) -> AccessToken | None:
        """The token kept under `key`, if it has not expired."""
        return self._cache.get(key)

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Keep `token` until it expires, in place of any other."""
        self._cache[key] = token

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Forget `token`, unless another one has taken its place meanwhile."""
        if self._cache.get(key) == token:
            self._cache.pop(key, None)

    async def acquire_lease(self, key: StoreKey) -> TokenLease:
        """Nobody else keeps tokens here."""
        return NULL_LEASE
