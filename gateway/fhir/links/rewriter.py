"""Rewrites platform URLs to gateway URLs in responses, and the reverse in requests.

It does so in bodies as they stream by, in headers and in query strings, without any input or
output. `LinkMap` has the bases. `gateway.fhir.links.rules` lists the elements,
`gateway.fhir.links.hold` decides what stays unchanged (documents, signed content) and holds the
output until that is known.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

from gateway.fhir.links.json_rewriter import JsonRewriter
from gateway.fhir.links.map import LinkMap
from gateway.fhir.links.ndjson_rewriter import NdjsonRewriter
from gateway.fhir.links.query import FormRewriter, replace_in_query
from gateway.fhir.links.text import Rewriter, any_in
from gateway.fhir.links.xml_rewriter import XmlRewriter

__all__ = [
    "Direction",
    "LinkMap",
    "Rewriter",
    "is_known_unchanged",
    "rewrite_header",
    "rewrite_query",
    "rewrite_request_header",
    "rewriter_for",
]

Direction = Literal["to-gateway", "to-platform"]

_FHIR_JSON: Final = frozenset({"application/fhir+json", "application/json+fhir"})
_FHIR_XML: Final = frozenset({"application/fhir+xml", "application/xml+fhir"})
_JSON: Final = _FHIR_JSON | {"application/json", "text/json"}
_NDJSON: Final = frozenset(
    {"application/fhir+ndjson", "application/ndjson", "application/x-ndjson"}
)
_XML: Final = _FHIR_XML | {"application/xml", "text/xml"}
_ESCAPES: Final = dict.fromkeys(_JSON | _NDJSON, b"\\u00") | dict.fromkeys(_XML, b"&#")
_LONG_BODY_BYTES: Final = 4096
_JSON_PATCH: Final = "application/json-patch+json"
_FORM: Final = "application/x-www-form-urlencoded"
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
# Charsets in which a URL is not written in the bytes of ASCII.
_WIDE_CHARSET: Final = re.compile(r"utf-?(?:16|32|7)|ucs|iso-10646", re.IGNORECASE)

# A quoted parameter value (a URL for `anchor`), or the target of a link-value (RFC 8288).
# Atomic, and an unclosed quote extends to the end, so that nothing is read twice.
_LINK_PART: Final = re.compile(
    r'(?P<anchor>;\s*+anchor\s*+=\s*+")(?P<context>[^"\\]*+)"'
    r'|"[^"\\]*+(?>(?:\\.[^"\\]*+)*)(?:"|\\?\Z)|<(?P<target>[^<>]*+)>',
    re.IGNORECASE,
)


def rewriter_for(
    content_type: str, links: LinkMap, direction: Direction, *, of_binary: bool = False
) -> Rewriter | None:
    """Return the rewriter for a body of that media type; None where bodies pass unchanged.

    `of_binary`: the body is a Binary, either as the resource in one of FHIR's own media types, or
    as its content, which may be a FHIR resource too and passes unchanged. Not to be called for
    encoded bodies (`Content-Encoding`) and parts (206).
    """
    media_type, charset = _media_type(content_type)
    if _WIDE_CHARSET.match(charset) or (of_binary and media_type not in _FHIR_JSON | _FHIR_XML):
        return None
    swap = links.responses if direction == "to-gateway" else links.requests
    required_type = "Binary" if of_binary else None
    if media_type in _JSON:
        return JsonRewriter(swap, required_type=required_type)
    if media_type in _XML:
        return XmlRewriter(swap, required_type=required_type)
    if media_type in _NDJSON:
        return NdjsonRewriter(swap)
    if direction == "to-platform" and media_type == _JSON_PATCH:
        return JsonRewriter(swap, patch=True)
    if direction == "to-platform" and media_type == _FORM:
        return FormRewriter(swap)
    return None


def is_known_unchanged(body: bytes, content_type: str, links: LinkMap) -> bool:
    """Return whether a complete body for the caller certainly holds no URL to be replaced.

    Most hold none, and need no rewriter. After False the rewriter for the media type, if there is
    one, has to examine the body.
    """
    escape = _ESCAPES.get(_media_type(content_type)[0])
    if escape is None:
        return False
    hosts = links.responses.hosts
    # The usual spelling is searched first: to convert a long text to lower case takes longer.
    if len(body) > _LONG_BODY_BYTES and any_in(body, hosts):
        return False
    if any_in(body.lower(), hosts):
        return False
    # One byte is found faster than two, and most bodies hold no escape at all.
    return body.find(escape[:1]) < 0 or body.find(escape) < 0


def rewrite_header(name: str, value: str, links: LinkMap) -> str:
    """Return a response field's value for the caller; only references and links in it change.

    Root-relative references (`/fhir/Patient/1`) under the platform's base path get the gateway's;
    other relative ones (`Patient/1/_history/1`) stay.
    """
    lower = name.lower()
    if lower in {"location", "content-location", "x-security-context"}:
        return _reference_to_gateway(value, links)
    if lower == "link":
        return _LINK_PART.sub(lambda part: _link_part(part, links), value)
    return value


def rewrite_request_header(name: str, value: str, links: LinkMap) -> str:
    """Return a request field's value for the platform; queries, resources, references change."""
    lower = name.lower()
    if lower == "if-none-exist":
        return replace_in_query(value, links.requests)
    if lower == "x-security-context":
        return links.to_platform(value) or value
    if lower == "x-provenance":
        rewriter = JsonRewriter(links.requests)
        body = value.encode("utf-8", "surrogateescape")
        return (rewriter.feed(body) + rewriter.finish()).decode("utf-8", "surrogateescape")
    return value


def rewrite_query(raw_query: str, links: LinkMap) -> str:
    """Return the query string with the absolute gateway URLs in its values made platform URLs."""
    return replace_in_query(raw_query, links.requests)


@lru_cache(maxsize=256)
def _media_type(content_type: str) -> tuple[str, str]:
    media_type = content_type.partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type)
    return media_type, charset[1] if charset else ""


def _reference_to_gateway(value: str, links: LinkMap) -> str:
    if value.startswith("//"):  # without a scheme
        return links.to_gateway(f"https:{value}") or value
    return links.to_gateway(value) or links.path_to_gateway(value) or value


def _link_part(part: re.Match[str], links: LinkMap) -> str:
    if part["target"] is not None:
        return f"<{_reference_to_gateway(part['target'], links)}>"
    if part["anchor"] is not None:
        return f'{part["anchor"]}{_reference_to_gateway(part["context"], links)}"'
    return part[0]
