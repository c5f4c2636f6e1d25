"""Determines which fields of a request are forwarded.

Field names are compared as bytes against fixed tables, in one pass over the fields, and fields are
forwarded as they were received. Requirements: RFC 9110 sections 5.1, 5.3, 7.6.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PSEUDONYM: Final = b"dhp-gateway"
RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",  # not a field name of any RFC, but named hop-by-hop in RFC 2616 section 13.5.1
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
# The gateway authenticates itself to the platform: fields that identify the caller end here.
_CALLER_ONLY: Final = frozenset(
    (
        b"authorization",
        b"cookie",
        b"x-api-key",
        b"host",
        b"x-request-id",
        b"content-length",  # the gateway writes its own framing, from what was parsed
        b"expect",  # handled by the gateway itself (RFC 9110 section 10.1.1)
    )
)
_NOT_FORWARDED: Final = HOP_BY_HOP | _CALLER_ONLY
# Prefixes of the fields in which well-known proxies tell the servers behind them the method, the
# target, the client address or the user of a request. A prefix that is a whole word ends with its
# hyphen. Fields that only serve tracing, such as X-Amzn-Trace-Id, are not among them.
_NOT_FORWARDED_PREFIXES: Final = (
    b"x-http-method",
    b"x-method-",
    b"x-original-",
    b"x-rewrite-",
    b"x-http-host",
    b"forwarded",
    b"x-forwarded",
    b"x-forward-",
    b"x-originating-",
    b"x-real-ip",
    b"real-ip",
    b"true-client-",
    b"client-ip",
    b"x-client-ip",
    b"x-cluster-client-",
    b"remote-",
    b"x-remote-",
    b"x-proxyuser-",
    b"x-proxy-",
    b"proxy-",
    b"wl-proxy-",
    b"x-authenticated-",
    b"x-auth-request-",
    b"x-auth-user",
    b"x-auth-email",
    b"x-webauth-",
    b"x-ssl-",
    b"ssl-",
    b"x-tls-client-",
    b"x-client-cert",
    b"client-cert",
    b"x-client-dn",
    b"x-client-verify",
    b"x-arr-",
    b"x-amzn-oidc-",
    b"x-amzn-mtls-",
    b"x-amzn-tls-",
    b"x-envoy-",
    b"cf-",
    b"fastly-",
    b"akamai-",
    b"incap-",
    b"x-azure-",
    b"x-appengine-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"x-goog-authenticated-",
    b"x-goog-iap-",
    b"x-consumer-",
    b"x-credential-",
    b"x-userinfo",
    b"x-authentik-",
    b"x-pomerium-",
    b"sec-websocket-",  # belongs to an Upgrade, which is not forwarded
    b"x-vouch-",
    b"x-oidc-",
    b"oidc-",
    b"shib-",
    b"tailscale-user-",
    b"-ws",
)
# Words which show, at any position in a name and after any product's prefix, that the field states
# the identity of the caller, or the user on whose behalf an authenticated caller acts. They may be
# written without hyphens, too.
_IDENTITY_NAMES: Final = re.compile(
    rb"(?:^|-)(?:jwt|(?:id|access)-?token(?:-|$)|user-?info(?:-|$)|authorization$)"
    rb"|behalf|impersonat"
    rb"|(?:^|-)(?:sudo|act-?as|acting-?as|run-?as|do-?as)(?:-?(?:as|user))?(?:-|$)"
    rb"|(?:^|-)(?:switch|assumed?)-?user(?:-|$)|^(?:x-)?as-?user(?:-|$)"
    rb"|^dropbox-api-select-|^mscrmcallerid$|^callerobjectid$"
)
# Names that are compared completely, not as prefixes; CGI turns `Proxy` into HTTP_PROXY.
_EXACT_NAME_FIELDS: Final = frozenset(
    (b"proxy", b"x-host", b"sm-user", b"iv-user", b"iv-groups", b"iv-creds")
)
# A server may treat A-Z as a-z and all bytes but letters and digits as the same one, as CGI does.
_FOLDED: Final = bytes(
    octet if chr(octet).isalnum() and octet < 128 else ord("-")
    for octet in bytes(range(256)).lower()
)
SECRET: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"))
"""Fields that are credentials or contain them."""
# Fields whose value the gateway uses; all others are only copied.
_VALUES_READ: Final = frozenset(
    (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"if-match",
        b"if-none-exist",
        b"if-none-match",
        b"prefer",
        b"te",
        b"traceparent",
        b"transfer-encoding",
        b"via",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-provenance",
        b"x-request-id",
        b"x-security-context",
    )
)
_SINGLETON_FIELDS: Final = frozenset((b"content-length", b"host", b"origin", b"transfer-encoding"))
# Limits of the cached field rules: their number, and the length of a field name in bytes.
_MAX_CACHED_NAMES: Final = 512
_MAX_CACHED_NAME_BYTES: Final = 64
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
_OWN_VIA = re.compile(
    rb"(?:^|,)\s*+[!-+\--~]++\s++" + PSEUDONYM + rb"\s*+(?:\(|,|$)", re.IGNORECASE
)
_MAX_LIST_ELEMENTS: Final = 64


class FieldRuleCache(dict[bytes, tuple[bytes, int, bytes]]):
    """Caches the field rule of each spelling of a field name: few different ones are ever sent.

    A field rule consists of the name in lower case, or b"" if the gateway does not use the field;
    a number or bool that says whether and how the field is forwarded; and the beginning of its
    field line. The cache is bounded, because callers and servers can invent any number of names.
    """

    def __init__(self, classify: Callable[[bytes], tuple[bytes, int]]) -> None:
        self._classify = classify

    def __missing__(self, name: bytes) -> tuple[bytes, int, bytes]:
        rule = (*self._classify(name), name + b": ")
        if len(self) < _MAX_CACHED_NAMES and len(name) <= _MAX_CACHED_NAME_BYTES:
            self[name] = rule
        return rule


def normalized_field_name(name: bytes) -> bytes:
    """Return a field name with those bytes unified that some servers do not distinguish."""
    return name.translate(_FOLDED)


def request_fields(passed: frozenset[bytes]) -> FieldRuleCache:
    """Return the rules of request fields. Those in `passed`, in lower case, are always forwarded.

    `passed` must not contain a field that is a credential, frames the message or is used here.
    """

    def classify(name: bytes) -> tuple[bytes, bool]:
        key, normalized = name.lower(), normalized_field_name(name)
        if key in passed:
            return b"", True
        is_excluded = (
            normalized in _NOT_FORWARDED
            or normalized in _EXACT_NAME_FIELDS
            or normalized.startswith(_NOT_FORWARDED_PREFIXES)
        )
        # A server could read the name as that of a field which is checked here, whereas a field in
        # this spelling is not checked.
        is_disguised = normalized != key and normalized in _VALUES_READ
        return (key if key in _VALUES_READ else b""), not (
            is_excluded or is_disguised or _IDENTITY_NAMES.search(normalized)
        )

    return FieldRuleCache(classify)


_REQUEST_FIELDS: Final = request_fields(frozenset())
# Fields that are used here and forwarded as received. If Connection removed one of them, another
# request would be forwarded than was checked. If it names a field that ends here, or one that the
# gateway sets itself, this changes nothing.
_INSPECTED_FIELDS: Final = frozenset(
    name for name in _VALUES_READ | {b"max-forwards"} if name != b"via" and _REQUEST_FIELDS[name][1]
)


@dataclass(slots=True)
class RequestHeader:
    """The header section of a request, parsed once.

    `field_lines` holds the fields to forward, as octets; `values` the fields that the gateway
    itself uses, by their lower-case names (repeated ones joined by a comma). `total_bytes` counts
    all names and values. `is_ambiguous`: a field that must occur only once was repeated.
    """

    field_lines: list[bytes]
    values: dict[bytes, bytes]
    total_bytes: int
    is_ambiguous: bool

    def text(self, name: bytes) -> str | None:
        """Return a field's value as text, or None. Non-ASCII bytes become U+FFFD."""
        value = self.values.get(name)
        return None if value is None else value.decode("ascii", "replace")


def parse_request_fields(
    raw: RawHeaders, fields: FieldRuleCache = _REQUEST_FIELDS
) -> RequestHeader:
    """Parse the fields of a request and select those to forward. Checks nothing, never raises."""
    field_lines: list[bytes] = []
    values: dict[bytes, bytes] = {}
    total = 0
    ambiguous = False
    for name, value in raw:
        total += len(name) + len(value)
        key, is_forwarded, beginning = fields[name]
        if key:
            earlier = values.get(key)
            values[key] = value if earlier is None else earlier + b", " + value
            ambiguous |= earlier is not None and key in _SINGLETON_FIELDS
        if is_forwarded:
            field_lines.append(beginning + value + b"\r\n")
    connection = values.get(b"connection")
    if connection is not None and (named := connection_options(connection)):
        field_lines = remove_fields(field_lines, named)
    return RequestHeader(field_lines, values, total, ambiguous)


def list_elements(value: bytes) -> list[bytes]:
    """Return the first 64 elements of a list (RFC 9110 section 5.6.1); a field could hold 8,000."""
    return value.split(b",", _MAX_LIST_ELEMENTS)[:_MAX_LIST_ELEMENTS]


@lru_cache(maxsize=64)
def connection_options(connection: bytes) -> frozenset[bytes]:
    """Return the fields that a Connection value names, in lower case (RFC 9110 section 7.6.1)."""
    named = {token.strip().lower() for token in connection.split(b",")}
    return frozenset(named - {b"close", b"keep-alive", b""})


def removes_gateway_fields(connection: bytes) -> bool:
    """Return whether a Connection value names fields that the gateway uses and forwards."""
    return not connection_options(connection).isdisjoint(_INSPECTED_FIELDS)


def remove_fields(field_lines: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    """Return the field lines without those of the named fields, given in lower case."""
    return [line for line in field_lines if line.partition(b":")[0].lower() not in named]


def request_id_of(header: RequestHeader) -> str:
    """Return the caller's X-Request-Id if it has a valid form, else a new one."""
    value = header.values.get(b"x-request-id")
    if value is not None and _REQUEST_ID.fullmatch(value):
        return value.decode("ascii")
    # A version 4 UUID (RFC 9562), formatted without the cost of an object of `uuid`.
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def has_own_via(via: bytes | None) -> bool:
    """Return whether a Via value names this gateway's pseudonym (RFC 9110 section 7.6.3)."""
    return via is not None and _OWN_VIA.search(via) is not None
