"""Makes OperationOutcomes (FHIR R5) for local error responses; serializes resources as JSON or XML.

An outcome has one issue: the reason's code for programs, a text for users, and in `diagnostics` the
data by which support finds the request. Apart from the request id it holds no value of the request
or of the platform's response. Other small resources of the gateway are serialized here, too. They
may embed a resource of another system, which stays unchanged.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.errors import GatewayError, outcome_text
from gateway.fhir import document_tree
from gateway.fhir.content_negotiation import media_type
from gateway.fhir.vocabulary import XML_NAMESPACE
from gateway.i18n import LANGUAGES

if TYPE_CHECKING:
    from gateway.exchange import Delivery

JSON: Final = b"application/fhir+json; charset=utf-8"
XML: Final = b"application/fhir+xml; charset=utf-8"
_NOT_IN_XML: Final = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_DECLARATION: Final = re.compile(r"\s*<\?xml\b([^>]*)\?>")
_OTHER_ENCODING: Final = re.compile(r"encoding\s*=\s*[\"'](?!utf-8[\"'])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EmbeddedResource:
    """A resource exactly as another system wrote it, in JSON or XML; `kind` is its type."""

    kind: str
    text: str = field(repr=False)
    xml: bool = False


def embed_body(body: bytes, content_type: str | None) -> EmbeddedResource | None:
    """Return a body to be embedded in another resource; None where it is not FHIR in UTF-8."""
    xml = media_type(content_type).endswith("xml")
    if not body:
        return None
    try:
        kind = document_tree.first_text(
            document_tree.parse_body(body, content_type), "resourceType"
        )
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
    """Return the body and its Content-Type. Members must be in the order of FHIR's elements.

    An `EmbeddedResource` must be in the same format.
    """
    if not xml:
        # Passed to `_fragment`: orjson would serialize the fields of an `EmbeddedResource`.
        options = orjson.OPT_PASSTHROUGH_DATACLASS
        return orjson.dumps(resource, default=_fragment, option=options), JSON
    kind = resource["resourceType"]
    inner = "".join(
        _element(name, value) for name, value in resource.items() if name != "resourceType"
    )
    start = f'<?xml version="1.0" encoding="UTF-8"?><{kind} xmlns="{XML_NAMESPACE}">'
    return f"{start}{inner}</{kind}>".encode(), XML


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
    escaped = html.escape(_NOT_IN_XML.sub(" ", text), quote=False).replace('"', "&quot;")
    return f'<{name} value="{escaped}"/>'


CODE_SYSTEM: Final = "urn:dhp-gateway:error"
_UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufffe\\uffff]")


def error_outcome(
    error: GatewayError,
    *,
    request_id: str,
    language: str,
    attempts: int = 0,
    write: bool = True,
    delivery: Delivery = "none",
) -> dict[str, Any]:
    """Return the OperationOutcome. `language` is en, ru or uz; any other gives English.

    `write`: the request is not a safe one. `delivery` is that of the `Exchange`.

    The outcome's id is the unchanged request id, although FHIR ids allow no `_` and `:` and at most
    64 characters: callers and operators search by one id, and only a caller can have chosen an id
    that is no FHIR id. The diagnostics repeat it.
    """
    if language not in LANGUAGES:
        language = "en"
    reason = error.reason
    issue = {
        "severity": reason.severity,
        "code": error.issue_code,
        "details": {
            "coding": [{"system": CODE_SYSTEM, "code": reason.code}],
            "text": outcome_text(
                reason.code, language, write=write, advice=error.advice_key, delivery=delivery
            ),
        },
        "diagnostics": _diagnostics(error, request_id, attempts),
    }
    return {
        "resourceType": "OperationOutcome",
        "id": _printable_line(request_id),
        "language": language,
        "issue": [issue],
    }


def _diagnostics(error: GatewayError, request_id: str, attempts: int) -> str:
    status = "none" if error.upstream_status is None else error.upstream_status
    facts = [f"request-id={request_id}", f"attempts={attempts}", f"platform-status={status}"]
    if error.hint:
        facts.append(error.hint)
    return _printable_line("; ".join(facts))


def _printable_line(value: str) -> str:
    """Return one line without control characters and what XML 1.0 or UTF-8 cannot represent."""
    return " ".join(_UNPRINTABLE.sub(" ", value).split())
