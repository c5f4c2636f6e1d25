"""Rejects messages that aiohttp's parser accepts but that other recipients could read differently.

llhttp in strict mode already rejects repeated or malformed lengths, a length beside a transfer
coding, bare CR or LF, NUL, folded lines and white space before a colon (RFC 9112 sections 2, 5, 6).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.headers import RequestHeader, has_own_via, removes_gateway_fields
from gateway.http.server.aiohttp_parser import HttpVersion10, HttpVersion11
from gateway.http.server.messages import RequestMessage

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._\-]+))(?::([0-9]{1,5}))?")
_MAX_PORT: Final = 65535
# Digits of the largest Content-Length that every recipient can represent.
_MAX_LENGTH_DIGITS: Final = 19
# Characters: the longest name of DNS, a colon and a port.
_MAX_HOST_LENGTH: Final = 253 + 6
_ALL_FIELDS: Final = "all header fields together are over the limit"
_ALLOW: Final = (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


def check_message(message: RequestMessage, header: RequestHeader, *, max_header_bytes: int) -> None:
    """Check a parsed request message; `max_header_bytes` limits all fields together.

    Raises `GatewayError`: bad-request, header-too-large, method-not-allowed or loop.
    """
    if message.version is not HttpVersion11 and message.version != HttpVersion11:
        _check_version_10(message, header)
    if header.total_bytes > max_header_bytes:
        raise GatewayError(errors.HEADER_TOO_LARGE, _ALL_FIELDS, close_connection=True)
    check_method(message.method)
    values = header.values
    if header.is_ambiguous:
        raise _bad_request("header: a field that must stand alone is there twice")
    connection = values.get(b"connection")
    if connection is not None and removes_gateway_fields(connection):
        raise _bad_request("header: Connection names a field that the gateway reads and passes on")
    if len(values.get(b"content-length", b"")) > _MAX_LENGTH_DIGITS:
        raise GatewayError(
            errors.BAD_REQUEST, "length", hint="Content-Length", close_connection=True
        )
    if not is_host(values.get(b"host")):
        raise _bad_request("header: Host is not valid")
    coding = values.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise _bad_request("header: Transfer-Encoding is other than chunked")
    if has_own_via(values.get(b"via")):
        detail = "the request has passed this gateway before: platform.fhir_base_url leads back?"
        raise GatewayError(errors.LOOP, detail)


def check_method(method: str) -> None:
    """Raise `GatewayError` method-not-allowed for a method that FHIR does not use."""
    if method not in METHODS:
        raise method_not_allowed()


def is_host(value: bytes | None) -> bool:
    """Return whether a Host field names a host and optionally a port (RFC 9112 section 3.2).

    Links in responses are made from it. True for None: only HTTP/1.0 may omit the field, which the
    parser enforces.
    """
    return value is None or host_name(value.decode("ascii", "replace")) is not None


def host_name(value: str) -> str | None:
    """Return the host of a Host field, in lower case and without brackets; None if not valid."""
    found = host_and_port(value)
    return None if found is None else found[0]


def host_and_port(value: str) -> tuple[str, int | None] | None:
    """Return the host as `host_name` does, and the port or None; None if the value is not valid.

    Nothing else that a URL's authority may contain is valid, in particular no user before an @.
    """
    found = _HOST.fullmatch(value) if len(value) <= _MAX_HOST_LENGTH else None
    if found is None or int(found[3] or 0) > _MAX_PORT:
        return None
    port = int(found[3]) if found[3] else None
    name: str | None = found[2]
    if name is not None:
        return name.lower(), port
    try:
        return str(ipaddress.IPv6Address(found[1])), port
    except ValueError:
        return None


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin field is that of a page from the server that a Host field names."""
    scheme, _, authority = origin.lower().partition("://")
    return scheme in ("http", "https") and host_name(host) is not None and authority == host.lower()


def _bad_request(rule: str) -> GatewayError:
    return GatewayError(errors.BAD_REQUEST, rule, hint=rule, close_connection=True)


def method_not_allowed() -> GatewayError:
    """Return the error for a method that FHIR does not use, with `Allow`, which 405 requires.

    RFC 9110 section 15.5.6.
    """
    return GatewayError(
        errors.METHOD_NOT_ALLOWED, "no method of FHIR", headers=_ALLOW, close_connection=True
    )


def _check_version_10(message: RequestMessage, header: RequestHeader) -> None:
    if message.version != HttpVersion10:
        raise _bad_request("request line: the HTTP version is neither 1.0 nor 1.1")
    if b"transfer-encoding" in header.values:
        # RFC 9112 section 6.1: the framing is faulty, whatever the field's value.
        raise _bad_request("header: Transfer-Encoding in HTTP/1.0")
