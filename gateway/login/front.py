"""The middleware in front of the request path when users can sign in with a browser.

It responds to `/auth/…` and to CORS preflights, and authenticates all other requests. Without the
login it is not installed and costs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.http.headers import parse_request_fields
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.messages import ConnectionDisposition
from gateway.login.browser_request import BrowserRequest, parse_browser_request
from gateway.login.endpoints import AuthEndpoints
from gateway.login.forms import read_form
from gateway.login.session import Session, UserCredential
from gateway.login.session_auth import SessionAuth
from gateway.pipeline.handler import Handler
from gateway.pipeline.own_replies import LocalResponder, LocalResponse
from gateway.pipeline.strangers import UnidentifiedLimiter


class LoginMiddleware:
    """Handles requests as `Handler` does, with the sign-in and sessions of users.

    `endpoints` responds to `/auth/…`, `session_auth` authenticates all other requests,
    `unidentified_limiter` limits unidentified ones.
    """

    def __init__(
        self,
        handler: Handler,
        endpoints: AuthEndpoints,
        session_auth: SessionAuth,
        unidentified_limiter: UnidentifiedLimiter,
    ) -> None:
        self._handler = handler
        self._endpoints = endpoints
        self._session_auth = session_auth
        self._unidentified_limiter = unidentified_limiter

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Respond to one request, with its log entry, audit record and metrics."""
        header = parse_request_fields(request.message.raw_headers)
        browser_request = parse_browser_request(
            request,
            self._session_auth.resolve_peer(request.connection.peer, header),
            partial(read_form, request, header),
        )
        responder = self._auth_responder(browser_request)
        if responder is not None:
            return await self._handler.handle_local(request, responder)
        auth = await self._session_auth.authenticate(browser_request, header)
        if isinstance(auth, LocalResponse):
            return await self._handler.handle_local(
                request, self._with_login_redirect(browser_request, auth)
            )
        if auth.caller is not None and browser_request.is_navigation:
            credential = auth.caller.credential
            if isinstance(credential, UserCredential):
                auth = replace(
                    auth,
                    expired_session_responder=self._login_expired(
                        browser_request, credential.session
                    ),
                )
        return await self._handler.handle(request, auth)

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Respond to a message that could not be parsed, with its log entry, record and metrics."""
        return await self._handler.reject_malformed(request, error)

    def _auth_responder(self, browser_request: BrowserRequest) -> LocalResponder | None:
        if not browser_request.path.startswith("/"):
            return None  # not in origin form: meant for another server
        field_lines = self._session_auth.cors_field_lines(browser_request)
        if browser_request.is_preflight:

            async def preflight(exchange: Exchange) -> LocalResponse:
                # Browsers send preflights without a cookie, and one for each URL. All get a
                # response, but those over the rate limit are not recorded in the audit trail.
                exchange.is_audit_skipped = self._unidentified_limiter.exceeds_limit(
                    browser_request.peer.address
                )
                return self._session_auth.preflight(browser_request)

            return LocalResponder(preflight, field_lines)
        if browser_request.path == "/auth" or browser_request.path.startswith("/auth/"):

            async def page(exchange: Exchange) -> LocalResponse:
                return await self._endpoints.respond(browser_request, exchange)

            return LocalResponder(page, field_lines)
        return None

    def _login_expired(self, browser_request: BrowserRequest, session: Session) -> LocalResponder:
        async def sign_in_again(exchange: Exchange) -> LocalResponse:
            return self._endpoints.login_expired(browser_request, session, exchange)

        return LocalResponder(sign_in_again, self._session_auth.cors_field_lines(browser_request))

    def _with_login_redirect(
        self, browser_request: BrowserRequest, response: LocalResponse
    ) -> LocalResponder:
        async def respond(_exchange: Exchange) -> LocalResponse:
            self._unidentified_limiter.consume(browser_request.peer.address)
            return response

        return LocalResponder(respond)
