"""Converts errors of aiohttp's parser to `GatewayError`; nothing of the message is repeated."""

from __future__ import annotations

import re
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.server import validation
from gateway.http.server.aiohttp_parser import InvalidURLError, LineTooLong

# The beginning of a request line, which may be truncated in its target.
_REQUEST_LINE = re.compile(
    rb"[\r\n]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+) /[^ \r\n]*(?: HTTP/1\.[01]\r\n|\Z)"
)
# The parser's text quotes the message as `repr` writes bytes.
_RAW_BYTES: Final = re.compile(
    r"Invalid char in url (path|query).*(?<!\\)(?:\\\\)*\\x[89a-f]", re.DOTALL
)

# In a parser's text this is followed by the message itself.
_QUOTE: Final = ":\n\n"
# Phrases in the errors of llhttp and aiohttp, and the rule that each stands for. The first applies.
_RULES: Final = (
    ("HTTPS traffic", "TLS sent to a plain HTTP port: use http://"),
    ("Expected HTTP/", "request line: a space in the target, or no HTTP version at the end"),
    ("Expected CRLF", "line ends: CR LF is needed"),
    ("after response line", "line ends: CR LF is needed"),
    ("Missing 'Host'", "header: Host is missing"),
    ("Duplicate 'Host'", "header: Host is there twice"),
    ("Duplicate Content-Length", "header: Content-Length is there twice"),
    ("can't be present with", "header: both Content-Length and Transfer-Encoding"),
    ("in Content-Length", "header: Content-Length is no number"),
    ("Invalid header token", "header: a field's name is not valid"),
    ("Invalid header value", "header: a character in a field's value is not valid"),
    ("whitespace after header value", "header: a folded line"),
    ("chunk", "body: a chunk is broken"),
    ("Pause on PRI", "HTTP/2 is not supported: use HTTP/1.1"),
    ("Invalid method", "request line: not valid HTTP"),
)


def parse_error_outcome(exc: BaseException, head: bytes) -> GatewayError:
    """Return the error for a parser's exception; `head` holds the first bytes of the message."""
    text = str(exc)
    if isinstance(exc, LineTooLong):
        reason = errors.URL_TOO_LONG if _is_target(exc) else errors.HEADER_TOO_LARGE
        return GatewayError(reason, "line over the limit", close_connection=True)
    if "Too many headers" in text:
        return GatewayError(errors.HEADER_TOO_LARGE, "too many fields", close_connection=True)
    if "Invalid method" in text and _begins_with_unknown_method(head):
        return validation.method_not_allowed()
    rule = _violated_rule(exc)
    raw = _RAW_BYTES.search(text) if isinstance(exc, InvalidURLError) else None
    if raw is None:
        return GatewayError(errors.BAD_REQUEST, rule, hint=rule, close_connection=True)
    rule = f"{raw[1]}: bytes above 0x7F as they are: write them as percent-encoded UTF-8"
    return GatewayError(
        errors.BAD_REQUEST, rule, hint=rule, close_connection=True, advice_key="raw-bytes"
    )


def _violated_rule(exc: BaseException) -> str:
    """Return the violated rule in the gateway's words; the parser's text shows what was sent."""
    if isinstance(exc, InvalidURLError):
        return "target: not in origin form"
    parser_text = str(exc).partition(_QUOTE)[0]
    return next((rule for phrase, rule in _RULES if phrase in parser_text), "HTTP: not valid")


def _begins_with_unknown_method(head: bytes) -> bool:
    """Return whether the method is the cause, and not data after a request that was valid."""
    line = _REQUEST_LINE.match(head)
    return line is not None and line[1].decode("ascii") not in validation.METHODS


def _is_target(exc: LineTooLong) -> bool:
    """Return whether the overlong line is the request target; only its first byte shows that."""
    line = exc.args[0] if exc.args else b""
    return bytes(line[:1]) == b"/"
