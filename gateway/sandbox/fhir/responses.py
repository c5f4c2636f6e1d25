"""FHIR results as HTTP responses: bodies, media type, ETag and Last-Modified.

The requested form of a response is determined by media types (JSON only), `_format`, `_pretty` and
`Prefer`. `BearerGuard` authenticates requests, which need exactly one valid bearer token (RFC
6750).
"""

from __future__ import annotations

import base64
import binascii
import gzip
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Final

from aiohttp import web

from gateway.sandbox.events import EVENT
from gateway.sandbox.fhir import json_codec
from gateway.sandbox.fhir.errors import FhirError, Issue, fhir_error
from gateway.sandbox.fhir.interactions import InteractionResult
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.sso.grants import TokenAuthority, TokenError

FHIR_JSON: Final = "application/fhir+json"
JSON_TYPES: Final = frozenset({FHIR_JSON, "application/json", "text/json"})

_FORMATS: Final = JSON_TYPES | {"json"}
_RANGES: Final = JSON_TYPES | {"*/*", "application/*", "text/*"}


def require_json_accepted(request: web.Request) -> None:
    """Raise FhirError 406 unless JSON is accepted.

    `_format` has precedence over `Accept` (FHIR R5 http 3.2.0.1.11).
    """
    requested = request.query.get("_format")
    if requested is not None:
        # A plus sign that was not percent-encoded arrives as a space.
        accepted = requested.partition(";")[0].strip().replace(" ", "+") in _FORMATS
    else:
        accepted = any(media_range in _RANGES for media_range in _accepted(request))
    if not accepted:
        raise fhir_error(406, "not-supported", f"this platform answers in {FHIR_JSON} only")


def wants_native_binary(request: web.Request) -> bool:
    """Return whether to send a Binary's content: unless FHIR JSON is named (R5 Binary 8.2.4)."""
    return "_format" not in request.query and not JSON_TYPES & set(_accepted(request))


def _is_pretty(request: web.Request) -> bool:
    """Return whether an indented document is requested."""
    return request.query.get("_pretty") == "true"


def languages(request: web.Request) -> tuple[str, ...]:
    """Return the languages of Accept-Language in their order, without regard to weights."""
    fields = ",".join(request.headers.getall("Accept-Language", []))
    names = (
        language_range.partition(";")[0].partition("-")[0].strip().lower()
        for language_range in fields.split(",")
    )
    return tuple(name for name in names if name and name != "*")


def parse_return_preference(request: web.Request) -> str:
    """Return minimal, representation or OperationOutcome; "" if none was requested."""
    return _preference(request, "return", ("minimal", "representation", "OperationOutcome"))


def is_strict(request: web.Request) -> bool:
    """Return whether unknown search parameters must be errors."""
    return _preference(request, "handling", ("strict", "lenient")) == "strict"


def _accepted(request: web.Request) -> Iterator[str]:
    fields = request.headers.getall("Accept", ["*/*"])
    for media_range in ",".join(fields).split(","):
        name, *parameters = (part.strip().lower() for part in media_range.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            yield name


def _preference(request: web.Request, name: str, values: tuple[str, ...]) -> str:
    for preference in re.split(r"[,;]", ",".join(request.headers.getall("Prefer", []))):
        key, _, requested = preference.strip().partition("=")
        for value in values:
            if key.strip().lower() == name and requested.strip(' "').lower() == value.lower():
                return value
    return ""


_REALM: Final = 'Bearer realm="dhp-sandbox"'


@dataclass(frozen=True, slots=True)
class BearerGuard:
    """Checks the Authorization field. Rejects the share `reject` of valid tokens on purpose."""

    tokens: TokenAuthority
    reject: float
    rng: random.Random

    def check(self, request: web.Request) -> None:
        """Check a request. Raises FhirError 401, or 400 if the field is malformed or repeated."""
        event = request[EVENT]
        fields = request.headers.getall("Authorization", [])
        if not fields:
            event.note = "bearer token: none"
            raise _refusal(401, "login", "a bearer token is needed", _REALM)
        scheme, _, token = fields[0].partition(" ")
        if len(fields) > 1 or scheme.lower() != "bearer" or not token.strip():
            event.note = "bearer token: malformed"
            raise _refusal(400, "security", "one bearer token is needed", _error("invalid_request"))
        try:
            bearer = self.tokens.verify(token.strip())
        except TokenError as error:
            event.note = f"bearer token: refused ({error})"
            raise _invalid_token(str(error)) from None
        event.note = (
            f"bearer token: yes (sub={bearer.subject}, expires in {bearer.expires_in:.0f} s)"
        )
        if self.reject and self.rng.random() < self.reject:
            event.note += ", refused on purpose"
            raise _invalid_token("refused on purpose")


def _invalid_token(description: str) -> FhirError:
    challenge = f'{_error("invalid_token")}, error_description="{description}"'
    return _refusal(401, "security", f"the token was refused: {description}", challenge)


def _refusal(status: int, code: str, text: str, challenge: str) -> FhirError:
    return FhirError(status, Issue(code, text), headers=(("WWW-Authenticate", challenge),))


def _error(code: str) -> str:
    return f'{_REALM}, error="{code}"'


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
    if result.version is None or not result.version.body or _is_pretty(request):
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
    body = json_codec.render(document, pretty=_is_pretty(request))
    return _fhir_json(body, status, headers or {})


def gzipped(response: web.Response) -> web.Response:
    """Return the response in gzip, regardless of the request's Accept-Encoding."""
    response.body = gzip.compress(response.body if isinstance(response.body, bytes) else b"")
    response.headers["Content-Encoding"] = "gzip"
    return response


def _fhir_json(body: bytes, status: int, headers: dict[str, str]) -> web.Response:
    content_type = f"{FHIR_JSON}; charset=utf-8"
    return web.Response(body=body, status=status, headers=headers | {"Content-Type": content_type})


def error_response(request: web.Request, error: FhirError) -> web.Response:
    """Return the OperationOutcome of an error."""
    return json_response(request, error.outcome(), error.status, dict(error.headers))
