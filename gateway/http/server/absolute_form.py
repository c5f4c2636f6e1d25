"""Converts request targets in absolute form to origin form.

Callers that use the gateway as their HTTP proxy send the absolute form. A target that names this
gateway is handled like one in origin form: later steps see only the origin form and a Host field
with the authority of the target (RFC 9112 section 3.2.2).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from gateway.field_values import DEFAULT_PORTS, host_and_port, is_host_field
from gateway.http.request_target import ABSOLUTE
from gateway.http.server.caller_connection import IncomingRequest
from gateway.http.server.peer import parse_address
from gateway.http.server.request_parser import RequestMessage

if TYPE_CHECKING:
    from gateway.http.headers import RawHeaders


def to_origin_form(request: IncomingRequest, public_url: str | None) -> IncomingRequest:
    """Return the request in origin form if its target names this gateway, else unchanged.

    `resolve_target` rejects an unchanged target in absolute form. A target names this gateway by
    the local address and port of the connection, by a loopback name for them, or by the host of
    `public_url`.
    """
    message, transport = request.message, request.connection.transport
    url = ABSOLUTE.match(message.path)
    if url is None or not (_is_public_host(url, public_url) or _is_local_address(url, transport)):
        return request
    fields = _replace_host(message.raw_headers, url[2].encode("ascii"))
    if fields is None:
        return request
    rest = message.path[url.end() :]
    origin_form = RequestMessage(
        message.method,
        rest if rest.startswith("/") else "/" + rest,
        message.version,
        fields,
        should_close=message.should_close,
        upgrade=message.upgrade,
    )
    return IncomingRequest(origin_form, request.payload, request.connection)


def _authority_of_url(url: re.Match[str]) -> tuple[str, int] | None:
    """Return the host and port of a URL, None if its authority is not valid."""
    named = host_and_port(url[2])
    if named is None:
        return None
    host, port = named
    return host, DEFAULT_PORTS[url[1].lower()] if port is None else port


def _is_public_host(url: re.Match[str], public_url: str | None) -> bool:
    """Return whether a URL has the authority of `public_url`.

    The scheme may differ: the default ports of http and https then count as equal.
    """
    public = None if public_url is None else ABSOLUTE.match(public_url)
    if public is None:
        return False
    authority, public_authority = _authority_of_url(url), _authority_of_url(public)
    if authority is None or public_authority is None or authority[0] != public_authority[0]:
        return False
    defaults = DEFAULT_PORTS[url[1].lower()], DEFAULT_PORTS[public[1].lower()]
    return authority[1] == public_authority[1] or (authority[1], public_authority[1]) == defaults


def _is_local_address(url: re.Match[str], transport: asyncio.Transport | None) -> bool:
    """Return whether a URL names the local address and port of the connection.

    On a loopback address, `localhost` and every loopback address name it too.
    """
    local_name = None if transport is None else transport.get_extra_info("sockname")
    named = _authority_of_url(url)
    if named is None or not isinstance(local_name, tuple) or named[1] != local_name[1]:
        return False
    local, named_address = parse_address(local_name[0]), parse_address(named[0])
    if local is None:
        return False
    is_name = named[0] == "localhost" or (named_address is not None and named_address.is_loopback)
    return local == named_address or (local.is_loopback and is_name)


def _replace_host(fields: RawHeaders, host: bytes) -> tuple[tuple[bytes, bytes], ...] | None:
    """Return the fields with this Host, None where the existing Host would be rejected."""
    sent = [value for name, value in fields if name.lower() == b"host"]
    if len(sent) > 1 or not all(map(is_host_field, sent)):
        return None
    return ((b"Host", host), *(field for field in fields if field[0].lower() != b"host"))
