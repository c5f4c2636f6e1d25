"""Which media type a caller requests, and whether a platform's response is FHIR at all.

A proxy's error page must not pass for data. The media type that a caller requests is needed mainly
for local responses. It is not determined for responses that are plain FHIR, so that speed matters
little. Header values may be anything: the functions that parse them do not raise.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote_plus

from gateway.fhir.json_text import plainly_spelled
from gateway.fhir.vocabulary import XML_NAMESPACE
from gateway.field_values import MEDIA_WILDCARDS, weighted_items

FHIR_XML_TYPES: Final = frozenset({"application/fhir+xml", "application/xml+fhir"})
XML_TYPES: Final = FHIR_XML_TYPES | {"application/xml", "text/xml"}
FHIR_JSON_TYPES: Final = frozenset({"application/fhir+json", "application/json+fhir"})
JSON_TYPES: Final = FHIR_JSON_TYPES | {"application/json", "text/json"}
NDJSON_TYPES: Final = frozenset(
    {"application/fhir+ndjson", "application/ndjson", "application/x-ndjson"}
)
_FHIR_TYPES: Final = XML_TYPES | JSON_TYPES | NDJSON_TYPES
"""Media types whose bodies have to be FHIR, even if the caller requested such a type."""
_SEPARATORS: Final = re.compile(r"[+.\-]")
_SHORT_NAMES: Final = {"ttl": "turtle", "txt": "plain", "text": "plain"}


def wants_xml(query: str, accept: str | None) -> bool:
    """Return whether the caller requests XML: by `_format` in the raw query, else by `Accept`.

    FHIR R5 http.html, section 3.2.0.1.11. A `_format` that is neither XML nor JSON is ignored.
    `Accept` requests XML if it gives no other type more weight. Where it gives JSON the same
    weight, JSON wins, unless only a wildcard allows JSON.
    """
    by_format = format_parameter(query)
    if by_format is not None:
        return by_format == "xml"
    xml = wildcard = other = 0.0
    json: float | None = None
    for media_type, weight in weighted_items(accept or ""):
        if media_type in XML_TYPES:
            xml = max(xml, weight)
        elif media_type in JSON_TYPES:
            json = max(json or 0.0, weight)
        elif media_type in MEDIA_WILDCARDS:
            wildcard = max(wildcard, weight)
        else:
            other = max(other, weight)
    return xml >= other and (xml > json if json is not None else 0 < xml >= wildcard)


def requests_media_type(kind: str, query: str, accept: str | None) -> bool:
    """Return whether a media type other than FHIR's was requested, by `_format` or `Accept`.

    `_format` may hold a short name; `*/*` requests no particular type.
    """
    if not kind or kind in _FHIR_TYPES:
        return False
    short = frozenset(_SEPARATORS.split(kind.partition("/")[2]))
    for name in formats(query):
        if name == kind or _SHORT_NAMES.get(name, name) in short:
            return True
    family = kind.partition("/")[0] + "/*"
    return any(name in (kind, family) and weight for name, weight in weighted_items(accept or ""))


def formats(query: str) -> list[str]:
    """Return the values of `_format` in a raw query, without parameters, in lower case."""
    if "_format" not in query:
        return []
    found = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "_format":
            # A plus sign that was not encoded arrives as a space.
            media_type = unquote_plus(value).partition(";")[0].strip()
            found.append(media_type.replace(" ", "+").lower())
    return found


def format_parameter(query: str) -> Literal["json", "xml"] | None:
    """Return which of the two formats `_format` in a raw query names, None for neither."""
    for media_type in formats(query):
        if media_type == "xml" or media_type in XML_TYPES:
            return "xml"
        if media_type == "json" or media_type in JSON_TYPES:
            return "json"
    return None


_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
# The beginning of an HTML page, for responses whose Content-Type is missing or wrong.
# Atomic: many comments in a body must not cause backtracking over their combinations.
_LOOKS_LIKE_HTML: Final = re.compile(
    rb"\s*+(?>(?:<!--[^-]*+(?>(?:-(?!->)[^-]*+)*)-->\s*+)*)<(?:!doctype\s+html|html)\b",
    re.IGNORECASE,
)
_FHIR_XML: Final = XML_NAMESPACE.encode()
# The beginning of nearly all FHIR JSON, and the member that all of it has.
_USUAL: Final = (b'{"resourceType":', b'{"resourceType" :')
_RESOURCE_TYPE: Final = re.compile(rb'"resourceType"\s*+:')
_BEFORE_JSON: Final = b"\xef\xbb\xbf \t\r\n"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")

INSPECTED_BYTES: Final = 64 * 1024
"""Bytes of the beginning of a body, in which the root element of XML must stand."""


@lru_cache(maxsize=256)
def media_type(content_type: str | None) -> str:
    """Return the media type without parameters, in lower case; "" when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_plain_json(content_type: str | None, body: bytes) -> bool:
    """Return whether this is FHIR in the form of nearly all responses; fast, never wrongly True."""
    return body.startswith(_USUAL) and media_type(content_type).endswith("json")


def is_fhir(body: bytes) -> bool | None:
    """Return whether a body is FHIR, by its beginning; None while that does not decide.

    JSON is FHIR if it has a member `resourceType` at any depth; XML by the namespace of its root.
    """
    if body.startswith(_USUAL):
        return True
    if body.startswith(_UTF_16):
        body = body.decode("utf-16", "ignore").encode("utf-8", "ignore")
    first = body.lstrip(_BEFORE_JSON)[:1]
    if first == b"<":
        return True if _FHIR_XML in body else None if len(body) < INSPECTED_BYTES else False
    if first == b"{":
        return True if names_type(body) else None
    return False if first else None


def names_type(part: bytes) -> bool:
    """Return whether a part of a JSON body has a member `resourceType`."""
    return _RESOURCE_TYPE.search(plainly_spelled(part)) is not None


def is_error_page(kind: str, body: bytes, accept: str | None, query: str = "") -> bool:
    """Return whether an error response's body is neither FHIR nor of a type the caller requested.

    `body` is the part that has arrived, at least the beginning; an empty body is an error page too.
    FHIR may come under another type: HAPI names application/octet-stream for some outcomes.
    """
    looks_so = _LOOKS_LIKE_HTML.match(body, 0, INSPECTED_BYTES)
    if kind in _HTML or looks_so or not is_fhir(body):
        return not (body and requests_media_type(kind, query, accept))
    return False


def is_unrequested_page(kind: str, body: bytes, accept: str | None, query: str = "") -> bool:
    """Return whether a successful response is an unrequested web page, such as a sign-in form."""
    # The first byte distinguishes JSON, which nearly all responses are, from a page.
    looks_so = not body.startswith(b"{") and _LOOKS_LIKE_HTML.match(body) is not None
    is_html = looks_so or kind in _HTML
    return is_html and not requests_media_type(kind, query, accept)
