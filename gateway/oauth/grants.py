"""The requests to the SSO's token endpoint: client credentials (RFC 6749 section 4.4).

Here a request is made, sent once and its answer classified; when to ask, and what to do about a
failure, is decided in `gateway.oauth.tokens`. Nothing is retried, no redirect followed.
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
    # Asked for so rarely that a kept connection would as a rule be dead, and a POST on a dead
    # connection fails.
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
    """What is asked for: the grant of RFC 6749 section 4.4.2 in a client's name.

    `fingerprint` tells this secret or key from the one before it without showing it; `material` is
    the secret or key itself, for a store to derive keys from; `public_key` is the JWK of a key.
    `alternatives` differ in nothing but the secret, of which one may be right in place of this.
    Raises ValueError when `extra_params` names a parameter that is set elsewhere.
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
        """The form without the client's authentication."""
        params = {"scope": self.scope} if self.scope else {}
        body: str = prepare_token_request("client_credentials", **params)
        return str(add_params_to_qs(body, self.extra_params)) if self.extra_params else body


class Grant(Protocol):
    """What a token is asked for with."""

    @property
    def authenticate(self) -> ClientAuthentication:
        """How the client proves who it is."""
        ...

    def body(self) -> str:
        """The form without the client's authentication."""
        ...


@dataclass(frozen=True, slots=True)
class TokenEndpointSettings:
    """Where and how the SSO is asked. Times are in seconds; `ssl` None means the default roots."""

    token_url: str
    timeout: float = 10.0
    default_lifetime: float = 300.0
    ssl: ssl.SSLContext | None = None
    proxy_url: str | None = None


class TokenEndpoint:
    """Sends token requests and judges the answers.

    The session should keep no cookies (`DummyCookieJar`) and not trust the environment; this
    object does not close it. `clock` is monotonic, `wall_clock` gives Unix time.
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
        """The address that is asked."""
        return self._settings.token_url

    async def request(self, grant: Grant) -> TokenResponse:
        """Ask once; raises `TokenRequestError` on any failure, within `timeout` seconds."""
        return (await self.request_full(grant))[0]

    async def request_full(
        self, grant: Grant, cookie: str | None = None
    ) -> tuple[TokenResponse, TokenHttpResponse]:
        """As `request`, with the whole answer beside the token; `cookie` is sent to the SSO."""
        asked = RequestTime(self._clock(), self._wall_clock())
        answer = await self._send(grant, cookie)
        if isinstance(answer, TokenRequestError):
            raise answer
        if not 200 <= answer.status < 300:
            raise failure_of_response(answer, asked.wall)
        if answer.body is None:
            raise TokenRequestError("transient", "unreadable answer", status=answer.status)
        response = parse_token_response(
            answer.body, asked, self._settings.default_lifetime, answer.secrets
        )
        return response, answer

    async def post_form(self, grant: Grant, url: str) -> None:
        """Send what brings no token to another address of the SSO; raises `TokenRequestError`."""
        wall_now = self._wall_clock()
        answer = await self._send(grant, None, url)
        if isinstance(answer, TokenRequestError):
            raise answer
        if not 200 <= answer.status < 300:
            raise failure_of_response(answer, wall_now)

    async def _send(
        self, grant: Grant, cookie: str | None, url: str | None = None
    ) -> TokenHttpResponse | TokenRequestError:
        """Errors are returned: raised here they would carry aiohttp's, which show the request."""
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
