"""The token requests in a person's name: for a code, and for a refresh token (RFC 6749 4.1, 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_token_request

from gateway.oauth.client_auth import ClientAuthentication
from gateway.oauth.grants import TokenEndpoint
from gateway.oauth.session import Renewal
from gateway.oauth.token import Token
from gateway.oauth.token_answer import Answer
from gateway.oauth.token_response import TokenRequestError, TokenResponse, parse_object
from gateway.secret import Secret


@dataclass(frozen=True, slots=True)
class UserGrant:
    """A code or a refresh token, ready to be shown."""

    authenticate: ClientAuthentication = field(repr=False)
    grant_type: str
    params: Mapping[str, str] = field(repr=False)

    def body(self) -> str:
        """The form without the client's authentication."""
        return str(prepare_token_request(self.grant_type, **self.params))


@dataclass(frozen=True, slots=True)
class Revocation:
    """A refresh token that is to be forgotten (RFC 7009 section 2.1)."""

    authenticate: ClientAuthentication = field(repr=False)
    refresh_token: Secret

    def body(self) -> str:
        """The form without the client's authentication."""
        params = {"token": self.refresh_token.reveal(), "token_type_hint": "refresh_token"}
        return urlencode(params)


@dataclass(frozen=True, slots=True)
class UserToken:
    """What the SSO gave: an access token, what renews it, and perhaps an ID token."""

    token: Token
    renewal: Renewal
    id_token: str | None = field(default=None, repr=False)


class UserEndpoint:
    """The token endpoint for one client that acts for people; raises `TokenRequestError`.

    `clock` is monotonic, `wall_clock` gives Unix time.
    """

    def __init__(
        self,
        endpoint: TokenEndpoint,
        authenticate: ClientAuthentication,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._authenticate = authenticate
        self._clock = clock
        self._wall_clock = wall_clock

    async def redeem_code(self, code: str, verifier: Secret, redirect_uri: str) -> UserToken:
        """The tokens for a code of this very sign-in (RFC 7636 section 4.5)."""
        params = {
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier.reveal(),
        }
        grant = UserGrant(self._authenticate, "authorization_code", params)
        return self._made(await self._endpoint.redeem(grant), Renewal())

    async def refresh(self, renewal: Renewal) -> UserToken:
        """The next tokens; the SSO may have replaced the refresh token, or may not."""
        token = renewal.refresh_token
        params = {} if token is None else {"refresh_token": token.reveal()}
        grant = UserGrant(self._authenticate, "refresh_token", params)
        cookie = "; ".join(f"{name}={value.reveal()}" for name, value in renewal.cookies.items())
        return self._made(await self._endpoint.redeem(grant, cookie or None), renewal)

    async def revoke(self, url: str, refresh_token: Secret) -> None:
        """Let the SSO forget a refresh token and what came of it (RFC 7009)."""
        await self._endpoint.tell(Revocation(self._authenticate, refresh_token), url)

    def _made(self, answered: tuple[TokenResponse, Answer], before: Renewal) -> UserToken:
        response, answer = answered
        now = self._clock()
        age = now - response.requested_at
        token = Token(
            response.access_token.reveal(),
            received_at=response.requested_at,
            lifetime=response.lifetime,
            wall_expiry=self._wall_clock() + response.lifetime - age,
            scope=response.scope,
        )
        if now >= token.usable_until:
            raise TokenRequestError("transient", "token expired on arrival")
        members = parse_object(answer.body or b"") or {}
        id_token = members.get("id_token")
        return UserToken(
            token,
            _renewal(members, answer.cookies, before),
            id_token if isinstance(id_token, str) else None,
        )


def _renewal(members: Mapping[str, Any], cookies: Mapping[str, str], before: Renewal) -> Renewal:
    """What the answer changes of it: what it does not name stays (RFC 6749 section 6)."""
    given = members.get("refresh_token")
    refresh_token = Secret(given) if isinstance(given, str) and given else before.refresh_token
    kept = {**before.cookies, **{name: Secret(value) for name, value in cookies.items()}}
    return Renewal(refresh_token, {name: value for name, value in kept.items() if value})
