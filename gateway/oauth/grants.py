"""The requests to the SSO's token endpoint: client credentials (RFC 6749 section 4.4).

Here a request is made, sent once and its answer classified; when to ask, and what to do about a
failure, is decided in `gateway.oauth.tokens`. Nothing is retried, no redirect followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp
from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from gateway.oauth.client_auth import ClientAuthentication
from gateway.oauth.store import StoreKey
from gateway.oauth.token_answer import Answer, cause, failure, read
from gateway.oauth.token_response import (
    Moment,
    TokenRequestError,
    TokenResponse,
    parse_token_response,
)
from gateway.secret import Secret

_log = logging.getLogger(__name__)

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
    `others` differ in nothing but the secret, of which one may be right in place of this.
    Raises ValueError when `extra_params` names a parameter that is set elsewhere.
    """

    client_id: str
    authenticate: ClientAuthentication = field(repr=False)
    fingerprint: str = ""
    scope: str | None = None
    extra_params: Mapping[str, str] = field(default_factory=dict, repr=False)
    material: Secret = field(default_factory=lambda: Secret(""))
    public_key: Mapping[str, Any] | None = None
    others: tuple[ClientCredentials, ...] = ()

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

    async def request(self, grant: Grant) -> TokenResponse:
        """Ask once; raises `TokenRequestError` on any failure, within `timeout` seconds."""
        return (await self.redeem(grant))[0]

    async def redeem(self, grant: Grant, cookie: str | None = None) -> tuple[TokenResponse, Answer]:
        """As `request`, with the whole answer beside the token; `cookie` is sent to the SSO."""
        asked = Moment(self._clock(), self._wall_clock())
        answer = await self._send(grant, cookie)
        if isinstance(answer, TokenRequestError):
            raise answer
        if not 200 <= answer.status < 300:
            raise failure(answer, asked.wall)
        if answer.body is None:
            raise TokenRequestError("transient", "unreadable answer", status=answer.status)
        response = parse_token_response(answer.body, asked, self._settings.default_lifetime)
        return response, answer

    async def _send(self, grant: Grant, cookie: str | None) -> Answer | TokenRequestError:
        """Errors are returned: raised here they would carry aiohttp's, which show the request."""
        settings = self._settings
        headers = dict(_HEADERS) if cookie is None else {**_HEADERS, "Cookie": cookie}
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
                return await read(response)
        except Exception as error:
            return TokenRequestError("transient", cause(error))


class CredentialSource:
    """The tokens of one credential: a grant and where to present it.

    A client may have several secrets while one gives way to the next. The one that the SSO took
    last is tried first; one that it refuses gives way to the next, and one that is no longer
    offered is let go once another was taken.
    """

    def __init__(self, endpoint: TokenEndpoint, grant: ClientCredentials) -> None:
        self._endpoint = endpoint
        self._offered = _with_others(grant)
        self._candidates = tuple(self._offered.values())

    @property
    def grant(self) -> ClientCredentials:
        """What is presented first, now."""
        return self._candidates[0]

    @property
    def store_key(self) -> StoreKey:
        """Names issuer, client, secret and what is asked for, so that no token is mistaken."""
        grant = self.grant
        facts = [
            self._endpoint.token_url,
            grant.client_id,
            grant.fingerprint,
            grant.scope,
            sorted(grant.extra_params.items()),
        ]
        return StoreKey(hashlib.sha256(json.dumps(facts).encode()).hexdigest(), grant.material)

    def offer(self, grant: ClientCredentials) -> bool:
        """Present other secrets, those known so far having been refused; False if all are known."""
        offered = _with_others(grant)
        if offered.keys() <= {candidate.fingerprint for candidate in self._candidates}:
            return False
        self._offered, self._candidates = offered, tuple(offered.values())
        return True

    def succeed(self, before: CredentialSource) -> None:
        """Take over what another object for the same client knows.

        Of secrets that are offered here as there, the one that the SSO took last stays the first.
        New ones are tried first, and that one is kept until one that is offered was taken.
        """
        proved = before.grant
        if self._offered.keys() <= before._offered.keys() and proved.fingerprint in self._offered:
            self._prefer(proved.fingerprint)
        elif proved.fingerprint not in self._offered:
            self._candidates = (*self._candidates, proved)

    async def request(self) -> TokenResponse:
        """Ask for a new token; raises `TokenRequestError`, that of the first secret."""
        refusal: TokenRequestError | None = None
        # The SSO may change over between two attempts: of several, the first gets a second one.
        again = self._candidates[:1] if len(self._candidates) > 1 else ()
        for candidate in (*self._candidates, *again):
            try:
                response = await self._endpoint.request(candidate)
            except TokenRequestError as error:
                if not _may_be_the_secret(error):
                    raise refusal or error from None
                refusal = refusal or error
                continue
            self._accept(candidate)
            return response
        raise refusal or TokenRequestError("refused", "no secret")

    def _accept(self, candidate: ClientCredentials) -> None:
        if candidate.fingerprint in self._offered:
            self._prefer(candidate.fingerprint)
        elif candidate is not self._candidates[0]:
            _log.warning(
                "client %s: the SSO refused the changed secret; the one before stays in use",
                candidate.client_id,
            )
            self._candidates = (candidate, *self._offered.values())

    def _prefer(self, fingerprint: str) -> None:
        first = self._offered[fingerprint]
        self._candidates = tuple({fingerprint: first, **self._offered}.values())


def _with_others(grant: ClientCredentials) -> dict[str, ClientCredentials]:
    return {each.fingerprint: each for each in (grant, *grant.others)}


def _may_be_the_secret(error: TokenRequestError) -> bool:
    """Whether another secret could help; servers disagree on the code for a wrong one."""
    return error.kind == "refused" and error.oauth_error not in _NOT_THE_SECRET


_NOT_THE_SECRET: Final = frozenset({"invalid_scope", "unsupported_grant_type"})
