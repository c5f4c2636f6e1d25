"""The SSO's endpoints: token endpoint (RFC 6749), sign-in page (with PKCE, RFC 7636), JWK Set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.sandbox.events import EVENT
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.sso.clients import Clients, OAuthError
from gateway.sandbox.sso.grants import (
    REFRESH_LIFETIME,
    GrantError,
    Grants,
    PendingSignIn,
    TokenAuthority,
)
from gateway.sandbox.sso.sign_in import SignInPage

TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
AUTHORIZE_PATH: Final = "/authorize"
JWKS_PATH: Final = "/oauth/jwks"
_REFRESH_COOKIE: Final = "refresh_token"

_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_GRANT_TYPES: Final = ("client_credentials", "authorization_code", "refresh_token")


class Sso:
    """Issues tokens to the clients of `options`."""

    def __init__(
        self, options: SandboxOptions, clients: Clients, grants: Grants, tokens: TokenAuthority
    ) -> None:
        self._options = options
        self._clients = clients
        self._grants = grants
        self._tokens = tokens
        self._page = SignInPage(clients, grants)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return the routes for the application."""
        return [
            web.post(TOKEN_PATH, self.token),
            web.get(JWKS_PATH, self.jwks),
            web.get("/.well-known/jwks.json", self.jwks),
            web.get(AUTHORIZE_PATH, self._page.show),
            web.post(AUTHORIZE_PATH, self._page.submit),
        ]

    async def jwks(self, request: web.Request) -> web.Response:
        """Return the public keys."""
        return web.json_response(self._tokens.jwks())

    async def token(self, request: web.Request) -> web.Response:
        """Handle a request to the token endpoint."""
        try:
            return await self._token(request)
        except OAuthError as error:
            self._add_to_log(request, f"{error.error} ({error.description})")
            headers = dict(_NO_STORE)
            if error.challenge:
                headers["WWW-Authenticate"] = error.challenge
            body = {"error": error.error}
            return web.json_response(body, status=error.status, headers=headers)

    async def _token(self, request: web.Request) -> web.Response:
        form = await _form(request)
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise OAuthError(400, "invalid_request", "grant_type is missing")
        client_id = self._clients.authenticate(form, request.headers.get("Authorization"))
        self._add_to_log(request, f"client {client_id}")
        if grant_type not in _GRANT_TYPES:
            raise OAuthError(400, "unsupported_grant_type", f"only {', '.join(_GRANT_TYPES)}")
        self._add_to_log(request, grant_type)
        # No scopes are configured, as at DHP. The request with a code has no such parameter
        # (RFC 6749 section 4.1.3).
        if grant_type != "authorization_code" and "scope" in form:
            raise OAuthError(400, "invalid_scope", "a scope that is not configured")
        if grant_type == "client_credentials":
            return self._client_credentials(client_id)
        try:
            sign_in, refresh_token = self._user_grant(client_id, form, request.cookies)
        except GrantError as error:
            raise OAuthError(400, "invalid_grant", str(error)) from None
        return self._user_token_response(sign_in, refresh_token)

    def _add_to_log(self, request: web.Request, text: str) -> None:
        event = request[EVENT]
        event.note = f"{event.note}, {text}" if event.note else text

    def _client_credentials(self, client_id: str) -> web.Response:
        if self._clients.is_public(client_id):
            raise OAuthError(400, "unauthorized_client", "a public client acts for users only")
        return self._token_response(client_id, client_id)

    def _user_grant(
        self, client_id: str, form: Mapping[str, str], cookies: Mapping[str, str]
    ) -> tuple[PendingSignIn, str]:
        if form["grant_type"] == "authorization_code":
            return self._grants.redeem_code(
                _required(form, "code"),
                client_id=client_id,
                redirect_uri=_required(form, "redirect_uri"),
                verifier=form.get("code_verifier"),
            )
        token = form.get("refresh_token") or cookies.get(_REFRESH_COOKIE)
        if token is None:
            raise OAuthError(400, "invalid_request", "refresh_token is missing")
        return self._grants.redeem_refresh_token(token, client_id=client_id)

    def _user_token_response(self, sign_in: PendingSignIn, refresh_token: str) -> web.Response:
        extra = {"refresh_token": refresh_token} if self._options.refresh_token_in_body else {}
        response = self._token_response(sign_in.subject, sign_in.client_id, **extra)
        response.set_cookie(
            _REFRESH_COOKIE,
            refresh_token,
            path=TOKEN_PATH,
            httponly=True,
            samesite="Strict",
            max_age=REFRESH_LIFETIME,
        )
        return response

    def _token_response(self, subject: str, client_id: str, **extra: str) -> web.Response:
        body = {
            "access_token": self._tokens.issue(subject, client_id),
            "token_type": "Bearer",
            "expires_in": self._tokens.lifetime,
            **extra,
        }
        return web.json_response(body, headers=_NO_STORE)


async def _form(request: web.Request) -> dict[str, str]:
    """Return the parameters of the form (RFC 6749 section 3.2).

    A repeated parameter is an error, one without a value counts as absent.
    """
    if request.content_type != _FORM:
        raise OAuthError(400, "invalid_request", f"the body must be {_FORM}")
    try:
        text = (await request.read()).decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        raise OAuthError(400, "invalid_request", "the body is not UTF-8") from None
    if any(count > 1 for count in Counter(name for name, _ in pairs).values()):
        raise OAuthError(400, "invalid_request", "a parameter appears twice")
    return {name: value for name, value in pairs if value}


def _required(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        raise OAuthError(400, "invalid_request", f"{name} is missing")
    return form[name]
