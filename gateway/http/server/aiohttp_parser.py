"""All that the gateway knows of aiohttp's request parser, which is no interface of aiohttp's.

The parser is strict, fast and looked after. What is used of it beside is why pyproject.toml holds
aiohttp below the next minor version: `max_msg_queue_size` and `message_consumed` bound what is
parsed ahead, `pause_reading` keeps what follows in a body, and a message without a body has
`EMPTY_PAYLOAD`, that very object. `set_upgraded(False)` has it go on with HTTP.
tests/http/server/test_aiohttp_parser.py tells what a new version changes.
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

# Bytes. Reading pauses when twice as much of a body waits to be taken.
_BODY_BUFFER: Final = 256 * 1024


class ParsedMessage(Protocol):
    """A request's header section."""

    @property
    def method(self) -> str:
        """As the caller wrote it."""
        ...

    @property
    def path(self) -> str:
        """The request target as the caller wrote it (RFC 9112 section 3.2)."""
        ...

    @property
    def version(self) -> HttpVersion:
        """HTTP's version."""
        ...

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields in their order, names as the caller wrote them."""
        ...

    @property
    def should_close(self) -> bool:
        """Whether the caller wants the connection to end with the answer."""
        ...

    @property
    def upgrade(self) -> bool:
        """Whether the caller asks for another protocol."""
        ...


class RequestParser(Protocol):
    """The parser in C; aiohttp's types describe the one in Python."""

    def feed_data(self, data: bytes) -> tuple[Sequence[tuple[ParsedMessage, Payload]], bool, bytes]:
        """The messages whose header ended; whether another protocol follows. Raises."""
        ...

    def message_consumed(self) -> None:
        """There is room for another message."""
        ...

    def pause_reading(self) -> None:
        """Keep what follows in the body."""
        ...

    def set_upgraded(self, val: bool) -> None:
        """Whether another protocol follows."""
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
    """A parser of what `reader` gets, whose `pause_reading` and `resume_reading` bodies call.

    The parser stops when so many messages are not consumed: `max_read_ahead`, and one more, because
    it still counts a request whose body has not ended. It goes on when it is fed again, be it
    nothing.
    """
    parser = HttpRequestParser(
        reader,  # type: ignore[arg-type]  # it only has streams call what `reader` has
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
