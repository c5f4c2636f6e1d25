"""Everything that the gateway uses of aiohttp's request parser, which is no public interface.

The parser is strict, fast and maintained. pyproject.toml holds aiohttp below the next minor version
because of the names that aiohttp does not promise: the parser's class and its exceptions, what
`feed_data` returns, `pause_reading`, which retains the rest of a body in the parser,
`set_upgraded`, after which it continues with HTTP, and that a message without a body has the object
`EMPTY_PAYLOAD` itself. The tests of this module have one for each, and one that no other module
imports such a name.

`RepeatedHeaderCache` avoids parsing reads whose fields are those of the read before, byte for byte.
Legacy systems send the same fields with every request of a connection; only the request line
differs. The parser's result is valid for the same bytes again. Only request lines of the usual form
are recognized by it. Everything else is left to the parser. Without it a read takes 1.10 times the
processor time interpreted (1.07 to 1.13 in single rounds) and 1.16 times compiled (1.12 to 1.21;
`small-32` of `make bench`, Intel Xeon model 167, November 2026).

The types of parsed messages, and what happens to a connection after a response, are defined here.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from aiohttp import EMPTY_PAYLOAD, HttpVersion, HttpVersion10, HttpVersion11
from aiohttp.http import HttpProcessingError, HttpRequestParser
from aiohttp.http_exceptions import InvalidURLError, LineTooLong

from gateway.errors import StartError
from gateway.http.headers import SECRET
from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings

__all__ = [
    "EMPTY_PAYLOAD",
    "ConnectionDisposition",
    "HttpProcessingError",
    "HttpVersion",
    "HttpVersion10",
    "HttpVersion11",
    "InvalidURLError",
    "LineTooLong",
    "MalformedMessage",
    "RepeatedHeaderCache",
    "RepeatedMessage",
    "RequestMessage",
    "announced_length",
    "ends_with_header",
    "new_request_parser",
    "require_strict_parser",
]


def require_strict_parser() -> None:
    """Raise `StartError` where aiohttp uses its pure-Python parser.

    It is lenient where the C parser is strict; it must never serve.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise StartError(
            Message("aiohttp is installed without its C parser; install its binary wheel")
        )


# Bytes. Reading pauses when twice as much of a body is buffered.
_BODY_BUFFER: Final = 256 * 1024


def new_request_parser(
    reader: object, loop: asyncio.AbstractEventLoop, limits: LimitsSettings
) -> Any:
    """Return a parser of the bytes that `reader` receives: aiohttp's in C, which has no types.

    Its `feed_data` returns the messages whose header ended, each with its body, whether another
    protocol follows, and the rest; it raises `HttpProcessingError`. `pause_reading` makes it retain
    what follows of a body until it is fed again, even with no bytes. Bodies call `pause_reading`
    and `resume_reading` of `reader`.
    """
    return HttpRequestParser(
        reader,  # type: ignore[arg-type]  # streams call only methods that `reader` has
        loop,
        _BODY_BUFFER,
        max_line_size=limits.max_url_bytes,
        max_field_size=limits.max_header_bytes,
        max_headers=limits.max_headers,
        auto_decompress=False,
    )


@dataclass(slots=True)
class RequestMessage:
    """The request line and the header section of a request, whether parsed or cached."""

    method: str
    path: str
    version: HttpVersion
    raw_headers: tuple[tuple[bytes, bytes], ...]
    should_close: bool
    upgrade: bool = False

    @classmethod
    def from_parsed(cls, parsed: Any) -> RequestMessage:
        """Return a copy of the parser's message."""
        return RequestMessage(
            parsed.method,
            parsed.path,
            parsed.version,
            parsed.raw_headers,
            should_close=parsed.should_close,
            upgrade=parsed.upgrade,
        )


class RepeatedMessage(RequestMessage):
    """A message that was not parsed: a copy of the parsed message `first` with another target."""

    __slots__ = ()

    def __init__(self, first: RequestMessage, path: str) -> None:
        super().__init__(
            first.method, path, first.version, first.raw_headers, should_close=first.should_close
        )


class MalformedMessage(RequestMessage):
    """Replaces a message that could not be parsed, and contains nothing of it.

    `error` is the parser's exception, or the `GatewayError` to respond with.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__("UNKNOWN", "/", HttpVersion10, (), should_close=True)
        self.error = error


class ConnectionDisposition(Enum):
    """What happens to a connection after a response, as the response itself declares."""

    KEEP_ALIVE = "stays"
    CLOSE = "ends"


# Bytes of a field section, of which each connection caches one.
_MAX_CACHED_BYTES: Final = 4096
_LINE_END: Final = b"\r\n"
_HEADER_END: Final = b"\r\n\r\n"
_GET: Final = b"GET "
_HTTP_1_1_LINE_END: Final = b" HTTP/1.1\r\n"
# An origin-form target (RFC 9112 section 3.2.1) of characters that all parsers read alike.
_READ_REQUEST_LINE: Final = re.compile(
    _GET + rb"/(?!/)[A-Za-z0-9\-._~/:%?&=|$,;+@!*'()]*+" + re.escape(_HTTP_1_1_LINE_END)
)
# Fields which announce that something follows the header.
_CONSEQUENTIAL: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"trailer"))
# The duration of a comparison would reveal how many bytes of a secret are equal.
_UNCACHED_FIELDS: Final = _CONSEQUENTIAL | SECRET


class RepeatedHeaderCache:
    """Caches the fields of the last read that arrived alone on a connection.

    `max_line_bytes` limits a request line. `match` must be called only while the parser is at the
    beginning of a message.
    """

    __slots__ = ("_fields", "_first", "_max_line_bytes")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._fields = b""
        self._first: RequestMessage | None = None

    def store(self, data: bytes, message: RequestMessage) -> None:
        """Cache the fields of `message`, which the parser made from exactly `data`.

        `ends_with_header` must be true for it. The cache is cleared where `data` has another form.
        """
        line = _READ_REQUEST_LINE.match(data)
        fields = bytes(data[line.end() :]) if line is not None else b""
        if _is_field_block_of(fields, message) and message.path == _target(data, len(fields)):
            self._fields, self._first = fields, message
        else:
            self._fields, self._first = b"", None

    def match(self, data: bytes) -> RepeatedMessage | None:
        """Return the message if `data` is exactly one read with the cached fields, else None."""
        first, fields = self._first, self._fields
        if first is None or not data.endswith(fields):
            return None
        size = len(data) - len(fields)
        if size > self._max_line_bytes or _READ_REQUEST_LINE.fullmatch(data, 0, size) is None:
            return None
        return RepeatedMessage(first, _target(data, len(fields)))


def announced_length(message: RequestMessage) -> int:
    """Return the value of Content-Length, 0 without one.

    The parser has verified that it is a number and the only framing.
    """
    for name, value in message.raw_headers:
        if name.lower() == b"content-length":
            return int(value)
    return 0


def ends_with_header(message: RequestMessage) -> bool:
    """Return whether a message is a read that nothing can belong to after its header.

    False also for a header with a secret. A message without a body is no proof: aiohttp's parser
    creates none for the largest length that a 64-bit number holds, and then waits for that body.
    """
    if message.method != "GET" or message.version is not HttpVersion11:
        return False
    for name, _ in message.raw_headers:
        if name.lower() in _UNCACHED_FIELDS:
            return False
    return True


def _is_field_block_of(fields: bytes, message: RequestMessage) -> bool:
    """Return whether the bytes can be all fields of the message and nothing else."""
    return (
        len(fields) <= _MAX_CACHED_BYTES
        and fields.find(_HEADER_END) == len(fields) - len(_HEADER_END) >= 0
        and fields.count(_LINE_END) == len(message.raw_headers) + 1
    )


def _target(data: bytes, behind: int) -> str:
    """Return the target of a usual request line, which `behind` bytes follow."""
    return data[len(_GET) : len(data) - behind - len(_HTTP_1_1_LINE_END)].decode("ascii")
