"""Sends requests to the SSO's token endpoint (RFC 6749 section 4.4) and classifies the responses.

This module sends a request once, reads the response and classifies every failure by kind and cause.
`gateway.oauth.tokens` decides when to send one and how to handle a failure. No request is retried,
no redirect followed. `gateway.oauth.grants` has the bodies of the requests. `TokenRequestQueue`
limits how many are under way and how many begin in a second.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookies import Morsel
from typing import TYPE_CHECKING, Final

import aiohttp

from gateway.clock import TimeSource
from gateway.field_values import FORM_TYPE, parse_retry_after
from gateway.http.client.upstream_connect import (
    HOST_NAME_MISMATCH,
    NOT_TLS_REASONS,
    VALIDITY_PERIOD_ERRORS,
    proxy_refusal,
)
from gateway.http.content_coding import DECODABLE, decode_body, parse_content_encoding
from gateway.i18n import format_duration
from gateway.oauth.client_authentication import ClientAuthentication
from gateway.oauth.token_response import (
    Cause,
    TokenRequestError,
    TokenResponse,
    description_of,
    is_web_page,
    oauth_error_code,
    parse_object,
    parse_token_response,
    secrets_of,
)
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import SsoSettings

_log = get_logger(__name__)

_MAX_BODY_BYTES: Final = 64 * 1024
_MAX_RETRY_AFTER: Final = 300.0
# Seconds that a token request waits for its turn before that is logged, and between two such lines.
_LONG_WAIT: Final = 30.0
_WAIT_LOG_INTERVAL: Final = 600.0
# Token requests within a second, at most.
_MAX_RATE: Final = 200
_MAX_AGE: Final = re.compile(r"-?[0-9]{1,15}")
# Statuses by which the SSO refuses a request. Firewalls use them too: only an OAuth error in the
# body proves that the response is from the SSO.
_REFUSAL_STATUSES: Final = frozenset({400, 401, 403})
# Error codes that stand for the statuses 500 and 503 (RFC 6749 section 4.1.2.1).
_OUTAGE_ERROR_CODES: Final = frozenset({"server_error", "temporarily_unavailable"})


@dataclass(frozen=True, slots=True)
class TokenHttpResponse:
    """The parts of a response to a token request that are used.

    `body` is None if it was too long, incomplete or not decodable. `retry_after` is the value of
    the Retry-After field. `cookies` are the cookies that the response sets, "" for one that it
    removes; only the sign-in of users reads them. `secrets` are those of the request, which the
    body may echo.
    """

    status: int
    body: bytes | None = field(repr=False)
    retry_after: str | None
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


async def read_response(
    response: aiohttp.ClientResponse, secrets: frozenset[str] = frozenset(), wall_now: float = 0.0
) -> TokenHttpResponse:
    """Return the response, whatever its status. A body that is too long is not read to its end.

    `wall_now` (Unix time) tells which cookies have expired.
    """
    body: bytes | None = b""
    try:
        while body is not None and (chunk := await response.content.readany()):
            body = body + chunk if len(body) + len(chunk) <= _MAX_BODY_BYTES else None
    except aiohttp.ClientError:
        body = None  # the status still tells the kind of failure
    if body is None:
        response.close()
    else:
        body = _decoded_body(body, response.headers.get("Content-Encoding", ""))
    cookies = {name: _cookie_value(each, wall_now) for name, each in response.cookies.items()}
    return TokenHttpResponse(
        response.status, body, response.headers.get("Retry-After"), cookies, secrets
    )


def _cookie_value(cookie: Morsel[str], wall_now: float) -> str:
    """Return the value, "" for a cookie that is removed; Max-Age wins (RFC 6265 section 5.3)."""
    max_age = _MAX_AGE.fullmatch(cookie["max-age"])
    if max_age is not None:
        is_removed = int(max_age[0]) <= 0
    else:
        # A date in a cookie has the form of one in Retry-After.
        is_removed = parse_retry_after(cookie["expires"], wall_now) == 0
    return "" if is_removed else cookie.value


def _decoded_body(body: bytes, coding: str) -> bytes | None:
    """Return the body without its content coding, or None if it cannot be decoded.

    The requests accept no coding except `identity`; some servers encode nevertheless.
    """
    named = parse_content_encoding(coding)
    if named is None or not body:
        return body
    return decode_body(body, named, _MAX_BODY_BYTES) or None if named in DECODABLE else None


def _failure_of_response(response: TokenHttpResponse, wall_now: float) -> TokenRequestError:
    """Return the error for a response whose status is not 2xx; `wall_now` is Unix time."""
    status = response.status
    members = parse_object(response.body) if response.body else None
    oauth_error = oauth_error_code(members, response.secrets)
    description = description_of(members, response.secrets)
    is_refusal = status in _REFUSAL_STATUSES and oauth_error not in _OUTAGE_ERROR_CODES
    if is_refusal and oauth_error is not None:
        return TokenRequestError(
            "refused", "refused", oauth_error=oauth_error, status=status, description=description
        )
    return TokenRequestError(
        "throttled" if status == 429 else "transient",
        _error_status(response, oauth_error),
        oauth_error=oauth_error,
        status=status,
        retry_after=parse_retry_after(response.retry_after, wall_now, max_delay=_MAX_RETRY_AFTER),
        description=description,
    )


def _error_status(response: TokenHttpResponse, oauth_error: str | None) -> Cause:
    status = response.status
    if status in _REFUSAL_STATUSES and oauth_error is None:
        return "web page" if is_web_page(response.body or b"") else "no OAuth error"
    if 300 <= status < 400:
        return "redirect"
    return "throttled" if status == 429 else "error status"


def _cause_of_exception(error: Exception) -> Cause:
    """Return the `Cause` of an exception, `internal error` for a class that is not in `_CAUSES`.

    In that case only the name of its class is logged: its text may contain secrets.
    """
    for kinds, word in _CAUSES:
        if isinstance(error, kinds):
            return word if isinstance(word, str) else word(error)
    _log.error("a token request failed: %s", type(error).__name__)
    return "internal error"


def certificate_cause(error: Exception) -> Cause:
    """Return what is wrong with the server's certificate, by OpenSSL's code."""
    code = getattr(getattr(error, "certificate_error", error), "verify_code", 0)
    if code in VALIDITY_PERIOD_ERRORS:
        return "certificate time"
    return "certificate name" if code in HOST_NAME_MISMATCH else "certificate"


def _tls(error: Exception) -> Cause:
    """Return `no TLS` for a server that does not speak TLS, by OpenSSL's reason, else `TLS`."""
    reason = getattr(getattr(error, "os_error", error), "reason", None)
    return "no TLS" if reason in NOT_TLS_REASONS else "TLS"


def proxy_cause(error: Exception) -> Cause:
    """Return why a forward proxy opened no tunnel, by the status of its response."""
    return proxy_refusal(getattr(error, "status", 0))


_CauseOf = Cause | Callable[[Exception], Cause]
# The first match counts. The order matters, because aiohttp's classes overlap.
_CAUSES: Final[tuple[tuple[tuple[type[Exception], ...], _CauseOf], ...]] = (
    ((TimeoutError,), "time-out"),
    ((aiohttp.ClientConnectorDNSError,), "name not found"),
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), certificate_cause),
    ((aiohttp.ClientSSLError, ssl.SSLError), _tls),
    ((aiohttp.ClientHttpProxyError,), proxy_cause),
    ((aiohttp.ClientProxyConnectionError,), "proxy"),
    ((aiohttp.ClientConnectorError,), "no connection"),
    ((aiohttp.ClientResponseError,), "not HTTP"),
    ((aiohttp.ClientError, OSError), "connection broken"),
)


NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    # Token requests are so rare that the server would usually have closed an idle connection
    # before the next one, and a POST on a closed connection fails.
    "Connection": "close",
    "Content-Type": FORM_TYPE,
    "User-Agent": "dhp-gateway",
}


class TokenEndpoint:
    """Sends token requests and validates the responses.

    `session` should store no cookies (`DummyCookieJar`) and not trust the environment; this object
    does not close it. `tls` None means the default root certificates. `clock` is monotonic,
    `wall_clock` returns Unix time.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        sso: SsoSettings,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._sso = sso
        self._tls = tls
        self._clock = clock
        self._wall_clock = wall_clock

    @property
    def token_url(self) -> str:
        """The URL of the token endpoint."""
        return self._sso.token_url

    async def request(
        self, authenticate: ClientAuthentication, form: str, cookie: str | None = None
    ) -> TokenResponse:
        """Send one token request and return its token.

        `form` is the body without the client authentication, `cookie` the value of the Cookie field
        to send. Raises `TokenRequestError` on any failure, at the latest after `sso.timeout`
        seconds.
        """
        requested_at, wall_now = self._clock(), self._wall_clock()
        response = await self.post(authenticate, form, cookie=cookie)
        if response.body is None:
            raise TokenRequestError("transient", "unreadable answer", status=response.status)
        token = parse_token_response(
            response.body,
            requested_at=requested_at,
            wall_now=wall_now,
            default_lifetime=self._sso.default_token_lifetime,
            secrets=response.secrets,
        )
        return replace(token, cookies=response.cookies)

    async def post(
        self,
        authenticate: ClientAuthentication,
        form: str,
        *,
        cookie: str | None = None,
        url: str | None = None,
    ) -> TokenHttpResponse:
        """Send a form to the token endpoint, or to the SSO's endpoint `url`.

        Return the response with status 2xx. Raises `TokenRequestError` for any other, and without
        one.
        """
        wall_now = self._wall_clock()
        response = await self._send(authenticate, form, cookie, url)
        if isinstance(response, TokenRequestError):
            raise response
        if not 200 <= response.status < 300:
            raise _failure_of_response(response, wall_now)
        return response

    async def _send(
        self,
        authenticate: ClientAuthentication,
        form: str,
        cookie: str | None,
        url: str | None,
    ) -> TokenHttpResponse | TokenRequestError:
        """Send the form and return the response or the error.

        Errors are returned, not raised: a raised one would have aiohttp's exception as its context,
        which shows the request.
        """
        sso = self._sso
        headers = dict(_HEADERS) if cookie is None else {**_HEADERS, "Cookie": cookie}
        try:
            body = authenticate(sso.token_url, headers, form)
            async with (
                asyncio.timeout(sso.timeout),
                self._session.post(
                    url or sso.token_url,
                    data=body.encode(),
                    headers=headers,
                    allow_redirects=False,
                    auto_decompress=False,
                    ssl=self._tls or True,
                    proxy=sso.proxy_url,
                    timeout=NO_TIMEOUT,
                ) as response,
            ):
                return await read_response(response, secrets_of(body, headers), self._wall_clock())
        except Exception as error:
            return TokenRequestError("transient", _cause_of_exception(error))


class TokenRequestQueue:
    """Admits token requests in the order of their arrival, those that a caller waits for first.

    `max_requests` are under way at once; it may be changed at any time. A hospital group has a
    thousand credentials, whose tokens are all wanted at the start and after an outage, and a
    firewall takes many connections from one address for an attack. One queue serves credentials and
    signed-in users, also of two versions of the settings during a reload: of those for the same
    credential one is under way at a time. Renewals are spread (`refresh_delay`), so that the queue
    is short at other times.
    """

    def __init__(self, max_requests: int, times: TimeSource) -> None:
        self.max_requests = max_requests
        self._times = times
        self._waiting: dict[asyncio.Future[None], tuple[Callable[[], bool], object]] = {}
        # The keys of the requests under way.
        self._active: set[object] = set()
        # When the requests of the last second ended. A request counts until a second after its
        # end: the SSO receives it later than it begins, and must not count more than `_MAX_RATE`.
        self._ended_at: deque[float] = deque()
        self._is_timer_set = False
        self._wait_logged_at = -math.inf

    @asynccontextmanager
    async def admission(
        self,
        is_urgent: Callable[[], bool],
        sent: Callable[[], int] = lambda: 1,
        key: object = None,
    ) -> AsyncIterator[None]:
        """Wait for the turn of a token request, which is sent in the context.

        `is_urgent` returns whether a caller waits for it; it is asked whenever a place is free,
        because callers may come while the request waits. `sent` returns at the end how many
        requests it took: none with a token of another replica, several with several secrets. While
        a request with the same `key` is under way, this one waits.
        """
        admitted = asyncio.get_running_loop().create_future()
        arrived_at = self._times.clock()
        key = admitted if key is None else key
        self._waiting[admitted] = is_urgent, key
        self._admit()
        try:
            await admitted
            self._log_long_wait(arrived_at)
            yield
        finally:
            if self._waiting.pop(admitted, None) is None:
                self._active.discard(key)
                self._ended_at.extend([self._times.clock()] * sent())
            self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self.max_requests and not self._must_pause():
            free = [each for each, (_, key) in self._waiting.items() if key not in self._active]
            if not free:
                return
            admitted = next((each for each in free if self._waiting[each][0]()), free[0])
            self._active.add(self._waiting.pop(admitted)[1])
            if not admitted.done():  # cancelled, and not yet out of its context
                admitted.set_result(None)

    def _log_long_wait(self, arrived_at: float) -> None:
        now = self._times.clock()
        if now - arrived_at >= _LONG_WAIT and now >= self._wait_logged_at + _WAIT_LOG_INTERVAL:
            self._wait_logged_at = now
            _log.warning(
                "a token request waited %s, and %d still wait: the SSO is slow for so"
                " many credentials; raise sso.max_requests (%d), or ask for tokens that live"
                " longer",
                format_duration(now - arrived_at),
                len(self._waiting),
                self.max_requests,
            )

    def _must_pause(self) -> bool:
        """Return whether `_MAX_RATE` requests are of the last second; then set a timer."""
        now = self._times.clock()
        while self._ended_at and self._ended_at[0] + 1.0 <= now:
            self._ended_at.popleft()
        if len(self._ended_at) + len(self._active) < _MAX_RATE:
            return False
        if self._ended_at and not self._is_timer_set:
            self._is_timer_set = True
            self._times.call_later(self._ended_at[0] + 1.0 - now, self._on_timer)
        return True

    def _on_timer(self) -> None:
        self._is_timer_set = False
        self._admit()
