"""The requests to the SSO's token endpoint: client credentials (RFC 6749 section 4.4).

Here a request is made, sent once and its answer classified; when to ask, and what to do about a
failure, is decided in `gateway.oauth.tokens`. Nothing is retried, no redirect followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from gateway.oauth.client_auth import ClientAuthentication
from gateway.oauth.token_response import (
    Moment,
    TokenRequestError,
    TokenResponse,
    oauth_error_of,
    parse_object,
    parse_token_response,
)

_MAX_BODY: Final = 64 * 1024
_MAX_RETRY_AFTER: Final = 300.0
_REFUSED: Final = frozenset({400, 401, 403})
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

    `fingerprint` tells this secret or key from the one before it without showing it.
    Raises ValueError when `extra_params` names a parameter that is set elsewhere.
    """

    client_id: str
    authenticate: ClientAuthentication = field(repr=False)
    fingerprint: str = ""
    scope: str | None = None
    extra_params: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        taken = RESERVED_PARAMS & self.extra_params.keys()
        if taken:
            raise ValueError(f"extra_params may not set {', '.join(sorted(taken))}")

    def body(self) -> str:
        """The form without the client's authentication."""
        params = {"scope": self.scope} if self.scope else {}
        body: str = prepare_token_request("client_credentials", **params)
        return str(add_params_to_qs(body, self.extra_params)) if self.extra_params else body


@dataclass(frozen=True, slots=True)
class EndpointSettings:
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
        settings: EndpointSettings,
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

    async def request(self, grant: ClientCredentials) -> TokenResponse:
        """Ask once; raises `TokenRequestError` on any failure, within `timeout` seconds."""
        asked = Moment(self._clock(), self._wall_clock())
        answer = await self._send(grant)
        if isinstance(answer, TokenRequestError):
            raise answer
        if not 200 <= answer.status < 300:
            raise _failure(answer, asked.wall)
        if answer.body is None:
            raise TokenRequestError("transient", "unreadable answer", status=answer.status)
        return parse_token_response(answer.body, asked, self._settings.default_lifetime)

    async def _send(self, grant: ClientCredentials) -> _Answer | TokenRequestError:
        """Errors are returned: raised here they would carry aiohttp's, which show the request."""
        settings = self._settings
        headers = dict(_HEADERS)
        try:
            body = grant.authenticate(settings.token_url, headers, grant.body())
            async with (
                asyncio.timeout(settings.timeout),
                self._session.post(
                    settings.token_url,
                    data=body.encode(),
                    headers=headers,
                    allow_redirects=False,
                    auto_decompress=False,
                    ssl=settings.ssl or True,
                    proxy=settings.proxy_url,
                    timeout=_NO_TIMEOUT,
                ) as response,
            ):
                return await _read(response)
        except Exception as error:
            return TokenRequestError("transient", _cause(error))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Status, body (None: too long or broken off) and the Retry-After field of an answer."""

    status: int
    body: bytes | None
    retry_after: str | None


async def _read(response: aiohttp.ClientResponse) -> _Answer:
    body: bytes | None = b""
    try:
        while body is not None and (chunk := await response.content.readany()):
            body = body + chunk if len(body) + len(chunk) <= _MAX_BODY else None
    except aiohttp.ClientError:
        body = None  # the status still says what kind of failure it is
    if body is None:
        response.close()
    return _Answer(response.status, body, response.headers.get("Retry-After"))


def _failure(answer: _Answer, wall_now: float) -> TokenRequestError:
    status = answer.status
    oauth_error = oauth_error_of(parse_object(answer.body)) if answer.body else None
    if status in _REFUSED:
        return TokenRequestError("refused", "refused", oauth_error=oauth_error, status=status)
    return TokenRequestError(
        "throttled" if status == 429 else "transient",
        "redirect" if 300 <= status < 400 else "throttled" if status == 429 else "error status",
        oauth_error=oauth_error,
        status=status,
        retry_after=parse_retry_after(answer.retry_after, wall_now),
    )


def parse_retry_after(value: str | None, wall_now: float) -> float | None:
    """Seconds from a Retry-After field (RFC 9110 section 10.2.3), between 0 and 300."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = when.timestamp() - wall_now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def _cause(error: Exception) -> str:
    """A fixed word for an exception. The order matters: aiohttp's classes overlap."""
    for kinds, cause in _CAUSES:
        if isinstance(error, kinds):
            return cause
    return f"unexpected {type(error).__name__}"


_CAUSES: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((TimeoutError,), "time-out"),
    ((aiohttp.ClientConnectorDNSError,), "name not found"),
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), "certificate"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLS"),
    ((aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError), "proxy"),
    ((aiohttp.ClientConnectorError,), "no connection"),
    ((aiohttp.ClientResponseError,), "not HTTP"),
    ((aiohttp.ClientError, OSError), "connection broken"),
)


class CredentialSource:
    """The tokens of one credential: a grant and where to present it.

    `grant` may be replaced at any time, when the secret was changed.
    """

    def __init__(self, endpoint: TokenEndpoint, grant: ClientCredentials) -> None:
        self._endpoint = endpoint
        self.grant = grant

    @property
    def store_key(self) -> str:
        """Names issuer, client, secret and what is asked for, so that no token is mistaken."""
        grant = self.grant
        facts = [
            self._endpoint.token_url,
            grant.client_id,
            grant.fingerprint,
            grant.scope,
            sorted(grant.extra_params.items()),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    async def request(self) -> TokenResponse:
        """Ask for a new token; raises `TokenRequestError`."""
        return await self._endpoint.request(self.grant)
