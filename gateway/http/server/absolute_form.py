"""Converts request targets in absolute form to origin form.

Callers that use the gateway as their HTTP proxy send the absolute form. A target that names this
gateway is handled like one in origin form: later steps see only the origin form and a Host field
with the authority of the target (RFC 9112 section 3.2.2).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from typing import Final

from gateway.http.headers import RawHeaders
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.messages import RequestMessage
from gateway.http.server.validation import host_and_port, is_host
from gateway.http.target import ABSOLUTE

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def to_origin_form(request: IncomingRequest, public_url: str | None) -> IncomingRequest:
    """Return the request in origin form if its target names this gateway, else unchanged.

    `resolve_target` rejects an unchanged target in absolute form. A target names this gateway by
    the local address and port of the connection, by a loopback name for them, or by the host of
    `public_url`.
    """
    message, transport = request.message, request.connection.transport
    found = ABSOLUTE.match(message.path)
    if found is None or not (
        _is_public_host(found, public_url) or _is_local_address(found, transport)
    ):
        return request
    fields = _replace_host(message.raw_headers, found[2].encode("ascii"))
    if fields is None:
        return request
    rest = message.path[found.end() :]
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
    return host, _DEFAULT_PORTS[url[1].lower()] if port is None else port


def _is_public_host(asked: re.Match[str], public_url: str | None) -> bool:
    """Return whether a URL has the authority of `public_url`.

    The scheme may differ: the default ports of http and https then count as equal.
    """
    own = None if public_url is None else ABSOLUTE.match(public_url)
    if own is None:
        return False
    one, other = _authority_of_url(asked), _authority_of_url(own)
    if one is None or other is None or one[0] != other[0]:
        return False
    defaults = _DEFAULT_PORTS[asked[1].lower()], _DEFAULT_PORTS[own[1].lower()]
    return one[1] == other[1] or (one[1], other[1]) == defaults


def _is_local_address(asked: re.Match[str], transport: asyncio.Transport | None) -> bool:
    """Return whether a URL names the local address and port of the connection.

    On a loopback address, `localhost` and every loopback address name it too.
    """
    own = None if transport is None else transport.get_extra_info("sockname")
    named = _authority_of_url(asked)
    if named is None or not isinstance(own, tuple) or named[1] != own[1]:
        return False
    here, there = _address(own[0]), _address(named[0])
    if here is None:
        return False
    is_name = named[0] == "localhost" or (there is not None and there.is_loopback)
    return here == there or (here.is_loopback and is_name)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _replace_host(fields: RawHeaders, host: bytes) -> tuple[tuple[bytes, bytes], ...] | None:
    """Return the fields with this Host, None where the existing Host would be rejected."""
    sent = [value for name, value in fields if name.lower() == b"host"]
    if len(sent) > 1 or not all(map(is_host, sent)):
        return None
    return ((b"Host", host), *(field for field in fields if field[0].lower() != b"host"))
