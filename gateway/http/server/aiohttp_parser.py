"""Everything that the gateway uses of aiohttp's request parser, which is no public interface.

The parser is strict, fast and maintained. pyproject.toml holds aiohttp below the next minor version
because of the internals that are used as well: `max_msg_queue_size` and `message_consumed` bound
what is parsed ahead, `pause_reading` retains the rest of a body in the parser, a message without a
body has the object `EMPTY_PAYLOAD` itself, and after `set_upgraded(False)` the parser continues
with HTTP. tests/http/server/test_aiohttp_parser.py shows what a new version changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.http_writer import HttpVersion, HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.http.server.counted_body import Payload, RequestFramingError

__all__ = [
    "EMPTY_PAYLOAD",
    "HttpProcessingError",
    "HttpVersion",
    "HttpVersion10",
    "HttpVersion11",
    "InvalidURLError",
    "LineTooLong",
    "ParsedMessage",
    "RequestParser",
    "new_request_parser",
]

# Bytes. Reading pauses when twice as much of a body is buffered.
_BODY_BUFFER: Final = 256 * 1024


class ParsedMessage(Protocol):
    """The request line and the header section of a request."""

    @property
    def method(self) -> str:
        """The method as the caller wrote it."""
        ...

    @property
    def path(self) -> str:
        """The request target as the caller wrote it (RFC 9112 section 3.2)."""
        ...

    @property
    def version(self) -> HttpVersion:
        """The version of HTTP."""
        ...

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields in their order, names as the caller wrote them."""
        ...

    @property
    def should_close(self) -> bool:
        """Whether the caller requests that the connection closes after the response."""
        ...

    @property
    def upgrade(self) -> bool:
        """Whether the caller requests another protocol (Upgrade or CONNECT)."""
        ...


class RequestParser(Protocol):
    """The interface of aiohttp's parser in C; aiohttp's types describe its parser in Python."""

    def feed_data(self, data: bytes) -> tuple[Sequence[tuple[ParsedMessage, Payload]], bool, bytes]:
        """Return the messages whose header ended, whether another protocol follows, and the rest.

        Raises `HttpProcessingError`.
        """
        ...

    def message_consumed(self) -> None:
        """Allow the parser to parse one more message."""
        ...

    def pause_reading(self) -> None:
        """Retain the following bytes of the body in the parser until it is fed again."""
        ...

    def set_upgraded(self, val: bool) -> None:
        """Set whether another protocol follows."""
        ...


def new_request_parser(
    reader: object,
    loop: asyncio.AbstractEventLoop,
    *,
    url_bytes: int,
    header_bytes: int,
    headers: int,
    max_read_ahead: int,
) -> RequestParser:
    """Return a parser of the bytes that `reader` receives.

    Bodies call `pause_reading` and `resume_reading` of `reader`. `url_bytes` limits the request
    target, `header_bytes` one field, `headers` the number of fields. The parser stops when
    `max_read_ahead` + 1 messages are not consumed: one more, because it still counts a request
    whose body has not ended. It continues when it is fed again, even with no bytes.
    """
    parser = HttpRequestParser(
        reader,  # type: ignore[arg-type]  # streams call only methods that `reader` has
        loop,
        _BODY_BUFFER,
        max_line_size=url_bytes,
        max_field_size=header_bytes,
        max_headers=headers,
        payload_exception=RequestFramingError,
        auto_decompress=False,
        max_msg_queue_size=max_read_ahead + 1,
    )
    return cast(RequestParser, parser)
