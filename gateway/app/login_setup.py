"""Constructs the login of one version of the settings, where it is enabled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from gateway.app import identity_setup, tls_contexts
from gateway.field_values import is_loopback_host
from gateway.login.auth_routes import AuthEndpointParts, AuthEndpoints, LoginMiddleware
from gateway.login.authorization_code import LoginClient, SignInFlow
from gateway.login.logout import SignOutFlow
from gateway.login.openid_provider import OpenIdProvider, ProviderSettings
from gateway.login.session_auth import BrowserSettings, SessionAuth
from gateway.login.session_store import digest
from gateway.login.sessions import GuardedSessionStore, SessionLifetimes, SessionManager
from gateway.login.user_tokens import RenewalPolicy, UserTokenProvider
from gateway.oauth.grants import UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail
    from gateway.config.settings import Settings
    from gateway.login.session_store import Session, SessionStore
    from gateway.oauth.tokens import TokenManager
    from gateway.pipeline.callers import CallerRegistry
    from gateway.pipeline.handler import Handler
    from gateway.pipeline.unidentified_limit import UnidentifiedLimiter


class LoginParts:
    """The parts of the login. Raises `StartError` where the client's secret cannot be read.

    `tokens` provides users' tokens and those of `credential_tokens`, the gateway's own. `session`
    is used for requests to the SSO. `sessions` stores the users' sessions and outlives the
    settings.
    """

    def __init__(
        self,
        settings: Settings,
        credential_tokens: TokenManager,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        sessions: SessionStore,
        audit: AuditTrail,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._rules = browser_rules(settings)
        login = settings.login
        store = GuardedSessionStore(sessions, time.monotonic)
        self._sessions = SessionManager(
            store,
            SessionLifetimes(login.session_lifetime, login.idle_lifetime),
            _identity(settings),
            time.monotonic,
        )
        endpoint = user_endpoint(settings, session)
        client = login_client(settings)
        provider = openid_provider(settings, session)
        self._login = SignInFlow(client, endpoint, provider, store, self._sessions)
        self._sign_out = SignOutFlow(client, endpoint, provider, self._sessions, time.time)
        self.tokens = UserTokenProvider(
            credential_tokens,
            endpoint,
            self._sessions,
            RenewalPolicy(
                settings.sso.timeout,
                self._rules.challenge,
                self._on_session_end,
                self._sign_out.revoke,
                sessions_persist=settings.store.url.kind != "memory",
            ),
            time.monotonic,
        )

    def middleware(
        self, handler: Handler, callers: CallerRegistry, unidentified_limiter: UnidentifiedLimiter
    ) -> LoginMiddleware:
        """Return the middleware in front of `handler`."""
        session_auth = SessionAuth(callers, self._sessions, self._rules)
        events: Callable[..., None] = self._audit.record_event
        endpoints = AuthEndpoints(
            self._rules,
            self._settings.fhir.default_language,
            AuthEndpointParts(
                self._login,
                self._sign_out,
                self._sessions,
                session_auth,
                events,
                self.tokens.was_accepted,
                time.monotonic,
                time.time,
            ),
        )
        return LoginMiddleware(handler, endpoints, session_auth, unidentified_limiter)

    def _on_session_end(self, session: Session, why: str) -> None:
        self._audit.record_event("logout", user=session.user, outcome=why)


def browser_rules(settings: Settings) -> BrowserSettings:
    """Return the settings of the login that concern the browser."""
    login = settings.login
    uri = login.redirect_uri or ""
    parts = urlsplit(uri)
    on_this_machine = parts.scheme == "http" and is_loopback_host(parts.hostname or "")
    return BrowserSettings(
        base_path=settings.listen.base_path,
        redirect_uri=uri,
        secure=not on_this_machine,
        cors_origins=frozenset(login.cors_origins),
        return_origins=frozenset(login.allowed_return_origins),
    )


def login_client(settings: Settings) -> LoginClient:
    """Return the OAuth client that users sign in with."""
    login = settings.login
    return LoginClient(
        client_id=login.client_id or "",
        redirect_uri=login.redirect_uri or "",
        scope=login.scope,
        authorize_url=settings.sso.authorize_url or "",
        post_logout_redirect_uri=login.post_logout_redirect_uri,
        extra_params=login.extra_params,
    )


def user_endpoint(
    settings: Settings,
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
) -> UserTokenEndpoint:
    """Return the endpoint that exchanges codes and refresh tokens. Raises `StartError`."""
    return UserTokenEndpoint(
        endpoint=TokenEndpoint(
            session=session, sso=settings.sso, tls=tls_contexts.sso_tls(settings)
        ),
        authentications=identity_setup.login_authentications(settings),
        extra_params=settings.login.extra_params,
        clock=time.monotonic,
        wall_clock=time.time,
    )


def openid_provider(
    settings: Settings,
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
) -> OpenIdProvider:
    """Return the OpenID provider of the SSO. Raises `StartError`."""
    sso = settings.sso
    url = sso.authorize_url or ""
    found = ProviderSettings(
        authorize_url=url,
        timeout=sso.timeout,
        ssl=tls_contexts.client_tls(url, sso.ca_file, "sso.ca_file"),
        proxy_url=sso.proxy_url,
    )
    return OpenIdProvider(session, found, time.monotonic, time.time)


def _identity(settings: Settings) -> str:
    """Return a digest of the SSO, platform and client that a session's tokens belong to.

    A session of another identity is not used: its tokens must not reach another server.
    """
    sso, platform = settings.sso, settings.platform
    facts = [sso.token_url, sso.authorize_url, platform.fhir_base_url, settings.login.client_id]
    return digest(json.dumps(facts))
