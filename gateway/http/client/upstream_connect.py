"""Opens tunnels to the platform through a proxy, and explains failed connections.

From an outgoing HTTP proxy a tunnel is requested: CONNECT (RFC 9110 section 9.3.6). The proxy
learns the platform's host and port and then only relays: with TLS, whose certificate is the
platform's own, it can read nothing.

A failed connection is converted to an error for the caller and a log sentence. The sentences name
the platform as the settings do and show nothing that it sent. The connection pool uses this module.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Final, Literal

from gateway import errors
from gateway.errors import GatewayError
from gateway.field_values import authority
from gateway.http.client.tls_transport import is_certificate_alert

_MAX_PROXY_HEADER_BYTES: Final = 16 * 1024
ProxyRefusal = Literal["proxy", "proxy password", "proxy route"]
_PROXY_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """Host and port on which an outgoing HTTP proxy listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UpstreamOrigin:
    """Host and port of the platform.

    `tls` is None for plain HTTP, `proxy` None for direct connections.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    proxy: ForwardProxy | None = None


class ProxyTunnelError(ConnectionError):
    """The proxy was reached but opened no tunnel; the text contains nothing that the proxy sent."""


async def open_tunnel(proxy: socket.socket, host: str, port: int) -> None:
    """Turn a connection to a proxy into one to `host`. The calling code must limit the time.

    Raises `ProxyTunnelError`, or OSError when the connection breaks.
    """
    loop = asyncio.get_running_loop()
    target = authority(host, port)
    lines = (f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: dhp-gateway")
    await loop.sock_sendall(proxy, "\r\n".join((*lines, "", "")).encode("ascii"))
    response = b""
    while b"\r\n\r\n" not in response:
        data = await loop.sock_recv(proxy, _MAX_PROXY_HEADER_BYTES)
        response += data
        if not data:
            raise ProxyTunnelError("it closed the connection")
        if len(response) > _MAX_PROXY_HEADER_BYTES:
            raise ProxyTunnelError("its answer has no end")
    found = _PROXY_STATUS_LINE.match(response)
    if found is None:
        raise ProxyTunnelError("its answer is no HTTP")
    if not found[1].startswith(b"2"):
        status = int(found[1])
        raise ProxyTunnelError(_REFUSALS[proxy_refusal(status)].format(status))
    # Through a tunnel the gateway sends first: earlier bytes cannot be the platform's.
    if not response.endswith(b"\r\n\r\n"):
        raise ProxyTunnelError("it sent more than an answer")


def proxy_refusal(status: int) -> ProxyRefusal:
    """Return why a forward proxy opened no tunnel, by the status of its response.

    Squid 5.7, tinyproxy 1.11.1 and privoxy 3.0.34 answer 403 where the host is not allowed. Where
    they cannot reach it they answer 500 or 503, privoxy also 404 for an unknown name.
    """
    if status == 407:
        return "proxy password"
    return "proxy route" if status == 404 or status >= 500 else "proxy"


_REFUSALS: Final[dict[ProxyRefusal, str]] = {
    "proxy": "it refused (status {}); is the platform's host allowed there?",
    "proxy password": "it wants a user and password (status {}), which are not supported",
    "proxy route": "it cannot reach the platform's host itself (status {})",
}


RETRY_AFTER: Final = 5.0
NOT_ACCEPTED: Final = "did not accept our certificate, or wants one: see platform.client_cert_file"

# OpenSSL's numbers of certificate errors (X509_V_ERR_…).
VALIDITY_PERIOD_ERRORS: Final = frozenset({9, 10})
HOST_NAME_MISMATCH: Final = frozenset({62, 64})
# OpenSSL's reasons for a response in plain HTTP.
NOT_TLS_REASONS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


def connect_error(error: OSError, origin: UpstreamOrigin, timeout: float) -> GatewayError:
    """Return the error for a failed attempt to connect within `timeout` seconds; nothing was sent.

    The connection was attempted through the origin's proxy, if it has one.
    """
    where = f"{origin.host} port {origin.port}"
    if isinstance(error, ssl.SSLError):
        return GatewayError(errors.UPSTREAM_TLS, _tls_error_detail(error, origin.host, where))
    return GatewayError(
        errors.UPSTREAM_UNREACHABLE,
        _connect_error_detail(error, origin, timeout),
        retry_after=RETRY_AFTER,
        # After a timeout the caller has waited long enough, so that there is no retry.
        is_retryable=not isinstance(error, TimeoutError),
    )


def _connect_error_detail(error: OSError, origin: UpstreamOrigin, timeout: float) -> str:
    proxy, where = origin.proxy, f"{origin.host} port {origin.port}"
    if proxy is None:
        return _tcp_error_detail(error, origin.host, where, timeout, "platform.fhir_base_url")
    proxy_text = f"the proxy {proxy.host} port {proxy.port}"
    if isinstance(error, ProxyTunnelError):
        return f"{proxy_text} gave no tunnel to {where}: {error}"
    detail = _tcp_error_detail(error, proxy.host, proxy_text, timeout, "platform.proxy_url")
    return f"{detail}; {where} is behind it"


def _tcp_error_detail(error: OSError, host: str, where: str, timeout: float, key: str) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {where} within {timeout:g} s, as behind a firewall"
    if isinstance(error, socket.gaierror):
        return f"the host name {host} of {key} cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return f"no connection to {where}: nothing listens there, or a firewall blocks it"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return f"{where} ended the connection while it was being made"
    reason = os.strerror(error.errno).lower() if error.errno else "unknown reason"
    return f"no connection to {where}: {reason}"


def _tls_error_detail(error: ssl.SSLError, host: str, where: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in VALIDITY_PERIOD_ERRORS:
            return f"the certificate of {where} is not valid at this time; check the clock first"
        if error.verify_code in HOST_NAME_MISMATCH:
            return f"the certificate of {where} belongs to another name than {host}"
        return f"the certificate of {where} is not trusted; its CA goes into platform.ca_file"
    if is_certificate_alert(error):
        return f"{where} {NOT_ACCEPTED}"
    if error.reason in NOT_TLS_REASONS:
        return f"there is no TLS on this port: {where}"
    reason = (error.reason or "unknown reason").replace("_", " ").lower()
    return f"no secure connection to {where}: TLS failed ({reason})"
