"""How the end of a platform's response is determined, and how an exchange can fail."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from gateway.http.client.response_header import ResponseFields

MAX_OVERHEAD: Final = 256 * 1024
"""The maximum of consecutive bytes that are not content: header, trailers, chunk extensions."""

_MAX_FIELDS: Final = 500


class Framing(Enum):
    """How the end of a response's body is determined (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class ResponseHead:
    """Status line and header of a response; `content_length` as announced, also for HEAD."""

    __slots__ = ("content_length", "fields", "framing", "status")

    def __init__(
        self, status: int, fields: ResponseFields, framing: Framing, content_length: int | None
    ) -> None:
        self.status = status
        self.fields = fields
        self.framing = framing
        self.content_length = content_length


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


class AmbiguousFramingError(Exception):
    """The fields can be interpreted in two ways."""


def determine_framing(
    status: int, version: str, fields: ResponseFields, *, expect_body: bool
) -> tuple[Framing, int | None]:
    """Return the framing and the announced length or None. Raises `AmbiguousFramingError`.

    llhttp has accepted only one Content-Length, and only digits in it.
    """
    values = fields.values
    announced = values.get(b"content-length")
    length = None if announced is None else int(announced)
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        # A second field line would be a second transfer coding, which is not decoded here.
        single = (
            b"transfer-encoding" not in fields.repeated and coding.strip().lower() == b"chunked"
        )
        if not single or version == "1.0" or length is not None:
            raise AmbiguousFramingError
    # With two different types the caller might use the one that was not checked.
    if b"content-type" in fields.differing:
        raise AmbiguousFramingError
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
