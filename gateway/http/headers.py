"""Determines which fields of a request are forwarded.

They are listed: the fields that HTTP, FHIR and tracing define, and those that the settings name.
RFC 9110 section 5.1 lets an intermediary leave out others if it is configured to. A list of the
fields by which a caller can pass for another would never be complete. Names are compared as bytes,
in one pass over the fields, and fields are forwarded as received (RFC 9110 sections 5.3, 7.6).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from gateway.field_values import FORWARDED_FIELDS, is_digest_preference

PSEUDONYM: Final = b"dhp-gateway"
RawHeaders = Sequence[tuple[bytes, bytes]]

# `trailers` is not a field name of any RFC, but named hop-by-hop in RFC 2616 section 13.5.1.
HOP_BY_HOP: Final = frozenset(
    b"connection http2-settings keep-alive proxy-authenticate proxy-authorization proxy-connection"
    b" te trailer trailers transfer-encoding upgrade".split()
)
# Fields that end here and that nobody misses at the platform: the gateway uses them itself, or
# writes its own. X-Forwarded-For and Via tell it where a request comes from; they name hosts of the
# hospital.
_CONSUMED: Final = frozenset(
    b"authorization content-length cookie expect host origin sec-fetch-dest sec-fetch-mode"
    b" sec-fetch-site sec-fetch-user via x-api-key x-forwarded-for x-request-id"
    b" x-requested-with".split()
)
SECRET: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"))
"""Fields that are credentials or contain them."""
# Fields whose value the gateway uses; all others are only copied.
_VALUES_READ: Final = frozenset(
    b"accept accept-encoding accept-language authorization connection content-encoding"
    b" content-length content-type expect host if-match if-none-exist if-none-match origin prefer"
    b" sec-fetch-site te traceparent transfer-encoding via x-api-key x-forwarded-for x-provenance"
    b" x-request-id x-security-context".split()
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
    a number that says whether and how the field is forwarded; and the beginning of its field line.
    The cache is bounded, because callers and servers can invent any number of names.
    """

    def __init__(self, classify: Callable[[bytes], tuple[bytes, int]]) -> None:
        self._classify = classify

    def __missing__(self, name: bytes) -> tuple[bytes, int, bytes]:
        rule = (*self._classify(name), name + b": ")
        if len(self) < _MAX_CACHED_NAMES and len(name) <= _MAX_CACHED_NAME_BYTES:
            self[name] = rule
        return rule


# Field rules of a request. Plain numbers are used for speed.
_RULE_DROP: Final = 0
_RULE_FORWARD: Final = 1
_RULE_REPORT: Final = 2


def request_fields(
    names: frozenset[bytes] = frozenset(), prefixes: tuple[bytes, ...] = ()
) -> FieldRuleCache:
    """Return the rules of request fields.

    Forwarded are `FORWARDED_FIELDS`, preferences for a digest, those in `names`, and those whose
    names begin with one of `prefixes`, all in lower case and none of them reserved
    (`is_reserved_field`).
    """
    forwarded = FORWARDED_FIELDS | names

    def classify(name: bytes) -> tuple[bytes, int]:
        # Only the exact name gives a field its meaning: another spelling, which a server might read
        # as the same, is another field here.
        key = name.lower()
        if key in forwarded or is_digest_preference(key) or key.startswith(prefixes):
            rule = _RULE_FORWARD
        else:
            rule = _RULE_DROP if key in HOP_BY_HOP or key in _CONSUMED else _RULE_REPORT
        return (key if key in _VALUES_READ else b""), rule

    return FieldRuleCache(classify)


_REQUEST_FIELDS: Final = request_fields()
# Fields that are used here and forwarded as received, and those that tell of a web page. If
# Connection removed one of them, another request would be forwarded than was checked.
_INSPECTED_FIELDS: Final = (_VALUES_READ & FORWARDED_FIELDS).union(
    (b"max-forwards", b"origin", b"sec-fetch-site")
)


@dataclass(slots=True)
class RequestHeader:
    """The header section of a request, parsed once.

    `field_lines` holds the fields to forward, as octets; `values` the fields that the gateway
    itself uses, by their lower-case names (repeated ones joined by a comma). `total_bytes` counts
    all names and values. `is_ambiguous`: a field that must occur only once was repeated.
    `unforwarded` holds the names, as received, of the fields that end here and may be missed.
    """

    field_lines: list[bytes]
    values: dict[bytes, bytes]
    total_bytes: int
    is_ambiguous: bool
    unforwarded: list[bytes]

    def text(self, name: bytes) -> str | None:
        """Return a field's value as text, or None. Non-ASCII bytes become U+FFFD."""
        value = self.values.get(name)
        return None if value is None else value.decode("ascii", "replace")


def parse_request_fields(
    raw: RawHeaders, fields: FieldRuleCache = _REQUEST_FIELDS
) -> RequestHeader:
    """Parse the fields of a request and select those to forward. Checks nothing, never raises."""
    field_lines: list[bytes] = []
    unforwarded: list[bytes] = []
    values: dict[bytes, bytes] = {}
    total = 0
    ambiguous = False
    for name, value in raw:
        total += len(name) + len(value)
        key, rule, beginning = fields[name]
        if key:
            earlier = values.get(key)
            values[key] = value if earlier is None else earlier + b", " + value
            ambiguous |= earlier is not None and key in _SINGLETON_FIELDS
        if rule == _RULE_FORWARD:
            field_lines.append(beginning + value + b"\r\n")
        elif rule == _RULE_REPORT:
            unforwarded.append(name)
    connection = values.get(b"connection")
    if connection is not None and (named := connection_options(connection)):
        field_lines = remove_fields(field_lines, named)
        unforwarded = [name for name in unforwarded if name.lower() not in named]
    return RequestHeader(field_lines, values, total, ambiguous, unforwarded)


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


@lru_cache(maxsize=1)
def date_line(second: int) -> bytes:
    """Return the field line of Date for a second of Unix time (RFC 9110 section 6.6.1)."""
    return b"Date: %s\r\n" % formatdate(second, usegmt=True).encode("ascii")


def has_own_via(via: bytes | None) -> bool:
    """Return whether a Via value names this gateway's pseudonym (RFC 9110 section 7.6.3)."""
    return via is not None and _OWN_VIA.search(via) is not None
