"""Finds Bundle.type in the first bytes of a body, without parsing the rest.

The type decides what a caller may do, so the platform must not interpret the body differently: a
type is found only where a plain body has exactly one plain `type`. A parser that is more lenient
than RFC 8259 and XML 1.0 (comments, single quotes, the last of two members counts, no namespaces)
finds no other type in such a body.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Final

from gateway.fhir.json_text import masked
from gateway.fhir.vocabulary import XML_NAMESPACE

# One media type, in a charset that contains ASCII. A list of two media types does not match.
_CONTENT_TYPE: Final = re.compile(
    r"\s*+([^\s;,]*+)\s*+"
    r"(?>(?:;\s*+(?:charset\s*+=\s*+\"?(?:utf-?8|us-ascii)\"?\s*+|(?!charset)[^;,]*+))*)",
    re.IGNORECASE,
)


class AmbiguousBundleTypeError(Exception):
    """The body has a second `type`, or content that some parsers interpret differently."""


def new_bundle_type_scanner(content_type: str, start: bytes) -> BundleTypeScanner:
    """Return a scanner for a body that begins with `start`; the scanner has not read `start` yet.

    `content_type` decides between JSON and XML; where it names neither, the first byte does.
    Raises `AmbiguousBundleTypeError` for a charset other than UTF-8, and for two media types.
    """
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None:
        raise AmbiguousBundleTypeError
    media_type = match[1].lower()
    if "xml" in media_type or ("json" not in media_type and start.lstrip()[:1] == b"<"):
        return _XmlScanner()
    return _JsonScanner()


_BOM: Final = b"\xef\xbb\xbf"
_DEPTH_STEP: Final = {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}
_SPACE: Final = b" \t\r\n"
# All octets of JSON outside strings. An unquoted `type`, single quotes and comments, which lenient
# dialects allow, contain others.
_PLAIN: Final = _SPACE + b",:{}[]0123456789+-.eEtrufalsn"
_NO_BRACKETS: Final = bytes(set(_PLAIN) - set(_DEPTH_STEP))
_TYPE_KEY: Final = b"type"
# Neither `type` nor its values are longer, even if fully escaped.
_MAX_STRING_BYTES: Final = 256


class _JsonScanner:
    def __init__(self) -> None:
        self.bundle_type: str | None = None
        self._rest = b""  # a string whose end has not arrived
        self._is_fresh = True
        self._depth = 0
        self._is_over = False  # the outermost object is closed
        self._last = b""  # the last octet outside strings that is not white space
        self._is_known = False  # a `type` was found
        self._is_due = False  # the value of `type` comes next

    def feed(self, data: bytes) -> None:
        text = self._rest + data
        if self._is_fresh:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return
            self._is_fresh, text = False, text.removeprefix(_BOM)
        parts = masked(text).split(b'"')  # those with an odd index are strings
        self._rest = b"" if len(parts) % 2 else _shortened(text, parts.pop())
        done = 0
        for index in self._relevant_string_indexes(parts):
            self._between(b"".join(parts[done:index:2]))
            self._string(parts[index])
            done = index + 1
        self._between(b"".join(parts[done::2]))

    def _relevant_string_indexes(self, parts: list[bytes]) -> list[int]:
        """Return the indexes of strings that may be the key `type`, and of those after them."""
        strings = range(1, len(parts), 2)
        found = {i for i in strings if len(parts[i]) == len(_TYPE_KEY) or b"\\" in parts[i]}
        found |= {index + 2 for index in found if index + 2 < len(parts)}
        if self._is_due and len(parts) > 1:
            found.add(1)
        return sorted(found)

    def _between(self, text: bytes) -> None:
        """Check the text between two strings; that between several skipped strings is joined."""
        plain = text.translate(None, _SPACE)
        if plain.translate(None, _PLAIN) or (self._is_due and plain not in (b"", b":")):
            raise AmbiguousBundleTypeError
        brackets = plain.translate(None, _NO_BRACKETS)
        if brackets:
            if self._is_over or (self._depth == 0 and brackets[:1] != b"{"):
                raise AmbiguousBundleTypeError
            depths = list(accumulate(map(_DEPTH_STEP.__getitem__, brackets), initial=self._depth))
            if 0 in depths[1:-1]:
                raise AmbiguousBundleTypeError
            self._depth = depths[-1]
            self._is_over = self._depth == 0
        self._last = plain[-1:] or self._last

    def _string(self, raw: bytes) -> None:
        if self._is_due:
            if self._last != b":":
                raise AmbiguousBundleTypeError
            self._is_due, self.bundle_type = False, _unquoted(raw)
        elif self._depth == 1 and self._last in (b"{", b","):
            key = _unquoted(raw)
            if key.lower() == "type":
                if self._is_known or key != "type":  # some parsers ignore case
                    raise AmbiguousBundleTypeError
                self._is_known = self._is_due = True


def _shortened(text: bytes, last: bytes) -> bytes:
    """Return the unfinished string at the end of `text`, of which `last` is the masked content.

    A long one is replaced by a short one that ends in half an escape sequence if the string does.
    """
    if len(last) <= _MAX_STRING_BYTES:
        return text[-len(last) - 1 :]
    return b'"shortened' + b"\\" * last.endswith(b"\\")


def _unquoted(raw: bytes) -> str:
    try:
        return str(json.loads(b'"' + raw + b'"'))
    except ValueError:
        raise AmbiguousBundleTypeError from None


class _XmlScanner:
    def __init__(self) -> None:
        self.bundle_type: str | None = None
        self._depth = 0
        self._is_known = False
        # Imported here because most callers never send XML.
        from xml.parsers import expat

        # The handlers read only names and attributes. A document type declaration ends the parsing
        # before any entity is processed.
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._errors = (expat.ExpatError, ValueError, LookupError)
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse

    def feed(self, data: bytes) -> None:
        try:
            self._parser.Parse(data, False)
        except self._errors:
            raise AmbiguousBundleTypeError from None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        namespace, _, local = name.rpartition(" ")
        if self._depth == 1 and namespace != XML_NAMESPACE:
            raise AmbiguousBundleTypeError
        if self._depth != 2 or local.lower() != "type":
            return
        if self._is_known or name != f"{XML_NAMESPACE} type":
            raise AmbiguousBundleTypeError
        self._is_known = True
        values = [
            attribute for attribute in attributes if attribute.rpartition(" ")[2].lower() == "value"
        ]
        if values != ["value"]:
            raise AmbiguousBundleTypeError
        self.bundle_type = attributes["value"]

    def _end(self, name: str) -> None:
        self._depth -= 1


def _refuse(*declaration: object) -> None:
    raise AmbiguousBundleTypeError


BundleTypeScanner = _JsonScanner | _XmlScanner
"""Scans a Bundle as it streams by; `bundle_type` is None until the value of `type` is found.

`feed` takes the next chunk, and raises `AmbiguousBundleTypeError`.
"""
