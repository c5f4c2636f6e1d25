"""A slow model of link rewriting: the body is parsed as a whole and examined element by element.

It imports nothing from `gateway.fhir`: URLs, elements and signed parts are defined here a second
time, from the same rules (FHIR R5), so that the rewriter can be compared with
it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.parsers import expat

Edit = tuple[int, int, bytes]

_UNIT = {
    "json": re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|.", re.S),
    "xml": re.compile(r"&[^;]*;|.", re.S),
}
_ATTACHMENT = {
    *("attachment", "content", "document", "file", "form", "formatted", "image", "photo"),
    "presentedForm",
}
_NO_REFERENCE = {"applicability", "criteria", "expression", "storageGuideline", "statement"}
_LISTED = {
    "Bundle": {
        *("link.url", "entry.link.url", "entry.fullUrl", "entry.request.url"),
        "entry.response.location",
    },
    "CapabilityStatement": {"implementation.url"},
    "TerminologyCapabilities": {"implementation.url"},
    "ValueSet": {"expansion.next"},
    None: {"link.url", "output.url", "error.url", "deleted.url", "request"},
}


@dataclass
class Text:
    """A string: the offsets of its octets between the quotes, and its value."""

    start: int
    end: int
    value: str


@dataclass
class Element:
    """An object (or XML element) with its members in order, each name with each value."""

    members: list[tuple[str, object]] = field(default_factory=list)

    def first(self, name: str) -> str | None:
        return next((v.value for n, v in self.members if n == name and isinstance(v, Text)), None)


class _Json:
    """Parses JSON (RFC 8259) with offsets."""

    def __init__(self, body: bytes) -> None:
        self._text = body.decode("latin-1")
        self._at = 3 if body.startswith(b"\xef\xbb\xbf") else 0

    def value(self) -> object:
        self._blank()
        char = self._text[self._at]
        if char == '"':
            return self._string()
        if char == "[":
            return list(self._items("]", self.value))
        if char == "{":
            return Element(list(self._items("}", self._member)))
        found = re.compile(r"[^\s,\]}]+").match(self._text, self._at)
        self._at = found.end()
        return json.loads(found.group())

    def _items(self, end, read) -> Iterator:
        self._at += 1
        self._blank()
        while self._text[self._at] != end:
            yield read()
            self._blank()
            if self._text[self._at] == ",":
                self._at += 1
                self._blank()
        self._at += 1

    def _member(self) -> tuple[str, object]:
        name = self._string().value
        self._blank()
        self._at += 1  # the colon
        return name, self.value()

    def _string(self) -> Text:
        start = self._at = self._at + 1
        while self._text[self._at] != '"':
            self._at += 1 + (self._text[self._at] == "\\")
        self._at += 1
        raw = self._text[start : self._at - 1].encode("latin-1").decode("utf-8", "surrogateescape")
        return Text(start, self._at - 1, json.loads(f'"{raw}"', strict=False))

    def _blank(self) -> None:
        while self._text[self._at : self._at + 1] in {" ", "\t", "\r", "\n"}:
            self._at += 1


def _xml_tree(body: bytes) -> tuple[str, Element] | None:
    """Return the root's name and element; None for what FHIR does not allow."""
    stack: list[tuple[str, Element]] = [("", Element())]
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        at, local = parser.CurrentByteIndex, name.rpartition(":")[2]
        tag = body[at : _tag_end(body, at)]
        found = re.search(rb"\svalue\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", tag)
        if found is not None:
            first, last = found.span(found.lastindex)
            text = Text(at + first, at + last, attributes["value"])
            stack[-1][1].members.append((local, text))
        else:
            attributes.clear()
        stack.append((local, Element()))
        stack[-2][1].members.append((local, stack[-1][1]))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: stack.pop()
    parser.StartDoctypeDeclHandler = lambda *all_: stack.clear()
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, IndexError):
        return None
    name, root = stack[0][1].members[-1]
    return (name, root) if isinstance(root, Element) and name[:1].isupper() else None


def _tag_end(body: bytes, at: int) -> int:
    quote = None
    while body[at : at + 1] != b">" or quote:
        char = body[at : at + 1]
        if quote is None and char in {b'"', b"'"}:
            quote = char
        elif char == quote:
            quote = None
        at += 1
    return at + 1


class Oracle:
    """Rewrites bodies for one pair of bases; the first of `sources` is the usual one."""

    def __init__(self, sources: tuple[str, ...], target: str, *, to_platform: bool) -> None:
        self._sources = sorted(map(_taken_apart, sources), key=lambda base: -len(base[2]))
        self._target = target
        self._to_platform = to_platform
        self._format = "json"
        self._raw = b""
        self._edits: list[Edit] = []
        self._left = 0
        self._depth = 0  # resources around the current element, itself included
        self._method: str | None = None  # of the current entry of the outermost Bundle

    def json(self, body: bytes) -> tuple[bytes, int, int]:
        """Return the rewritten body, and how many URLs change and how many stay."""
        self._format = "json"
        root = _Json(body).value()
        values = root if isinstance(root, list) else [root]
        return self._all(body, [(value, None) for value in values])

    def patch(self, body: bytes) -> bytes:
        """Return the rewritten body of a JSON Patch."""
        self._raw, self._edits, self._depth = body, [], 1
        for operation in _Json(body).value():
            pointer = (operation.first("path") or "").split("/")[1:]
            path = tuple(name for name in pointer if not name.isdigit() and name != "-")
            for name, value in operation.members:
                if name == "value" and path:
                    self._value(value, "(patched)", path, unchanged=False)
        return self._joined(body)

    def xml(self, body: bytes) -> bytes:
        """Return the rewritten body of XML."""
        self._format = "xml"
        root = _xml_tree(body)
        return self._all(body, [] if root is None else [(root[1], root[0])])[0]

    def _all(self, body: bytes, roots: list[tuple[object, str | None]]) -> tuple[bytes, int, int]:
        self._raw, self._edits, self._left, self._depth = body, [], 0, 0
        for value, name in roots:
            self._resource(value, name, unchanged=False)
        return self._joined(body), len(self._edits), self._left

    def _joined(self, body: bytes) -> bytes:
        parts, done = [], 0
        for start, end, new in sorted(self._edits):
            parts += [body[done:start], new]
            done = end
        return b"".join((*parts, body[done:]))

    def _resource(self, value: object, name: str | None, *, unchanged: bool) -> None:
        """Rewrite a resource; `kept`: a resource around it stays unchanged."""
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, list):
                self._resource(each, name, unchanged=unchanged)
            elif isinstance(each, Element):
                kind = name if self._format == "xml" else each.first("resourceType")
                self._depth += 1
                self._members(each, kind, (), unchanged=unchanged or _stays(each, kind))
                self._depth -= 1
            else:
                self._text(each, kind=None, path=("",), unchanged=True)

    def _members(self, element: Element, kind: str | None, path: tuple, *, unchanged: bool) -> None:
        for name, value in element.members:
            if self._format == "xml" and name == "div":
                continue
            if self._format == "xml" and _holds_resource(path) and isinstance(value, Element):
                self._resource(value, name, unchanged=unchanged)
            else:
                self._value(value, kind, (*path, name), unchanged=unchanged)

    def _value(self, value: object, kind: str | None, path: tuple, *, unchanged: bool) -> None:
        if isinstance(value, list):
            for each in value:
                if isinstance(each, Text):
                    # Only the arguments of `$graphql` may be lists of strings.
                    self._text(each, kind, path, unchanged=unchanged or path[0] != "variables")
                else:
                    self._value(each, kind, path, unchanged=unchanged)
        elif isinstance(value, Element):
            if self._format == "json" and _holds_resource(path):
                self._resource(value, None, unchanged=unchanged)
            else:
                if path == ("entry",) and self._depth == 1:
                    requests = [each for name, each in value.members if name == "request"]
                    self._method = requests[0].first("method") if requests else None
                self._members(value, kind, path, unchanged=unchanged)
        else:
            self._text(value, kind, path, unchanged=unchanged)

    def _text(self, text: object, kind: str | None, path: tuple, *, unchanged: bool) -> None:
        if not isinstance(text, Text):
            return
        new = self._changed(text, kind, path)
        if new is not None and not unchanged:
            self._edits.append((text.start, text.end, new))
            return
        urls = re.finditer(r"(?i)https?://[^\s\"'<>]+", text.value)
        would_change = path[0] != "data" and self._in_form(text.value, path) not in {
            None,
            text.value,
        }
        self._left += would_change or any(self._length(m.group()) for m in urls)

    def _in_form(self, text: str, path: tuple) -> str | None:
        """Return what becomes of a text that is no mere URL; None for any other."""
        dotted = ".".join(path)
        if dotted == "criteria" and "?" in text:
            return self._url_and_query(text)
        if dotted == "filterBy.value":
            return self._words(text)
        if not self._to_platform:
            return None
        if dotted == "entry.request.ifNoneExist":
            return self._query(text)
        if dotted == "entry.request.url" and "?" in text:
            return self._url_and_query(text)
        if dotted == "query" or (path[0] == "variables" and len(path) < 3):
            return self._words(text)
        if dotted == "data" and self._depth == 2:
            return self._patched(text)
        return None

    def _patched(self, data: str) -> str:
        other = object.__new__(Oracle)
        other.__dict__ = {**self.__dict__, "_format": "json"}
        try:
            patch = base64.b64decode(data)
            return base64.b64encode(other.patch(patch)).decode()
        except (ValueError, LookupError, AttributeError):
            return data

    def _changed(self, text: Text, kind: str | None, path: tuple) -> bytes | None:
        raw = self._raw[text.start : text.end]
        new = self._in_form(text.value, path)
        if new is not None:
            owners = {"criteria": "Subscription", "filterBy": "Subscription", "entry": "Bundle"}
            owners["data"] = "Binary" if self._method == "PATCH" else "no type"
            fits = kind == owners.get(path[0])
            return self._written(new, raw) if fits and new != text.value else None
        length = self._length(text.value)
        if not length or not self._is_link(kind, path, text.value[length:]):
            return None
        source = raw.decode("latin-1")
        cut = sum(len(m.group()) for m in _first(_UNIT[self._format].finditer(source), length))
        slash = re.search(r"\\u002[fF]|\\/", source[:cut]) if self._format == "json" else None
        target = self._target.replace("/", slash.group() if slash else "/")
        return target.encode() + raw[cut:]

    def _is_link(self, kind: str | None, path: tuple, rest: str) -> bool:
        if any(re.fullmatch(r"signature|\w+Signature", name) for name in path):
            return False
        last, parent = path[-1], path[-2] if len(path) > 1 else ""
        if last == "reference":
            expression = parent in _NO_REFERENCE or parent.endswith("Expression")
            expression = expression or (parent == "condition" and len(path) != 2)
            return bool(parent) and not expression and len(rest) > 1 and rest[0] == "/"
        if ".".join(path) in _LISTED.get(kind, ()):
            return True
        if last == "url" and (parent in _ATTACHMENT or parent.endswith("Attachment")):
            return True
        inside = path[0] == "parameter" and set(path[1:-1]) <= {"part"}
        if kind != "Parameters" or not inside:
            return False
        strings = last == "valueString" and len(path) > 2 and self._to_platform
        id_ = r"[A-Za-z0-9\-.]{1,64}"
        named = rf"/[A-Z][A-Za-z]+(/{id_}(/_history/{id_})?(#.*)?|\?.*)"
        return last in {"valueUrl", "valueUri"} or (strings and bool(re.fullmatch(named, rest)))

    def _length(self, url: str) -> int:
        """Return the length of the base that the URL is under, 0 without one."""
        found = re.match(
            r"(?i)(https?)://(\[[0-9a-f:.]+\]|[^/?#:\s\\@\[\]]+)(:\d*)?(?=[/?#]|$)", url
        )
        if found is None:
            return 0
        path = url[found.end() :]
        for source in self._sources:
            rest = path.removeprefix(source[2])
            fits = path.startswith(source[2]) and rest[:1] in {"", "/", "?", "#"}
            if fits and _origin(found) == source[:2] and _is_safe(path):
                return found.end() + len(source[2])
        return 0

    def _words(self, text: str) -> str:
        borders = r'([\s",(=?&+]|%0[9AaDd]|%2[0268BCbc]|%3[DFdf])'
        return "".join(map(self._part, re.split(borders, text)))

    def _query(self, query: str, texts: frozenset = frozenset({"_filter", "criteria"})) -> str:
        pairs = []
        for pair in query.split("&"):
            name, equals, value = pair.partition("=")
            if unquote(name) in texts:
                pairs.append(name + equals + self._words(value))
                continue
            parts = re.split(r"(,|%2[Cc])", value)
            pairs.append(name + equals + "".join(map(self._part, parts)))
        return "&".join(pairs)

    def _part(self, part: str) -> str:
        text = unquote(part, encoding="latin-1")
        length = 0 if "|" in text else self._length(text)
        if not length:
            return part
        units = _first(re.finditer(r"(?s)%[0-9A-Fa-f]{2}|.", part), length)
        front = "".join(m.group() for m in units)
        target = self._target
        for char, code in ((":", "%3[aA]"), ("/", "%2[fF]")):
            found = re.search(code, front)
            target = target.replace(char, found.group()) if found else target
        return target + part[len(front) :]

    def _url_and_query(self, url: str) -> str:
        head, mark, query = url.partition("?")
        length = self._length(head)
        texts = {"_filter", "criteria"}
        if unquote(head).endswith("$graphql"):
            texts |= {"query", "variables"}
        query = self._query(query, frozenset(texts))
        return (self._target + head[length:] if length else head) + mark + query

    def _written(self, text: str, raw: bytes) -> bytes:
        if self._format == "xml":
            for char, name in (
                ("&", "amp"),
                ("<", "lt"),
                (">", "gt"),
                ('"', "quot"),
                ("'", "apos"),
            ):
                text = text.replace(char, f"&{name};")
            return text.encode("ascii", "xmlcharrefreplace") if raw.isascii() else text.encode()
        new = json.dumps(text, ensure_ascii=raw.isascii())[1:-1]
        return (new.replace("/", "\\/") if b"\\/" in raw else new).encode()


def _first(found: Iterator, number: int) -> list:
    return [each for each, _ in zip(found, range(number), strict=False)]


def _taken_apart(base: str) -> tuple[str, str, str]:
    found = re.match(r"(?i)(https?)://([^/:\[\]]+|\[[^\]]*\])(:\d*)?", base)
    return (*_origin(found), base[found.end() :].rstrip("/"))


def _origin(found: re.Match) -> tuple[str, str]:
    scheme, host, port = found.group(1, 2, 3)
    default = {"http": ":80", "https": ":443"}[scheme.lower()]
    number = ":" + str(int(port[1:])) if port and port != ":" else ""
    return host.lower(), "" if number == default else number


def _is_safe(path: str) -> bool:
    """Return whether the path stays below its base: no dot segments, backslashes or blanks."""
    path = re.split("[?#]", path)[0]
    dots = any(unquote(segment) in {".", ".."} for segment in path.split("/")[1:])
    return not dots and not re.search(r"[\\\x00-\x20\x7f]", path)


def _stays(element: Element, kind: str | None) -> bool:
    """Return whether the resource is a document, signed, or an OperationOutcome."""
    signed = any(name == "signature" for name, _ in element.members)
    if kind == "Bundle":
        return signed or element.first("type") == "document"
    return kind == "OperationOutcome" or (signed and kind in {"Provenance", None})


def _holds_resource(path: tuple) -> bool:
    if not path or path in {("entry", "resource"), ("entry", "response", "outcome"), ("issues",)}:
        return bool(path)
    inside = path[0] == "parameter" and set(path[1:-1]) <= {"part"}
    return path[-1] == "contained" or (path[-1] == "resource" and inside and len(path) > 1)
