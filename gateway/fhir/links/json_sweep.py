"""Rewrites the URLs in buffered JSON without following its structure.

Each position of a host name is examined separately: the string around it, the member name before
the string and, where that does not decide, the object around it. The spelling of the text (blanks,
order of members, escaped slashes) makes no difference. Where the decision depends on more, this
module raises, and `gateway.fhir.links.json_rewriter` follows the structure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.fhir.links.json_text import masked, needles, replace_prefix, unescape
from gateway.fhir.links.map import BaseReplacement
from gateway.fhir.links.rules import (
    MAX_ELEMENT_NAME_LENGTH,
    holds_attachment,
    is_plain_reference,
    names_resource,
)

MAX_STRING_BYTES: Final = 64 * 1024
"""Bytes: a longer string holds no URL to be rewritten."""

# Bytes. The beginning of an object is searched no further away.
_MAX_OPENING_DISTANCE: Final = 8 * 1024
_BLANKS: Final = b" \t\r\n"
_COLONS: Final = (b":", b": ", b" : ")  # the spellings of nearly all servers
# From an element's name to its object, or to the first object in its array; without blanks.
_LEADS: Final = frozenset({b":", b":["})
_OPENINGS: Final = frozenset({b":{", b":[{"})
_NEAR: Final = 96  # bytes that hold both in most cases
_WITH_NAME: Final = 3
_COLON: Final = re.compile(rb"\s*+:")
# Text due to which the resource around an element, or the full path to it, matters.
_SIGNATURE: Final = b'ignature"'
_OUTCOME: Final = b'OperationOutcome"'
_DOCUMENT: Final = re.compile(rb'"type"\s*+:\s*+"document"')
# The rest of a URL and the quote after it, if nothing in it needs a closer check.
_REST: Final = re.compile(
    rb"(?>(?:\\?/[^\"\\%/?#\x00-\x20\x7f.][^\"\\%/?#\x00-\x20\x7f]*+)*)(?>(?:[?#][^\"\\]*+)?)\""
)
_SLASHES: Final = (b"/", b"\\/")
_OBJECT: Final = 0x7B
_COLON_BYTE: Final = 0x3A

# Members that identify an object with a link, by the names of the element and of the member that is
# the link: no other element of FHIR has both.
_SIBLINGS: Final = {
    (b"link", b"url"): b'"relation"',
    (b"request", b"url"): b'"method"',
    (b"response", b"location"): b'"status"',
}
# Elements and members that are links only in some resources.
_UNCERTAIN: Final = frozenset(
    {
        *[(name, b"url") for name in (b"implementation", b"output", b"error", b"deleted")],
        *[(name, b"valueUrl") for name in (b"parameter", b"part")],
        *[(name, b"valueUri") for name in (b"parameter", b"part")],
        *[(b"part", b"valueString"), (b"request", b"ifNoneExist"), (b"", b"request")],
        (b"expansion", b"next"),
    }
)
_NAMES: Final = frozenset({name for _, name in (*_SIBLINGS, *_UNCERTAIN)})
# From one Reference of an array to the next.
_NEXT: Final = re.compile(rb'[^"\\]*+"\s*+\}\s*+,\s*+\{\s*+')
_FULL_URL: Final = b'"f'
_PLACEHOLDER: Final = b"\x00"  # does not occur in JSON
_ESCAPED: Final = b":\\/"
# The names of members whose values are resources, b"" being the root of the text.
_AROUND_RESOURCES: Final = frozenset({b"", b"resource", b"contained", b"issues", b"outcome"})


class StructureNeededError(Exception):
    """The fast path cannot decide: the structure has to be followed."""


class JsonFastPath:
    """One pass over JSON that is one complete resource, or entries of a Bundle (`in_bundle`).

    Raises `StructureNeededError`. `chunks` are the rewritten text; `rewritten` counts the URLs
    replaced, `unrewritten` the strings with a URL under the bases that stay unchanged.
    """

    __slots__ = (
        *("_in_bundle", "_mark", "_masked", "_swap", "_text", "unrewritten", "chunks", "rewritten"),
    )

    def __init__(self, text: bytes, swap: BaseReplacement, *, in_bundle: bool = False) -> None:
        self._text = text
        self._swap = swap
        self._in_bundle = in_bundle or b'"Bundle"' in text
        self._mark = 0  # the text before this index is in `chunks`
        self.chunks: list[bytes] = []
        self.rewritten = 0
        self.unrewritten = 0
        if needs_structure(text) or needles(swap).has_obscuring_escape(text):
            raise StructureNeededError
        if self._in_bundle and _PLACEHOLDER not in text:
            source, target = swap.plain[_ESCAPED in text]
            # A target that holds a host would be found again, so that a placeholder is inserted.
            self._take_usual(source, target if swap.is_unambiguous else _PLACEHOLDER)
            self._take_others()
            if not swap.is_unambiguous:
                self.chunks = [b"".join(self.chunks).replace(_PLACEHOLDER, target)]
        else:
            self._take_others()

    def _take_usual(self, source: bytes, target: bytes) -> None:
        """Replace URLs in the usual spelling whose member name alone makes them links."""
        parts = _usual(source).split(self._text)
        is_link = False
        for number in range(1, len(parts), 2):  # the names; even numbers are the text between
            if parts[number].startswith(_FULL_URL):
                is_link = True
            else:
                before = parts[number - 1]
                near = before[-_NEAR:].rsplit(b'"', 2)
                if len(near) == _WITH_NAME and near[2].translate(None, _BLANKS) in _OPENINGS:
                    is_link = _holds_reference(near[1]) is True
                elif _NEXT.fullmatch(before) is None:  # the next in an array is like the one before
                    is_link = _leads_to_reference(before[-_NEAR:])
            parts[number] += target if is_link else source
            self.rewritten += is_link
        self._text = b"".join(parts)

    def _take_others(self) -> None:
        """Examine each remaining position of a host name separately."""
        positions = needles(self._swap).positions(self._text)
        self._masked = masked(self._text)
        done = 0
        for position in positions[:-1]:
            if position >= done:
                done = self._inspect_string(position)
        self.chunks.append(self._text[self._mark :] if self._mark else self._text)

    def _inspect_string(self, position: int) -> int:
        """Process the string around a host name; return the position after it."""
        text = self._masked
        quote = text.rfind(b'"', 0, position)
        parts = text[quote - _NEAR if quote > _NEAR else 0 : quote].rsplit(b'"', 2)
        colon = parts[-1]
        if colon not in _COLONS and colon.strip(_BLANKS) != b":":
            return self._skip_string(quote, position)
        if len(parts) < _WITH_NAME:
            raise StructureNeededError
        name = parts[-2]
        key = quote - len(colon) - len(name) - 2
        if name == b"reference":
            if self._is_reference(key):
                return self._link(quote, position, is_reference=True)
        elif name == b"fullUrl":
            if not self._in_bundle:
                raise StructureNeededError
            return self._link(quote, position, is_reference=False)
        elif name in _NAMES and self._is_link(name, key, quote, position):
            return self._link(quote, position, is_reference=False)
        return self._skip_string(quote, position)

    def _link(self, quote: int, position: int, *, is_reference: bool) -> int:
        """Process a string that is a link if it is a URL; return the position after it."""
        text = self._text
        for source, target in self._swap.plain:
            end = quote + 1 + len(source)
            if text.startswith(source, quote + 1):
                rest = _REST.match(text, end)
                usual = rest is not None and rest.end() - quote <= MAX_STRING_BYTES
                if (
                    rest is not None
                    and usual
                    and (not is_reference or text.startswith(_SLASHES, end))
                ):
                    self._replace(quote + 1, end, target)
                    return rest.end()
        end = self._end(position)
        raw = text[quote + 1 : end]
        value = unescape(raw)
        length = self._swap.prefix_length(value) if len(raw) <= MAX_STRING_BYTES else None
        if length is None or (is_reference and not names_resource(value[length:])):
            return self._skip_string(quote, position)
        head, cut = replace_prefix(raw, length, self._swap.target.text)
        self._replace(quote + 1, quote + 1 + cut, head)
        return end + 1

    def _replace(self, start: int, end: int, new: bytes) -> None:
        self.chunks.append(self._text[self._mark : start])
        self.chunks.append(new)
        self._mark = end
        self.rewritten += 1

    def _skip_string(self, quote: int, position: int) -> int:
        """Leave a string or a member name unchanged; return the position after it."""
        end = self._end(position)
        is_short = end - quote - 1 <= MAX_STRING_BYTES
        if is_short and _COLON.match(self._masked, end + 1) is None:
            self.unrewritten += self._swap.occurs_in(unescape(self._text[quote + 1 : end]))
        return end + 1

    def _end(self, position: int) -> int:
        end = self._masked.find(b'"', position)
        if end < 0:
            raise StructureNeededError
        return end

    def _is_reference(self, key: int) -> bool:
        """Return whether the member `reference` at `key` belongs to a Reference."""
        is_reference = _holds_reference(self._around(key)[0])
        if is_reference is None:
            raise StructureNeededError
        return is_reference

    def _is_link(self, name: bytes, key: int, quote: int, position: int) -> bool:
        """Return whether a member whose name alone does not decide is a link."""
        parent, opening = self._around(key)
        if (parent, name) in _UNCERTAIN:
            raise StructureNeededError
        sibling = _SIBLINGS.get((parent, name))
        if sibling is None:
            return name == b"url" and holds_attachment(parent.decode("utf-8", "replace"))
        end = self._end(position)
        closing = self._masked.find(b"}", end)
        is_query = self._swap.is_request and parent == b"request" and b"?" in self._text[quote:end]
        if is_query or not self._in_bundle or sibling not in self._masked[opening:closing]:
            raise StructureNeededError
        return True

    def _around(self, key: int) -> tuple[bytes, int]:
        """Return the name of the element around a member, empty at the root, and where it begins.

        The usual spelling is recognised without going through the brackets.
        """
        return _enclosing_name(self._masked, key) or self._found_around(key)

    def _found_around(self, key: int) -> tuple[bytes, int]:
        """Return the same, found by going back from bracket to bracket."""
        start = max(0, key - _MAX_OPENING_DISTANCE)
        parts = self._masked[start:key].split(b'"')
        closed = 0
        opening = -1
        at = key
        for number in range(len(parts) - 1, -1, -2):  # every other part is a string
            part = parts[number]
            for index in range(len(part) - 1, -1, -1):
                byte = part[index]
                if byte in b"}]":
                    closed += 1
                elif byte in b"{[" and closed:
                    closed -= 1
                elif byte == _OBJECT and opening < 0:
                    opening = at - len(part) + index
                elif byte == _COLON_BYTE and opening >= 0 and not closed:
                    return parts[number - 1], opening
                elif byte in b"{[" and opening < 0:
                    raise StructureNeededError
            at -= len(part) + 1 + (len(parts[number - 1]) + 1 if number else 0)
        if start or opening < 0:
            raise StructureNeededError
        return b"", opening


def needs_structure(text: bytes) -> bool:
    """Return whether the structure of the text matters: a signature, an outcome, a document."""
    if _SIGNATURE in text or _OUTCOME in text:
        return True
    return b'"document"' in text and _DOCUMENT.search(text) is not None


@lru_cache(maxsize=64)
def _usual(source: bytes) -> re.Pattern[bytes]:
    """Return the pattern of a `fullUrl` or `reference` with a URL under that base."""
    return re.compile(
        rb'("(?:fullUrl|reference)"\s*+:\s*+")'
        + re.escape(source)
        + rb'(?=(?>(?:\\?/[^"\\%/?#\x00-\x20\x7f.][^"\\%/?#\x00-\x20\x7f]{0,255}+){1,40})'
        rb'(?>(?:[?#][^"\\]{0,4000}+)?)")'
    )


def _enclosing_name(text: bytes, key: int) -> tuple[bytes, int] | None:
    """Return the result of `JsonFastPath._around` for the usual spelling, None for any other."""
    opening = text.rfind(b"{", 0, key)
    between = text[opening + 1 : key]
    end = text.rfind(b'"', 0, max(opening, 0))
    start = text.rfind(b'"', 0, max(end, 0)) + 1
    if not start or b"}" in between or b"]" in between or between.count(b'"') % 2:
        return None
    if text[end + 1 : opening].translate(None, _BLANKS) not in _LEADS:
        return None
    return text[start:end], opening


def _leads_to_reference(near: bytes) -> bool:
    """Return whether the object in which `near` ends is certainly a Reference."""
    enclosing = _enclosing_name(near, len(near))
    return enclosing is not None and _holds_reference(enclosing[0]) is True


@lru_cache(maxsize=1024)
def _holds_reference(parent: bytes) -> bool | None:
    """Return whether `reference` in an element of that name is a Reference's; None: it depends."""
    if parent == b"condition" or parent in _AROUND_RESOURCES or b"\\" in parent:
        return None
    return len(parent) > MAX_ELEMENT_NAME_LENGTH or is_plain_reference(
        parent.decode("utf-8", "replace")
    )
