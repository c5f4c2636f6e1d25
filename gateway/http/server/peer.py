"""The peer of a caller's connection: its address and its certificate."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.field_values import authority


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: its address and the names in its verified certificate."""

    address: str
    certificate_names: frozenset[str] = frozenset()


def certificate_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the common names and SAN values of a verified certificate, as `ssl` gives it.

    They are in lower case, as neither a host's nor a common name depends on case (RFC 5280 section
    7). Names of directories are left out: `ssl` gives them as tuples.
    """
    common = {
        value
        for relative_name in certificate.get("subject", ())
        for kind, value in relative_name
        if kind == "commonName"
    }
    alternative = {value for _, value in certificate.get("subjectAltName", ())}
    return frozenset(name.lower() for name in common | alternative if isinstance(name, str))


def socket_address(name: object) -> str:
    """Return the address in a socket's name, "unix" for that of a unix socket."""
    return str(name[0]) if isinstance(name, tuple) and name else "unix"


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address without its zone, as IPv4 where it maps one; None for anything else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def local_authority(transport: asyncio.BaseTransport | None) -> str:
    """Return the local address and port of a caller's connection, "" for a unix socket."""
    name = None if transport is None else transport.get_extra_info("sockname")
    if not isinstance(name, tuple) or not name:
        return ""
    host = str(name[0]).partition("%")[0]  # a link-local address also names a local interface
    return authority(host, name[1])


def transport_peer(transport: asyncio.BaseTransport, address: str = "") -> Peer:
    """Return the peer of a caller's connection.

    `address` is the one that `accept` returned, if known: the transport no longer knows the address
    of a caller that has reset the connection since.
    """
    address = address or socket_address(transport.get_extra_info("peername"))
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls is not None else None
    return Peer(address, certificate_names(certificate) if certificate else frozenset())
