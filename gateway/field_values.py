"""Names and values of header fields, and parts of URLs, that several parts of the gateway use.

The names are those of the fields that go to the platform, and of those that no setting lets go
there. The values are hosts, and hosts with a port, as written in URLs and fields (RFC 3986 section
3.2); the field Retry-After, as the SSO and the platform send it (RFC 9110 section 10.2.3); what
browsers' requests have in Origin, Host, Accept and Content-Type; and the field traceparent (W3C
Trace Context, level 2: https://www.w3.org/TR/trace-context-2/ section 3.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# The request fields that HTTP, FHIR and tracing define, in lower case: these are forwarded.
FORWARDED_FIELDS: Final = frozenset(
    # Content, content negotiation, conditions, ranges, caching (RFC 9110, 9111), digests (RFC 9530
    # and before), preferences (RFC 7240).
    b"accept accept-charset accept-encoding accept-language cache-control content-digest"
    b" content-disposition content-encoding content-language content-md5 content-type date digest"
    b" if-match if-modified-since if-none-match if-range if-unmodified-since max-forwards pragma"
    b" prefer range repr-digest user-agent want-digest warning"
    # FHIR R5, http.html.
    b" if-none-exist x-correlation-id x-provenance x-security-context"
    # W3C Trace Context and Baggage.
    b" traceparent tracestate baggage".split()
)
# Fields that authenticate, frame or route a message, that servers take for its method or target,
# or that the gateway sets. CGI turns `Proxy` into HTTP_PROXY, which many programs obey.
_RESERVED_FIELDS: Final = FORWARDED_FIELDS.union(
    b"authorization connection cookie cookie2 expect host http2-settings keep-alive origin proxy te"
    b" trailer trailers transfer-encoding upgrade via x-api-key x-host x-http-host x-request-id"
    b" x-requested-with".split()
)
_RESERVED_PREFIXES: Final = (
    *(b"accept-", b"access-control-", b"content-", b"forwarded", b"if-", b"proxy-", b"sec-"),
    *(b"x-forwarded", b"x-http-method", b"x-method", b"x-original-", b"x-rewrite-"),
)
# A server may treat A-Z as a-z and all bytes but letters and digits as the same one, as CGI does.
_FOLDED: Final = bytes(
    octet if chr(octet).isalnum() and octet < 128 else ord("-")
    for octet in bytes(range(256)).lower()
)

# Names of fields that settings can name.
FIELD_NAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def is_digest_preference(name: bytes) -> bool:
    """Return whether a name, in lower case, is that of a preference for a digest (RFC 9530)."""
    return name.startswith(b"want-") and name.endswith(b"-digest")


def normalized_field_name(name: bytes) -> bytes:
    """Return a field name with those bytes unified that some servers do not distinguish."""
    return name.translate(_FOLDED)


def is_reserved_field(name: bytes) -> bool:
    """Return whether no setting may decide about a field, or about one that a pattern covers.

    A pattern ends with `*`. With such a field a caller could pass for another, or have another
    request sent than was checked; or it is forwarded without a setting.
    """
    start = normalized_field_name(name.removesuffix(b"*"))
    if start.startswith(_RESERVED_PREFIXES) or is_digest_preference(start):
        return True
    if not name.endswith(b"*"):
        return start in _RESERVED_FIELDS
    return any(each.startswith(start) for each in (*_RESERVED_FIELDS, *_RESERVED_PREFIXES))


DEFAULT_PORTS: Final = {"http": 80, "https": 443}
FORM_TYPE: Final = "application/x-www-form-urlencoded"


def url_host(host: str) -> str:
    """Return the host; an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def authority(host: str, port: int) -> str:
    """Return host and port, joined by a colon; an IPv6 address is in brackets."""
    return f"{url_host(host)}:{port}"


def is_loopback_host(host: str) -> bool:
    """Return whether a host name or IP address (without brackets) means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


def is_host(host: str) -> bool:
    """Return whether a text is an IP address (without brackets) or an ASCII host name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A name whose last label has only digits is an invalid IP address, never a host name.
        last = host.rstrip(".").rpartition(".")[2]
        return len(host) <= 253 and bool(_HOST_NAME.fullmatch(host)) and not last.isdigit()
    return True


# Longest delay used, in seconds (7 days). Longer values are treated as errors; limiting the number
# of digits also prevents overflow.
_MAX_DELAY: Final = 7 * 86400.0
_MAX_DIGITS: Final = 9


def parse_retry_after(
    value: str | None, wall_now: float, *, max_delay: float = _MAX_DELAY
) -> float | None:
    """Return the seconds to wait, 0 to `max_delay`, given as a number or an HTTP date.

    None for anything else. `wall_now` is Unix time.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), max_delay) if len(text) <= _MAX_DIGITS else max_delay
    moment = parse_http_date(text)
    return None if moment is None else min(max(moment.timestamp() - wall_now, 0.0), max_delay)


def parse_http_date(text: str) -> datetime | None:
    """Return the time of a date in a field, in UTC; None if it is not valid."""
    try:
        moment = parsedate_to_datetime(text)
        # A date with -0000 is in UTC, but parsed without a zone.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._\-]+))(?::([0-9]{1,5}))?")
_MAX_PORT: Final = 65535
# Characters: the longest name of DNS, a colon and a port.
_MAX_HOST_LENGTH: Final = 253 + 6


def is_host_field(value: bytes | None) -> bool:
    """Return whether a Host field names a host and optionally a port (RFC 9112 section 3.2).

    Links in responses are made from it. True for None: only HTTP/1.0 may omit the field, which the
    parser enforces.
    """
    return value is None or host_name(value.decode("ascii", "replace")) is not None


def host_name(value: str) -> str | None:
    """Return the host of a Host field, in lower case and without brackets; None if not valid."""
    found = host_and_port(value)
    return None if found is None else found[0]


def host_and_port(value: str) -> tuple[str, int | None] | None:
    """Return the host as `host_name` does, and the port or None; None if the value is not valid.

    Nothing else that a URL's authority may contain is valid, in particular no user before an @.
    """
    found = _HOST.fullmatch(value) if len(value) <= _MAX_HOST_LENGTH else None
    if found is None or int(found[3] or 0) > _MAX_PORT:
        return None
    port = int(found[3]) if found[3] else None
    name: str | None = found[2]
    if name is not None:
        return name.lower(), port
    try:
        return str(ipaddress.IPv6Address(found[1])), port
    except ValueError:
        return None


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin field is that of a page from the server that a Host field names."""
    scheme, _, host_of_page = origin.lower().partition("://")
    is_web_page = scheme in ("http", "https")
    return is_web_page and host_name(host) is not None and host_of_page == host.lower()


MEDIA_WILDCARDS: Final = frozenset({"*/*", "application/*"})
# RFC 9110, section 12.4.2.
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_MAX_ITEMS: Final = 64
_MAX_ITEM_PARAMETERS: Final = 8


def prefers_html(accept: str | None) -> bool:
    """Return whether HTML is named with the greatest weight, as by browsers; JSON wins a tie."""
    weights = dict(weighted_items(accept or ""))
    html = weights.get("text/html", 0.0)
    wildcard = max(weights.get(media_type, 0.0) for media_type in MEDIA_WILDCARDS)
    return html > weights.get("application/json", 0.0) and html >= wildcard


# What programs send where nobody chose an Accept: Indy (Delphi, C++Builder), and Java's
# HttpURLConnection before and since Java 19. They can read no page.
_ACCEPT_OF_PROGRAMS: Final = frozenset(
    (
        "text/html,*/*",
        "text/html,image/gif,image/jpeg,*;q=.2,*/*;q=.2",
        "text/html,image/gif,image/jpeg,*/*;q=0.2",
    )
)
_BEGINS_WITH_HTML: Final = re.compile(r"\s*text/html\s*(?:[,;]|\Z)", re.IGNORECASE).match


def begins_with_html(accept: str | None) -> bool:
    """Return whether an Accept field names HTML first, as browsers do for a page."""
    return _BEGINS_WITH_HTML(accept or "") is not None


def is_page_navigation(
    accept: str | None, sec_fetch_mode: str | None, x_requested_with: str | None
) -> bool:
    """Return whether a browser opens a URL as a page, rather than a script or a program asking.

    Browsers say so by Sec-Fetch-Mode (Fetch Metadata), but not to a plain http:// address of
    another machine; there the beginning of Accept shows it. The arguments are the fields' values.
    """
    if x_requested_with:
        return False
    if sec_fetch_mode is not None:
        return sec_fetch_mode == "navigate"
    return begins_with_html(accept) and "".join((accept or "").split()) not in _ACCEPT_OF_PROGRAMS


def weighted_items(header: str) -> Iterator[tuple[str, float]]:
    """Yield the items of a list with weights, in lower case; skip items with an invalid weight."""
    for item in header.split(",", _MAX_ITEMS)[:_MAX_ITEMS]:
        value, *parameters = (
            part.strip() for part in item.lower().split(";", _MAX_ITEM_PARAMETERS)
        )
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        if value and _WEIGHT(weight):
            yield value, float(weight)


# Later versions may append data to the flags; their first four parts are parsed as version 00.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 0x01
# The flags that are passed on: sampled, and random trace id.
_KNOWN_FLAGS: Final = 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's position in a trace; ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the sampled flag is set: the caller may have recorded this trace."""
        return bool(self.flags & _SAMPLED)


def parse_traceparent(traceparent: str | None) -> TraceContext | None:
    """Return the context of a `traceparent`; None if there is none or it is invalid."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceContext(match[2], match[3], int(match[4], 16) & _KNOWN_FLAGS)
