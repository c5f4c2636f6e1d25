"""The sign-in with a browser: authorization code with PKCE (RFC 6749 4.1, RFC 7636, RFC 9700).

This module implements the protocol; `gateway.login.auth_routes` is responsible for cookies, pages
and access. A sign-in is stored under its state together with a secret of the browser that started
it: a state alone finds no sign-in, and each sign-in is found once.

After the sign-in, a browser is sent only to allowed origins. With an open redirect, an attacker
could use the gateway's URL for phishing (RFC 9700 section 4.11).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, unquote

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway.errors import SSO_UNAVAILABLE, GatewayError
from gateway.login.openid_provider import IdTokenError, OpenIdProvider, ProviderMetadata
from gateway.login.session_store import (
    Session,
    SignedInUser,
    SignInState,
    digest,
    new_secret,
    store_key,
)
from gateway.login.sessions import SessionManager
from gateway.oauth.grants import UserTokenEndpoint, UserTokenSet
from gateway.oauth.token_response import (
    TOKEN_ERROR_CODES,
    TokenRequestError,
    description_of,
    unverified_claims,
)
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings
    from gateway.config.outbound_settings import SsoSettings

_log = get_logger(__name__)

SignInFailure = Literal["expired", "foreign", "denied", "refused", "unavailable", "invalid"]

MAX_NAME_LENGTH: Final = 256
_UNKNOWN_USER: Final = "unknown"
# Error codes that do not mean that the request itself is invalid (RFC 6749 section 4.1.2.1, OpenID
# Connect Core section 3.1.2.6).
_FAILURES_BY_CODE: Final[dict[str, SignInFailure]] = {
    "access_denied": "denied",
    "interaction_required": "denied",
    "login_required": "denied",
    "consent_required": "denied",
    "temporarily_unavailable": "unavailable",
    "server_error": "unavailable",
}


class SignInError(Exception):
    """A sign-in failed.

    `failure` is a fixed word. `detail` is for the log only; it contains the SSO's own description
    of the error in quotation marks. `is_unverified`: the error was reported by the browser's query
    string only, which anyone can forge. `return_to` is the target after the sign-in, if known.
    """

    def __init__(self, failure: SignInFailure, detail: str, *, is_unverified: bool = False) -> None:
        super().__init__(failure, detail)
        self.failure = failure
        self.detail = detail
        self.is_unverified = is_unverified
        self.return_to: str | None = None


@dataclass(frozen=True, slots=True)
class AuthorizationRedirect:
    """The redirect to the SSO at the start of a sign-in.

    `location` is the URL of the authorization request. The SSO returns `state` with its response.
    `binding_cookie` is the value of a cookie that binds the sign-in to the browser.
    """

    location: str
    state: str
    binding_cookie: Secret


def begin_sign_in(
    login: LoginSettings, sso: SsoSettings, metadata: ProviderMetadata | None, return_to: str
) -> tuple[AuthorizationRedirect, SignInState] | None:
    """Return a new authorization request (RFC 6749 section 4.1.1) and what `finish` needs of it.

    PKCE is that of RFC 7636 section 4.3. Return None if the SSO's discovery document is needed. The
    doctor sends such a request, too.
    """
    endpoint = sso.authorize_url
    if metadata is not None:
        endpoint = metadata.authorization_endpoint or endpoint
    if endpoint is None or _lacks_document(login, metadata):
        return None
    state, binding, verifier = new_secret(), new_secret(), new_secret()
    nonce = new_secret() if login.is_openid else None
    url = prepare_grant_uri(
        endpoint,
        login.client_id,
        "code",
        redirect_uri=login.redirect_uri,
        scope=login.scope,
        state=state,
        nonce=nonce,
        code_challenge=create_s256_code_challenge(verifier),
        code_challenge_method="S256",
    )
    location = str(add_params_to_uri(url, login.extra_params))
    redirect = AuthorizationRedirect(location, state, Secret(binding))
    return redirect, SignInState(Secret(verifier), nonce, return_to)


def _lacks_document(login: LoginSettings, metadata: ProviderMetadata | None) -> bool:
    """Return whether the sign-in would have to trust an ID token of an unknown issuer."""
    return metadata is None and login.is_openid


@dataclass(frozen=True, slots=True)
class CompletedSignIn:
    """A successful sign-in: the session and its identifier for the browser.

    `subject` is the ID token's `sub`, by which the SSO names the user in a logout token.
    """

    identifier: Secret
    session: Session
    subject: str | None


class SignInFlow:
    """Signs users in; every sign-in is one call of `start` and one of `finish`."""

    def __init__(
        self,
        *,
        login: LoginSettings,
        sso: SsoSettings,
        endpoint: UserTokenEndpoint,
        provider: OpenIdProvider,
        sessions: SessionManager,
    ) -> None:
        self._login = login
        self._sso = sso
        self._endpoint = endpoint
        self._provider = provider
        self._sessions = sessions

    async def start(self, return_to: str) -> AuthorizationRedirect:
        """Store a sign-in and return its authorization request (RFC 6749 section 4.1.1).

        Raises `GatewayError` sso-unavailable if the session store fails, or if the SSO's discovery
        document is needed and cannot be had.
        """
        metadata = await self._provider.metadata()
        begun = begin_sign_in(self._login, self._sso, metadata, return_to)
        if begun is None:
            _log.warning("nobody can sign in: the SSO's discovery document cannot be read")
            raise GatewayError(SSO_UNAVAILABLE, "no discovery document")
        redirect, sign_in = begun
        key = store_key(redirect.state, redirect.binding_cookie.reveal())
        await self._sessions.keep_sign_in(key, sign_in)
        return redirect

    async def finish(self, params: Mapping[str, str], binding: Secret | None) -> CompletedSignIn:
        """Create a session for the authorization response `params` (RFC 6749 section 4.1.2).

        `binding` is the value of the binding cookie. Raises `SignInError`, and `GatewayError`
        sso-unavailable if the session store fails.
        """
        state = params.get("state", "")
        if not state or binding is None:
            raise SignInError("expired", "no state, or another browser")
        sign_in = await self._sessions.take_sign_in(store_key(state, binding.reveal()))
        if sign_in is None:
            raise SignInError("expired", "state is unknown, used or too old")
        try:
            tokens, claims = await self._redeem(params, sign_in)
        except SignInError as error:
            error.return_to = sign_in.return_to
            raise
        user = _signed_in_user(tokens, claims)
        identifier, session = await self._sessions.create(
            user, tokens.token, tokens.renewal, state=state, return_to=sign_in.return_to
        )
        return CompletedSignIn(Secret(identifier), session, _printable_text(claims.get("sub")))

    async def _redeem(
        self, params: Mapping[str, str], sign_in: SignInState
    ) -> tuple[UserTokenSet, Mapping[str, Any]]:
        metadata = await self._provider.metadata()
        if _lacks_document(self._login, metadata):
            raise SignInError("unavailable", "no discovery document")
        _require_issuer(params.get("iss"), metadata)
        error = params.get("error")
        if error is not None:
            sent = [params[name] for name in ("state", "code") if params.get(name)]
            raise _authorization_error(error, description_of(params, sent))
        code = params.get("code")
        if not code:
            raise SignInError("foreign", "no code")
        try:
            tokens = await self._endpoint.redeem_code(
                code, sign_in.verifier, self._login.redirect_uri or ""
            )
        except TokenRequestError as failure:
            raise SignInError(_sign_in_failure(failure), str(failure)) from None
        return tokens, await self._claims(tokens, sign_in)

    async def _claims(self, tokens: UserTokenSet, sign_in: SignInState) -> Mapping[str, Any]:
        if tokens.id_token is None:
            if self._login.is_openid:
                raise SignInError("invalid", "no id_token")
            return {}
        try:
            return await self._provider.id_token_claims(
                tokens.id_token, self._login.client_id or "", sign_in.nonce
            )
        except IdTokenError as error:
            raise SignInError("invalid", f"id_token: {error}") from None


def _require_issuer(issuer: str | None, metadata: ProviderMetadata | None) -> None:
    """Raise `SignInError` if another authorization server responded (RFC 9207 section 2.4)."""
    if metadata is None:
        return
    if (issuer is None and metadata.sends_issuer) or issuer not in (None, metadata.issuer):
        raise SignInError("foreign", "iss is another issuer's")


def _authorization_error(error: str, description: str) -> SignInError:
    # The query is the browser's: nothing shows that the SSO wrote it.
    code = error if error in _FAILURES_BY_CODE or error in TOKEN_ERROR_CODES else "other"
    quoted = f' "{description}"' if description else ""
    return SignInError(
        _FAILURES_BY_CODE.get(error, "refused"),
        f"the SSO answered {code}{quoted}",
        is_unverified=True,
    )


def _sign_in_failure(error: TokenRequestError) -> SignInFailure:
    if error.is_grant_invalid:
        return "expired"  # the code is too old, was used, or was never issued by the SSO
    return "refused" if error.kind == "refused" else "unavailable"


def _signed_in_user(tokens: UserTokenSet, claims: Mapping[str, Any]) -> SignedInUser:
    """Return the user that the ID token names, else the subject of an access token that is a JWT.

    Without either, the user is `unknown`. `preferred_username` tells people more than a subject
    that is a random text; it may change and is never compared. The userinfo endpoint is not asked:
    access tokens are only for the platform.
    """
    subject = (
        _printable_text(claims.get("preferred_username"))
        or _printable_text(claims.get("sub"))
        or _printable_text(unverified_claims(tokens.token.reveal()).get("sub"))
    )
    marks = (logout_mark(claims, name) for name in ("sub", "sid"))
    found = tuple(mark for mark in marks if mark is not None)
    return SignedInUser(subject or _UNKNOWN_USER, _printable_text(claims.get("name")), found)


def logout_mark(claims: Mapping[str, Any], name: Literal["sub", "sid"]) -> str | None:
    """Return the digest by which sessions of a subject or of an SSO session are found.

    It covers the issuer and the claim `name`. Return None if the claims do not contain both.
    """
    issuer, value = claims.get("iss"), claims.get(name)
    if not isinstance(issuer, str) or not isinstance(value, str) or not value:
        return None
    return digest(issuer, name, value)


def _printable_text(value: object) -> str | None:
    if not isinstance(value, str) or not value.isprintable():
        return None
    return value.strip()[:MAX_NAME_LENGTH] or None


_MAX_TARGET_LENGTH: Final = 2048
# Browsers remove white space and control characters, and read a backslash as a slash.
_UNSAFE_CHARACTERS: Final = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_QUERY_OR_FRAGMENT: Final = re.compile(r"[?#]")
_ORIGIN_DELIMITERS: Final = ("", "/", "?", "#")
_MAX_DECODINGS: Final = 3
# As a target, these paths would start or end a sign-in again, in a loop.
_LOOPING_PATHS: Final = ("/auth/login", "/auth/callback", "/auth/logout")


def return_target(value: str, own_origin: str, origins: Collection[str]) -> str | None:
    """Return the target, percent-encoded for a Location field, or None if it is not allowed.

    Allowed are an absolute path, alone or after `own_origin`, which is that of the gateway, and
    URLs of `origins`.
    """
    if not value or len(value) > _MAX_TARGET_LENGTH or _UNSAFE_CHARACTERS.search(value):
        return None
    if _is_below(value, own_origin):
        value = value.removeprefix(own_origin) or "/"
    if value.startswith("/"):
        allowed = not _is_path_unsafe(value)
    else:
        allowed = any(_is_below(value, origin) for origin in origins)
    return quote(value, safe="%/:?#[]@!$&'()*+,;=~-._") if allowed else None


def _is_below(url: str, origin: str) -> bool:
    """Return whether `url` is of `origin`.

    They are compared as text, because parsers disagree about unusual URLs.
    """
    rest = url.removeprefix(origin)
    return rest != url and rest[:1] in _ORIGIN_DELIMITERS


def _is_path_unsafe(target: str) -> bool:
    """Return whether any parser could read the path as another host, or `..` as a parent folder.

    The path is also checked after up to three percent-decodings. `_LOOPING_PATHS` count as unsafe.
    """
    path = _QUERY_OR_FRAGMENT.split(target, maxsplit=1)[0]
    for _ in range(_MAX_DECODINGS):
        if "//" in path or "@" in path or _UNSAFE_CHARACTERS.search(path):
            return True
        if any(segment in (".", "..") for segment in path.split("/")):
            return True
        if path.rstrip("/").endswith(_LOOPING_PATHS):
            return True
        path = unquote(path, errors="replace")
    return "//" in path
