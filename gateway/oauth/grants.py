"""Token requests with client credentials, an authorization code or a refresh token (RFC 6749)."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from gateway.oauth.token_response import AccessToken, TokenRequestError, TokenResponse
from gateway.secret import Secret

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings
    from gateway.config.outbound_settings import CredentialSettings
    from gateway.oauth.client_authentication import ClientAuthentication
    from gateway.oauth.token_endpoint import TokenEndpoint, TokenRequestQueue


def client_credentials_form(credential: CredentialSettings) -> str:
    """Return the body of a client credentials grant, without the client authentication.

    It is that of RFC 6749 section 4.4.2.
    """
    params = {"scope": credential.scope} if credential.scope else {}
    return _grant_form("client_credentials", params, credential.extra_params)


def _grant_form(grant_type: str, params: Mapping[str, str], extra_params: Mapping[str, str]) -> str:
    with _unencodable_as_error():
        return str(add_params_to_qs(prepare_token_request(grant_type, **params), extra_params))


@contextlib.contextmanager
def _unencodable_as_error() -> Iterator[None]:
    """Raise `TokenRequestError` without the text, in which JSON allows what UTF-8 has no bytes for.

    Such a refresh token can come from an SSO; the text of the error would contain the whole form.
    """
    try:
        yield
    except UnicodeError:
        raise TokenRequestError("transient", "internal error") from None


# Other codes may concern the grant, which must not be sent again with another secret. Keycloak
# answers a wrong secret with unauthorized_client.
_CLIENT_REFUSALS: Final = (None, "invalid_client", "unauthorized_client")
# Statuses 4xx by which a server refuses no grant but asks for another attempt: too slow, too early
# (RFC 8470) and too many requests. A user who had to sign in again would only add requests.
_LATER_STATUSES: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class RenewalGrant:
    """What a renewal sends to the SSO: the refresh token, or without one the SSO's cookies.

    DHP's SSO hides the refresh token in a cookie. Other cookies, such as a load balancer's, are not
    told apart from it.
    """

    refresh_token: Secret | None = None
    cookies: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def is_possible(self) -> bool:
        """Whether there is a refresh token or a cookie."""
        return self.refresh_token is not None or bool(self.cookies)


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UserTokenSet:
    """The tokens of a response: the access token, its renewal grant, and the ID token if any."""

    token: AccessToken
    renewal: RenewalGrant
    id_token: str | None = field(default=None, repr=False)


class UserTokenEndpoint:
    """The token endpoint for the client that acts for users. Raises `TokenRequestError`.

    `authentications` belong to the client's secrets or keys, of which the SSO may accept only one:
    if it refuses one (`invalid_client`, `unauthorized_client`, or 401 or 403 without an OAuth
    error), the next one is tried. The one that it accepted last is tried first. `clock` is
    monotonic, `wall_clock` returns Unix time. `queue` limits the requests, if there is one.
    """

    def __init__(
        self,
        *,
        endpoint: TokenEndpoint,
        authentications: Sequence[ClientAuthentication],
        login: LoginSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        queue: TokenRequestQueue | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._extra_params = login.extra_params
        self._authentications = tuple(authentications)
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue = queue

    async def redeem_code(self, code: str, verifier: Secret, redirect_uri: str) -> UserTokenSet:
        """Return the tokens for an authorization code (RFC 7636 section 4.5).

        `verifier` and `redirect_uri` must be those of the same sign-in.
        """
        return await self._redeem(
            "authorization_code",
            {
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier.reveal(),
            },
            RenewalGrant(),
        )

    async def refresh(self, renewal: RenewalGrant) -> UserTokenSet:
        """Return new tokens for a renewal grant, with the next renewal grant.

        The SSO may have replaced the refresh token or not.
        """
        if renewal.refresh_token is not None:
            return await self._redeem(
                "refresh_token", {"refresh_token": renewal.refresh_token.reveal()}, renewal
            )
        cookie = "; ".join(f"{name}={value.reveal()}" for name, value in renewal.cookies.items())
        try:
            return await self._redeem("refresh_token", {}, renewal, cookie)
        except TokenRequestError as error:
            # SSOs answer a cookie that has run out, or is no refresh token at all, with any code or
            # page: the cookie is then a parameter that is missing. Waiting would not mend it.
            status = error.status or 0
            is_refusal = 400 <= status < 500 or (status < 300 and error.oauth_error is not None)
            error.is_grant_invalid = is_refusal and status not in _LATER_STATUSES
            raise

    async def revoke(self, url: str, refresh_token: Secret) -> None:
        """Revoke a refresh token, and the access tokens issued with it, at `url` (RFC 7009)."""
        # Section 2.1.
        with _unencodable_as_error():
            form = urlencode({"token": refresh_token.reveal(), "token_type_hint": "refresh_token"})
        await self._with_client_auth(
            lambda authenticate: self._endpoint.post(authenticate, form, url=url), None
        )

    async def _redeem(
        self,
        grant_type: str,
        params: Mapping[str, str],
        previous: RenewalGrant,
        cookie: str | None = None,
    ) -> UserTokenSet:
        form = _grant_form(grant_type, params, self._extra_params)
        response = await self._with_client_auth(
            lambda authenticate: self._endpoint.request(authenticate, form, cookie), self._queue
        )
        token = response.to_access_token(self._clock(), self._wall_clock())
        return UserTokenSet(token, _next_renewal(response, previous), response.id_token)

    async def _with_client_auth(
        self,
        request: Callable[[ClientAuthentication], Awaitable[_T]],
        queue: TokenRequestQueue | None,
    ) -> _T:
        *others, last = self._authentications
        for authenticate in others:
            try:
                return await self._attempt(request, authenticate, queue)
            except TokenRequestError as error:
                if not error.may_be_wrong_client or error.oauth_error not in _CLIENT_REFUSALS:
                    raise
        return await self._attempt(request, last, queue)

    async def _attempt(
        self,
        request: Callable[[ClientAuthentication], Awaitable[_T]],
        authenticate: ClientAuthentication,
        queue: TokenRequestQueue | None,
    ) -> _T:
        # A user waits for each of these requests, or will in a moment.
        turn = queue.admission(lambda: True) if queue else contextlib.nullcontext()
        async with turn:
            result = await request(authenticate)
        others = (each for each in self._authentications if each is not authenticate)
        self._authentications = (authenticate, *others)
        return result


def _next_renewal(response: TokenResponse, previous: RenewalGrant) -> RenewalGrant:
    """Return the next renewal grant: `previous`, updated by the response.

    A refresh token that the response does not replace stays valid (RFC 6749 section 6); with one,
    cookies are ignored. A cookie with the value "" is removed.
    """
    refresh_token = response.refresh_token or previous.refresh_token
    if refresh_token is not None:
        return RenewalGrant(refresh_token)
    received = {name: Secret(value) for name, value in response.cookies.items()}
    cookies = {**previous.cookies, **received}
    return RenewalGrant(cookies={name: value for name, value in cookies.items() if value})
