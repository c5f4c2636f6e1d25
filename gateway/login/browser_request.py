"""Parses the parts of a request that the sign-in uses: cookies and fields that browsers send.

It also reads the short forms that the SSO sends to the gateway's own endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from gateway.errors import BAD_REQUEST, GatewayError
from gateway.field_values import FORM_TYPE, is_page_navigation
from gateway.http.headers import RequestHeader
from gateway.http.server.peer import Peer
from gateway.pipeline.request_body import RequestBody

if TYPE_CHECKING:
    from gateway.http.server.caller_connection import IncomingRequest

ReadForm = Callable[[], Awaitable[dict[str, str]]]

_COOKIE: Final = b"cookie"
_READ_FIELDS: Final = frozenset(
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
    """The parts of a request that the sign-in uses.

    `fields` maps lower-case names to the last value of each. `peer` is the client behind all
    trusted proxies. `form` reads the fields of a form body. `cookie_fields` are the values of all
    Cookie fields.
    """

    method: str
    path: str
    query: str
    fields: dict[str, str]
    peer: Peer
    form: ReadForm
    cookie_fields: Sequence[bytes] = ()

    def cookie(self, name: str) -> str | None:
        """Return the value of a cookie, None if there is none or if there are different values.

        A second value may have been set by another host of the same domain, and the request does
        not show which of them is genuine (RFC 6265 section 8.6).
        """
        pair = re.compile(rb"(?:^|;)\s*+" + re.escape(name.encode("ascii")) + rb"=([^;]*+)")
        found = {value.rstrip() for field in self.cookie_fields for value in pair.findall(field)}
        return found.pop().decode("latin-1") if len(found) == 1 else None

    @property
    def origin(self) -> str | None:
        """The origin of the page that sent the request, in lower case; None without Origin field.

        Some programs send the field with an empty value, which counts as absent.
        """
        return self.fields.get("origin", "").lower() or None

    @property
    def has_csrf_header(self) -> bool:
        """Whether the request has an X-Requested-With field.

        A form cannot set it, and a page of another origin cannot without a preflight.
        """
        return bool(self.fields.get("x-requested-with"))

    @property
    def is_unsafe(self) -> bool:
        """Whether the method is not safe (RFC 9110 section 9.2.1)."""
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def is_preflight(self) -> bool:
        """Whether the request is a CORS preflight (Fetch standard)."""
        return (
            self.method == "OPTIONS"
            and self.origin is not None
            and "access-control-request-method" in self.fields
        )

    @property
    def is_from_browser(self) -> bool:
        """Whether the request certainly comes from a page in a browser."""
        return "sec-fetch-mode" in self.fields or self.has_csrf_header

    @property
    def is_navigation(self) -> bool:
        """Whether the browser opens the URL as a page, rather than a script requesting it."""
        return self.method == "GET" and is_page_navigation(
            *map(self.fields.get, ("accept", "sec-fetch-mode", "x-requested-with"))
        )


def parse_browser_request(request: IncomingRequest, peer: Peer, form: ReadForm) -> BrowserRequest:
    """Return the parts of a request that the sign-in uses, without validation. Never raises."""
    message = request.message
    path, _, query = message.path.partition("?")
    fields: dict[str, str] = {}
    cookies: list[bytes] = []
    for name, value in message.raw_headers:
        key = name.lower()
        if key == _COOKIE:
            cookies.append(value)
        elif key in _READ_FIELDS:
            fields[key.decode("ascii")] = value.decode("latin-1").strip()
    return BrowserRequest(message.method, path, query, fields, peer, form, cookies)


_MAX_FORM_BYTES: Final = 64 * 1024
_MAX_FORM_FIELDS: Final = 64


async def read_form(
    request: IncomingRequest, header: RequestHeader, clock: Callable[[], float]
) -> dict[str, str]:
    """Return the fields of a form body, {} if it is no form or contains a field twice.

    `clock` is monotonic. Raises `GatewayError` payload-too-large, body-timeout or bad-request, and
    `CallerDisconnectedError`.
    """
    length = header.values.get(b"content-length")
    if length is None and not request.has_body:
        return {}
    body = RequestBody(
        request.payload,
        None if length is None else int(length),
        max_bytes=_MAX_FORM_BYTES,
        replay_bytes=_MAX_FORM_BYTES,
        stall_timeout=10.0,
        min_rate=1024,
        clock=clock,
    )
    data = await body.peek(_MAX_FORM_BYTES + 1)
    if (header.text(b"content-type") or "").partition(";")[0].strip().lower() != FORM_TYPE:
        return {}
    try:
        pairs = parse_qsl(
            data.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS
        )
    except (UnicodeDecodeError, ValueError):
        raise GatewayError(BAD_REQUEST, "form", hint="body: no form") from None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}
