"""What the browser sign-in reads of a request: the fields that only browsers send, and cookies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.http.server.connection import IncomingRequest
from gateway.http.server.peer import Peer

ReadForm = Callable[[], Awaitable[dict[str, str]]]

_COOKIE: Final = b"cookie"
_READ: Final = frozenset(
    (
        b"accept",
        b"accept-language",
        b"access-control-request-method",
        b"host",
        b"origin",
        b"sec-fetch-mode",
        b"x-requested-with",
    )
)


@dataclass(frozen=True, slots=True)
class BrowserRequest:
    """A request as a browser makes it. `fields` by lower-case name, the last value of each.

    `peer` is who is at the other end of all proxies that are trusted, `form` reads a form's fields.
    """

    method: str
    path: str
    query: str
    fields: dict[str, str]
    peer: Peer
    form: ReadForm
    cookie_fields: Sequence[bytes] = ()

    def cookie(self, name: str) -> str | None:
        """The value of a cookie; None where there is none, and where there are two.

        A second one may have been planted from a neighbouring host name: which of them is the
        browser's own cannot be told (RFC 6265 section 8.6).
        """
        pair = re.compile(rb"(?:^|;)\s*+" + re.escape(name.encode("ascii")) + rb"=([^;]*+)")
        found = {value.rstrip() for field in self.cookie_fields for value in pair.findall(field)}
        return found.pop().decode("latin-1") if len(found) == 1 else None

    @property
    def origin(self) -> str | None:
        """Which page asks, in lower case, as far as the browser says; programs send it empty."""
        return self.fields.get("origin", "").lower() or None

    @property
    def has_csrf_header(self) -> bool:
        """Whether it carries the header that no form and no foreign page can set."""
        return bool(self.fields.get("x-requested-with"))

    @property
    def is_unsafe(self) -> bool:
        """Whether the method may change something (RFC 9110 section 9.2.1)."""
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def is_preflight(self) -> bool:
        """Whether a browser asks what a page of another origin may do (Fetch standard)."""
        return (
            self.method == "OPTIONS"
            and self.origin is not None
            and "access-control-request-method" in self.fields
        )

    @property
    def is_from_browser(self) -> bool:
        """Whether it certainly comes from a browser's page."""
        return "sec-fetch-mode" in self.fields or self.has_csrf_header

    @property
    def is_navigation(self) -> bool:
        """Whether a person opens the address, rather than a page's script."""
        if self.method != "GET" or self.has_csrf_header:
            return False
        mode = self.fields.get("sec-fetch-mode")
        if mode is not None:
            return mode == "navigate"
        return "text/html" in self.fields.get("accept", "").lower()


def parse_browser_request(request: IncomingRequest, peer: Peer, form: ReadForm) -> BrowserRequest:
    """Reads a request; judges nothing, never raises."""
    message = request.message
    path, _, query = message.path.partition("?")
    fields: dict[str, str] = {}
    cookies: list[bytes] = []
    for name, value in message.raw_headers:
        key = name.lower()
        if key == _COOKIE:
            cookies.append(value)
        elif key in _READ:
            fields[key.decode("ascii")] = value.decode("latin-1").strip()
    return BrowserRequest(message.method, path, query, fields, peer, form, cookies)
