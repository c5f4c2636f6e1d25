"""Sends requests to the SSO's token endpoint: client credentials grant (RFC 6749 section 4.4).

This module builds a request, sends it once and classifies the response. `gateway.oauth.tokens`
decides when to send one and how to handle a failure. No request is retried, no redirect followed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp
from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from gateway.oauth.client_auth import ClientAuthentication
from gateway.oauth.error_description import secrets_of
from gateway.oauth.token_answer import (
    TokenHttpResponse,
    cause_of_exception,
    failure_of_response,
    read_response,
)
from gateway.oauth.token_response import (
    RequestTime,
    TokenRequestError,
    TokenResponse,
    parse_token_response,
)
from gateway.secret import Secret

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    # Token requests are so rare that the server would usually have closed an idle connection
    # before the next one, and a POST on a closed connection fails.
    "Connection": "close",
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": "dhp-gateway",
}

RESERVED_PARAMS: Final = frozenset(
    {
        "grant_type",
        "scope",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    }
)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client credentials grant (RFC 6749 section 4.4.2) of one client.

    `authenticate` adds the client authentication to a request. `fingerprint` identifies the secret
    or key without revealing it. `scope` and `extra_params` are sent with every request. `material`
    is the secret or key itself, from which a store derives encryption keys. `public_key` is the JWK
    of a private key. `alternatives` are grants that differ from this one only in the secret, to be
    tried if the SSO refuses this one. Raises ValueError if `extra_params` contains a parameter of
    `RESERVED_PARAMS`.
    """

    client_id: str
    authenticate: ClientAuthentication = field(repr=False)
    fingerprint: str = ""
    scope: str | None = None
    extra_params: Mapping[str, str] = field(default_factory=dict, repr=False)
    material: Secret = field(default_factory=lambda: Secret(""))
    public_key: Mapping[str, Any] | None = None
    alternatives: tuple[ClientCredentials, ...] = ()

    def __post_init__(self) -> None:
        taken = RESERVED_PARAMS & self.extra_params.keys()
        if taken:
            raise ValueError(f"extra_params may not set {', '.join(sorted(taken))}")

    def body(self) -> str:
        """Return the form body without the client authentication."""
        params = {"scope": self.scope} if self.scope else {}
        body: str = prepare_token_request("client_credentials", **params)
        return str(add_params_to_qs(body, self.extra_params)) if self.extra_params else body


class Grant(Protocol):
    """A grant with which a token is requested, and the client authentication for it."""

    @property
    def authenticate(self) -> ClientAuthentication:
        """The function that adds the client authentication to a request."""
        ...

    def body(self) -> str:
        """Return the form body without the client authentication."""
        ...


@dataclass(frozen=True, slots=True)
class TokenEndpointSettings:
    """How token requests are sent.

    `timeout` limits each request, `default_lifetime` applies to tokens without a stated lifetime;
    both are in seconds. `ssl` None means the default root certificates.
    """

    token_url: str
    timeout: float = 10.0
    default_lifetime: float = 300.0
    ssl: ssl.SSLContext | None = None
    proxy_url: str | None = None


class TokenEndpoint:
    """Sends token requests and validates the responses.

    `session` should store no cookies (`DummyCookieJar`) and not trust the environment; this object
    does not close it. `clock` is monotonic, `wall_clock` returns Unix time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        settings: TokenEndpointSettings,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock

    @property
    def token_url(self) -> str:
        """The URL of the token endpoint."""
        return self._settings.token_url

    async def request(self, grant: Grant) -> TokenResponse:
        """Send one token request and return its token.

        Raises `TokenRequestError` on any failure, at the latest after `timeout` seconds.
        """
        return (await self.request_full(grant))[0]

    async def request_full(
        self, grant: Grant, cookie: str | None = None
    ) -> tuple[TokenResponse, TokenHttpResponse]:
        """Send one token request and return its token and the response.

        `cookie` is the value of the Cookie field to send. Raises like `request`.
        """
        request_time = RequestTime(self._clock(), self._wall_clock())
        response = await self._send(grant, cookie)
        if isinstance(response, TokenRequestError):
            raise response
        if not 200 <= response.status < 300:
            raise failure_of_response(response, request_time.wall)
        if response.body is None:
            raise TokenRequestError("transient", "unreadable answer", status=response.status)
        token = parse_token_response(
            response.body, request_time, self._settings.default_lifetime, response.secrets
        )
        return token, response

    async def post_form(self, grant: Grant, url: str) -> None:
        """Send a form that returns no token to another endpoint of the SSO.

        Raises `TokenRequestError`.
        """
        wall_now = self._wall_clock()
        response = await self._send(grant, None, url)
        if isinstance(response, TokenRequestError):
            raise response
        if not 200 <= response.status < 300:
            raise failure_of_response(response, wall_now)

    async def _send(
        self, grant: Grant, cookie: str | None, url: str | None = None
    ) -> TokenHttpResponse | TokenRequestError:
        """Send the form and return the response or the error.

        Errors are returned, not raised: a raised one would have aiohttp's exception as its context,
        which shows the request.
        """
        settings = self._settings
        headers = dict(_HEADERS) if cookie is None else {**_HEADERS, "Cookie": cookie}
        try:
            body = grant.authenticate(settings.token_url, headers, grant.body())
            async with (
                asyncio.timeout(settings.timeout),
                self._session.post(
                    url or settings.token_url,
                    data=body.encode(),
                    headers=headers,
                    allow_redirects=False,
                    auto_decompress=False,
                    ssl=settings.ssl or True,
                    proxy=settings.proxy_url,
                    timeout=_NO_TIMEOUT,
                ) as response,
            ):
                return await read_response(response, secrets_of(body, headers))
        except Exception as error:
            return TokenRequestError("transient", cause_of_exception(error))
