"""Authenticates the operators that may decide about outbox entries, by HTTP Basic (RFC 7617).

Credentials are checked as those of callers are. Wrong passwords are limited per address. Beyond the
limit no password is checked, so that none can be guessed. A form has to contain the token that the
page issued to the operator, which a page of another site cannot read (protection against CSRF).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs
from aiohttp.web_request import Request

from gateway.admin.admin_listener import authority_of
from gateway.admin.outbox_page import OutboxPageError
from gateway.errors import GatewayError
from gateway.field_values import is_same_origin
from gateway.http.headers import parse_request_fields
from gateway.http.server.peer import Peer, socket_address
from gateway.pipeline.callers import Caller, CallerMatcher, CallerRegistry
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

_log = get_logger("gateway.admin")

CHALLENGE: Final[Mapping[str, str]] = {
    hdrs.WWW_AUTHENTICATE: 'Basic realm="dhp-gateway outbox", charset="UTF-8"'
}
# Wrong passwords per second from one address; a burst may be ten times as large.
_FAILURES_PER_SECOND: Final = 1.0


class Operators:
    """The operators of the settings: pairs of name and password; there may be none."""

    def __init__(
        self, passwords: Sequence[tuple[str, Secret]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._form_key = secrets.token_bytes(32)
        # The registry is not used: only the buckets by address are.
        self._failure_limiter = UnidentifiedLimiter(
            CallerRegistry(), _FAILURES_PER_SECOND, clock, signs_in=True
        )
        self.replace(passwords)

    def replace(self, passwords: Sequence[tuple[str, Secret]]) -> None:
        """Replace all operators by those with these names and passwords."""
        self._callers = CallerRegistry(
            [
                CallerMatcher(Caller(name), username=name, password=password)
                for name, password in passwords
            ]
        )

    @property
    def has_operators(self) -> bool:
        """Whether the settings name operators."""
        return self._callers.has_named_callers

    def authenticate(self, request: Request) -> str | None:
        """Return the name of the operator, None if the request presents no name and password.

        Raises `OutboxPageError` for a wrong name or password, and after too many of them.
        """
        header = parse_request_fields(request.raw_headers)
        if not self._callers.presents_known_secret(header):
            return None
        transport = request.transport
        peer_name = None if transport is None else transport.get_extra_info("peername")
        peer = Peer(socket_address(peer_name))
        retry_after = self._failure_limiter.seconds_until_available(peer.address)
        if retry_after:
            headers: dict[str, str] = {hdrs.RETRY_AFTER: str(int(retry_after) + 1)}
            raise OutboxPageError(HTTPStatus.TOO_MANY_REQUESTS, "too-many", headers)
        try:
            return self._callers.identify(peer, header).name
        except GatewayError:
            self._failure_limiter.consume(peer.address)
            _log.warning("outbox: a wrong name or password from %s", peer.address)
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE) from None

    def form_token(self, operator: str) -> str:
        """Return the token that forms of this operator have to contain."""
        return hmac.digest(self._form_key, operator.encode(), hashlib.sha256).hex()

    def is_valid_form_token(self, token: str, operator: str) -> bool:
        """Return whether this process issued the token to the operator."""
        return hmac.compare_digest(token.encode(), self.form_token(operator).encode())


def is_cross_site(request: Request) -> bool:
    """Return whether a page of another origin sent the request (Fetch Metadata, Origin)."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin").strip().lower()
    origin = request.headers.get(hdrs.ORIGIN)
    is_own_origin = origin is None or is_same_origin(origin, authority_of(request) or "")
    return site != "same-origin" or not is_own_origin
