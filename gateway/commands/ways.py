"""The way to a server, step by step: name, connection, TLS. Each step needs the one before."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from gateway.commands.findings import Finding, Side
from gateway.process.factories import StartError

_FEW_DAYS: Final = 14


async def way_to(side: Side, *, proxied: bool) -> AsyncIterator[Finding]:
    """Name, connection, TLS: each needs the one before."""
    if proxied:
        detail = "left out: an outgoing proxy is set, which finds the way itself"
        yield Finding(f"{side.name} DNS", "skipped", detail)
        return
    async for tcp in reach(side):
        yield tcp
    if tcp.state == "skipped":
        return
    if not side.is_tls:
        yield Finding(f"{side.name} TLS", "skipped", "the URL begins with http://")
    elif tcp.state == "failed":
        yield Finding(f"{side.name} TLS", "skipped", "needs TCP")
    else:
        yield await _shake_hands(side)


async def reach(side: Side) -> AsyncIterator[Finding]:
    """Name and connection, two findings; the second needs the first."""
    dns = await _resolve(side)
    yield dns
    if dns.state == "failed":
        yield Finding(f"{side.name} TCP", "skipped", "needs DNS")
    else:
        yield await _connect(side)


async def _resolve(side: Side) -> Finding:
    check = f"{side.name} DNS"
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(side.host)
        return Finding(check, "ok", f"{side.host} is an address")
    try:
        async with asyncio.timeout(side.timeout):
            found = await asyncio.get_running_loop().getaddrinfo(
                side.host, side.port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError):
        hint = (
            f"Check the spelling in {side.key} and this machine's name servers "
            "(/etc/resolv.conf); without internet ask the network's administrator"
        )
        return Finding(
            check, "failed", f"the host name {side.host} of {side.key} cannot be resolved", hint
        )
    addresses = sorted({entry[4][0] for entry in found})
    return Finding(check, "ok", f"{side.host} is {', '.join(map(str, addresses))}")


async def _connect(side: Side) -> Finding:
    check, target = f"{side.name} TCP", f"{side.host} port {side.port}"
    hint = f"Check host and port in {side.key}; ask the network's administrator to open {target}"
    try:
        async with asyncio.timeout(side.timeout):
            _, writer = await asyncio.open_connection(side.host, side.port)
    except TimeoutError:
        detail = f"no answer from {target} within {side.timeout:g} s, as behind a firewall"
        return Finding(check, "failed", detail, hint)
    except OSError:
        return Finding(check, "failed", f"{target} refuses connections", hint)
    writer.close()
    return Finding(check, "ok", f"{target} accepts connections")


async def _shake_hands(side: Side) -> Finding:
    check = f"{side.name} TLS"
    try:
        context = side.trust()
        async with asyncio.timeout(side.timeout):
            _, writer = await asyncio.open_connection(
                side.host, side.port, ssl=context, server_hostname=side.host
            )
    except StartError as error:
        return Finding(check, "failed", str(error), "Give a PEM file with CA certificates")
    except ssl.SSLCertVerificationError as error:
        return Finding(check, "failed", *_distrust(side, error))
    except (OSError, TimeoutError):
        hint = f"Check that {side.key} names a port that speaks TLS"
        return Finding(check, "failed", "the other side does not speak TLS properly", hint)
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    return _certificate(check, certificate)


def _distrust(side: Side, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    section = side.key.partition(".")[0]
    reason = (error.verify_message or "").lower()
    if "expired" in reason or "not yet valid" in reason:
        hint = "Check this machine's clock first; else the other side's certificate is out of date"
        return "the certificate is not valid at this time", hint
    if "hostname" in reason or "ip address" in reason:
        return (
            f"the certificate belongs to another name than {side.host}",
            f"Correct the host in {side.key}; never work around this",
        )
    hint = (
        f"If a CA of your own or an inspecting proxy is between, put its certificate into a PEM "
        f"file and set {section}.ca_file; else the connection may be intercepted"
    )
    return "the certificate comes from a CA that is not trusted here", hint


def _certificate(check: str, certificate: dict[str, Any]) -> Finding:
    until = ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else 0.0
    days = int((until - time.time()) / 86400)
    detail = f"trusted, valid for {days} more days"
    if certificate and days < _FEW_DAYS:
        return Finding(check, "ok", detail, "Tell its operator that it ends soon")
    return Finding(check, "ok", detail)
