"""Reads the short forms that the SSO sends to the gateway's own endpoints."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import parse_qsl

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.headers import RequestHeader
from gateway.http.server.connection import IncomingRequest
from gateway.pipeline.request_body import BodyLimits, RequestBody

_MAX_BYTES: Final = 64 * 1024
_LIMITS: Final = BodyLimits(
    max_bytes=_MAX_BYTES, replay_bytes=_MAX_BYTES, stall_timeout=10.0, min_rate=1024
)
_MAX_FIELDS: Final = 64
_TYPE: Final = "application/x-www-form-urlencoded"


async def read_form(request: IncomingRequest, header: RequestHeader) -> dict[str, str]:
    """Return the fields of a form body, {} if it is no form or contains a field twice.

    Raises `GatewayError` payload-too-large, body-timeout or bad-request, and
    `CallerDisconnectedError`.
    """
    length = header.values.get(b"content-length")
    if length is None and not request.has_body:
        return {}
    body = RequestBody(
        request.payload,
        None if length is None else int(length),
        limits=_LIMITS,
        clock=time.monotonic,
    )
    data = await body.peek(_MAX_BYTES + 1)
    if (header.text(b"content-type") or "").partition(";")[0].strip().lower() != _TYPE:
        return {}
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except (UnicodeDecodeError, ValueError):
        raise GatewayError(errors.BAD_REQUEST, "form", hint="body: no form") from None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}
