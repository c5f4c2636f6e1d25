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

    `pages` responds to `/auth/…`, `guests` authenticates all other requests, `strangers` limits
    unidentified ones.
    """

    def __init__(
        self,
        handler: Handler,
        pages: AuthEndpoints,
        guests: SessionAuth,
        strangers: UnidentifiedLimiter,
    ) -> None:
        self._handler = handler
        self._pages = pages
        self._session_auth = guests
        self._unidentified_limiter = strangers

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Respond to one request, with its log entry, audit record and metrics."""
        header = parse_request_fields(request.message.raw_headers)
        visit = parse_browser_request(
            request,
            self._session_auth.resolve_peer(request.connection.peer, header),
            partial(read_form, request, header),
        )
        own = self._auth_responder(visit)
        if own is not None:
            return await self._handler.handle_local(request, own)
        guest = await self._session_auth.authenticate(visit, header)
        if isinstance(guest, LocalResponse):
            return await self._handler.handle_local(
                request, self._with_login_redirect(visit, guest)
            )
        if guest.caller is not None and visit.is_navigation:
            credential = guest.caller.credential
            if isinstance(credential, UserCredential):
                guest = replace(
                    guest, expired_session_responder=self._login_expired(visit, credential.session)
                )
        return await self._handler.handle(request, guest)

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Respond to a message that could not be parsed, with its log entry, record and metrics."""
        return await self._handler.reject_malformed(request, error)

    def _auth_responder(self, visit: BrowserRequest) -> LocalResponder | None:
        if not visit.path.startswith("/"):
            return None  # not in origin form: meant for another server
        lines = self._session_auth.cors_field_lines(visit)
        if visit.is_preflight:

            async def preflight(exchange: Exchange) -> LocalResponse:
                # Browsers send preflights without a cookie, and one for each URL. All get a
                # response, but those over the rate limit are not recorded in the audit trail.
                exchange.is_audit_skipped = self._unidentified_limiter.exceeds_limit(
                    visit.peer.address
                )
                return self._session_auth.preflight(visit)

            return LocalResponder(preflight, lines)
        if visit.path == "/auth" or visit.path.startswith("/auth/"):

            async def page(exchange: Exchange) -> LocalResponse:
                return await self._pages.respond(visit, exchange)

            return LocalResponder(page, lines)
        return None

    def _login_expired(self, visit: BrowserRequest, session: Session) -> LocalResponder:
        async def sign_in_again(exchange: Exchange) -> LocalResponse:
            return self._pages.login_expired(visit, session, exchange)

        return LocalResponder(sign_in_again, self._session_auth.cors_field_lines(visit))

    def _with_login_redirect(self, visit: BrowserRequest, reply: LocalResponse) -> LocalResponder:
        async def respond(_exchange: Exchange) -> LocalResponse:
            self._unidentified_limiter.consume(visit.peer.address)
            return reply

        return LocalResponder(respond)
