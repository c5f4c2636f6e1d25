"""The doctor's checks of the route to a server: name, connection, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from gateway.commands.findings import CheckedServer, CheckResult
from gateway.i18n import Message, exception_message
from gateway.process.factories import StartError

_EXPIRY_WARNING_DAYS: Final = 14


async def check_route(server: CheckedServer, *, uses_proxy: bool) -> AsyncIterator[CheckResult]:
    """Yield the checks of name, connection and TLS; each needs the one before."""
    if uses_proxy:
        detail = Message("left out: an outgoing proxy is set, which finds the way itself")
        yield CheckResult(Message("{name} DNS", name=server.name), "skipped", detail)
        return
    async for tcp in check_connection(server):
        yield tcp
    if tcp.state == "skipped":
        return
    if not server.is_tls:
        yield CheckResult(
            Message("{name} TLS", name=server.name),
            "skipped",
            Message("the URL begins with http://"),
        )
    elif tcp.state == "failed":
        yield CheckResult(Message("{name} TLS", name=server.name), "skipped", Message("needs TCP"))
    else:
        yield await _check_tls(server)


async def check_connection(server: CheckedServer) -> AsyncIterator[CheckResult]:
    """Yield the checks of name and connection; the second needs the first."""
    dns = await _resolve(server)
    yield dns
    if dns.state == "failed":
        yield CheckResult(Message("{name} TCP", name=server.name), "skipped", Message("needs DNS"))
    else:
        yield await _connect(server)


async def _resolve(server: CheckedServer) -> CheckResult:
    check = Message("{name} DNS", name=server.name)
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(server.host)
        return CheckResult(check, "ok", Message("{host} is an address", host=server.host))
    try:
        async with asyncio.timeout(server.timeout):
            found = await asyncio.get_running_loop().getaddrinfo(
                server.host, server.port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError):
        hint = Message(
            "Check the spelling in {key} and this machine's name servers "
            "(/etc/resolv.conf); without internet ask the network's administrator",
            key=server.setting_prefix,
        )
        return CheckResult(
            check,
            "failed",
            Message(
                "the host name {host} of {key} cannot be resolved",
                host=server.host,
                key=server.setting_prefix,
            ),
            hint,
        )
    addresses = sorted({entry[4][0] for entry in found})
    return CheckResult(
        check,
        "ok",
        Message(
            "{host} is {addresses}", host=server.host, addresses=", ".join(map(str, addresses))
        ),
    )


async def _connect(server: CheckedServer) -> CheckResult:
    check, target = (
        Message("{name} TCP", name=server.name),
        Message("{host} port {port}", host=server.host, port=server.port),
    )
    hint = Message(
        "Check host and port in {key}; ask the network's administrator to open {target}",
        key=server.setting_prefix,
        target=target,
    )
    try:
        async with asyncio.timeout(server.timeout):
            _, writer = await asyncio.open_connection(server.host, server.port)
    except TimeoutError:
        detail = Message(
            "no answer from {target} within {timeout:g} s, as behind a firewall",
            target=target,
            timeout=server.timeout,
        )
        return CheckResult(check, "failed", detail, hint)
    except OSError:
        return CheckResult(
            check, "failed", Message("{target} refuses connections", target=target), hint
        )
    writer.close()
    return CheckResult(check, "ok", Message("{target} accepts connections", target=target))


async def _check_tls(server: CheckedServer) -> CheckResult:
    check = Message("{name} TLS", name=server.name)
    try:
        context = server.trust()
        async with asyncio.timeout(server.timeout):
            _, writer = await asyncio.open_connection(
                server.host, server.port, ssl=context, server_hostname=server.host
            )
    except StartError as error:
        return CheckResult(
            check,
            "failed",
            exception_message(error),
            Message("Give a PEM file with CA certificates"),
        )
    except ssl.SSLCertVerificationError as error:
        return CheckResult(check, "failed", *_tls_failure(server, error))
    except (OSError, TimeoutError):
        hint = Message("Check that {key} names a port that speaks TLS", key=server.setting_prefix)
        return CheckResult(
            check, "failed", Message("the other side does not speak TLS properly"), hint
        )
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    return _certificate(check, certificate)


def _tls_failure(
    server: CheckedServer, error: ssl.SSLCertVerificationError
) -> tuple[Message, Message]:
    section = server.setting_prefix.partition(".")[0]
    reason = (error.verify_message or "").lower()
    if "expired" in reason or "not yet valid" in reason:
        hint = Message(
            "Check this machine's clock first; else the other side's certificate is out of date"
        )
        return Message("the certificate is not valid at this time"), hint
    if "hostname" in reason or "ip address" in reason:
        return (
            Message("the certificate belongs to another name than {host}", host=server.host),
            Message("Correct the host in {key}; never work around this", key=server.setting_prefix),
        )
    hint = Message(
        "If a CA of your own or an inspecting proxy is between, put its "
        "certificate into a PEM file and set {section}.ca_file; else the "
        "connection may be intercepted",
        section=section,
    )
    return Message("the certificate comes from a CA that is not trusted here"), hint


def _certificate(check: Message, certificate: dict[str, Any]) -> CheckResult:
    until = ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else 0.0
    days = int((until - time.time()) / 86400)
    detail = Message("trusted, valid for {days} more days", days=days)
    if certificate and days < _EXPIRY_WARNING_DAYS:
        return CheckResult(check, "ok", detail, Message("Tell its operator that it ends soon"))
    return CheckResult(check, "ok", detail)
