"""Constructs the login of one version of the settings, where it is enabled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.app import identity_setup, tls_contexts
from gateway.audit.audit_trail import AuditTrail
from gateway.clock import TimeSource
from gateway.config.settings import Settings
from gateway.login.auth_routes import AuthRoutes
from gateway.login.authorization_code import SignInFlow
from gateway.login.logout import SignOutFlow
from gateway.login.openid_provider import OpenIdProvider
from gateway.login.session_auth import SessionAuth, challenge
from gateway.login.session_store import SessionStore, digest
from gateway.login.sessions import SessionManager
from gateway.login.user_tokens import SessionRenewals
from gateway.oauth.grants import UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenEndpoint, TokenRequestQueue
from gateway.pipeline.callers import CallerRegistry
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter

if TYPE_CHECKING:
    from aiohttp import ClientSession  # noqa: TID251 - received, not made

    from gateway.pipeline.handler import Handler


class LoginParts:
    """The parts of the login. Raises `StartError` where the client's secret cannot be read.

    `renewals` renews the users' tokens. `session` is used for requests to the SSO. `session_store`
    and `token_requests` outlive the settings.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        times: TimeSource,
        session: ClientSession,
        token_requests: TokenRequestQueue,
        session_store: SessionStore,
        audit: AuditTrail,
    ) -> None:
        self._settings = settings
        self._times = times
        self._audit = audit
        login, sso = settings.login, settings.sso
        self._sessions = SessionManager(
            store=session_store,
            login=login,
            identity=_identity(settings),
            times=times,
        )
        endpoint = user_endpoint(settings, session, times, token_requests)
        provider = openid_provider(settings, session, times)
        self._sign_in = SignInFlow(
            login=login,
            sso=sso,
            endpoint=endpoint,
            provider=provider,
            sessions=self._sessions,
        )
        self._sign_out = SignOutFlow(
            login=login,
            endpoint=endpoint,
            provider=provider,
            sessions=self._sessions,
            wall_clock=times.wall_clock,
        )
        self.renewals = SessionRenewals(
            endpoint=endpoint,
            sessions=self._sessions,
            sign_out=self._sign_out,
            audit=audit,
            sso=sso,
            challenge=challenge(login),
            times=times,
            sessions_persist=settings.store.url.kind != "memory",
        )

    def routes(
        self, handler: Handler, callers: CallerRegistry, unidentified_limiter: UnidentifiedLimiter
    ) -> AuthRoutes:
        """Return what handles requests in front of `handler`."""
        settings = self._settings
        session_auth = SessionAuth(
            login=settings.login,
            base_path=settings.listen.base_path,
            callers=callers,
            sessions=self._sessions,
            renewals=self.renewals,
        )
        return AuthRoutes(
            login=settings.login,
            default_language=settings.fhir.default_language,
            handler=handler,
            callers=callers,
            unidentified_limiter=unidentified_limiter,
            sign_in=self._sign_in,
            sign_out=self._sign_out,
            sessions=self._sessions,
            session_auth=session_auth,
            renewals=self.renewals,
            audit=self._audit,
            clock=self._times.clock,
            wall_clock=self._times.wall_clock,
        )


def user_endpoint(
    settings: Settings,
    session: ClientSession,
    times: TimeSource,
    queue: TokenRequestQueue | None = None,
) -> UserTokenEndpoint:
    """Return the endpoint that exchanges codes and refresh tokens. Raises `StartError`."""
    return UserTokenEndpoint(
        endpoint=TokenEndpoint(
            session=session,
            sso=settings.sso,
            tls=tls_contexts.sso_tls(settings),
            clock=times.clock,
            wall_clock=times.wall_clock,
        ),
        authentications=identity_setup.login_authentications(settings),
        login=settings.login,
        clock=times.clock,
        wall_clock=times.wall_clock,
        queue=queue,
    )


def openid_provider(
    settings: Settings, session: ClientSession, times: TimeSource
) -> OpenIdProvider:
    """Return the OpenID provider of the SSO. Raises `StartError`."""
    sso = settings.sso
    url = sso.issuer or sso.authorize_url or sso.token_url
    return OpenIdProvider(
        session=session,
        sso=sso,
        client_secrets=identity_setup.login_secrets(settings),
        is_required=settings.login.is_openid or sso.issuer is not None,
        tls=tls_contexts.client_tls(url, sso.ca_file, "sso.ca_file"),
        clock=times.clock,
        wall_clock=times.wall_clock,
    )


def _identity(settings: Settings) -> str:
    """Return a digest of the SSO, platform and client that a session's tokens belong to.

    A session of another identity is not used: its tokens must not reach another server.
    """
    sso, platform = settings.sso, settings.platform
    facts = [sso.token_url, sso.authorize_url, platform.fhir_base_url, settings.login.client_id]
    return digest(json.dumps(facts))
