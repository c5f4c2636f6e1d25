"""Rejects messages that aiohttp's parser accepts but that other recipients could read differently.

llhttp in strict mode already rejects repeated or malformed lengths, a length beside a transfer
coding, bare CR or LF, NUL, folded lines and white space before a colon (RFC 9112 sections 2, 5, 6).
Errors of aiohttp's parser are converted to `GatewayError`; nothing of the message is repeated.
"""

from __future__ import annotations

import re
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.field_values import is_host_field
from gateway.http.headers import RequestHeader, has_own_via, removes_gateway_fields
from gateway.http.request_target import bad_request
from gateway.http.server.request_parser import (
    HttpVersion10,
    HttpVersion11,
    InvalidURLError,
    LineTooLong,
    RequestMessage,
)

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Digits of the largest Content-Length that every recipient can represent.
_MAX_LENGTH_DIGITS: Final = 19
_ALLOW: Final = (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


def check_message(message: RequestMessage, header: RequestHeader, *, max_header_bytes: int) -> None:
    """Check a parsed request message; `max_header_bytes` limits all fields together.

    Raises `GatewayError`: bad-request, header-too-large, method-not-allowed or loop.
    """
    if message.version is not HttpVersion11 and message.version != HttpVersion11:
        _check_version_10(message, header)
    if header.total_bytes > max_header_bytes:
        detail = "all header fields together are over the limit"
        raise GatewayError(errors.HEADER_TOO_LARGE, detail, close_connection=True)
    check_method(message.method)
    values = header.values
    if header.is_ambiguous:
        raise bad_request("header: a field that must stand alone is there twice")
    connection = values.get(b"connection")
    if connection is not None and removes_gateway_fields(connection):
        raise bad_request("header: Connection names a field that the gateway reads and passes on")
    if len(values.get(b"content-length", b"")) > _MAX_LENGTH_DIGITS:
        raise GatewayError(
            errors.BAD_REQUEST, "length", hint="Content-Length", close_connection=True
        )
    if not is_host_field(values.get(b"host")):
        raise bad_request("header: Host is not valid")
    coding = values.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise bad_request("header: Transfer-Encoding is other than chunked")
    if has_own_via(values.get(b"via")):
        detail = "the request has passed this gateway before: platform.fhir_base_url leads back?"
        raise GatewayError(errors.LOOP, detail)


def check_method(method: str) -> None:
    """Raise `GatewayError` method-not-allowed for a method that FHIR does not use."""
    if method not in METHODS:
        raise method_not_allowed()


def method_not_allowed() -> GatewayError:
    """Return the error for a method that FHIR does not use, with `Allow`, which 405 requires.

    RFC 9110 section 15.5.6.
    """
    return GatewayError(
        errors.METHOD_NOT_ALLOWED, "no method of FHIR", headers=_ALLOW, close_connection=True
    )


def _check_version_10(message: RequestMessage, header: RequestHeader) -> None:
    if message.version != HttpVersion10:
        raise bad_request("request line: the HTTP version is neither 1.0 nor 1.1")
    if b"transfer-encoding" in header.values:
        # RFC 9112 section 6.1: the framing is faulty, whatever the field's value.
        raise bad_request("header: Transfer-Encoding in HTTP/1.0")


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
    ("Missing 'Host'", "header: Host is missing"),
    ("Duplicate 'Host'", "header: Host is there twice"),
    ("Duplicate Content-Length", "header: Content-Length is there twice"),
    ("can't be present with", "header: both Content-Length and Transfer-Encoding"),
    ("in Content-Length", "header: Content-Length is no number"),
    ("Invalid header token", "header: a field's name is not valid"),
    ("Invalid header value", "header: a character in a field's value is not valid"),
    ("whitespace after header value", "header: a folded line"),
    ("after header value", "line ends: CR LF is needed"),
    ("chunk", "body: a chunk is broken"),
    ("Pause on PRI", "HTTP/2 is not supported: use HTTP/1.1"),
    ("Invalid method", "request line: not valid HTTP"),
)


def parse_error_outcome(exc: BaseException, head: bytes) -> GatewayError:
    """Return the error for a parser's exception; `head` holds the first bytes of the message."""
    text = str(exc)
    if _is_proxy_protocol(head, text):
        return bad_request("PROXY protocol is not supported: turn it off in the load balancer")
    if isinstance(exc, LineTooLong):
        # Only the first byte of the line shows whether it is the request target.
        line = exc.args[0] if exc.args else b""
        reason = errors.URL_TOO_LONG if bytes(line[:1]) == b"/" else errors.HEADER_TOO_LARGE
        return GatewayError(reason, "line over the limit", close_connection=True)
    if "Too many headers" in text:
        return GatewayError(errors.HEADER_TOO_LARGE, "too many fields", close_connection=True)
    method = _REQUEST_LINE.match(head)
    if "Invalid method" in text and method is not None and method[1].decode() not in METHODS:
        # The method is the cause, and not data after a request that was valid.
        return method_not_allowed()
    raw = _RAW_BYTES.search(text) if isinstance(exc, InvalidURLError) else None
    if raw is None:
        return bad_request(_violated_rule(exc))
    rule = f"{raw[1]}: bytes above 0x7F as they are: write them as percent-encoded UTF-8"
    return bad_request(rule, advice="raw-bytes")


def _is_proxy_protocol(head: bytes, text: str) -> bool:
    """Return whether a message begins with the header of HAProxy's PROXY protocol.

    HAProxy sends it with `send-proxy` or `send-proxy-v2`, stunnel with `protocol = proxy`. That of
    version 2 begins with an empty line, which the parser skips, and a zero byte.
    """
    return head.startswith(b"PROXY ") or (head.startswith(b"\r\n\r\n") and r"b'\x00" in text)


def _violated_rule(exc: BaseException) -> str:
    """Return the violated rule in the gateway's words; the parser's text shows what was sent."""
    if isinstance(exc, InvalidURLError):
        return "target: not in origin form"
    parser_text = str(exc).partition(_QUOTE)[0]
    return next((rule for phrase, rule in _RULES if phrase in parser_text), "HTTP: not valid")
