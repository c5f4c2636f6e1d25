"""Bundles of requests: their type at first sight, and their requests as every server reads them.

The type names a Bundle in the audit and the metrics, and is found in the first bytes. What a caller
with limits may do depends on the requests. For that the whole Bundle is read, and refused where
another reader than this one could find other requests in it: one that ignores case, takes the last
of two members, or does not know namespaces or a Content-Type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.fhir.document_tree import BodyParseError, Element, Node, parse_body, refuse
from gateway.fhir.json_text import masked, plainly_spelled
from gateway.fhir.vocabulary import XML_NAMESPACE

_BOM: Final = b"\xef\xbb\xbf"
_TYPE: Final = re.compile(rb'"type"[ \t\r\n]*+:[ \t\r\n]*+"([a-z\-]++)"')
_STRING: Final = re.compile(rb'"[^"]*+"')
_FIRST_WORD: Final = re.compile(r"[a-z\-]+").fullmatch


def bundle_type(content_type: str, prefix: bytes) -> str | None:
    """Return the first `type` of the Bundle that begins with `prefix`; None where it has none.

    `content_type` decides between JSON and XML; where it names neither, the first byte does.
    """
    kind = content_type.lower()
    if "xml" in kind or ("json" not in kind and prefix.lstrip()[:1] == b"<"):
        return _xml_type(prefix)
    text = masked(plainly_spelled(prefix.removeprefix(_BOM)))
    depth = done = 0
    for match in _TYPE.finditer(text):
        between = _STRING.sub(b"", text[done : match.start()])
        depth += sum(map(between.count, (b"{", b"["))) - sum(map(between.count, (b"}", b"]")))
        done = match.start()
        if depth == 1:
            return str(match[1], "ascii")
    return None


def _xml_type(prefix: bytes) -> str | None:
    # Imported here because most callers never send XML.
    from xml.parsers import expat

    depth = 0
    found: list[str] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth == 2 and name == f"{XML_NAMESPACE} type":
            found.append(attributes.get("value", ""))

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse  # before any entity is processed
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    try:
        parser.Parse(prefix, False)
    except (expat.ExpatError, ValueError, LookupError):
        return None
    return next(filter(_FIRST_WORD, found), None)


# One media type, in UTF-8. A list of two media types does not match.
_CONTENT_TYPE: Final = re.compile(
    r"\s*+(?:(?:application|text)/(?:[a-z0-9.\-]+\+)?(?P<syntax>json|xml)(?:\+fhir)?|text/plain)?"
    r"\s*+"
    r"(?>(?:;\s*+(?:charset\s*+=\s*+\"?(?:utf-?8|us-ascii)\"?\s*+|(?!charset)[^;,]*+))*)",
    re.IGNORECASE,
)
# The elements of a Bundle, its entries and their requests (FHIR R5 bundle.html), without those that
# change what others mean.
_OF_BUNDLE: Final = frozenset(
    (
        *("resourceType", "id", "meta", "language", "identifier", "type", "timestamp", "total"),
        *("link", "entry", "signature", "issues"),
    )
)
_OF_ENTRY: Final = frozenset(
    ("id", "extension", "link", "fullUrl", "resource", "search", "request", "response")
)
_OF_REQUEST: Final = frozenset(
    (
        *("id", "extension", "method", "url"),
        *("ifNoneMatch", "ifModifiedSince", "ifMatch", "ifNoneExist"),
    )
)
# FHIR R5, value set http-verb.
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_TYPE_NAME: Final = re.compile(r"[A-Z][A-Za-z]{1,63}").fullmatch


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """A request in a Bundle, with the type of the resource of its entry, None without one."""

    method: str
    url: str
    if_none_exist: str | None
    resource_type: str | None


def read_bundle(body: bytes, content_type: str) -> tuple[str, list[Node]]:
    """Return type and entries of a Bundle without content coding.

    Raises `BodyParseError`, whose text names what it is about in fixed words.
    """
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None:
        raise BodyParseError("Content-Type")
    looks_like_xml = body.removeprefix(_BOM).lstrip()[:1] == b"<"
    syntax = match["syntax"] or ("xml" if looks_like_xml else "json")
    bundle = parse_body(body, syntax.lower(), only_utf_8=True)
    if not bundle.keys() <= _OF_BUNDLE or _only_text(bundle, "resourceType") != "Bundle":
        raise BodyParseError("elements")
    return _only_text(bundle, "type"), bundle.get("entry", [])


def read_request(entry: Node) -> BundleRequest:
    """Return the request of an entry. Raises `BodyParseError` as `read_bundle` does."""
    if isinstance(entry, str) or not entry.keys() <= _OF_ENTRY:
        raise BodyParseError("elements")
    request = _only_element(entry, "request")
    if not request.keys() <= _OF_REQUEST:
        raise BodyParseError("elements of request")
    method, url = _only_text(request, "method"), _only_text(request, "url")
    if method not in _METHODS or not url:
        raise BodyParseError("method or url")
    return BundleRequest(
        method,
        url,
        _only_text(request, "ifNoneExist") if "ifNoneExist" in request else None,
        _resource_type(_only_element(entry, "resource")) if entry.get("resource") else None,
    )


def _resource_type(resource: Element) -> str:
    name = _only_text(resource, "resourceType")
    if _TYPE_NAME(name) is None or sum(key.lower() == "resourcetype" for key in resource) > 1:
        raise BodyParseError("resourceType")
    return name


def _only_text(element: Element, name: str) -> str:
    nodes = element.get(name, ())
    if len(nodes) != 1 or not isinstance(nodes[0], str):
        raise BodyParseError(name)
    return nodes[0]


def _only_element(element: Element, name: str) -> Element:
    nodes = element.get(name, ())
    if len(nodes) != 1 or isinstance(nodes[0], str):
        raise BodyParseError(name)
    found: Element = nodes[0]
    return found
