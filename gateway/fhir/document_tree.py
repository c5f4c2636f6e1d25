"""Parses a FHIR body to a tree of names and texts, the same for JSON and XML.

The tree serves to examine a body, not to write it again: the order of members and the narrative are
lost. Numbers keep their text, because 1.10 is not 1.1 in FHIR.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from gateway import document_limits
from gateway.document_limits import exceeds_depth
from gateway.fhir.content_negotiation import media_type
from gateway.fhir.vocabulary import XML_NAMESPACE

# A text, or an element: a list of nodes for each name. A resource's type is under `resourceType`,
# in XML as well. The depth is limited, so that a recursive walk cannot fail.
Node = str | dict[str, list[Any]]
Element = dict[str, list[Any]]

_MAX_DEPTH: Final = 100


class BodyParseError(ValueError):
    """The body is not FHIR, or can be interpreted in more than one way."""


class BodyTooLargeError(BodyParseError):
    """The tree would take more memory than one tree may."""


def parse_body(
    body: bytes, content_type: str | None, *, sent: int | None = None, only_utf_8: bool = False
) -> Element:
    """Return the tree of a body. An array at the top (a JSON Patch) stands under the name "".

    `sent` is the number of bytes received, where `body` was compressed. With `only_utf_8`, XML is
    read in no other encoding, whatever it declares. Raises `BodyParseError`, also for a name that
    stands twice in one JSON object, and `BodyTooLargeError`.
    """
    kind = media_type(content_type)
    xml = kind.endswith("xml")
    if not xml and kind and not kind.endswith("json"):
        raise BodyParseError("neither JSON nor XML")
    max_bytes = document_limits.tree_limit(len(body) if sent is None else sent)
    if document_limits.exceeds_tree_limit(body, max_bytes, xml=xml):
        raise BodyTooLargeError("too much to be read as a whole")
    return _XmlReader(only_utf_8=only_utf_8).read(body) if xml else _read_json(body)


def walk_elements(node: Node) -> Iterator[Element]:
    """Yield the element and all elements within it, each before its children."""
    if isinstance(node, str):
        return
    yield node
    for children in node.values():
        for child in children:
            yield from walk_elements(child)


def first_text(node: Element, name: str) -> str:
    """Return the first text directly under a name, "" for none."""
    return next((child for child in node.get(name, ()) if isinstance(child, str)), "")


def child_elements(node: Element, name: str) -> list[Element]:
    """Return the elements directly under a name."""
    return [child for child in node.get(name, ()) if not isinstance(child, str)]


def contains_all_of(whole: Element, part: Element) -> bool:
    """Return whether all texts of the resource `part` stand in the resource `whole` too.

    At the top, the elements that servers write themselves (`id`, `meta`, narrative) are ignored.
    """
    ignored = {"id", "meta", "text"}
    part_leaves, whole_leaves = (
        Counter(
            _leaves({name: children for name, children in tree.items() if name not in ignored}, "")
        )
        for tree in (part, whole)
    )
    return not part_leaves - whole_leaves


def _leaves(node: Node, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield path, node
        return
    for name, children in node.items():
        if name == "div":
            continue
        for child in children:
            yield from _leaves(child, f"{path}.{name.removeprefix('_')}")


def _read_json(body: bytes) -> Element:
    try:
        document = json.loads(
            body.decode("utf-8-sig"),
            parse_int=str,
            parse_float=str,
            parse_constant=refuse,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError):
        raise BodyParseError("not JSON that could be read in one way only") from None
    # Twice the depth, because each element may stand in an array.
    if exceeds_depth(document, 2 * _MAX_DEPTH):
        raise BodyParseError("nested too deeply")
    return _element(document) if isinstance(document, dict) else {"": _values_of(document)}


def refuse(*_: object) -> NoReturn:
    """Refuse what a parser has found, before it goes on. Raises ValueError."""
    raise ValueError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _element(members: dict[str, Any]) -> Element:
    """Convert the object in place: two trees at once would take twice the memory."""
    for name, value in members.items():
        members[name] = _values_of(value)
    return members


def _values_of(value: Any) -> list[Any]:
    """Return a value as the list of nodes under a name; null gives none."""
    if isinstance(value, dict):
        return [_element(value)]
    if isinstance(value, list):
        return [node for item in value for node in _values_of(item)]
    if value is None:
        return []
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [value]


# The narrative is left out.
_NARRATIVE: Final = "http://www.w3.org/1999/xhtml div"
# The attributes of elements, beside `value` (FHIR R5 xml.html).
_OF_ELEMENT: Final = frozenset(("id",))
_OF_EXTENSION: Final = frozenset(("id", "url"))


class _XmlReader:
    """Parses one document. The tag of a resource within another one becomes its `resourceType`.

    Readers without namespaces would find other elements and attributes where FHIR has none, so that
    these are errors.
    """

    def __init__(self, *, only_utf_8: bool) -> None:
        self._root: Element | None = None
        # The open elements: name, attribute `value`, and content.
        self._open: list[tuple[str, str | None, Element]] = []
        self._skipped_depth = 0
        # Imported here because most callers never send XML.
        from xml.parsers import expat

        parser = expat.ParserCreate("utf-8" if only_utf_8 else None, " ")
        if only_utf_8:
            parser.XmlDeclHandler = _require_utf_8
        # FHIR forbids document types, and entities could expand a small body to a huge one.
        parser.StartDoctypeDeclHandler = refuse
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        self._parser = parser
        self._errors = (expat.ExpatError, LookupError, ValueError)
        self._only_utf_8 = only_utf_8

    def read(self, body: bytes) -> Element:
        """Return the tree of a document. Raises `BodyParseError`."""
        try:
            if self._only_utf_8 and "\0" in body.decode():
                raise ValueError  # expat would read UTF-16
            self._parser.Parse(body, True)
        except self._errors:
            raise BodyParseError("not FHIR XML") from None
        if self._root is None:
            raise BodyParseError("not FHIR XML")
        return self._root

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        namespace, _, name = tag.rpartition(" ")
        if self._skipped_depth or tag == _NARRATIVE:
            self._skipped_depth += 1
            return
        if namespace != XML_NAMESPACE or len(self._open) > _MAX_DEPTH:
            raise ValueError
        if not self._open:
            attributes = {}  # `xsi:schemaLocation`
        value = attributes.pop("value", None)
        if not attributes.keys() <= (
            _OF_EXTENSION if name in ("extension", "modifierExtension") else _OF_ELEMENT
        ):
            raise ValueError
        self._open.append((name, value, {key: [text] for key, text in attributes.items()}))

    def _end(self, _tag: str) -> None:
        if self._skipped_depth:
            self._skipped_depth -= 1
            return
        name, value, element = self._open.pop()
        parent = self._open[-1][2] if self._open else None
        if name[:1].isupper():
            if parent or "resourceType" in element:
                raise ValueError  # a resource beside other elements of its parent
            element["resourceType"] = [name]
            if parent is None:
                self._root = element
            else:
                # <resource><Patient>…: both are one element in JSON.
                parent.update(element)
        elif parent is not None:
            if value is not None:
                parent.setdefault(name, []).append(value)
            if value is None or element:
                key = name if value is None else f"_{name}"
                parent.setdefault(key, []).append(element)


def _require_utf_8(version: str, encoding: str | None, _standalone: int) -> None:
    # XML 1.1 has other white space and character references.
    if version != "1.0" or (encoding or "utf-8").lower() not in ("utf-8", "us-ascii"):
        raise ValueError
