"""Requested form of a response: media types (JSON only), `_format`, `_pretty` and `Prefer`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from gateway.sandbox.outcomes import fhir_error

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


def is_pretty(request: web.Request) -> bool:
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
