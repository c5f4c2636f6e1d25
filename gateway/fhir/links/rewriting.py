"""Rewrites platform URLs to gateway URLs in responses, and the reverse in requests.

It does so in bodies as they stream by, in headers and in query strings, without any input or
output. `LinkMap` has the bases. `gateway.fhir.links.link_elements` lists the elements,
`gateway.fhir.links.deferred_edits` decides what stays unchanged (documents, signed content) and
holds the output until that is known.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from gateway.fhir.content_negotiation import (
    FHIR_JSON_TYPES,
    FHIR_XML_TYPES,
    JSON_TYPES,
    NDJSON_TYPES,
    XML_TYPES,
)
from gateway.fhir.links.json_links import JsonRewriter, NdjsonRewriter, host_finder
from gateway.fhir.links.link_elements import ContentForm
from gateway.fhir.links.link_map import FormRewriter, replace_in_query
from gateway.fhir.links.stream_rewriter import any_in, may_hold_patch
from gateway.fhir.links.xml_links import XmlRewriter

if TYPE_CHECKING:
    from gateway.fhir.links.link_map import BaseReplacement, LinkMap
    from gateway.fhir.links.stream_rewriter import Rewriter

Direction = Literal["to-gateway", "to-platform"]

_ESCAPES: Final = dict.fromkeys(JSON_TYPES | NDJSON_TYPES, b"\\u00") | dict.fromkeys(
    XML_TYPES, b"&#"
)
_LONG_BODY_BYTES: Final = 4096
_JSON_PATCH: Final = "application/json-patch+json"
_FORM: Final = "application/x-www-form-urlencoded"
_GRAPHQL: Final = "application/graphql"
_REWRITTEN: Final = JSON_TYPES | XML_TYPES | NDJSON_TYPES
_SENT: Final = frozenset((_JSON_PATCH, _FORM, _GRAPHQL))
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
) -> Rewriter:
    """Return the rewriter for a body of a media type of which `is_rewritten` is true."""
    media_type, _ = _media_type(content_type)
    swap = links.responses if direction == "to-gateway" else links.requests
    required_type = "Binary" if of_binary else None
    if media_type in XML_TYPES:
        return XmlRewriter(swap, required_type=required_type)
    if media_type in NDJSON_TYPES:
        return NdjsonRewriter(swap)
    if media_type == _FORM:
        return FormRewriter(swap)
    if media_type == _GRAPHQL:
        return FormRewriter(
            swap, separator=b'"', form=ContentForm.TEXT, host_finder=host_finder(swap)
        )
    return JsonRewriter(swap, patch=media_type == _JSON_PATCH, required_type=required_type)


def is_rewritten(content_type: str, direction: Direction, *, of_binary: bool = False) -> bool:
    """Return whether there is a rewriter for a body of that media type; others pass unchanged.

    `of_binary`: the body is a Binary, either as the resource in one of FHIR's own media types, or
    as its content, which may be a FHIR resource too and passes unchanged. Not to be called for
    encoded bodies (`Content-Encoding`) and parts (206).
    """
    media_type, charset = _media_type(content_type)
    if charset and _WIDE_CHARSET.match(charset):
        return False
    if of_binary:
        return media_type in FHIR_JSON_TYPES or media_type in FHIR_XML_TYPES
    return media_type in _REWRITTEN or (direction == "to-platform" and media_type in _SENT)


def is_known_unchanged(body: bytes, content_type: str, swap: BaseReplacement) -> bool:
    """Return whether a complete body certainly holds no URL to be replaced.

    Most hold none, and need no rewriter. After False the rewriter for the media type, if there is
    one, has to examine the body.
    """
    escape = _ESCAPES.get(_media_type(content_type)[0])
    if escape is None:
        return False
    hosts = swap.hosts
    # The usual spelling is searched first: to convert a long text to lower case takes longer.
    if len(body) > _LONG_BODY_BYTES and any_in(body, hosts):
        return False
    if any_in(body.lower(), hosts) or (swap.is_request and may_hold_patch(body)):
        return False
    # One byte is found faster than two, and most bodies hold no escape at all.
    return body.find(escape[:1]) < 0 or body.find(escape) < 0


def rewrite_header(links: LinkMap, name: bytes, value: bytes) -> bytes:
    """Return a response field's value for the caller; only references and links in it change.

    `name` is in lower case. Root-relative references (`/fhir/Patient/1`) under the platform's base
    path get the gateway's; other relative ones (`Patient/1/_history/1`) stay.
    """
    text = value.decode("utf-8", "surrogateescape")
    if name in {b"location", b"content-location", b"x-security-context"}:
        text = _reference_to_gateway(text, links)
    elif name == b"link":
        text = _LINK_PART.sub(lambda part: _link_part(part, links), text)
    return text.encode("utf-8", "surrogateescape")


def rewrite_request_header(links: LinkMap, name: bytes, value: bytes) -> bytes:
    """Return a request field's value for the platform; queries, resources, references change.

    `name` is in lower case.
    """
    if name == b"x-provenance":
        rewriter = JsonRewriter(links.requests)
        return rewriter.feed(value) + rewriter.finish()
    text = value.decode("utf-8", "surrogateescape")
    if name == b"if-none-exist":
        text = replace_in_query(text, links.requests)
    elif name == b"x-security-context":
        text = links.to_platform(text) or text
    return text.encode("utf-8", "surrogateescape")


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
