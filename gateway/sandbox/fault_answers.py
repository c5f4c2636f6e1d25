"""Responses of requests that fail on purpose, like those of a faulty platform or SSO."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from aiohttp import web

from gateway.sandbox.events import EVENT
from gateway.sandbox.example_data import page_text
from gateway.sandbox.fhir.errors import Issue, operation_outcome
from gateway.sandbox.fhir.json_codec import render
from gateway.sandbox.options import FailureMode, Side

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_ERROR_PAGE: Final = page_text("bad_gateway.html")
# The codes of FHIR's issue-type for statuses. Other statuses have `transient` (5xx) or
# `processing`.
_ISSUE_CODES: Final = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    429: "throttled",
}


def fault_response(request: web.Request, side: Side, failure: FailureMode) -> web.Response:
    """Return the response. For a reset the connection is closed, and the response is not sent."""
    if failure == "reset":
        _reset(request)
        return web.Response(status=502)
    if failure == "html":
        return web.Response(text=_ERROR_PAGE, status=502, content_type="text/html")
    if side == "sso":
        return web.json_response({"error": _oauth_error(failure)}, status=failure)
    code = _ISSUE_CODES.get(failure, "transient" if failure >= 500 else "processing")
    body = render(operation_outcome(Issue(code, "failed on purpose")))
    return web.Response(body=body, status=failure, content_type="application/fhir+json")


def _oauth_error(status: int) -> str:
    """Return the error code. 401 is for a client that failed to authenticate (RFC 6749 5.2)."""
    if status >= 500:
        return "server_error"
    return "invalid_client" if status == 401 else "invalid_request"


def _reset(request: web.Request) -> None:
    """Close the connection with RST instead of FIN, so that the peer gets an error."""
    transport = request.transport
    request[EVENT].result = "connection reset"
    if transport is None:
        return
    # uvloop's sockets have no setsockopt; a duplicate descriptor shares the option with the
    # original.
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
