"""One fetch of a token: from the store, else from the SSO; what came of it is reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.oauth.collaborators import TimeSource, TokenObserver, TokenSource
from gateway.oauth.pacing import Pacing
from gateway.oauth.store import TokenStore
from gateway.oauth.token import Token
from gateway.oauth.token_response import TokenRequestError, TokenResponse

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

InUse = Callable[[], tuple[Token | None, Token | None]]
"""The token in use and the one that the platform rejected: neither is to be had from the store."""


class Fetcher:
    """Fetches tokens, one at a call; that no two calls overlap is its caller's business."""

    def __init__(
        self, store: TokenStore, observer: TokenObserver, pacing: Pacing, times: TimeSource
    ) -> None:
        self._store = store
        self._observer = observer
        self._pacing = pacing
        self._times = times

    async def fetch(self, credential: str, source: TokenSource, in_use: InUse) -> Token:
        """A token that is not in use yet; raises `TokenRequestError`."""
        key = source.store_key
        rejected = in_use()[1]
        if rejected is not None:
            await self._guarded(self._store.drop(key, rejected))
        stored = await self._guarded(self._store.get(key))
        if stored is not None and stored not in in_use() and self._is_fresh(stored):
            return stored
        token = await self._ask(credential, source)
        # The key is read again: the source may have found a changed secret.
        await self._guarded(self._store.put(source.store_key, token))
        return token

    def _is_fresh(self, stored: Token) -> bool:
        return not self._pacing.is_due(stored, self._times.clock())

    async def _guarded(self, access: Awaitable[_T]) -> _T | None:
        """The store helps; it must not stand in the way."""
        try:
            async with asyncio.timeout(self._pacing.policy.store_timeout):
                return await access
        except Exception as error:
            _log.warning("token store: %s", type(error).__name__)
            return None

    async def _ask(self, credential: str, source: TokenSource) -> Token:
        started = self._times.clock()
        outcome, detail = "transient", dict[str, str | float | None]()
        try:
            response = await source.request()
            token = self._usable(response)
            outcome, detail = "ok", {"lifetime": response.lifetime, "scope": response.scope}
            return token
        except TokenRequestError as error:
            outcome = error.kind
            detail = {"cause": error.cause, "status": error.status, "error": error.oauth_error}
            raise
        finally:
            seconds = self._times.clock() - started
            self._observer.token_requested(credential, outcome, seconds)
            self._observer.token_event(credential, outcome, detail)

    def _usable(self, response: TokenResponse) -> Token:
        now = self._times.clock()
        age = now - response.requested_at
        token = Token(
            response.access_token.reveal(),
            received_at=response.requested_at,
            lifetime=response.lifetime,
            wall_expiry=self._times.wall_clock() + response.lifetime - age,
            scope=response.scope,
        )
        if now >= token.usable_until:
            raise TokenRequestError("transient", "token expired on arrival")
        return token
