"""A token store with a time limit and a circuit breaker, so that it never delays token requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gateway.oauth.store import NULL_LEASE, StoreKey, TokenLease, TokenStore
from gateway.oauth.token import AccessToken
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)
_T = TypeVar("_T")

_FIRST_PAUSE: Final = 0.5
_MAX_PAUSE: Final = 10.0


class GuardedTokenStore:
    """Returns the results of `store`; while the store fails, a default instead of an exception.

    Each access takes at most `timeout` seconds. After a failure the store is not used for 0.5 s,
    doubled with each further failure up to 10 s. The failure and the recovery are logged once each.
    """

    def __init__(self, store: TokenStore, timeout: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._timeout = timeout
        self._clock = clock
        self._pause = 0.0
        self._disabled_until = 0.0

    async def get(self, key: StoreKey) -> AccessToken | None:
        """Return the token stored under `key`, None without one or while the store fails."""
        return await self._call_or_default(lambda: self._store.get(key), None)

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        """Store `token`, or do nothing while the store fails."""
        await self._call_or_default(lambda: self._store.put(key, token), None)

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        """Delete `token`, or do nothing while the store fails."""
        await self._call_or_default(lambda: self._store.delete(key, token), None)

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        """Acquire the lease for requesting a token. Return None while another replica holds it.

        While the store fails, every replica gets `NULL_LEASE` and requests its own token.
        """
        return await self._call_or_default(lambda: self._store.acquire_lease(key), NULL_LEASE)

    async def release(self, lease: TokenLease) -> None:
        """Release the lease, also after a failure of the store, so that its renewal task ends."""
        # `NULL_LEASE` does not use the store: its release is no sign of a recovery.
        if lease is not NULL_LEASE:
            await self._try_call(lease.release, None)

    async def _call_or_default(self, access: Callable[[], Awaitable[_T]], default: _T) -> _T:
        if self._pause and self._clock() < self._disabled_until:
            return default
        return await self._try_call(access, default)

    async def _try_call(self, access: Callable[[], Awaitable[_T]], default: _T) -> _T:
        try:
            async with asyncio.timeout(self._timeout):
                result = await access()
        except Exception as error:
            self._failed(error)
            return default
        if self._pause:
            self._pause = 0.0
            _log.info("token store: back; tokens are shared again")
        return result

    def _failed(self, error: Exception) -> None:
        if not self._pause:
            _log.warning(
                "token store: %s; tokens are not shared until it is back", type(error).__name__
            )
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _MAX_PAUSE)
        self._disabled_until = self._clock() + self._pause
