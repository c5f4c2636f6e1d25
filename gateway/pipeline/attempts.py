"""Forwards a request to the platform with an access token that the platform accepts.

A 401 means that the platform rejected the token before it did anything (RFC 9110 section 15.5.2),
so that one retry with a new token is correct for every method. There is never a second one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway import errors
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.http.client.response import UpstreamResponse
from gateway.oauth.tokens import AccessToken
from gateway.pipeline.max_forwards import final_recipient_response
from gateway.pipeline.upstream import Upstream, UpstreamRequest


class TokenProvider(Protocol):
    """The part of `gateway.oauth.tokens.TokenManager` that is used here."""

    def current(self, credential: str) -> AccessToken | None:
        """Return a valid token, or None if that would need waiting."""
        ...

    async def wait_for_token(self, credential: str) -> AccessToken:
        """Return a valid token; wait until there is one."""
        ...

    async def replace_rejected(self, credential: str, rejected: AccessToken) -> AccessToken:
        """Return a token other than the rejected one."""
        ...

    def invalidate(self, credential: str, rejected: AccessToken) -> None:
        """Discard a token that the platform rejected."""
        ...

    def on_fresh_token_rejected(self, credential: str, token: AccessToken) -> None:
        """Called when the platform rejected a token that had just been fetched."""
        ...

    def on_token_accepted(self, credential: str, token: AccessToken) -> None:
        """Called when the platform accepted the token."""
        ...


class RequestForwarder(Protocol):
    """Forwards requests to the platform."""

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, credential: str, token: AccessToken
    ) -> UpstreamResponse:
        """Return the platform's response, which is never a 401. Raises `GatewayError`."""
        ...


class Forwarder:
    """Forwards with the credential's token, and once more with a new token after a 401."""

    def __init__(
        self, upstream: Upstream, tokens: TokenProvider, on_retry: Callable[[str], None]
    ) -> None:
        self._upstream = upstream
        self._tokens = tokens
        self._on_retry = on_retry

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, credential: str, token: AccessToken
    ) -> UpstreamResponse:
        """Return the platform's response, which is never a 401. Raises `GatewayError`."""
        if outgoing.is_final_recipient:
            return final_recipient_response()
        exchange.token_id = token.token_id
        response = await self._upstream.send(exchange, outgoing, token.authorization)
        if response.status == 401:
            token = await self._replacement_token(response, outgoing, credential, token)
            exchange.token_id = token.token_id
            self._on_retry("token")
            response = await self._upstream.send(exchange, outgoing, token.authorization)
        if response.status == 401:
            response.close()
            self._tokens.on_fresh_token_rejected(credential, token)
            raise _token_rejected_error("the platform refused a fresh token")
        if response.status < 500:
            self._tokens.on_token_accepted(credential, token)
        return response

    async def _replacement_token(
        self,
        response: UpstreamResponse,
        outgoing: UpstreamRequest,
        credential: str,
        token: AccessToken,
    ) -> AccessToken:
        response.close()
        body = outgoing.body
        if body is not None:
            if not body.is_replayable:
                self._tokens.invalidate(credential, token)
                detail = "the platform refused the token, and the body cannot be sent again"
                raise _token_rejected_error(detail, advice="body-gone")
            body.rewind()
        return await self._tokens.replace_rejected(credential, token)


def _token_rejected_error(detail: str, advice: str = "") -> GatewayError:
    return GatewayError(errors.TOKEN_REJECTED, detail, upstream_status=401, advice_key=advice)
