"""Everything that the gateway uses of aiohttp's request parser, which is no public interface.

The parser is strict, fast and maintained. pyproject.toml holds aiohttp below the next minor version
because of the names that aiohttp does not promise: the parser's class and its exceptions, what
`feed_data` returns, `pause_reading`, which retains the rest of a body in the parser,
`set_upgraded`, after which it continues with HTTP, and that a message without a body has the object
`EMPTY_PAYLOAD` itself. The tests of this module have one for each, and one that no other module
imports such a name.

`RepeatedHeaderCache` avoids parsing requests whose fields are those of the request before, byte for
byte but for the number of Content-Length. Legacy systems send the same fields with every request of
a connection; only the request line and the body differ. The parser's result is valid for the same
bytes again. Only request lines of the usual form are recognized by it, and bodies that arrived
together with their header. Everything else is left to the parser. Without it a read takes 1.10
times the processor time interpreted (1.07 to 1.13 in single rounds) and 1.16 times compiled (1.12
to 1.21; `small-32` of `make bench`, Intel Xeon model 167, November 2026).

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
    from gateway.http.server.request_payload import Payload

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
    "ends_connection",
    "is_repeatable",
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
    """A message that was not parsed: a copy of `first` with another target and other fields."""

    __slots__ = ()

    def __init__(
        self, first: RequestMessage, path: str, raw_headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        super().__init__(
            first.method, path, first.version, raw_headers, should_close=first.should_close
        )


class MalformedMessage(RequestMessage):
    """Replaces a message that could not be parsed, and contains nothing of it.

    `error` is the parser's exception, or the `GatewayError` to respond with.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__("UNKNOWN", "/", HttpVersion10, (), should_close=True)
        # Without its traceback the error is in no reference cycle with the frame that caught it.
        self.error = error.with_traceback(None)


class ConnectionDisposition(Enum):
    """What happens to a connection after a response, as the response itself declares."""

    KEEP_ALIVE = "stays"
    CLOSE = "ends"


# Bytes of a field section, of which each connection caches one.
_MAX_CACHED_BYTES: Final = 4096
_LINE_END: Final = b"\r\n"
_HEADER_END: Final = b"\r\n\r\n"
_HTTP_1_1_LINE_END: Final = b" HTTP/1.1\r\n"
# An origin-form target (RFC 9112 section 3.2.1) of characters that all parsers read alike.
_USUAL_REQUEST_LINE: Final = re.compile(
    rb"(?:GET|POST|PUT|PATCH) /(?!/)[A-Za-z0-9\-._~/:%?&=|$,;+@!*'()]*+"
    + re.escape(_HTTP_1_1_LINE_END)
)
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))
_LENGTH: Final = b"content-length"
# A number that is certainly the length of a body.
_LENGTH_FIELD: Final = re.compile(
    rb"(?:\A|\r\n)content-length:[ \t]*+([1-9][0-9]{0,14})\r\n", re.IGNORECASE
)
_MAX_LENGTH_DIGITS: Final = 15
# Fields which announce that something follows the header.
_CONSEQUENTIAL: Final = frozenset((_LENGTH, b"transfer-encoding", b"expect", b"trailer"))
# The duration of a comparison would reveal how many bytes of a secret are equal.
_UNCACHED_FIELDS: Final = _CONSEQUENTIAL | SECRET


class RepeatedHeaderCache:
    """Caches the fields of the last request that a connection may repeat.

    `max_line_bytes` limits a request line. `match` must be called only while the parser is at the
    beginning of a message.
    """

    __slots__ = ("_after", "_before", "_first", "_max_line_bytes", "_method")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._first: RequestMessage | None = None
        self._method = b""  # and the blank after it
        # The fields before and after the number of Content-Length. Those of a read are all before.
        self._before = self._after = b""

    def store(self, data: bytes, message: RequestMessage) -> None:
        """Cache the fields of `message`, which the parser made from exactly `data`.

        `is_repeatable` must be true for it, and it has a body if its method may have one. The cache
        is cleared where `data` has another form.
        """
        self._first = None
        line = _USUAL_REQUEST_LINE.match(data)
        if line is None:
            return
        fields = bytes(data[line.end() :])
        if not _is_field_block_of(fields, message):
            return
        self._method = message.method.encode("ascii") + b" "
        self._before, self._after = fields, b""
        if message.method in _WITH_BODY:
            length = _LENGTH_FIELD.search(fields)
            if length is None:
                return
            self._before, self._after = fields[: length.start(1)], fields[length.end(1) :]
        if message.path == self._target(data, line.end()):
            self._first = message

    def match(self, data: bytes) -> tuple[RepeatedMessage, int] | None:
        """Return the message if `data` is exactly one request with the cached fields, else None.

        With it comes where its header ends and its body begins.
        """
        first = self._first
        if first is None:
            return None
        line_end = data.find(_LINE_END, 0, self._max_line_bytes) + len(_LINE_END)
        end = line_end + len(self._before)
        if not data.startswith(self._before, line_end):
            return None
        length = b"0"
        if self._after:
            digits_end = data.find(b"\r", end, end + _MAX_LENGTH_DIGITS + 1)
            length = bytes(data[end:digits_end])
            if not length.isdigit() or not data.startswith(self._after, digits_end):
                return None
            end = digits_end + len(self._after)
        if (
            len(data) - end != int(length)
            or not data.startswith(self._method)
            or _USUAL_REQUEST_LINE.fullmatch(data, 0, line_end) is None
        ):
            return None
        raw_headers = first.raw_headers
        if self._after:
            if length.startswith(b"0"):
                return None
            raw_headers = _with_length(raw_headers, length)
        return RepeatedMessage(first, self._target(data, line_end), raw_headers), end

    def _target(self, data: bytes, line_end: int) -> str:
        """Return the target of a usual request line that ends at `line_end`."""
        return data[len(self._method) : line_end - len(_HTTP_1_1_LINE_END)].decode("ascii")


def _with_length(
    raw_headers: tuple[tuple[bytes, bytes], ...], length: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields with this Content-Length: the same object if that is the same."""
    for index, (name, value) in enumerate(raw_headers):
        if name.lower() == _LENGTH:
            if value == length:
                break
            return (*raw_headers[:index], (name, length), *raw_headers[index + 1 :])
    return raw_headers


def announced_length(message: RequestMessage) -> int:
    """Return the value of Content-Length, 0 without one.

    The parser has verified that it is a number and the only framing.
    """
    for name, value in message.raw_headers:
        if name.lower() == _LENGTH:
            return int(value)
    return 0


def ends_connection(message: RequestMessage, payload: Payload) -> bool:
    """Return whether a message has ended, and no other may follow (RFC 9112 section 9.6).

    False for a method with a body whose length was not announced: what follows may be the body.
    """
    has_known_end = payload is not EMPTY_PAYLOAD or message.method not in _WITH_BODY
    return message.should_close and has_known_end and payload.is_eof()


def is_repeatable(message: RequestMessage) -> bool:
    """Return whether all after the header of a message is a body of the length that it announces.

    A read has none. False also for a header with a secret. A message without a body is no proof:
    aiohttp's parser creates none for the largest length that a 64-bit number holds, and then waits
    for that body.
    """
    has_body = message.method in _WITH_BODY and not message.upgrade
    if not (has_body or message.method == "GET") or message.version is not HttpVersion11:
        return False
    lengths = 0
    for name, _ in message.raw_headers:
        key = name.lower()
        if has_body and key == _LENGTH:
            lengths += 1
        elif key in _UNCACHED_FIELDS:
            return False
    return lengths == has_body


def _is_field_block_of(fields: bytes, message: RequestMessage) -> bool:
    """Return whether the bytes can be all fields of the message and nothing else."""
    return (
        len(fields) <= _MAX_CACHED_BYTES
        and fields.find(_HEADER_END) == len(fields) - len(_HEADER_END) >= 0
        and fields.count(_LINE_END) == len(message.raw_headers) + 1
    )
