"""Asks a running gateway whether it is ready; containers do that often, so it imports little."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final

from gateway.config import Address

_TIMEOUT: Final = 3.0
_MAX_BODY: Final = 64 * 1024


def get_readiness(address: Address) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of `/readyz`. Raises OSError, or ValueError for what is no answer."""
    connection = _connect(address)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = json.loads(response.read(_MAX_BODY))
    except http.client.HTTPException as error:
        raise ValueError("not HTTP") from error
    finally:
        connection.close()
    return response.status, body if isinstance(body, dict) else {}


def _connect(address: Address) -> http.client.HTTPConnection:
    if address.path is None:
        target = address.reachable
        return http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT)
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT)
    connection.sock.connect(address.path)
    return connection
