"""The endpoints below `/auth/…`, in front of the request path.

The endpoints are sign-in, callback, sign-out and session. Browsers are identified by cookies only.
No token, authorization code or code verifier is ever sent to them.

`AuthRoutes` also responds to CORS preflights, and authenticates all other requests. Without the
login it is not installed and costs nothing.

A page explains a failed sign-in to the user, in en, ru and uz. It shows no value of the request or
of the SSO, except the path of the next sign-in and the request id, both escaped.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from cachetools import LRUCache

from gateway.errors import (
    BAD_REQUEST,
    CALLER_FORBIDDEN,
    CALLER_UNAUTHENTICATED,
    METHOD_NOT_ALLOWED,
    SSO_UNAVAILABLE,
    TOKEN_REFUSED,
    UNKNOWN_PATH,
    GatewayError,
)
from gateway.exchange import Exchange
from gateway.i18n import choose_language
from gateway.login.authorization_code import SignInError, SignInFlow, return_target
from gateway.login.browser_request import BrowserRequest, parse_browser_request, read_form
from gateway.login.logout import SignOutFlow
from gateway.login.openid_provider import IdTokenError
from gateway.login.session_auth import (
    SessionAuth,
    challenge,
    cookie_field,
    cookie_name,
    login_path,
    requested_target,
    session_cookie,
)
from gateway.login.session_store import SIGN_IN_LIFETIME, Session, digest
from gateway.login.sessions import SessionManager
from gateway.login.user_tokens import SessionRenewals
from gateway.pipeline.admission import TokenBucket
from gateway.pipeline.callers import CallerRegistry
from gateway.pipeline.own_replies import (
    LocalResponder,
    LocalResponse,
    html_response,
    json_response,
    redirect_response,
)
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter, client_network
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail, Event
    from gateway.config.operations_settings import LoginSettings
    from gateway.http.server.caller_connection import IncomingRequest
    from gateway.http.server.request_parser import ConnectionDisposition
    from gateway.pipeline.handler import Handler

_log = get_logger(__name__)

_LOGIN_PATH: Final = "/auth/login"
_CALLBACK_PATH: Final = "/auth/callback"
_LOGOUT_PATH: Final = "/auth/logout"
_SESSION_PATH: Final = "/auth/session"
_BACK_CHANNEL_PATH: Final = "/auth/backchannel-logout"
_REDIRECT: Final = "redirect"
# Requests per second and burst of one client address, which a whole hospital may share: after a
# restart all its people sign in again, and all its open pages ask who is signed in.
_ADDRESS_RATE: Final = 10.0
_ADDRESS_BURST: Final = 200
_LIMITS: Final = {
    # In the ten minutes that a sign-in lasts, one address can begin 13,000 of them. The store in
    # memory keeps 20,000, so that nobody else's is evicted.
    _LOGIN_PATH: (20.0, 1000),
    _REDIRECT: (20.0, 1000),
    # An SSO that signs out all users at once sends a request for each of them, and does not retry.
    _BACK_CHANNEL_PATH: (100.0, 2000),
}
# Their endpoints count a request only if its cookie is of no session and of no sign-in.
_COUNTED_LATER: Final = frozenset((_CALLBACK_PATH, _LOGOUT_PATH, _SESSION_PATH))
_MAX_ADDRESSES: Final = 4096
# Seconds. When the session ends earlier than this after the sign-in, the user is sent to another
# sign-in only if the platform accepted a token of the session.
_RECENT_SECONDS: Final = 10.0
_BROWSER_FAILURES: Final = frozenset({"expired", "foreign"})
# After these the user is as signed in as before.
_HARMLESS_FAILURES: Final = _BROWSER_FAILURES | {"denied"}
_RETRY_AFTER: Final = (("Retry-After", "10"),)

_Respond = Callable[[BrowserRequest, Exchange], Awaitable[LocalResponse]]

# The status of the page, by the failure.
_STATUS_BY_FAILURE: Final = {
    "expired": 400,
    "foreign": 400,
    "return": 400,
    "denied": 403,
    "rejected": 401,
    "refused": 502,
    "invalid": 502,
    "unavailable": 503,
}

# The reason in X-Gateway-Error, by the status.
_REASON_BY_STATUS: Final = {
    400: BAD_REQUEST,
    401: CALLER_UNAUTHENTICATED,
    403: CALLER_FORBIDDEN,
    502: TOKEN_REFUSED,
    503: SSO_UNAVAILABLE,
}


class AuthRoutes:
    """Handles requests as `handler` does, with the sign-in and sessions of users.

    It responds to requests below `/auth/…`, with a rate limit for each client address.
    `session_auth` authenticates all other requests, `unidentified_limiter` limits unidentified
    ones. `clock` is monotonic, `wall_clock` returns Unix time.
    """

    def __init__(
        self,
        *,
        login: LoginSettings,
        default_language: str,
        handler: Handler,
        callers: CallerRegistry,
        unidentified_limiter: UnidentifiedLimiter,
        sign_in: SignInFlow,
        sign_out: SignOutFlow,
        sessions: SessionManager,
        session_auth: SessionAuth,
        renewals: SessionRenewals,
        audit: AuditTrail,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._settings = login
        self._default_language = default_language
        self._handler = handler
        self._callers = callers
        self._unidentified_limiter = unidentified_limiter
        self._sign_in = sign_in
        self._sign_out = sign_out
        self._sessions = sessions
        self._session_auth = session_auth
        self._renewals = renewals
        self._audit = audit
        self._clock = clock
        self._wall_clock = wall_clock
        self._buckets: LRUCache[tuple[str, str], TokenBucket] = LRUCache(_MAX_ADDRESSES)
        self._routes: dict[str, tuple[tuple[str, ...], _Respond]] = {
            _LOGIN_PATH: (("GET", "HEAD"), self._login),
            # The first request uses up the sign-in: a program that looks at the link must not.
            _CALLBACK_PATH: (("GET",), self._callback),
            _LOGOUT_PATH: (("POST",), self._logout),
            _SESSION_PATH: (("GET", "HEAD"), self._session),
            _BACK_CHANNEL_PATH: (("POST",), self._back_channel),
        }

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Respond to one request, with its log entry, audit record and metrics."""
        header = self._handler.read_header(request)
        browser_request = parse_browser_request(
            request,
            self._callers.resolve_peer(request.connection.peer, header),
            partial(read_form, request, header, self._clock),
        )
        responder = self._auth_responder(browser_request)
        if responder is not None:
            return await self._handler.answer(request, responder, header)
        auth = await self._session_auth.authenticate(
            browser_request, header, partial(self._login_expired, browser_request)
        )
        if isinstance(auth, LocalResponse):
            responder = self._with_login_redirect(browser_request, auth)
            return await self._handler.answer(request, responder, header)
        return await self._handler.handle(request, auth, header)

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Respond to a message that could not be parsed, with its log entry, record and metrics."""
        return await self._handler.reject_malformed(request, error)

    def _auth_responder(self, request: BrowserRequest) -> LocalResponder | None:
        """Return the responder to `/auth/…` and to preflights, None for all other requests."""
        if not request.path.startswith("/"):
            return None  # not in origin form: meant for another server
        if request.is_preflight:
            respond = self._preflight
        elif request.path == "/auth" or request.path.startswith("/auth/"):
            respond = self._respond
        else:
            return None
        return LocalResponder(
            partial(respond, request), self._session_auth.cors_field_lines(request)
        )

    async def _preflight(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        # Browsers send preflights without a cookie, and one for each URL. All get a response, but
        # those over the rate limit are not recorded in the audit trail.
        exchange.is_audit_skipped = self._unidentified_limiter.exceeds_limit(request.peer.address)
        return self._session_auth.preflight(request)

    def _with_login_redirect(
        self, request: BrowserRequest, response: LocalResponse
    ) -> LocalResponder:
        async def respond(exchange: Exchange) -> LocalResponse:
            try:
                self._bucket(request, _REDIRECT).take()
            except GatewayError:
                # The redirect costs no more than the error, which would keep people from signing
                # in. Only the audit must not grow without limit.
                exchange.is_audit_skipped = True
            return response

        return LocalResponder(respond)

    def _login_expired(self, request: BrowserRequest, session: Session) -> LocalResponder:
        """Return the responder to a navigation whose session turns out to have ended."""

        async def sign_in_again(exchange: Exchange) -> LocalResponse:
            # Shortly after a sign-in whose tokens the platform never accepted, a redirect to a
            # sign-in could form a loop with the platform's rejections.
            is_new = self._clock() - session.started_at < _RECENT_SECONDS
            if is_new and not self._renewals.was_accepted(session):
                return self._failed(
                    "rejected", request, exchange, requested_target(self._settings, request)
                )
            return self._session_auth.login_redirect(request)

        return LocalResponder(sign_in_again, self._session_auth.cors_field_lines(request))

    async def _respond(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """Return the response to a request.

        Raises `GatewayError` unknown-path, method-not-allowed or rate-limited, and those of the
        endpoint.
        """
        methods, respond = self._routes.get(request.path, ((), None))
        is_method = request.method in methods
        if request.path not in _COUNTED_LATER or not is_method:
            self._bucket(request, request.path).take()
        if respond is None:
            raise GatewayError(UNKNOWN_PATH)
        if not is_method:
            raise GatewayError(METHOD_NOT_ALLOWED, headers=(("Allow", ", ".join(methods)),))
        return await respond(request, exchange)

    async def _login(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """Redirect to the SSO. Each sign-in has its own cookie, so several tabs can sign in."""
        params = dict(parse_qsl(request.query, keep_blank_values=True))
        target = return_target(
            params.get("return_to", self._default_target),
            self._settings.own_origin,
            self._settings.allowed_return_origins,
        )
        if target is None:
            return self._failed("return", request, exchange)
        try:
            redirect = await self._sign_in.start(target)
        except GatewayError:  # the session store fails, or the discovery document is missing
            return self._failed("unavailable", request, exchange, target)
        return redirect_response(
            redirect.location,
            cookie_field(
                self._settings,
                self._sign_in_cookie(redirect.state),
                redirect.binding_cookie.reveal(),
                max_age=int(SIGN_IN_LIFETIME),
            ),
        )

    async def _callback(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """Handle the authorization response, with which the SSO redirects the browser back."""
        pairs = parse_qsl(request.query, keep_blank_values=True)
        params = dict(pairs)
        state = params.get("state", "")
        name = self._sign_in_cookie(state)
        binding = request.cookie(name)
        try:
            if len(params) != len(pairs):
                raise SignInError("foreign", "a parameter appears twice")
            sign_in = await self._sign_in.finish(
                params, None if binding is None else Secret(binding)
            )
        except SignInError as error:
            return await self._sign_in_failed(request, exchange, error, state)
        except GatewayError:  # the session store fails, so that the state may be made up
            self._bucket(request).take()
            self._audit_event("login", None, exchange, outcome="failure", reason="unavailable")
            return self._failed("unavailable", request, exchange)
        await self._end_previous_session(request, exchange)
        exchange.user = sign_in.session.user
        self._audit_event(
            "login",
            sign_in.session.user,
            exchange,
            outcome="success",
            subject=sign_in.subject,
            display_name=sign_in.session.signed_in_user.name,
        )
        return redirect_response(
            sign_in.session.return_to,
            cookie_field(
                self._settings, session_cookie(self._settings), sign_in.identifier.reveal()
            ),
            cookie_field(self._settings, name, "", max_age=0),
        )

    async def _sign_in_failed(
        self, request: BrowserRequest, exchange: Exchange, error: SignInError, state: str
    ) -> LocalResponse:
        """Return the page about it; a user who is signed in anyway is redirected to the target.

        That of a callback that was used already is known if it created the user's session.

        Raises `GatewayError` rate-limited for callbacks that belong to no sign-in begun here.
        """
        session = None
        if error.failure in _HARMLESS_FAILURES:
            session = await self._session_auth.session(request, touch=False)
        if session is None and error.return_to is None:
            self._bucket(request).take()
        self._audit_event("login", None, exchange, outcome="failure", reason=error.failure)
        _log.log(
            # No operator has to act on an error that only the browser reported, or on a sign-in
            # that expired or was not started in this browser.
            logging.INFO
            if error.is_unverified or error.failure in _BROWSER_FAILURES
            else logging.WARNING,
            "a sign-in failed: %s",
            error.detail,
            request_id=exchange.request_id,
        )
        if session is not None:
            exchange.user = session.user
            used = session.return_to if session.state_digest == digest(state) else None
            return redirect_response(error.return_to or used or self._default_target)
        # An error that only the browser reported is never a 5xx, because it can be forged and would
        # trigger alerts.
        status = 403 if error.is_unverified else None
        return self._failed(error.failure, request, exchange, error.return_to, status)

    async def _end_previous_session(self, request: BrowserRequest, exchange: Exchange) -> None:
        """End the browser's previous session, so that a stolen identifier of it becomes useless.

        Its refresh token is not revoked: an SSO may then end the whole grant, and with it the new
        session.
        """
        former = await self._session_auth.session(request, touch=False)
        if former is not None:
            await self._sessions.end(former)
            self._audit_event("logout", former.user, exchange, outcome="replaced")

    async def _logout(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """End the session, and return the URL at which the SSO's own session can be ended.

        Without a session too, the response removes the cookie.
        """
        self._session_auth.require_same_origin(request)
        session = await self._session_auth.session(request, touch=False)
        end_session_url = None
        if session is None:
            self._bucket(request).take()
        else:
            exchange.user = session.user
            await self._sessions.end(session)
            self._audit_event("logout", session.user, exchange, outcome="success")
            await self._sign_out.revoke(session)
            end_session_url = await self._sign_out.end_session_url()
        return json_response(
            {"signed_in": False, "end_session_url": end_session_url},
            cookie_field(self._settings, session_cookie(self._settings), "", max_age=0),
        )

    async def _back_channel(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """Handle a logout token of the SSO. Cookies and the Origin field are ignored."""
        logout_token = (await request.form()).get("logout_token", "")
        try:
            user, ended = await self._sign_out.handle_back_channel(logout_token)
        except IdTokenError as error:
            # The user stays signed in here, although not at the SSO.
            _log.warning(
                "a logout token of the SSO was refused: %s", error, request_id=exchange.request_id
            )
            return json_response(
                {"error": "invalid_request", "error_description": f"logout_token: {error.fault}"},
                status=400,
            )
        exchange.user = user
        self._audit_event("logout", user, exchange, outcome="sso", sessions=ended)
        return json_response({})

    async def _session(self, request: BrowserRequest, exchange: Exchange) -> LocalResponse:
        """Return the signed-in user and the session's expiry, without extending its idle time.

        Only requests without a session count for the rate limit, because the pages of a whole
        clinic may poll this endpoint from one address.
        """
        session = await self._session_auth.session(request, touch=False)
        if session is None:
            self._bucket(request).take()
            return json_response(
                {
                    "signed_in": False,
                    "user": None,
                    "name": None,
                    "expires_at": None,
                    "expires_in": None,
                }
            )
        exchange.user = session.user
        seconds_left = max(0.0, self._sessions.seconds_left(session))
        expires_at = datetime.fromtimestamp(self._wall_clock() + seconds_left, UTC)
        return json_response(
            {
                "signed_in": True,
                "user": session.user,
                "name": session.signed_in_user.name,
                "expires_at": expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "expires_in": int(seconds_left),
            }
        )

    @property
    def _default_target(self) -> str:
        """The target after a sign-in without `return_to`."""
        return self._settings.path_prefix + "/"

    def _failed(
        self,
        failure: str,
        request: BrowserRequest,
        exchange: Exchange,
        return_to: str | None = None,
        status: int | None = None,
    ) -> LocalResponse:
        status = status or _STATUS_BY_FAILURE[failure]
        exchange.reason = reason = _REASON_BY_STATUS[status].code
        return html_response(
            "sign_in_failed.html",
            status,
            ("X-Gateway-Error", reason),
            *{"rejected": challenge(self._settings), "unavailable": _RETRY_AFTER}.get(failure, ()),
            language=choose_language(request.fields.get("accept-language"), self._default_language),
            failure=failure,
            again_path=login_path(self._settings, return_to or self._default_target),
            request_id=exchange.request_id,
            reason=reason,
        )

    def _sign_in_cookie(self, state: str) -> str:
        """Return the name of a sign-in's cookie, which does not reveal its state."""
        return cookie_name(self._settings, f"dhp-login-{digest(state)[:16]}")

    def _audit_event(
        self, name: Event, user: str | None, exchange: Exchange, **fields: object
    ) -> None:
        self._audit.record_event(
            name, user=user, **fields, remote=exchange.remote, request_id=exchange.request_id
        )

    def _bucket(self, request: BrowserRequest, kind: str = "") -> TokenBucket:
        kind = kind if kind in _LIMITS else ""
        key = (client_network(request.peer.address), kind)
        bucket: TokenBucket | None = self._buckets.get(key)
        if bucket is None:
            rate, burst = _LIMITS.get(kind, (_ADDRESS_RATE, _ADDRESS_BURST))
            bucket = self._buckets[key] = TokenBucket(rate, burst, self._clock)
        return bucket
