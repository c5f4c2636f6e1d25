"""Serializes small resources made by the gateway, in JSON or XML, with unchanged content inside."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.fhir import tree
from gateway.fhir.conformity import media_type

JSON: Final = b"application/fhir+json; charset=utf-8"
XML: Final = b"application/fhir+xml; charset=utf-8"
_UNPRINTABLE: Final = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_DECLARATION: Final = re.compile(r"\s*<\?xml\b([^>]*)\?>")
_OTHER_ENCODING: Final = re.compile(r"encoding\s*=\s*[\"'](?!utf-8[\"'])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EmbeddedResource:
    """A resource exactly as another system wrote it, in JSON or XML; `kind` is its type."""

    kind: str
    text: str = field(repr=False)
    xml: bool = False


def embed_body(body: bytes, content_type: str | None) -> EmbeddedResource | None:
    """Return a body as a part of another resource; None where it is not FHIR or cannot be one."""
    xml = media_type(content_type).endswith("xml")
    if not body:
        return None
    try:
        kind = tree.first_text(tree.parse_body(body, content_type), "resourceType")
        text = body.decode("utf-8-sig")
    except ValueError:
        return None
    if xml:
        declaration = _DECLARATION.match(text)
        if declaration is not None:
            if _OTHER_ENCODING.search(declaration[1]):
                return None
            text = text[declaration.end() :]
    return EmbeddedResource(kind, text, xml) if kind else None


def write_resource(resource: dict[str, Any], *, xml: bool) -> tuple[bytes, bytes]:
    """Return the body and its Content-Type. Members must stand in the order of FHIR's elements.

    An `EmbeddedResource` must have the format that is written.
    """
    if not xml:
        # Otherwise orjson would serialize the fields of an `EmbeddedResource`.
        options = orjson.OPT_PASSTHROUGH_DATACLASS
        return orjson.dumps(resource, default=_fragment, option=options), JSON
    kind = resource["resourceType"]
    inner = "".join(
        _element(name, value) for name, value in resource.items() if name != "resourceType"
    )
    text = f'<?xml version="1.0" encoding="UTF-8"?><{kind} xmlns="http://hl7.org/fhir">{inner}'
    return f"{text}</{kind}>".encode(), XML


def _fragment(value: object) -> object:
    if isinstance(value, EmbeddedResource):
        return orjson.Fragment(value.text)
    raise TypeError


def _element(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(_element(name, child) for child in value)
    if isinstance(value, EmbeddedResource):
        return f"<{name}>{value.text}</{name}>"
    if isinstance(value, dict):
        inner = "".join(
            _element(key, child) for key, child in value.items() if key != "resourceType"
        )
        kind = value.get("resourceType")
        inner = inner if kind is None else f"<{kind}>{inner}</{kind}>"
        return f"<{name}>{inner}</{name}>"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    escaped = html.escape(_UNPRINTABLE.sub(" ", text), quote=False).replace('"', "&quot;")
    return f'<{name} value="{escaped}"/>'
