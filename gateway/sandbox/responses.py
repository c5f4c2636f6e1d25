"""FHIR results as HTTP responses: bodies, media type, ETag and Last-Modified."""

from __future__ import annotations

import base64
import binascii
import gzip
from email.utils import format_datetime

from aiohttp import web

from gateway.sandbox import codec, negotiation
from gateway.sandbox.codec import JsonObject
from gateway.sandbox.interactions import InteractionResult
from gateway.sandbox.outcomes import FhirError


def version_headers(result: InteractionResult) -> dict[str, str]:
    """Return ETag and Last-Modified of the result's version, if it has one."""
    if result.version is None:
        return {}
    modified = format_datetime(result.version.modified, usegmt=True)
    return {"ETag": result.version.etag, "Last-Modified": modified}


def resource_response(
    request: web.Request, result: InteractionResult, headers: dict[str, str] | None = None
) -> web.Response:
    """Return the result's resource; by default with the header fields of its version."""
    headers = version_headers(result) if headers is None else headers
    if result.version is None or not result.version.body or negotiation.is_pretty(request):
        return json_response(request, result.resource, result.status, headers)
    return _fhir_json(result.version.body, result.status, headers)


def native_binary(result: InteractionResult) -> web.Response:
    """Return the content of a Binary in its own media type."""
    try:
        data = base64.b64decode(result.resource.get("data", ""))
    except binascii.Error:
        data = b""
    # Uploaded content must not run scripts in the origin of the sign-in page.
    headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
    headers |= version_headers(result) | {"Content-Type": result.resource["contentType"]}
    return web.Response(body=data, headers=headers)


def json_response(
    request: web.Request,
    document: JsonObject,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Return a resource as FHIR JSON."""
    body = codec.render(document, pretty=negotiation.is_pretty(request))
    return _fhir_json(body, status, headers or {})


def gzipped(response: web.Response) -> web.Response:
    """Return the response in gzip, regardless of the request's Accept-Encoding."""
    response.body = gzip.compress(response.body if isinstance(response.body, bytes) else b"")
    response.headers["Content-Encoding"] = "gzip"
    return response


def _fhir_json(body: bytes, status: int, headers: dict[str, str]) -> web.Response:
    content_type = f"{negotiation.FHIR_JSON}; charset=utf-8"
    return web.Response(body=body, status=status, headers=headers | {"Content-Type": content_type})


def error_response(request: web.Request, error: FhirError) -> web.Response:
    """Return the OperationOutcome of an error."""
    return json_response(request, error.outcome(), error.status, dict(error.headers))
