"""Rewrites URLs in FHIR XML as it streams by; all other bytes stay unchanged.

The attribute `value` of the listed elements is replaced; narrative, comments, the declaration, a
byte order mark and the encoding stay. Documents in an encoding that is no superset of ASCII, and
those with a document type (FHIR forbids it), pass unchanged.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.fhir.links.deferred_edits import HOLD_LIMIT
from gateway.fhir.links.json_links import rewrite_patch
from gateway.fhir.links.link_elements import (
    LISTED_KEYS,
    MAX_ELEMENT_NAME_LENGTH,
    is_plain_reference,
    opens_resource,
)
from gateway.fhir.links.link_map import HostFinder, raw_length
from gateway.fhir.links.stream_rewriter import (
    MAX_DEPTH,
    MAX_TOKEN,
    StreamRewriter,
    any_in,
    match_end,
)

if TYPE_CHECKING:
    from gateway.fhir.links.deferred_edits import ResourceScope
    from gateway.fhir.links.link_elements import Path
    from gateway.fhir.links.link_map import BaseReplacement


def _spelled(char: str) -> str:
    """Return a pattern for a character and references to it in either case, in lower-case text."""
    codes = sorted({ord(char), ord(char.upper())})
    decimal = "|".join(str(code) for code in codes)
    hexadecimal = "|".join(f"{code:x}" for code in codes)
    return f"(?:{char}|&#(?:0{{0,5}}(?:{decimal})|x0{{0,4}}(?:{hexadecimal}));)"


# In a query a URL may be percent-encoded.
_SCHEME: Final = re.compile(
    f"{''.join(map(_spelled, 'http'))}{_spelled('s')}?"
    f"(?:{_spelled(':')}|{''.join(map(_spelled, '%3a'))})"
    f"(?:{_spelled('/')}|{''.join(map(_spelled, '%2f'))}){{2}}".encode()
)
# Character references to the characters of a host.
_HIDING: Final = re.compile(rb"&#(?:0*1?[0-9]?[0-9]|[xX]0*[0-7]?[0-9a-fA-F]);")
_WIDE_REFERENCE: Final = re.compile(rb"&#(?!0*1?[0-9]?[0-9];|x0*[0-7]?[0-9a-f];)", re.IGNORECASE)
_UNIT: Final = re.compile(r"&[^;&]*;|.", re.DOTALL)
_REFERENCE: Final = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9A-Fa-f]{1,6})|(amp|lt|gt|quot|apos));")
_NAMED: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;"))
_WIDE: Final = re.compile(
    rb"<\?xml[^>]*?encoding\s*=\s*[\"'](?:utf-?(?:16|32|7)|ucs|iso-10646)", re.I
)

_REST: Final = rb"[^<>\"']*+(?>(?:(?:\"[^\"]*+\"|'[^']*+')[^<>\"']*+)*)"
_TAG: Final = re.compile(rb"<(?:[^\s<>\"'/:!?]+:)?([^\s<>\"'/:!?]+)" + _REST + rb">")
# Elements without children, comments and instructions, which are skipped; not `type` and
# `signature`, which decide about a Bundle, and `method`, which decides about an entry.
_SKIPPABLE: Final = re.compile(
    rb"(?>(?:[^<]*+<(?:(?>(?:[^\s<>\"'/:!?]++:)?)(?!(?:type|signature|method)\b)[^\s<>\"'/:!?]"
    + _REST
    + rb"(?:(?<=/)>|>[^<]*+</[^>]*+>)"
    rb"|!--[^-]*+(?>(?:-(?!->)[^-]*+)*)-->|\?(?!xml)[^?]*+(?>(?:\?(?!>)[^?]*+)*)\?>))*)"
)
_VALUE: Final = re.compile(
    rb"<[^\s<>\"'/]+(?>(?:\s+(?!value[\s=])[^\s<>\"'/=]+\s*=\s*(?:\"[^\"]*+\"|'[^']*+'))*)"
    rb"\s+value\s*=\s*(?:\"([^\"]*+)\"|'([^']*+)')"
)
# Text due to which the name of an element does not decide alone: signatures, documents, outcomes,
# narrative, comments.
_DOUBTFUL: Final = (b"ignature", b"document", b"OperationOutcome", b"<div", b":div", b"<!")
_BEGINS_RESOURCE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml(?>(?:(?!encoding)[^<>?])*)(?:encoding\s*=\s*[\"'](?i:utf-8)[\"'][^<>?]*+)?\?>\s*+)?"
    rb"<(?:[^\s<>\"'/:!?]+:)?[A-Z]"
)
_START_TAG: Final = re.compile(rb"<(?:[^\s<>\"'/:!?]+:)?([^\s<>\"'/:!?]+)>\s*\Z")
_NEAR: Final = 96  # bytes
_FULL_URL: Final = re.compile(rb"fullUrl\s+value\s*=\s*\"\Z")
_TAG_NAME: Final = re.compile(rb"<(?:[^\s<>\"'/:!?]+:)?([^\s<>\"'/:!?]+)(?=[\s/>])")
_BETWEEN_QUOTES: Final = re.compile(rb"[^>\"']*+")
_INSTRUCTION: Final = re.compile(rb"<\?.*?\?>", re.DOTALL)
_UNTIL: Final = ((b"<!--", b"-->"), (b"<![CDATA[", b"]]>"), (b"</", b">"))
_MAX_START_BYTES: Final = len(b"<![CDATA[")
_SLASH: Final = 0x2F


@lru_cache(maxsize=64)
def _usual(source: bytes) -> re.Pattern[bytes]:
    """Return the pattern of a `fullUrl` or `reference` with a URL under that base."""
    return re.compile(
        rb"""(<(?:[^\s<>"'/:!?]+:)?(?:fullUrl|reference)\s++value\s*+=\s*+")"""
        + re.escape(source)
        + rb"""(?=(?>(?:/[^"&%/?#\\\x00-\x20\x7f.][^"&%/?#\\\x00-\x20\x7f]{0,255}+){1,40})")"""
    )


def _leads_to_reference(before: bytes) -> bool:
    """Return whether the start tag at the end of `before` is certainly that of a Reference."""
    tag = _START_TAG.search(before[-_NEAR:])
    name = "" if tag is None else tag[1].decode("utf-8", "replace")
    return name[:1].islower() and is_plain_reference(name)  # a resource has a capital


# May begin a JSON Patch in base64.
_DATA: Final = b"data"


@lru_cache(maxsize=64)
def _host_finder(swap: BaseReplacement) -> HostFinder:
    data = (_DATA, re.compile(_DATA)) if swap.is_request else ()
    return HostFinder(swap.hosts, b"&#", _HIDING, _SCHEME, *data)


class _Element:
    """An open element; `scope` is None where nothing may be rewritten."""

    __slots__ = ("is_resource", "path", "scope")

    def __init__(self, path: Path, scope: ResourceScope | None, *, is_resource: bool) -> None:
        self.path = path
        self.scope = scope
        self.is_resource = is_resource


class XmlRewriter(StreamRewriter):
    """Replaces one base by another in the listed elements of an XML body, chunk by chunk.

    With `required_type` only a resource of that type changes.
    """

    __slots__ = ("_deep", "_elements", "_is_passing_through", "_long", "_quote", "_slash", "_until")

    _boundary = b"<"

    def __init__(
        self,
        swap: BaseReplacement,
        *,
        hold_limit: int = HOLD_LIMIT,
        required_type: str | None = None,
    ) -> None:
        super().__init__(swap, _host_finder(swap), hold_limit, required_type)
        self._elements = [_Element((), None, is_resource=False)]
        self._deep = 0  # levels open beyond MAX_DEPTH
        self._is_passing_through = False
        self._until = b""  # ends the current comment, CDATA section or end tag
        self._long: str | None = None  # the name in a start tag longer than MAX_TOKEN
        self._quote = b""  # in that tag: the quote around the current attribute
        self._slash = False  # in that tag: the last byte was a slash

    def _rewrite_complete(self) -> None:
        """Replace URLs first whose element name alone makes them links, to leave less to scan."""
        text, (source, target) = self._buffer, self._swap.plain[0]
        if (
            self._swap.is_unambiguous
            and _BEGINS_RESOURCE.match(text)
            and self._required_type is None
            and not any_in(text, _DOUBTFUL)
            and not self._host_finder.has_obscuring_escape(text)
        ):
            parts = _usual(source).split(text)
            for number in range(1, len(parts), 2):  # those with even numbers are the text between
                is_link = _FULL_URL.search(parts[number]) is not None or _leads_to_reference(
                    parts[number - 1]
                )
                parts[number] += target if is_link else source
                self._output.rewritten += is_link
            self._buffer = b"".join(parts)
        super()._rewrite_complete()

    def _advance(self, text: bytes, pos: int, candidate: int, size: int) -> int:
        if self._is_passing_through:
            return size
        if self._until:
            return self._skip_to_end(text, pos, size)
        if self._long is not None:
            return self._inside_long_tag(text, pos, size)
        match = _SKIPPABLE.match(text, pos, candidate)
        start = text.find(b"<", pos if match is None else match.end(), size)
        if start < 0:
            return size
        if text[start + 1 : start + 2] in b"!?/":
            return self._markup(text, start, size)
        return self._start_tag(text, start, candidate, size)

    def _markup(self, text: bytes, pos: int, size: int) -> int:
        """Process a comment, CDATA section, instruction or end tag; all else ends the rewriting."""
        head = text[pos : pos + _MAX_START_BYTES]
        for start, until in _UNTIL:
            if head.startswith(start):
                self._until = until
                if start == b"</":
                    self._close(pos)
                return pos + len(start)
            if start.startswith(head):
                return ~pos
        instruction = _INSTRUCTION.match(text, pos, size)
        if instruction is not None and not _WIDE.match(text, pos):
            return instruction.end()
        if instruction is None and head.startswith(b"<?") and size - pos <= MAX_TOKEN:
            return ~pos
        self._is_passing_through = True
        return size

    def _skip_to_end(self, text: bytes, pos: int, size: int) -> int:
        end = text.find(self._until, pos, size)
        if end < 0:  # a part of it may have arrived
            return ~max(pos, size - len(self._until) + 1)
        end, self._until = end + len(self._until), b""
        return end

    def _start_tag(self, text: bytes, pos: int, candidate: int, size: int) -> int:
        match = _TAG.match(text, pos, size)
        end = size if match is None else match.end()
        if end - pos > MAX_TOKEN:
            return self._begin_long_tag(text, pos)
        if match is None:
            return ~pos
        name = match[1].decode("utf-8", "replace")
        if candidate < end or name in {"type", "method"}:
            self._value(name, match, has_candidate=candidate < end)
        if text[end - 2] != _SLASH:
            self._open(name, pos)
        return end

    def _begin_long_tag(self, text: bytes, pos: int) -> int:
        match = _TAG_NAME.match(text, pos, pos + MAX_TOKEN)
        if match is None:
            self._is_passing_through = True
            return len(text)
        self._long, self._quote, self._slash = match[1].decode("utf-8", "replace"), b"", False
        return match.end()

    def _inside_long_tag(self, text: bytes, pos: int, size: int) -> int:
        if self._quote:
            end = text.find(self._quote, pos, size)
            if end >= 0:
                self._quote = b""
            return size if end < 0 else end + 1
        end = match_end(_BETWEEN_QUOTES, text, pos, size)
        if end > pos:
            self._slash = text[end - 1] == _SLASH
        if end >= size:
            return size
        mark = text[end : end + 1]
        if mark in b"\"'":
            self._quote = mark
        else:
            if not self._slash:
                self._open(self._long or "", end)
            self._long = None
        return end + 1

    def _open(self, name: str, pos: int) -> None:
        name = name if len(name) <= MAX_ELEMENT_NAME_LENGTH else "?"
        parent = self._elements[-1]
        if len(self._elements) > MAX_DEPTH:
            self._deep += 1
            return
        if name == "signature" and parent.is_resource and parent.scope is not None:
            self._observe(parent.scope, name, "", pos)
        if name[:1].isupper() and not parent.is_resource and opens_resource(parent.path):
            scope = self._scope(parent.scope)
            scope.observe_member("resourceType", name)
            self._elements.append(_Element((), scope, is_resource=True))
        else:
            inner = None if name == "div" else parent.scope
            self._elements.append(_Element((*parent.path, name), inner, is_resource=False))
            if self._elements[-1].path == ("entry",):
                self._open_entry(inner)

    def _close(self, pos: int) -> None:
        if self._deep:
            self._deep -= 1
        elif len(self._elements) > 1:
            element = self._elements.pop()
            if element.is_resource and element.scope is not None:
                self._close_scope(element.scope, pos)
            elif element.path == ("entry",):
                self._close_entry(element.scope, pos)

    def _value(self, name: str, tag: re.Match[bytes], *, has_candidate: bool) -> None:
        """Process a start tag with a host name, or the type of a Bundle or method of an entry."""
        parent = self._elements[-1]
        value = _VALUE.match(tag[0])
        edit = None
        if value is not None and parent.scope is not None and not self._deep:
            start = tag.start() + value.start(value.lastindex or 0)
            raw = value[value.lastindex or 0]
            if name == "type" and parent.is_resource:
                self._observe(parent.scope, name, self._unescape(raw), start)
            elif name == "method" and parent.path == ("entry", "request"):
                self._observe_method(parent.scope, self._unescape(raw), start)
            elif name in LISTED_KEYS:
                edit = self._edit(parent.scope, (*parent.path, name), start, raw)
        if has_candidate:
            self._replace_or_count(edit, tag[0])

    def _rewrite_patch(self, data: str) -> str:
        return rewrite_patch(data, self._swap)

    def _unescape(self, raw: bytes) -> str:
        text = raw.decode("utf-8", "surrogateescape")
        return _REFERENCE.sub(_character, text) if "&" in text else text

    def _replace_prefix(self, raw: bytes, length: int) -> tuple[bytes, int]:
        target = self._swap.target.text.replace("&", "&amp;").replace("'", "&apos;")
        return target.encode(), raw_length(raw.decode("latin-1"), length, _UNIT, "&")

    def _escape_like(self, raw: bytes, text: str) -> bytes | None:
        if not raw.isascii() and _WIDE_REFERENCE.search(raw):
            return None  # the encoding for that character is unknown
        for char, name in _ESCAPES:
            text = text.replace(char, name)
        if raw.isascii():
            return text.encode("ascii", "xmlcharrefreplace")
        return text.encode("utf-8", "surrogateescape")


def _character(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return _NAMED[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code < 0x110000 else match[0]
