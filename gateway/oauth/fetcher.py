"""One fetch of a token: from the store, else from the SSO; what came of it is reported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from gateway.oauth.backoff import RefreshSchedule
from gateway.oauth.ports import TokenObserver, TokenSource
from gateway.oauth.store import StoreKey, TokenLease, TokenStore
from gateway.oauth.store_access import GuardedTokenStore
from gateway.oauth.token import AccessToken
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.timing import TimeSource

# How often to look, in seconds, whether the replica that asks the SSO has got a token.
_STORE_POLL_INTERVAL: Final = 0.05

CurrentTokens = Callable[[], tuple[AccessToken | None, AccessToken | None]]
"""The token in use and the one that the platform rejected: neither is to be had from the store."""


class TokenFetcher:
    """Fetches tokens, one at a call; that no two calls overlap is its caller's business."""

    def __init__(
        self, store: TokenStore, observer: TokenObserver, pacing: RefreshSchedule, times: TimeSource
    ) -> None:
        self._store = GuardedTokenStore(store, pacing.policy.store_timeout, times.clock)
        self._observer = observer
        self._pacing = pacing
        self._times = times

    async def fetch(
        self, credential: str, source: TokenSource, in_use: CurrentTokens
    ) -> AccessToken:
        """A token that is not in use yet; raises `TokenRequestError`."""
        key = source.store_key
        rejected = in_use()[1]
        if rejected is not None:
            await self._store.delete(key, rejected)
        async with self._stored_token_or_lease(key, in_use) as stored:
            if stored is not None:
                return stored
            token = await self._request_token(credential, source)
            # The key is read again: the source may have found a changed secret.
            await self._store.put(source.store_key, token)
            return token

    @asynccontextmanager
    async def _stored_token_or_lease(
        self, key: StoreKey, in_use: CurrentTokens
    ) -> AsyncIterator[AccessToken | None]:
        """A token from the store, or None when it is our turn to ask the SSO.

        While another replica asks, its token is waited for; not for ever, though.
        """
        patience = self._times.clock() + self._pacing.policy.replica_wait
        lease: TokenLease | None = None
        try:
            stored = await self._stored_token(key, in_use)
            while stored is None and lease is None and self._times.clock() < patience:
                lease = await self._store.acquire_lease(key)
                if lease is None:
                    await self._times.sleep(_STORE_POLL_INTERVAL)
                # Once more: the one before us may have put it between our look and our claim.
                stored = await self._stored_token(key, in_use)
            yield stored
        finally:
            if lease is not None:
                await self._store.release(lease)

    async def _stored_token(self, key: StoreKey, in_use: CurrentTokens) -> AccessToken | None:
        """The token of the store, if it is another than ours and not itself due for renewal."""
        stored = await self._store.get(key)
        if stored is None or stored in in_use():
            return None
        return None if self._pacing.is_due(stored, self._times.clock()) else stored

    async def _request_token(self, credential: str, source: TokenSource) -> AccessToken:
        started = self._times.clock()
        outcome, detail = "transient", dict[str, str | float | None]()
        try:
            response = await source.request()
            self._report_refusals(credential, started, response)
            started = response.requested_at
            token = self._to_access_token(response)
            outcome, detail = "ok", {"lifetime": response.lifetime, "scope": response.scope}
            if token.token_id is not None:
                detail["token_id"] = token.token_id
            return token
        except TokenRequestError as error:
            outcome = error.kind
            detail = _detail(error)
            raise
        finally:
            seconds = self._times.clock() - started
            self._observer.on_token_requested(credential, outcome, seconds)
            self._observer.on_token_event(credential, outcome, detail)

    def _report_refusals(self, credential: str, started: float, response: TokenResponse) -> None:
        # Otherwise nobody would see that a new secret is wrong, for as long as the old one serves.
        for error in response.refusals:
            seconds = (response.requested_at - started) / len(response.refusals)
            self._observer.on_token_requested(credential, error.kind, seconds)
            self._observer.on_token_event(credential, error.kind, _detail(error))

    def _to_access_token(self, response: TokenResponse) -> AccessToken:
        now = self._times.clock()
        age = now - response.requested_at
        token = AccessToken(
            response.access_token.reveal(),
            received_at=response.requested_at,
            lifetime=response.lifetime,
            wall_expiry=self._times.wall_clock() + response.lifetime - age,
            scope=response.scope,
        )
        if now >= token.usable_until:
            raise TokenRequestError("transient", "token expired on arrival")
        return token


def _detail(error: TokenRequestError) -> dict[str, str | float | None]:
    return {"cause": error.cause, "status": error.status, "error": error.oauth_error}
