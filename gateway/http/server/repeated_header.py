"""Avoids parsing reads whose fields are those of the read before, byte for byte.

Legacy systems send the same fields with every request of a connection; only the request line
differs. The parser's result is valid for the same bytes again. Only request lines of the usual form
are recognized here. Everything else is left to the parser.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http.headers import SECRET
from gateway.http.server.aiohttp_parser import HttpVersion11
from gateway.http.server.messages import RepeatedMessage, RequestMessage

# Bytes of a field section, of which each connection caches one.
_MAX_CACHED_BYTES: Final = 4096
_LINE_END: Final = b"\r\n"
_HEADER_END: Final = b"\r\n\r\n"
_METHOD: Final = b"GET "
_VERSION: Final = b" HTTP/1.1\r\n"
# An origin-form target (RFC 9112 section 3.2.1) of characters that all parsers read alike.
_READ: Final = re.compile(
    _METHOD + rb"/(?!/)[A-Za-z0-9\-._~/:%?&=|$,;+@!*'()]*+" + re.escape(_VERSION)
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
        line = _READ.match(data)
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
        if size > self._max_line_bytes or _READ.fullmatch(data, 0, size) is None:
            return None
        return RepeatedMessage(first, _target(data, len(fields)))


def ends_with_header(message: RequestMessage) -> bool:
    """Return whether a message is a read that nothing can belong to after its header.

    False also for a header with a secret. A message without a body is no proof: aiohttp's parser
    creates none for the largest length that a 64-bit number holds, and then waits for that body.
    """
    if message.method != "GET" or message.version is not HttpVersion11:
        return False
    for name, _ in message.raw_headers:  # noqa: SIM110 - a generator costs more than the loop
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
    return data[len(_METHOD) : len(data) - behind - len(_VERSION)].decode("ascii")
