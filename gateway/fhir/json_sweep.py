"""Rewrites the URLs in JSON that is at hand, without following its structure.

Each place where a host stands is looked at by itself: the string around it, the member's name in
front and, where that does not tell enough, the object around it. How the text is spelled (blanks,
order of members, escaped slashes) makes no difference. What depends on more than that is in doubt:
then `gateway.fhir.json_links` follows the structure.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.fhir.json_text import front, masked, needles, unescape
from gateway.fhir.link_map import Swap
from gateway.fhir.link_rules import holds_attachment, is_plain_reference, names_resource

LONGEST_STRING: Final = 64 * 1024
"""Bytes: a longer one holds no URL to be rewritten."""

_REACH: Final = 8 * 1024  # bytes; where an object begins further away than that is not searched
_BLANKS: Final = b" \t\r\n"
_COLONS: Final = (b":", b": ", b" : ")  # as nearly all are written
_COLON: Final = re.compile(rb"\s*+:")
# What makes the resource around an element matter, or the whole path to it.
_SIGNATURE: Final = b'ignature"'
_OUTCOME: Final = b'OperationOutcome"'
_DOCUMENT: Final = re.compile(rb'"type"\s*+:\s*+"document"')
# The rest of a URL and the quote behind it, if nothing in it has to be looked at twice.
_REST: Final = re.compile(
    rb"(?:\\?/[^\"\\%/?#\x00-\x20\x7f.][^\"\\%/?#\x00-\x20\x7f]*+)*+(?:[?#][^\"\\]*+)?+\""
)
_SLASHES: Final = (b"/", b"\\/")
_OBJECT: Final = 0x7B
_COLON_BYTE: Final = 0x3A

# Members of a link's object that tell what it is, by the element's name and the member that is the
# link: no other element of FHIR has both.
_SIBLINGS: Final = {
    ("link", b"url"): b'"relation"',
    ("request", b"url"): b'"method"',
    ("response", b"location"): b'"status"',
}
# Elements that hold links only in some resources.
_UNCERTAIN: Final = frozenset(
    {
        *[(name, b"url") for name in ("implementation", "output", "error", "deleted")],
        *[(name, b"valueUrl") for name in ("parameter", "part")],
        *[(name, b"valueUri") for name in ("parameter", "part")],
        *[("part", b"valueString"), ("request", b"ifNoneExist"), ("", b"request")],
        ("expansion", b"next"),
    }
)
_NAMES: Final = frozenset({name for _, name in (*_SIBLINGS, *_UNCERTAIN)})
# How names end in which `reference` is not surely a Reference's.
_NO_REFERENCES: Final = (
    *(b'"applicability', b'"criteria', b'"condition', b'"statement', b'"storageGuideline'),
    *(b'"resource', b'"contained', b'"issues', b'"outcome', b'"expression', b"Expression"),
)
# What resources stand in, "" being the text itself.
_AROUND_RESOURCES: Final = frozenset({"", "resource", "contained", "issues", "outcome"})


class InDoubt(Exception):  # noqa: N818 - a state, not a mistake
    """The structure has to be followed."""


class Sweep:
    """One pass over JSON that is one whole resource, or entries of a Bundle (`in_bundle`).

    Raises `InDoubt`. `pieces` are what becomes of the text; `rewritten` and `left` count the URLs
    replaced and the strings that hold one all the same.
    """

    __slots__ = (
        *("_in_bundle", "_mark", "_masked", "_swap", "_text", "left", "pieces", "rewritten"),
    )

    def __init__(self, text: bytes, swap: Swap, *, in_bundle: bool = False) -> None:
        self._text = text
        self._swap = swap
        self._in_bundle = in_bundle or b'"Bundle"' in text
        self._mark = 0  # up to where the text was taken
        self.pieces: list[bytes] = []
        self.rewritten = 0
        self.left = 0
        places = needles(swap).plain_positions(text)
        if places is None or (places and is_doubtful(text)):
            raise InDoubt
        self._masked = masked(text)
        done = 0
        for place in places:
            if place >= done:
                done = self._look(place)
        self.pieces.append(text[self._mark :] if self._mark else text)

    def _look(self, place: int) -> int:
        """Take the string around a host; gives where it ends."""
        text = self._masked
        quote = text.rfind(b'"', 0, place)
        end = text.rfind(b'"', 0, max(quote, 0))
        key = text.rfind(b'"', 0, max(end, 0))
        if key < 0:
            raise InDoubt
        colon = text[end + 1 : quote]
        if colon in _COLONS or colon.strip(_BLANKS) == b":":
            name = text[key + 1 : end]
            if name == b"reference":
                if self._is_reference(key):
                    return self._link(quote, place, is_reference=True)
            elif name == b"fullUrl":
                if not self._in_bundle:
                    raise InDoubt
                return self._link(quote, place, is_reference=False)
            elif name in _NAMES and self._is_link(name, key, quote, place):
                return self._link(quote, place, is_reference=False)
        return self._leave(quote, place)

    def _link(self, quote: int, place: int, *, is_reference: bool) -> int:
        """A string that is a link if it is a URL."""
        text = self._text
        for source, target in self._swap.plain:
            end = quote + 1 + len(source)
            if text.startswith(source, quote + 1):
                rest = _REST.match(text, end)
                usual = rest is not None and rest.end() - quote <= LONGEST_STRING
                if (
                    rest is not None
                    and usual
                    and (not is_reference or text.startswith(_SLASHES, end))
                ):
                    self._replace(quote + 1, end, target)
                    return rest.end()
        end = self._end(place)
        raw = text[quote + 1 : end]
        value = unescape(raw)
        length = self._swap.prefix_length(value) if len(raw) <= LONGEST_STRING else None
        if length is None or (is_reference and not names_resource(value[length:])):
            return self._leave(quote, place)
        head, cut = front(raw, length, self._swap.target.text)
        self._replace(quote + 1, quote + 1 + cut, head)
        return end + 1

    def _replace(self, start: int, end: int, new: bytes) -> None:
        self.pieces.append(self._text[self._mark : start])
        self.pieces.append(new)
        self._mark = end
        self.rewritten += 1

    def _leave(self, quote: int, place: int) -> int:
        """A string that stays as it is, or the name of a member."""
        end = self._end(place)
        is_short = end - quote - 1 <= LONGEST_STRING
        if is_short and _COLON.match(self._masked, end + 1) is None:
            self.left += self._swap.mentioned_in(unescape(self._text[quote + 1 : end]))
        return end + 1

    def _end(self, place: int) -> int:
        end = self._masked.find(b'"', place)
        if end < 0:
            raise InDoubt
        return end

    def _is_reference(self, key: int) -> bool:
        """Whether the member `reference` there is a Reference's."""
        text = self._masked
        lead = text[max(0, key - 4) : key]
        if lead.endswith(b'":{') or lead == b'": {':
            end = key - 3 - (lead == b'": {')
            if not text.endswith(_NO_REFERENCES, 0, end):
                return True
        parent, _ = self._around(key)
        if parent == "condition" or parent in _AROUND_RESOURCES:
            raise InDoubt
        return is_plain_reference(parent)

    def _is_link(self, name: bytes, key: int, quote: int, place: int) -> bool:
        """Whether a member is a link that is none wherever it stands."""
        parent, opening = self._around(key)
        if (parent, name) in _UNCERTAIN:
            raise InDoubt
        sibling = _SIBLINGS.get((parent, name))
        if sibling is None:
            return name == b"url" and holds_attachment(parent)
        end = self._end(place)
        closing = self._masked.find(b"}", end)
        is_query = self._swap.is_request and parent == "request" and b"?" in self._text[quote:end]
        if is_query or not self._in_bundle or sibling not in self._masked[opening:closing]:
            raise InDoubt
        return True

    def _around(self, key: int) -> tuple[str, int]:
        """The name of the element that a member is in ("": the text itself), and where it begins.

        Told without its structure where it is written as nearly all are.
        """
        text = self._masked
        opening = text.rfind(b"{", 0, key)
        between = text[opening + 1 : key]
        end = text.rfind(b'"', 0, max(opening, 0))
        if end < 0 or b"}" in between or b"]" in between or between.count(b'"') % 2:
            return self._found_around(key)
        lead = text[end + 1 : opening]
        if lead not in (b":", b": ", b":[") and lead.translate(None, _BLANKS) not in (b":", b":["):
            return self._found_around(key)
        return text[text.rfind(b'"', 0, end) + 1 : end].decode("utf-8", "replace"), opening

    def _found_around(self, key: int) -> tuple[str, int]:
        """The same, told by going back from one bracket to the other."""
        start = max(0, key - _REACH)
        parts = self._masked[start:key].split(b'"')
        closed = 0
        opening = -1
        at = key
        for number in range(len(parts) - 1, -1, -2):  # the others are strings
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
                    return parts[number - 1].decode("utf-8", "replace"), opening
                elif byte in b"{[" and opening < 0:
                    raise InDoubt
            at -= len(part) + 1 + (len(parts[number - 1]) + 1 if number else 0)
        if start or opening < 0:
            raise InDoubt
        return "", opening


def is_doubtful(text: bytes) -> bool:
    """Whether something in the text makes its structure matter: a signature, a document."""
    if _SIGNATURE in text or _OUTCOME in text:
        return True
    return b'"document"' in text and _DOCUMENT.search(text) is not None
