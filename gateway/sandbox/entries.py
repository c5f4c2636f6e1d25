"""The entries of a Bundle that was posted: parsed and formally checked requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.outcomes import fhir_error

# The order in which a server processes the methods of a transaction.
ORDER: Final = ("DELETE", "POST", "PUT", "GET")
WITH_RESOURCE: Final = ("POST", "PUT")


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One request of a Bundle.

    `path` holds the segments after the type. `expression` is the FHIRPath of the entry.
    """

    expression: str
    method: str
    type: str
    path: tuple[str, ...]
    query: str
    full_url: str | None = None
    resource: JsonObject | None = None
    if_match: str | None = None
    if_none_exist: str | None = None


def read_entry(index: int, raw: Any, base: str) -> BundleEntry:
    """Parse one entry of a Bundle that was posted. Raises FhirError 400."""
    expression = f"Bundle.entry[{index}]"
    request = raw.get("request") if isinstance(raw, dict) else None
    if not isinstance(request, dict):
        raise fhir_error(400, "required", "every entry needs a request", f"{expression}.request")
    method, url = request.get("method"), request.get("url")
    if method not in ORDER or not isinstance(url, str):
        text = f"a url, and one of the methods {', '.join(ORDER)}, are needed"
        raise fhir_error(400, "value", text, f"{expression}.request")
    path, _, query = url.removeprefix(f"{base}/").partition("?")
    type_, *rest = (unquote(segment) for segment in path.split("/"))
    return BundleEntry(
        expression=expression,
        method=method,
        type=type_,
        path=tuple(rest),
        query=query,
        full_url=_text(raw, "fullUrl", expression),
        resource=_resource(raw, type_, expression) if method in WITH_RESOURCE else None,
        if_match=_text(request, "ifMatch", f"{expression}.request"),
        if_none_exist=_text(request, "ifNoneExist", f"{expression}.request"),
    )


def _text(holder: JsonObject, name: str, expression: str) -> str | None:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise fhir_error(400, "structure", "a string is needed", f"{expression}.{name}")
    return value


def _resource(raw: JsonObject, type_: str, expression: str) -> JsonObject:
    resource = raw.get("resource")
    if not isinstance(resource, dict) or resource.get("resourceType") != type_:
        text = "a resource of the type in request.url is needed"
        raise fhir_error(400, "required", text, f"{expression}.resource")
    return resource
