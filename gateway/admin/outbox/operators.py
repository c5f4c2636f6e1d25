"""Who may decide about queued writes: known by HTTP Basic (RFC 7617), as callers are.

Wrong passwords are few a second from one address: beyond that none is looked at, so that the right
one cannot be found by trying. A form is an operator's own if it holds the token that the page gave
out: another site's page cannot read it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiohttp import hdrs
from aiohttp.web_request import Request

from gateway.admin.listener import authority_of
from gateway.errors import GatewayError
from gateway.http.headers import parse_request_fields
from gateway.http.server.peer import Peer, socket_address
from gateway.http.server.validation import is_same_origin
from gateway.pipeline.callers import Caller, CallerMatcher, CallerRegistry
from gateway.pipeline.strangers import UnidentifiedLimiter
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

_log = get_logger("gateway.admin")

CHALLENGE: Final[Mapping[str, str]] = {
    hdrs.WWW_AUTHENTICATE: 'Basic realm="dhp-gateway outbox", charset="UTF-8"'
}
# Wrong passwords a second from one address; ten times as many at once.
_FAILURES_PER_SECOND: Final = 1.0


class OperatorAuthError(Exception):
    """A name and password that are no operator's."""


class OperatorRateLimitError(Exception):
    """So many from that address that none is looked at; `retry_after` in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many wrong passwords")
        self.retry_after = retry_after


class Operators:
    """Those of the settings, with a name and password each; there may be none."""

    def __init__(
        self, named: Sequence[tuple[str, Secret]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._key = secrets.token_bytes(32)
        self._failure_limiter = UnidentifiedLimiter(
            CallerRegistry(), _FAILURES_PER_SECOND, clock, signs_in=True
        )
        self.replace(named)

    def replace(self, named: Sequence[tuple[str, Secret]]) -> None:
        """From now on these."""
        self._callers = CallerRegistry(
            [CallerMatcher(Caller(name), username=name, password=each) for name, each in named]
        )

    @property
    def has_operators(self) -> bool:
        """Whether there are any."""
        return self._callers.has_named_callers

    def authenticate(self, request: Request) -> str | None:
        """The operator who asks; None: no password is shown.

        Raises `OperatorAuthError` and `OperatorRateLimitError`.
        """
        header = parse_request_fields(request.raw_headers)
        if not self._callers.presents_known_secret(header):
            return None
        transport = request.transport
        name = None if transport is None else transport.get_extra_info("peername")
        peer = Peer(socket_address(name))
        wait = self._failure_limiter.seconds_until_available(peer.address)
        if wait:
            raise OperatorRateLimitError(wait)
        try:
            return self._callers.identify(peer, header).name
        except GatewayError:
            self._failure_limiter.consume(peer.address)
            _log.warning("outbox: a wrong name or password from %s", peer.address)
            raise OperatorAuthError from None

    def form_token(self, operator: str) -> str:
        """What a form of the operator's holds."""
        return hmac.digest(self._key, operator.encode(), hashlib.sha256).hex()

    def is_valid_form_token(self, token: str, operator: str) -> bool:
        """Whether a form with this token was given to the operator by this process."""
        return hmac.compare_digest(token.encode(), self.form_token(operator).encode())


def is_cross_site(request: Request) -> bool:
    """Whether a browser says that the page of another site asks (Fetch standard)."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin").strip().lower()
    origin = request.headers.get(hdrs.ORIGIN)
    own = origin is None or is_same_origin(origin, authority_of(request) or "")
    return site != "same-origin" or not own
