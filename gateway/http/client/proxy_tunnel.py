"""Requests a tunnel to the platform from an outgoing HTTP proxy: CONNECT (RFC 9110 section 9.3.6).

The proxy learns the platform's host and port and then only relays: with TLS, whose certificate is
the platform's own, it can read nothing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Final

from gateway.authority import authority

_MAX_HEADER_BYTES: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class ProxyTunnelError(ConnectionError):
    """The proxy was reached but opened no tunnel; `reason` contains nothing that the proxy sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
        data = await loop.sock_recv(proxy, _MAX_HEADER_BYTES)
        response += data
        if not data:
            raise ProxyTunnelError("it closed the connection")
        if len(response) > _MAX_HEADER_BYTES:
            raise ProxyTunnelError("its answer has no end")
    found = _STATUS.match(response)
    if found is None:
        raise ProxyTunnelError("its answer is no HTTP")
    if not found[1].startswith(b"2"):
        raise ProxyTunnelError(_refusal_reason(int(found[1])))
    # Through a tunnel the gateway sends first: earlier bytes cannot be the platform's.
    if not response.endswith(b"\r\n\r\n"):
        raise ProxyTunnelError("it sent more than an answer")


def _refusal_reason(status: int) -> str:
    if status == 407:
        return "it wants a user and password (status 407), which are not supported"
    return f"it refused (status {status}); is the platform's host allowed there?"
