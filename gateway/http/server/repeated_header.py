"""Reads that come with the header of the one before, byte for byte, are not parsed again.

Old systems send the same fields with every request of a connection; only the request line differs.
What the parser made of the fields holds for the same bytes again. Of the request line nothing but
the usual form is read here. Everything else is left to the parser.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http.headers import SECRET
from gateway.http.server.aiohttp_parser import HttpVersion11
from gateway.http.server.messages import RepeatedMessage, RequestMessage

# Bytes. Each connection keeps one.
_LONGEST: Final = 4096
_LINE_END: Final = b"\r\n"
_HEADER_END: Final = b"\r\n\r\n"
_METHOD: Final = b"GET "
_VERSION: Final = b" HTTP/1.1\r\n"
# An origin-form target (RFC 9112 section 3.2.1) of characters in whose meaning all readers agree.
_READ: Final = re.compile(
    _METHOD + rb"/(?!/)[A-Za-z0-9\-._~/:%?&=|$,;+@!*'()]*+" + re.escape(_VERSION)
)
# They say that something follows the header.
_CONSEQUENTIAL: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"trailer"))
# Comparing would tell by its time how much of a secret was alike.
_UNCACHED_FIELDS: Final = _CONSEQUENTIAL | SECRET


class RepeatedHeaderCache:
    """Knows the fields of the last read that came alone on a connection.

    `longest` bounds a request line, in bytes. The parser must stand at the beginning of a message
    whenever `match` is asked.
    """

    __slots__ = ("_fields", "_first", "_longest")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._fields = b""
        self._first: RequestMessage | None = None

    def store(self, data: bytes, message: RequestMessage) -> None:
        """The parser made of all of `data` this message, which ends as `ends_with_header` says."""
        line = _READ.match(data)
        fields = bytes(data[line.end() :]) if line is not None else b""
        if _is_field_block_of(fields, message) and message.path == _target(data, len(fields)):
            self._fields, self._first = fields, message
        else:
            self._fields, self._first = b"", None

    def match(self, data: bytes) -> RepeatedMessage | None:
        """The message that `data` is, if it is one read, no more and no less, with those fields."""
        first, fields = self._first, self._fields
        if first is None or not data.endswith(fields):
            return None
        size = len(data) - len(fields)
        if size > self._longest or _READ.fullmatch(data, 0, size) is None:
            return None
        return RepeatedMessage(first, _target(data, len(fields)))


def ends_with_header(message: RequestMessage) -> bool:
    """Whether nothing can follow the header of a read, which holds no secret either.

    That the parser gave it no body does not say so: aiohttp's gives none for the longest length
    that a number of 64 bits holds, and then waits for it.
    """
    if message.method != "GET" or message.version is not HttpVersion11:
        return False
    for name, _ in message.raw_headers:  # noqa: SIM110 - a generator costs more than all the rest
        if name.lower() in _UNCACHED_FIELDS:
            return False
    return True


def _is_field_block_of(fields: bytes, message: RequestMessage) -> bool:
    """Whether the bytes can be the message's fields, all of them and nothing else."""
    return (
        len(fields) <= _LONGEST
        and fields.find(_HEADER_END) == len(fields) - len(_HEADER_END) >= 0
        and fields.count(_LINE_END) == len(message.raw_headers) + 1
    )


def _target(data: bytes, behind: int) -> str:
    """Of a usual request line, behind which so many bytes follow."""
    return data[len(_METHOD) : len(data) - behind - len(_VERSION)].decode("ascii")
