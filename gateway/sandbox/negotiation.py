"""What a caller wants back: media types (JSON only), `_format`, `_pretty` and `Prefer`."""

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
    """406 unless JSON is fine; `_format` outranks `Accept` (FHIR R5 http 3.2.0.1.11)."""
    wanted = request.query.get("_format")
    if wanted is not None:
        # A plus sign that was not percent-encoded arrives as a space.
        accepted = wanted.partition(";")[0].strip().replace(" ", "+") in _FORMATS
    else:
        accepted = any(media_range in _RANGES for media_range in _accepted(request))
    if not accepted:
        raise fhir_error(406, "not-supported", f"this platform answers in {FHIR_JSON} only")


def wants_native_binary(request: web.Request) -> bool:
    """Whether a Binary is to come as itself: unless FHIR JSON is named (FHIR R5 Binary 8.2.4)."""
    return "_format" not in request.query and not JSON_TYPES & set(_accepted(request))


def is_pretty(request: web.Request) -> bool:
    """Whether the answer is for people."""
    return request.query.get("_pretty") == "true"


def languages(request: web.Request) -> tuple[str, ...]:
    """The languages that the caller would like to read, in the order it names them."""
    fields = ",".join(request.headers.getall("Accept-Language", []))
    names = (each.partition(";")[0].partition("-")[0].strip().lower() for each in fields.split(","))
    return tuple(name for name in names if name and name != "*")


def preferred_return(request: web.Request) -> str:
    """minimal, representation or OperationOutcome; empty when none was named."""
    return _preference(request, "return", ("minimal", "representation", "OperationOutcome"))


def is_strict(request: web.Request) -> bool:
    """Whether unknown search parameters are to be errors."""
    return _preference(request, "handling", ("strict", "lenient")) == "strict"


def _accepted(request: web.Request) -> Iterator[str]:
    fields = request.headers.getall("Accept", ["*/*"])
    for media_range in ",".join(fields).split(","):
        name, *parameters = (part.strip().lower() for part in media_range.split(";"))
        if not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            yield name


def _preference(request: web.Request, name: str, values: tuple[str, ...]) -> str:
    for preference in re.split(r"[,;]", ",".join(request.headers.getall("Prefer", []))):
        key, _, given = preference.strip().partition("=")
        for value in values:
            if key.strip().lower() == name and given.strip(' "').lower() == value.lower():
                return value
    return ""
