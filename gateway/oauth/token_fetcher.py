"""Fetches one token, from the shared store or else from the SSO, and reports the outcome.

The module stands apart from `tokens`, which is compiled: mypyc cannot compile asynchronous
generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.clock import TimeSource
from gateway.oauth.credential import Credential
from gateway.oauth.token_backoff import refresh_time
from gateway.oauth.token_response import AccessToken, TokenRequestError, TokenResponse
from gateway.oauth.token_store import NULL_LEASE, StoreKey, TokenLease, token_store_breaker
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail
    from gateway.oauth.redis_token_store import RedisTokenStore

# Seconds between two reads of the store while another replica requests the token.
_STORE_POLL_INTERVAL: Final = 0.05

# Returns the token in use and the one that the platform rejected. A fetch ignores both of them when
# it finds them in the store.
_CurrentTokens = Callable[[], tuple[AccessToken | None, AccessToken | None]]


class TokenFetcher:
    """Fetches one token per call. Callers must not fetch twice at a time for a credential.

    `store` is None where no replicas share tokens. `replica_wait`: seconds to wait for the token of
    another replica.
    """

    def __init__(
        self,
        *,
        store: RedisTokenStore | None,
        metrics: Metrics,
        audit: AuditTrail,
        times: TimeSource,
        replica_wait: float,
    ) -> None:
        self._store = store
        self._breaker = token_store_breaker(times.clock)
        self._metrics = metrics
        self._audit = audit
        self._times = times
        self._replica_wait = replica_wait

    async def fetch(self, credential: Credential, in_use: _CurrentTokens) -> AccessToken:
        """Return a token that is not in use yet. Raises `TokenRequestError`.

        A rejected token is first deleted from the shared store.
        """
        store, key = self._store, credential.store_key
        if store is None:
            return await self._request_token(credential)
        rejected = in_use()[1]
        if rejected is not None:
            await self._breaker.call_or(None, store.delete, key, rejected)
        async with self._stored_token_or_lease(store, key, in_use) as stored:
            if stored is not None:
                return stored
            token = await self._request_token(credential)
            # The key is read again: `request` may have reread a changed secret.
            await self._breaker.call_or(None, store.put, credential.store_key, token)
            return token

    @asynccontextmanager
    async def _stored_token_or_lease(
        self, store: RedisTokenStore, key: StoreKey, in_use: _CurrentTokens
    ) -> AsyncIterator[AccessToken | None]:
        """Yield a token from the store, or None if this replica has to request one.

        While another replica holds the lease, wait for its token, at most `replica_wait` seconds.
        The lease is released at the end of the context.
        """
        deadline = self._times.clock() + self._replica_wait
        lease: TokenLease | None = None
        try:
            stored = await self._stored_token(store, key, in_use)
            while stored is None and lease is None and self._times.clock() < deadline:
                # Without the store every replica requests its own token.
                lease = await self._breaker.call_or(NULL_LEASE, store.acquire_lease, key)
                if lease is None:
                    await self._times.sleep(_STORE_POLL_INTERVAL)
                # Read again after acquiring the lease: its former holder may have stored a token
                # between the last read and the release.
                stored = await self._stored_token(store, key, in_use)
            yield stored
        finally:
            if lease is not None:
                await self._breaker.release(lease)

    async def _stored_token(
        self, store: RedisTokenStore, key: StoreKey, in_use: _CurrentTokens
    ) -> AccessToken | None:
        """Return the stored token, None if it is one of `in_use` or itself due for a refresh."""
        stored = await self._breaker.call_or(None, store.get, key)
        if stored is None or stored in in_use():
            return None
        return None if self._times.clock() >= refresh_time(stored, 0.0) else stored

    async def _request_token(self, credential: Credential) -> AccessToken:
        started = self._times.clock()
        outcome, detail = "transient", dict[str, str | float | None]()
        try:
            response = await credential.request()
            self._report_refusals(credential, started, response)
            started = response.requested_at
            token = response.to_access_token(self._times.clock(), self._times.wall_clock())
            outcome, detail = "ok", {"lifetime": response.lifetime, "scope": response.scope}
            if token.token_id is not None:
                detail["token_id"] = token.token_id
            return token
        except TokenRequestError as error:
            outcome = error.kind
            detail = _detail(error)
            raise
        finally:
            self._report(credential, outcome, self._times.clock() - started, detail)

    def _report_refusals(
        self, credential: Credential, started: float, response: TokenResponse
    ) -> None:
        # A wrong new secret would otherwise stay unnoticed as long as the SSO accepts the old one.
        # The time of the failed requests is divided evenly among them.
        for error in response.refusals:
            seconds = (response.requested_at - started) / len(response.refusals)
            self._report(credential, error.kind, seconds, _detail(error))

    def _report(
        self, credential: Credential, outcome: str, seconds: float, detail: Mapping[str, object]
    ) -> None:
        self._metrics.on_token_requested(credential.name, outcome, seconds)
        self._audit.record_event("token", credential=credential.name, outcome=outcome, **detail)


def _detail(error: TokenRequestError) -> dict[str, str | float | None]:
    return {"cause": error.cause, "status": error.status, "error": error.oauth_error}
