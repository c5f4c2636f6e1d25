"""Finds the media type and language that a caller requests, mainly for local responses.

Not called for responses that are plain FHIR, so that speed matters little. Header values may be
anything: nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from gateway.i18n import LANGUAGES

_XML_TYPES: Final = frozenset(
    {"application/fhir+xml", "application/xml", "text/xml", "application/xml+fhir"}
)
_JSON_TYPES: Final = frozenset(
    {"application/fhir+json", "application/json", "text/json", "application/json+fhir"}
)
_WILDCARDS: Final = frozenset({"*/*", "application/*"})
_NDJSON_TYPES: Final = frozenset(
    {"application/fhir+ndjson", "application/ndjson", "application/x-ndjson"}
)
FHIR_TYPES: Final = _XML_TYPES | _JSON_TYPES | _NDJSON_TYPES
"""Media types whose bodies have to be FHIR, even if the caller requested such a type."""
_SEPARATORS: Final = re.compile(r"[+.\-]")
_SHORT_NAMES: Final = {"ttl": "turtle", "txt": "plain", "text": "plain"}
# RFC 9110, section 12.4.2.
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_MAX_ITEMS: Final = 64
_MAX_ITEM_PARAMETERS: Final = 8
# Uzbek is used for Karakalpak: both are official languages of Karakalpakstan.
_NEAREST: Final = {"kaa": "uz"}


def wants_xml(query: str, accept: str | None) -> bool:
    """Return whether the caller requests XML: by `_format` in the raw query, else by `Accept`.

    FHIR R5 http.html, section 3.2.0.1.11. A `_format` that is neither XML nor JSON is ignored.
    Where `Accept` gives both the same weight, JSON wins, unless only a wildcard allows JSON.
    """
    by_format = _format(query)
    if by_format is not None:
        return by_format
    xml = wildcard = 0.0
    json: float | None = None
    for media_type, weight in _weighted(accept or ""):
        if media_type in _XML_TYPES:
            xml = max(xml, weight)
        elif media_type in _JSON_TYPES:
            json = max(json or 0.0, weight)
        elif media_type in _WILDCARDS:
            wildcard = max(wildcard, weight)
    return xml > json if json is not None else 0 < xml >= wildcard


def prefers_html(accept: str | None) -> bool:
    """Return whether HTML is named with the greatest weight, as by browsers; JSON wins a tie."""
    weights = dict(_weighted(accept or ""))
    html = weights.get("text/html", 0.0)
    wildcard = max(weights.get(media_type, 0.0) for media_type in _WILDCARDS)
    return html > weights.get("application/json", 0.0) and html >= wildcard


def choose_language(accept_language: str | None, default: str) -> str:
    """Return the best of `LANGUAGES` by `Accept-Language` (RFC 9110, section 12.5.4), or `default`.

    Regions and scripts are ignored: `uz-Cyrl` gets the text in Latin script, too.
    """
    weights: dict[str, float] = {}
    for tag, weight in _weighted(accept_language or ""):
        weights.setdefault(re.split("[-_]", tag, maxsplit=1)[0], weight)
    weights.setdefault(default, weights.get("*", 0.0))
    offered = [language for language in weights if language in LANGUAGES]
    best = max(offered, key=weights.__getitem__, default=default)
    if weights[best] > 0:
        return best
    return next((near for tag, near in _NEAREST.items() if weights.get(tag)), default)


def requests_media_type(kind: str, query: str, accept: str | None) -> bool:
    """Return whether a media type other than FHIR's was requested, by `_format` or `Accept`.

    `_format` may hold a short name; `*/*` requests no particular type.
    """
    if not kind or kind in FHIR_TYPES:
        return False
    short = frozenset(_SEPARATORS.split(kind.partition("/")[2]))
    for name in formats(query):
        if name == kind or _SHORT_NAMES.get(name, name) in short:
            return True
    family = kind.partition("/")[0] + "/*"
    return any(name in (kind, family) and weight for name, weight in _weighted(accept or ""))


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


def _format(query: str) -> bool | None:
    for media_type in formats(query):
        if media_type == "xml" or media_type in _XML_TYPES:
            return True
        if media_type == "json" or media_type in _JSON_TYPES:
            return False
    return None


def _weighted(header: str) -> Iterator[tuple[str, float]]:
    """Yield the items of a list with weights, in lower case; skip items with an invalid weight."""
    for item in header.split(",", _MAX_ITEMS)[:_MAX_ITEMS]:
        value, *parameters = (
            part.strip() for part in item.lower().split(";", _MAX_ITEM_PARAMETERS)
        )
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        if value and _WEIGHT(weight):
            yield value, float(weight)
