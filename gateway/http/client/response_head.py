"""The head of a platform's response: status, fields, framing.

The header is parsed once: its values, and which fields are forwarded. Field lines are forwarded as
they were received, except for those whose values contain links. Requirements: RFC 9110 sections
5.1, 5.3, 7.6. The module also determines how the end of a response is recognized, and names the
ways in which an exchange can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from gateway.http.headers import (
    HOP_BY_HOP,
    FieldRuleCache,
    connection_options,
    date_line,
    remove_fields,
)

TranslateField = Callable[[bytes, bytes], bytes]

# `authorization` could repeat the access token. Only the gateway itself sends `x-gateway-…`.
_NOT_RETURNED: Final = HOP_BY_HOP | frozenset(
    b"alt-svc authentication-info authorization clear-site-data content-length"
    b" proxy-authentication-info server set-cookie set-cookie2 strict-transport-security"
    b" www-authenticate x-gateway-error x-gateway-warning x-request-id".split()
)
_WITH_LINKS: Final = frozenset(
    (b"location", b"content-location", b"link", b"x-security-context")  # the last: FHIR's Binary
)
# A field that is checked or changed here must not be forwarded in another spelling as well.
_INSPECTED_FIELDS: Final = _WITH_LINKS | {b"content-type", b"content-encoding", b"cache-control"}
# Digests of a body, which are wrong after it was changed (RFC 9530, RFC 1864). `tuple[bytes, ...]`:
# mypyc rebuilds tuples of a fixed length at each use.
_DIGESTS: Final[tuple[bytes, ...]] = (b"content-md5", b"digest", b"content-digest", b"repr-digest")
DIGEST_LINES: Final[tuple[bytes, ...]] = tuple(name + b":" for name in _DIGESTS)
# Downstream caches see no Authorization field, so that RFC 9111 section 3.5 does not keep them from
# storing patient data.
_NOT_STORED: Final = b"Cache-Control: no-store\r\n"


# Lists of which every element counts: a second Content-Encoding is a further coding of the body.
_JOINED: Final = frozenset((b"connection", b"content-encoding"))

# Field rules. Plain numbers are used for speed, because a response has about eight fields.
_RULE_DROP: Final = 0
_RULE_FORWARD: Final = 1
_RULE_TRANSLATE: Final = 2


def _classify_field(name: bytes) -> tuple[bytes, int]:
    key = name.lower()
    # Some recipients treat an underscore as a dash. Here only the exact name gives a field its
    # meaning.
    dashed = key.replace(b"_", b"-")
    # What the platform says of `Access-Control-*` is about its own origin.
    if dashed in _NOT_RETURNED or dashed.startswith(b"access-control-"):
        return key, _RULE_DROP
    if key != dashed and dashed in _INSPECTED_FIELDS:
        return key, _RULE_DROP
    return key, _RULE_TRANSLATE if key in _WITH_LINKS else _RULE_FORWARD


_FIELD_RULES: Final = FieldRuleCache(_classify_field)
_NO_NAMES: Final[frozenset[bytes]] = frozenset()


class ResponseFields:
    """Collects the fields of a response one after the other, as octets.

    `values` holds the first value of each field by its name in lower case; the values of two list
    fields (`_JOINED`) are joined. `repeated` holds the names of fields that occurred more than
    once, `differing` of those that did so with another value. `count` is the number of all fields,
    `size` the number of bytes in their names and values.
    """

    __slots__ = ("_lines", "_links", "count", "differing", "repeated", "size", "values")

    def __init__(self) -> None:
        self.count = self.size = 0
        self.values: dict[bytes, bytes] = {}
        # Nearly always empty: a shared constant saves an object for each response.
        self.repeated = _NO_NAMES
        self.differing = _NO_NAMES
        self._lines: list[bytes] = []
        self._links: tuple[tuple[int, bytes, bytes, bytes], ...] = ()

    @classmethod
    def from_pairs(cls, fields: Iterable[tuple[bytes, bytes]]) -> ResponseFields:
        """Return the fields of a response that was not received over a connection."""
        response_fields = ResponseFields()
        for name, value in fields:
            response_fields.add(name, value)
        return response_fields

    def add(self, name: bytes, value: bytes) -> None:
        """Add the next field."""
        self.count += 1
        self.size += len(name) + len(value)
        key, rule, beginning = _FIELD_RULES[name]
        if key in self.values:
            self._add_repeated(key, value)
        else:
            self.values[key] = value
        if rule:
            if rule == _RULE_TRANSLATE:
                self._links += ((len(self._lines), key, name, value),)
            self._lines.append(beginning + value + b"\r\n")

    def restore_etag(self) -> None:
        """Restore the ETag that the FHIR server sent, in a compressed response or a 304.

        Apache's mod_deflate (2.4) turns `W/"1"` into `W/"1-gzip"`, Jetty into `W/"1--gzip"`. As
        If-Match the FHIR server would reject that with 412, although nothing has changed. A weak
        tag is that of a version and not of its octets (RFC 9110 section 8.8.1).
        """
        etag = self.values.get(b"etag", b"")
        if etag[:2].upper() == b"W/" and etag.endswith(b'-gzip"'):
            self.values[b"etag"] = restored = etag.removesuffix(b'gzip"').rstrip(b"-") + b'"'
            self._lines = [
                line.replace(etag, restored) if line.lower().startswith(b"etag:") else line
                for line in self._lines
            ]

    def forwarded_lines(self, names: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """Return name and value of the fields in `names`, in lower case, that are forwarded."""
        split = (line[:-2].partition(b": ") for line in self._lines)
        return tuple((name, value) for name, _, value in split if name.lower() in names)

    def _add_repeated(self, key: bytes, value: bytes) -> None:
        self.repeated |= {key}
        if value != self.values[key]:
            self.differing |= {key}
        if key in _JOINED:
            self.values[key] += b"," + value

    def downstream_lines(
        self,
        request_id: bytes,
        wall_clock: Callable[[], float],
        translate: TranslateField | None = None,
    ) -> list[bytes]:
        """Return a new list of the field lines to forward, and of those that the gateway adds.

        It adds X-Request-Id, and Cache-Control and Date where there is none (RFC 9110 section
        6.6.1); `wall_clock` returns Unix time. `translate` returns the new value for a lower-case
        name and a value with links. Content-Length and Transfer-Encoding are left to the code that
        writes the response and knows the framing.
        """
        field_lines = self._lines.copy()
        if translate is not None:
            for at, key, name, value in self._links:
                field_lines[at] = b"%s: %s\r\n" % (name, translate(key, value))
        # A Cache-Control without a value forbids nothing.
        has_cache_control = bool(self.values.get(b"cache-control"))
        has_date = b"date" in self.values
        connection = self.values.get(b"connection")
        if connection is not None and (named := connection_options(connection)):
            field_lines = remove_fields(field_lines, named)
            has_cache_control = has_cache_control and b"cache-control" not in named
            has_date = has_date and b"date" not in named
        if not has_cache_control:
            field_lines.append(_NOT_STORED)
        if not has_date:
            field_lines.append(date_line(int(wall_clock())))
        field_lines.append(b"X-Request-Id: %s\r\n" % request_id)
        return field_lines


def remove_digest_fields(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines without digests, for a body that was changed."""
    return [line for line in field_lines if not line.lower().startswith(DIGEST_LINES)]


def remove_content_fields(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines without those about a body that is not forwarded."""
    about = (b"content-", *DIGEST_LINES)
    return [line for line in field_lines if not line.lower().startswith(about)]


def decoded_field_lines(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines of a response whose body was decoded.

    A strong validator becomes weak, because the bytes are others (RFC 9110 section 8.8.1):
    otherwise a recipient could combine parts of the encoded body with decoded parts.
    """
    tied = (b"content-encoding:", b"accept-ranges:", *DIGEST_LINES)
    field_lines = [line for line in field_lines if not line.lower().startswith(tied)]
    return [
        line.replace(b': "', b': W/"', 1) if line.lower().startswith(b"etag:") else line
        for line in field_lines
    ]


def add_vary_accept_encoding(field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines with `Vary: Accept-Encoding`.

    It tells caches that the response exists in several codings (RFC 9110 section 12.5.5).
    """
    for line in field_lines:
        name, _, value = line.lower().partition(b":")
        if name == b"vary" and (b"accept-encoding" in value or b"*" in value):
            return field_lines
    return [*field_lines, b"Vary: Accept-Encoding\r\n"]


MAX_OVERHEAD: Final = 256 * 1024
"""The maximum of consecutive bytes that are not content: header, trailers, chunk extensions."""

_MAX_FIELDS: Final = 500


class Framing(Enum):
    """How the end of a response's body is determined (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(slots=True)
class ResponseHead:
    """Status line and header of a response; `content_length` as announced, also for HEAD."""

    status: int
    fields: ResponseFields
    framing: Framing
    content_length: int | None


FailureKind = Literal["unsent", "closed", "truncated", "protocol", "timeout", "certificate"]


class UpstreamConnectionError(Exception):
    """The connection delivered no complete, valid response.

    `kind`: `unsent` before any byte of the request was sent, `closed` before any byte of a response
    arrived, `truncated` after some, `protocol` for bytes that are not valid HTTP, `timeout` when
    the deadline passed, `certificate` when the platform rejected the gateway's certificate before
    it read any request. `is_reused_connection`: the connection had carried an exchange before.
    """

    def __init__(self, kind: FailureKind, *, reused: bool) -> None:
        super().__init__(kind)
        self.kind: FailureKind = kind
        self.is_reused_connection = reused


def determine_framing(
    status: int, version: str, fields: ResponseFields, *, expect_body: bool
) -> tuple[Framing, int | None] | None:
    """Return the framing and the announced length or None; None for fields with two meanings.

    llhttp has accepted only one Content-Length, and only digits in it.
    """
    values = fields.values
    announced = values.get(b"content-length")
    length = None if announced is None else int(announced)
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        # A second field line would be a second transfer coding, which is not decoded here.
        is_only_chunked = (
            b"transfer-encoding" not in fields.repeated and coding.strip().lower() == b"chunked"
        )
        if not is_only_chunked or version == "1.0" or length is not None:
            return None
    # With two different types the caller might use the one that was not checked.
    if b"content-type" in fields.differing:
        return None
    if not expect_body or status in (204, 304):
        return Framing.NONE, length
    if coding is not None:
        return Framing.CHUNKED, None
    if length is not None:
        return Framing.LENGTH, length
    return Framing.CLOSE, None


def exceeds_header_limits(fields: ResponseFields) -> bool:
    """Return whether a header has too many fields or too many bytes."""
    return fields.count > _MAX_FIELDS or fields.size > MAX_OVERHEAD
