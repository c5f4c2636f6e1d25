"""Reads a stream of octets as RFC 9112 defines it: slow, strict, all at once.

It is independent of the gateway's code, so that the two can be compared.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


Fields = list[tuple[bytes, bytes]]


class Complete(NamedTuple):
    """A complete response.

    `rest` is what follows it in the stream; `bounded` means that its length or its end was
    announced.
    """

    status: int
    body: bytes
    rest: bytes
    bounded: bool


class InvalidResponseError(Exception):
    """The stream has no complete, valid message."""


def read_answer(stream: bytes, *, head: bool, ended: bool) -> Complete:
    """Return the first final response of a stream; `head` says that it responds to a HEAD.

    Raises `InvalidResponseError`.
    """
    version, status, fields, at = _read_final_head(stream)
    length, chunked = _read_framing(version, fields)
    if head or status in (204, 304):
        return Complete(status, b"", stream[at:], True)
    if chunked:
        body, at = _read_chunks(stream, at)
        return Complete(status, body, stream[at:], True)
    if length is not None:
        end = at + length
        if end > len(stream):
            raise InvalidResponseError("short")
        return Complete(status, stream[at:end], stream[end:], True)
    if not ended:
        raise InvalidResponseError("no end")
    return Complete(status, stream[at:], b"", False)


_REQUEST_LINE = re.compile(rb"([A-Z]+) +(/[\x21-\x7e]*) +HTTP/1\.([01])\r\n")


class Asked(NamedTuple):
    """A request with a complete header section; `body` is None while it is incomplete."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes | None


def read_request(stream: bytes) -> Asked:
    """Return the first request of a stream. Raises `InvalidResponseError`."""
    at = 0
    while stream[at : at + 1] in (b"\r", b"\n"):
        at += 1
    line = _REQUEST_LINE.match(stream, at)
    if line is None:
        raise InvalidResponseError("request line")
    fields, at = _read_fields(stream, line.end())
    length, chunked = _read_framing(line[3], fields)
    try:
        body = _read_chunks(stream, at)[0] if chunked else stream[at : at + (length or 0)]
    except InvalidResponseError:
        return Asked(line[1], line[2], fields, None)
    return Asked(line[1], line[2], fields, body if chunked or len(body) == (length or 0) else None)


def _read_final_head(stream: bytes) -> tuple[bytes, int, Fields, int]:
    at = 0
    while True:
        while stream[at : at + 1] in (b"\r", b"\n"):
            at += 1  # These octets belong to no message; skipping them hides nothing.
        version, status, fields, at = _read_head(stream, at)
        if status == 101 or status > 599:
            raise InvalidResponseError("status")
        if status >= 200:
            return version, status, fields, at


def _read_framing(version: bytes, fields: Fields) -> tuple[int | None, bool]:
    codings = [value.strip().lower() for key, value in fields if key == b"transfer-encoding"]
    lengths = [value.strip() for key, value in fields if key == b"content-length"]
    if len(codings) + len(lengths) > 1:
        raise InvalidResponseError("framing")
    if codings and (codings != [b"chunked"] or version == b"0"):
        raise InvalidResponseError("coding")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise InvalidResponseError("length")
    return (int(lengths[0]) if lengths else None), bool(codings)


def _read_head(stream: bytes, at: int) -> tuple[bytes, int, Fields, int]:
    line = _STATUS_LINE.match(stream, at)
    if line is None:
        raise InvalidResponseError("status line")
    fields, at = _read_fields(stream, line.end())
    return line[1], int(line[2]), fields, at


def _read_fields(stream: bytes, at: int) -> tuple[Fields, int]:
    fields = []
    while stream[at : at + 2] != b"\r\n":
        field = _FIELD.match(stream, at)
        if field is None:
            raise InvalidResponseError("field")
        fields.append((field[1].lower(), field[2]))
        at = field.end()
    return fields, at + 2


def _read_chunks(stream: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while True:
        size = _CHUNK.match(stream, at)
        if size is None:
            raise InvalidResponseError("chunk size")
        at, length = size.end(), int(size[1], 16)
        if length == 0:
            return body, _read_fields(stream, at)[1]
        data = stream[at : at + length]
        if len(data) < length or stream[at + length : at + length + 2] != b"\r\n":
            raise InvalidResponseError("chunk")
        body, at = body + data, at + length + 2
