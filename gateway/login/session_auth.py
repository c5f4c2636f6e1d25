"""Authenticates requests where users can sign in: by a session, or as a caller with a key.

A browser sends the session cookie with the requests of any page, also of another origin (CSRF).
Therefore an unsafe request with a session needs a field that only pages of an allowed origin can
set, and requests from pages of other origins are denied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gateway.errors import CALLER_FORBIDDEN, CALLER_UNAUTHENTICATED, GatewayError
from gateway.field_values import is_same_origin
from gateway.http.headers import RequestHeader
from gateway.http.request_target import resolve_target
from gateway.login.browser_request import BrowserRequest
from gateway.login.session_store import Session
from gateway.login.sessions import SessionManager
from gateway.login.user_tokens import SessionRenewals, UserTokens
from gateway.pipeline.callers import AuthResult, Caller, CallerRegistry
from gateway.pipeline.own_replies import LocalResponder, LocalResponse

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings

SESSION: Final = "session"

_ALLOWED_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_ADD_HEADER: Final = "add the header X-Requested-With, with any value"
_KNOWN_ORIGIN: Final = "Origin is missing, or is not in login.cors_origins"
# The fields that pages of another origin may send beside the CORS-safelisted ones. Fields with keys
# or passwords are not among them.
_ALLOWED_FIELDS: Final = (
    "Accept, Accept-Language, Content-Type, If-Match, If-Modified-Since, If-None-Exist, "
    "If-None-Match, Prefer, X-Provenance, X-Request-Id, X-Requested-With, traceparent"
)
_EXPOSED_FIELDS: Final = (
    "Content-Location, ETag, Last-Modified, Location, Retry-After, X-Gateway-Error, "
    "X-Gateway-Warning, X-Request-Id"
)
_PREFLIGHT_AGE: Final = 600
# The platform may return a document by an attacker, which the browser shows in the gateway's own
# origin. No script of it may run there, and the browser must not guess its content type. The
# directive `sandbox` would prevent browsers from showing PDF.
_SECURITY_FIELDS: Final = (
    "Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors {}\r\n"
    "Cross-Origin-Resource-Policy: same-site\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
)


def cookie_name(login: LoginSettings, name: str) -> str:
    """Return the name of a cookie, with the prefix `__Host-` if cookies are for https only."""
    return f"__Host-{name}" if login.has_secure_cookies else name


def cookie_field(
    login: LoginSettings, name: str, value: str, *, max_age: int | None = None
) -> tuple[str, str]:
    """Return the field that sets a cookie.

    `max_age` is in seconds; None means until the browser is closed.
    """
    age = "" if max_age is None else f"; Max-Age={max_age}"
    secure = "; Secure" if login.has_secure_cookies else ""
    return ("Set-Cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")


def session_cookie(login: LoginSettings) -> str:
    """Return the name of the session cookie."""
    return cookie_name(login, "dhp-session")


def challenge(login: LoginSettings) -> tuple[tuple[str, str], ...]:
    """Return the WWW-Authenticate field of a 401.

    Its scheme is one for which browsers do not open a password dialog.
    """
    value = (
        f'Cookie realm="dhp-gateway", form-action="{login.path_prefix}/auth/login", '
        f'cookie-name="{session_cookie(login)}"'
    )
    return (("WWW-Authenticate", value),)


def requested_target(login: LoginSettings, request: BrowserRequest) -> str:
    """Return path and query of the request as browsers see them, with the prefix."""
    path = f"{login.path_prefix}{request.path}"
    return f"{path}?{request.query}" if request.query else path


def login_path(login: LoginSettings, return_to: str) -> str:
    """Return the path that starts a sign-in and then redirects to `return_to`."""
    target = quote(return_to, safe="/", errors="surrogateescape")
    return f"{login.path_prefix}/auth/login?return_to={target}"


class SessionAuth:
    """Authenticates requests, and decides what pages of other origins may do.

    `base_path` is the path of the FHIR API.
    """

    def __init__(
        self,
        *,
        login: LoginSettings,
        base_path: str,
        callers: CallerRegistry,
        sessions: SessionManager,
        renewals: SessionRenewals,
    ) -> None:
        self._login = login
        self._base_path = base_path
        self._callers = callers
        self._sessions = sessions
        self._renewals = renewals
        self._own_origin = login.own_origin
        self._session_cookie = session_cookie(login)
        self._cors_origins = frozenset(login.cors_origins)
        self._vary = b"Vary: Cookie, Origin\r\n" if login.cors_origins else b"Vary: Cookie\r\n"
        self._content = _SECURITY_FIELDS.format(
            " ".join(("'self'", *sorted(self._cors_origins)))
        ).encode()

    async def session(self, request: BrowserRequest, *, touch: bool) -> Session | None:
        """Return the session of the browser's cookie, None if there is none or it has ended.

        With `touch` its idle time starts anew. Raises `GatewayError` if the store fails.
        """
        identifier = request.cookie(self._session_cookie)
        if identifier is None:
            return None
        return await self._sessions.find(identifier, touch=touch)

    async def authenticate(
        self,
        request: BrowserRequest,
        header: RequestHeader,
        on_expiry: Callable[[Session], LocalResponder],
    ) -> AuthResult | LocalResponse:
        """Return the auth result of a request for the platform, or a redirect to the sign-in.

        Only a navigation below `base_path` without a session is redirected. `on_expiry` returns
        the responder to a navigation whose session turns out to have ended.
        """
        field_lines = self.cors_field_lines(request)
        if self._callers.presents_known_secret(header):
            return self._authenticate_caller(request, header, field_lines)
        field_lines += self._content
        try:
            session = await self.session(request, touch=True)
        except GatewayError as error:  # the store fails: the user cannot be identified
            return AuthResult(field_lines, error=error)
        if session is not None:
            responder = on_expiry(session) if request.is_navigation else None
            return self._signed_in(request, session, field_lines, responder)
        auth = (
            self._authenticate_caller(request, header, field_lines)
            if self._callers.has_named_callers
            else None
        )
        if auth is not None and auth.caller is not None:
            return auth
        if request.is_navigation and _is_below(request, self._base_path):
            return self.login_redirect(request)
        return AuthResult(field_lines, error=self._unauthenticated(request, auth))

    def cors_field_lines(self, request: BrowserRequest) -> bytes:
        """Return the field lines that let a page of an allowed origin read the response.

        Follows CORS in the Fetch standard. Vary is always among them.
        """
        if request.origin is None or request.origin not in self._cors_origins:
            return self._vary
        return self._vary + (
            f"Access-Control-Allow-Origin: {request.origin}\r\n"
            "Access-Control-Allow-Credentials: true\r\n"
            f"Access-Control-Expose-Headers: {_EXPOSED_FIELDS}\r\n"
        ).encode("ascii")

    def preflight(self, request: BrowserRequest) -> LocalResponse:
        """Return the response to a CORS preflight. Raises `GatewayError` caller-forbidden."""
        if request.origin not in self._cors_origins:
            raise _forbidden("Origin", _KNOWN_ORIGIN)
        return LocalResponse(
            204,
            (
                ("Access-Control-Allow-Methods", _ALLOWED_METHODS),
                ("Access-Control-Allow-Headers", _ALLOWED_FIELDS),
                ("Access-Control-Max-Age", str(_PREFLIGHT_AGE)),
            ),
        )

    def require_same_origin(self, request: BrowserRequest) -> None:
        """Raise `GatewayError` caller-forbidden unless the request is from an allowed origin.

        Allowed are the gateway's own origin and `cors_origins`. A safe request without Origin field
        passes; an unsafe one also needs X-Requested-With.
        """
        if request.is_unsafe and not request.has_csrf_header:
            raise _forbidden("X-Requested-With", _ADD_HEADER)
        if not self._is_same_origin(request.origin, request.fields.get("host", "")):
            if request.origin is None and not request.is_unsafe:
                return
            raise _forbidden("Origin", _KNOWN_ORIGIN)

    def _is_same_origin(self, origin: str | None, host: str) -> bool:
        if origin is None:
            return False
        if origin == self._own_origin or origin in self._cors_origins:
            return True
        is_secure = origin.startswith("https://")
        return is_same_origin(origin, host) and (is_secure or not self._login.has_secure_cookies)

    def _signed_in(
        self,
        request: BrowserRequest,
        session: Session,
        field_lines: bytes,
        expired_session_responder: LocalResponder | None,
    ) -> AuthResult:
        try:
            self.require_same_origin(request)
        except GatewayError as error:
            return AuthResult(field_lines, error=error)
        caller = Caller(SESSION, UserTokens(session, self._renewals), user=session.user)
        return AuthResult(field_lines, caller, expired_session_responder=expired_session_responder)

    def _authenticate_caller(
        self, request: BrowserRequest, header: RequestHeader, field_lines: bytes
    ) -> AuthResult:
        try:
            return AuthResult(field_lines, self._callers.identify(request.peer, header))
        except GatewayError as error:
            return AuthResult(field_lines, error=error)

    def _unauthenticated(self, request: BrowserRequest, auth: AuthResult | None) -> GatewayError:
        challenges = challenge(self._login)
        refusal = auth.error if auth is not None else None
        if refusal is not None and not request.is_from_browser:
            challenges = (*refusal.headers, *challenges)
        return GatewayError(CALLER_UNAUTHENTICATED, "no user is signed in", headers=challenges)

    def login_redirect(self, request: BrowserRequest) -> LocalResponse:
        """Return the redirect to a sign-in that leads back to the requested target."""
        target = requested_target(self._login, request)
        return LocalResponse(302, (("Location", login_path(self._login, target)),))


def _is_below(request: BrowserRequest, base_path: str) -> bool:
    try:
        resolve_target(request.path, base_path)
    except GatewayError:
        return False
    return True


def _forbidden(field: str, hint: str) -> GatewayError:
    return GatewayError(
        CALLER_FORBIDDEN, f"{field} is missing or another", hint=hint, advice_key="page"
    )
