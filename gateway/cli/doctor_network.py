"""The doctor's checks of the listeners and of the route to a server: name, connection, TLS.

A listener's address is free, or in use by a gateway with these settings: a running gateway is asked
for its settings. An address that another program uses is a failure. `notify --test` uses the checks
of the route, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway import os_support
from gateway.admin.status_facts import visible_settings
from gateway.app.listening_sockets import is_stale_socket
from gateway.app.preflight import Check, Finding
from gateway.cli import healthcheck
from gateway.config.settings import Settings
from gateway.config.value_types import ListenAddress
from gateway.errors import StartError
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message, setting_problem
from gateway.oauth.token_endpoint import certificate_cause
from gateway.oauth.token_failures import TOKEN_CAUSES
from gateway.secret import MASK

# What is checked of a server, with the names of the checks.
_KINDS: Final = {
    "dns": Message("{name} DNS"),
    "tcp": Message("{name} TCP"),
    "tls": Message("{name} TLS"),
    "documents": Message("{name} documents"),
}


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """A server that the gateway talks to: what its checks are about, its URL, its setting's key.

    `trust` returns the TLS context, None without TLS; it raises `StartError`. `timeout` is in
    seconds.
    """

    about: Check
    url: str
    setting_prefix: str
    trust: Callable[[], ssl.SSLContext | None]
    timeout: float

    def check(self, kind: str) -> Check:
        """Return the check of one of `_KINDS`."""
        name = Message(_KINDS[kind].msgid, name=self.about.name)
        return Check(name, f"{self.about.code}-{kind}", self.about.key)

    @property
    def host(self) -> str:
        """The host name or IP address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, by default that of the scheme."""
        url = urlsplit(self.url)
        return url.port or (443 if url.scheme == "https" else 80)


# Settings that identify a gateway: its address, its platform and SSO, and its client.
_IDENTITY: Final = ("listen.address", "platform.fhir_base_url", "sso.token_url", ".client_id")
_MAX_KEYS: Final = 5


def check_listeners(settings: Settings) -> Iterator[Finding]:
    """Yield for each address whether it is free or in use by the gateway of these settings."""
    running = _running_settings(settings.admin.address)
    differing = (
        [] if running is None else list(_differing(running, dict(visible_settings(settings))))
    )
    is_another = any(key.endswith(_IDENTITY) for key in differing)
    for key, address in (
        ("listen.address", settings.listen.address),
        ("admin.address", settings.admin.address),
    ):
        check = Check(Message("listener {key}", key=key), "listener", key)
        try:
            is_shared = key == "listen.address" and settings.listen.reuse_port
            _try_to_listen(address, is_shared=is_shared)
        except OSError as error:
            if running is None or (key == "listen.address" and key in differing):
                yield _taken(check, key, address, error)
            elif is_another:
                yield _in_use_by_another(check, key, address, differing)
            else:
                yield _in_use(check, address, differing)
        else:
            yield Finding(check, "ok", Message("{address} is free", address=address))


def _running_settings(address: ListenAddress) -> Mapping[str, Any] | None:
    """Return the settings of the gateway at the admin address, None without one.

    The mapping is empty where the gateway does not show its settings.
    """
    if not healthcheck.is_alive(address):
        return None
    try:
        _, facts = healthcheck.ask(address, "/status.json")
    except (OSError, ValueError):
        return {}
    found = facts.get("settings")
    return found if isinstance(found, dict) else {}


def _differing(running: Mapping[str, Any], configured: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys with different values, except secrets.

    Secrets are not shown, and systemd gives a service copies of their files, with other paths.
    """
    for key in dict.fromkeys((*configured, *filter(str.isprintable, running))):
        running_value, configured_value = running.get(key), configured.get(key)
        is_secret = MASK in (running_value, configured_value) or key.endswith("_file")
        if running_value != configured_value and not is_secret:
            yield key


def _in_use(check: Check, address: ListenAddress, differing: list[str]) -> Finding:
    hint = (
        Message(
            "It does not run with these settings yet: {keys}. Restart it", keys=_named(differing)
        )
        if differing
        else EMPTY_MESSAGE
    )
    detail = Message("{address} is in use by the running gateway", address=address)
    return Finding(check, "ok", detail, hint)


def _in_use_by_another(
    check: Check, key: str, address: ListenAddress, differing: list[str]
) -> Finding:
    hint = Message(
        "It runs with other settings: {keys}. If it should have these, restart it. Otherwise "
        "change {key}",
        keys=_named(differing),
        key=key,
    )
    detail = Message("{address} is in use by another gateway", address=address)
    return Finding(check, "failed", detail, hint)


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:_MAX_KEYS]) + (", …" if len(keys) > _MAX_KEYS else "")


def _taken(check: Check, key: str, address: ListenAddress, error: OSError) -> Finding:
    reason = Message(os.strerror(error.errno).lower()) if error.errno else exception_message(error)
    return Finding(
        check,
        "failed",
        Message("{address} is not free: {reason}", address=address, reason=reason),
        Message(
            "Another program listens there. End it or change {key}. To see which one it is: ss "
            "-ltnp",
            key=key,
        ),
    )


def _try_to_listen(address: ListenAddress, *, is_shared: bool) -> None:
    """Listen on the address for a moment. Raises OSError where it is not free.

    A port that is shared is only bound: a socket that listens would be given callers' connections.
    """
    if address.path is not None:
        path = Path(address.path)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(Message("the folder cannot be written"))
        is_stale_socket(path)
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        os_support.set_address_reuse(probe)
        if is_shared:
            os_support.share_port(probe)
        probe.bind((address.host, address.port))
        if not is_shared:
            probe.listen(1)


_EXPIRY_WARNING_DAYS: Final = 14


async def check_route(server: CheckedServer, *, uses_proxy: bool) -> list[Finding]:
    """Return the checks of name, connection and TLS; each needs the one before."""
    if uses_proxy:
        detail = Message("not tested: an outgoing proxy is set, which resolves the name itself")
        return [Finding(server.check("dns"), "skipped", detail)]
    dns, tcp = await check_connection(server)
    if tcp.state == "skipped":
        return [dns, tcp]
    if urlsplit(server.url).scheme != "https":
        tls = Finding(server.check("tls"), "skipped", Message("the URL begins with http://"))
    elif tcp.state == "failed":
        tls = Finding(server.check("tls"), "skipped", Message("not tested: no TCP connection"))
    else:
        tls = await _check_tls(server)
    return [dns, tcp, tls]


async def check_connection(server: CheckedServer) -> tuple[Finding, Finding]:
    """Return the checks of name and connection; the second needs the first."""
    dns = await _resolve(server)
    if dns.state == "failed":
        return dns, Finding(
            server.check("tcp"), "skipped", Message("not tested: no address from DNS")
        )
    return dns, await _connect(server)


async def _resolve(server: CheckedServer) -> Finding:
    check = server.check("dns")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(server.host)
        return Finding(check, "ok", Message("{host} is an address", host=server.host))
    try:
        async with asyncio.timeout(server.timeout):
            found = await asyncio.get_running_loop().getaddrinfo(
                server.host, server.port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError):
        return failure(check, server, "name not found")
    addresses = sorted({entry[4][0] for entry in found})
    return Finding(
        check,
        "ok",
        Message(
            "{host} is {addresses}", host=server.host, addresses=", ".join(map(str, addresses))
        ),
    )


async def _connect(server: CheckedServer) -> Finding:
    check = server.check("tcp")
    target = Message("{host} port {port}", host=server.host, port=server.port)
    try:
        async with asyncio.timeout(server.timeout):
            _, writer = await asyncio.open_connection(server.host, server.port)
    except TimeoutError:
        detail = Message(
            "no response from {target} within {timeout:g} s, as if a firewall blocks it",
            target=target,
            timeout=server.timeout,
        )
        return failure(check, server, "no connection", detail)
    except OSError:
        detail = Message("{target} refuses connections", target=target)
        return failure(check, server, "no connection", detail)
    writer.close()
    return Finding(check, "ok", Message("{target} accepts connections", target=target))


async def _check_tls(server: CheckedServer) -> Finding:
    check = server.check("tls")
    try:
        context = server.trust()
        async with asyncio.timeout(server.timeout):
            _, writer = await asyncio.open_connection(
                server.host, server.port, ssl=context, server_hostname=server.host
            )
    except StartError as error:
        return failed_by_setting(check, error, Message("Set a PEM file with CA certificates"))
    except ssl.SSLCertVerificationError as error:
        return failure(check, server, certificate_cause(error))
    except (OSError, TimeoutError):
        return failure(check, server, "no TLS")
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    return _certificate(check, certificate)


def failed_by_setting(check: Check, error: StartError, hint: Message) -> Finding:
    """Return the finding of a check that fails because of a setting, which has its own finding."""
    values = exception_message(error).values
    return Finding(check, "failed", setting_problem(values["key"], values["why"]), hint)


def failure(
    check: Check,
    server: CheckedServer,
    cause: str,
    detail: Message | None = None,
    *,
    told: str = "",
) -> Finding:
    """Return a failed check with the record of its cause.

    `detail` replaces what it means, `told` the server's host behind that.
    """
    guidance, key = TOKEN_CAUSES[cause], server.setting_prefix
    meaning = Message("{cause} ({told})", cause=guidance.meaning, told=told or server.host)
    remedy = Message(guidance.remedy.msgid, key=key, section=key.partition(".")[0])
    return Finding(check, "failed", detail or meaning, remedy)


def _certificate(check: Check, certificate: dict[str, Any]) -> Finding:
    until = ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else 0.0
    days = int((until - time.time()) / 86400)
    detail = Message("trusted, valid for {days} more days", days=days)
    if certificate and days < _EXPIRY_WARNING_DAYS:
        return Finding(
            check, "ok", detail, Message("Report to the server's operator that it expires soon")
        )
    return Finding(check, "ok", detail)
