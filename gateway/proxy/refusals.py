"""What aiohttp's parser refused, in the gateway's own terms; nothing of the message is repeated."""

from __future__ import annotations

import re

from aiohttp.http_exceptions import LineTooLong

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy import strict

# The beginning of a request line, which may be cut off in its target.
_REQUEST_LINE = re.compile(
    rb"[\r\n]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+) /[^ \r\n]*(?: HTTP/1\.[01]\r\n|\Z)"
)


def translate(exc: BaseException, head: bytes) -> GatewayError:
    """The outcome for a parser's exception; `head` are the first bytes of the message."""
    text = str(exc)
    if isinstance(exc, LineTooLong):
        reason = errors.URL_TOO_LONG if _is_target(exc) else errors.HEADER_TOO_LARGE
        return GatewayError(reason, "line over the limit", close=True)
    if "Too many headers" in text:
        return GatewayError(errors.HEADER_TOO_LARGE, "too many fields", close=True)
    if "Invalid method" in text and _begins_with_unknown_method(head):
        return strict.unknown_method()
    return GatewayError(errors.BAD_REQUEST, type(exc).__name__, hint="HTTP message", close=True)


def _begins_with_unknown_method(head: bytes) -> bool:
    """Whether the method is to blame, not what follows a request that was good so far."""
    line = _REQUEST_LINE.match(head)
    return line is not None and line[1].decode("ascii") not in strict.METHODS


def _is_target(exc: LineTooLong) -> bool:
    """Whether the overlong line is the request target; aiohttp says so only in its first byte."""
    line = exc.args[0] if exc.args else b""
    return bytes(line[:1]) == b"/"
