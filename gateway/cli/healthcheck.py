"""Asks a running gateway for its readiness.

Containers run this often, so that it imports little.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.config.value_types import ListenAddress

_TIMEOUT: Final = 3.0
_MAX_BODY: Final = 1024 * 1024
# The Server field of every response of the admin listener.
_SERVER: Final = "dhp-gateway"


def ask(address: ListenAddress, path: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON body of a page of the admin listener.

    Raises OSError, or ValueError where the response is not a gateway's.
    """
    connection = _connect(address)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.getheader("Server") != _SERVER:
            raise ValueError("another program")
        body = json.loads(response.read(_MAX_BODY))
    except http.client.HTTPException as error:
        raise ValueError("not HTTP") from error
    finally:
        connection.close()
    return response.status, body if isinstance(body, dict) else {}


def is_alive(address: ListenAddress) -> bool:
    """Return whether a gateway responds at the admin address."""
    try:
        return ask(address, "/livez")[1].get("alive") is True
    except (OSError, ValueError):
        return False


def _connect(address: ListenAddress) -> http.client.HTTPConnection:
    if address.path is None:
        target = address.client_address
        return http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT)
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT)
    connection.sock.connect(address.path)
    return connection
