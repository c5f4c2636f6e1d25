"""Rewrites platform URLs to gateway URLs in responses, and the reverse in requests.

It does so in bodies as they stream by, in headers and in query strings, without any input or
output. `LinkMap` has the bases. `gateway.fhir.links.link_elements` lists the elements,
`gateway.fhir.links.deferred_edits` decides what stays unchanged (documents, signed content) and
holds the output until that is known.

`AliasWatch` finds links in which a platform uses a base URL that is not in the settings. Callers
cannot follow such links. Only links that a server makes itself count: a Bundle's links for paging,
its first `fullUrl` or `location`. They are searched by their names, at the beginning and at the end
of a body, so that a page of a search costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from gateway.fhir.content_negotiation import (
    FHIR_JSON_TYPES,
    FHIR_XML_TYPES,
    JSON_TYPES,
    NDJSON_TYPES,
    XML_TYPES,
)
from gateway.fhir.json_text import unescape
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


# The first bytes in which an entry or the links begin, and the bytes that all links take.
_SEARCHED_BYTES: Final = 16 * 1024
_MAX_LINKS_BYTES: Final = 4096
# The text between a name and its value, in JSON or XML.
_IS: Final = rb"(?:\"\s*+:|\s++value\s*+=)\s*+[\"']"
_BEHIND_NAME: Final = re.compile(_IS)
_URL: Final = re.compile(rb"[^\"'<>\s]*+")
_PAGING: Final = re.compile(rb"relation" + _IS + rb"(?:self|next|prev(?:ious)?|first|last)[\"']")


class AliasWatch:
    """Examines a Bundle as it streams by; calls `on_missing` at most once, with a missing alias.

    Only paging links and the first `fullUrl` show a name of the platform: References in resources
    may belong to another server.
    """

    __slots__ = ("_begin", "_end", "_is_over", "_links", "_on_missing")

    def __init__(self, links: LinkMap, on_missing: Callable[[str], None]) -> None:
        self._links = links
        self._on_missing = on_missing
        self._begin = b""  # at least `_MAX_LINKS_BYTES` bytes, if the body has so many
        self._end = b""
        self._is_over = False

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of the body."""
        if len(self._begin) < _MAX_LINKS_BYTES:
            self._begin += chunk
            if len(self._begin) >= _MAX_LINKS_BYTES:
                self.examine(self._begin)
        self._end = (
            chunk if len(chunk) >= _MAX_LINKS_BYTES else self._end[-_MAX_LINKS_BYTES:] + chunk
        )

    def finish(self) -> None:
        """End the body, and examine the bytes that are left."""
        if len(self._begin) < _MAX_LINKS_BYTES:
            self.examine(self._begin)
        elif not self._is_over and self._end is not self._begin:
            self.examine(self._end[-_MAX_LINKS_BYTES:])

    def examine(self, body: bytes) -> None:
        """Examine a complete body, or a part of one."""
        alias = missing_alias(body, self._links)
        if alias is not None:
            self._is_over = True
            self._on_missing(alias)


def missing_alias(text: bytes, links: LinkMap) -> str | None:
    """Return the base of the links in a part of a Bundle if the settings do not have it."""
    name = b"fullUrl"
    at = text.find(name, 0, _SEARCHED_BYTES)
    if at < 0:
        name = b"location"
        at = text.find(name, 0, _SEARCHED_BYTES)
    if at >= 0:
        alias = _missing_at(text, at + len(name), links)
        if alias is not None and not _is_canonical(text, at + len(name)):
            return alias
    start = text.find(b"link", 0, _SEARCHED_BYTES)
    alias = _missing_in_paging(text, start, links) if start >= 0 else None
    last = text.rfind(b'"link"', -_MAX_LINKS_BYTES) if alias is None else -1
    return _missing_in_paging(text, last, links) if last > start else alias


def _missing_at(text: bytes, at: int, links: LinkMap) -> str | None:
    """Return the missing alias in the value after a name that ends at `at`, or None."""
    begin = _BEHIND_NAME.match(text, at)
    if begin is None:
        return None
    for known, _ in links.responses.plain:  # the spelling of nearly all URLs
        if text.startswith(known, begin.end()):
            return None
    return links.missing_alias(unescape(_url(text, begin.end())))


def _url(text: bytes, at: int) -> bytes:
    match = _URL.match(text, at)
    return b"" if match is None else match[0]


def _missing_in_paging(text: bytes, start: int, links: LinkMap) -> str | None:
    """Return the missing alias in the paging links that begin at `start`, or None."""
    end = text.find(b"]", start, start + _MAX_LINKS_BYTES)
    if end < 0:
        end = start + _MAX_LINKS_BYTES
    at = text.find(b"url", start, end)
    while at >= 0:
        alias = _missing_at(text, at + len(b"url"), links)
        if alias is not None and _is_for_paging(text, at):
            return alias
        at = text.find(b"url", at + 1, end)
    return None


def _is_for_paging(text: bytes, at: int) -> bool:
    """Return whether the link around a position, in JSON or XML, is one for paging (`next`)."""
    start = max(text.rfind(b"{", 0, at), text.rfind(b"<link", 0, at))
    end = text.find(b"}" if text.startswith(b"{", start) else b"</", at)
    return _PAGING.search(text, start, end) is not None


def _is_canonical(text: bytes, at: int) -> bool:
    """Return whether the `fullUrl` is the canonical URL of its resource: an identifier only."""
    begin = _BEHIND_NAME.match(text, at)
    url = b"" if begin is None else _url(text, begin.end())
    return re.search(rb"\burl" + _IS + re.escape(url), text) is not None
