"""Takes many entries of a Bundle at once, where they look as nearly all do.

In a page of search results nearly every URL of the platform is a `fullUrl` or a `reference`, in an
entry of a few known forms. Those are found and judged where they stand, without looking at what is
between them, which is several times faster than following the structure. As soon as something
looks otherwise the leap ends before that entry.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.fhir.byte_wise import (
    FORMS,
    IS_COMPILED,
    IS_ENTRY,
    IS_NAME,
    IS_REFERENCE,
    NEXT_ENTRY,
    REFERENCE,
    behind_quote,
    is_behind_members,
    usual_form,
)
from gateway.fhir.link_map import Swap
from gateway.fhir.link_rules import LISTED_KEYS, holds_attachment, is_plain_reference
from gateway.fhir.link_stream import MAX_TOKEN
from gateway.fhir.link_text import END, matches

_ENTRY: Final = b'{"fullUrl":"'
# Free of dot segments: an id may begin with a dot, but hardly any does.
_ID: Final = rb"[A-Za-z0-9\-][A-Za-z0-9\-.]{0,63}+"
_TYPE: Final = rb"[A-Z][A-Za-z]++"
# These hold other resources, or are not rewritten at all.
_UNUSUAL: Final = rb"(?!(?:Bundle|OperationOutcome|Parameters|Provenance)\")"
_TYPED: Final = rb"/" + _TYPE + rb"/" + _ID
_RESOURCE: Final = _TYPED + rb'","resource":\{"resourceType":"'
_NAME: Final = _ID + rb"(?:/_history/" + _ID + rb')?+"()'
# In a sentence, or with more behind. Not as in `_ID`: a dot segment may end otherwise, too.
_MENTIONED: Final = rb"[A-Za-z0-9][A-Za-z0-9\-.]*+(?=[\"\s#?])()"
# Between two References of one list.
_SIBLING: Final = re.compile(rb'"(?:,"(?:display|type)":"[^"]*+")*+\},')
# Up to the `url` of an object.
MEMBERS: Final = re.compile(rb'(?:"[a-zA-Z]+":(?:"[^"]*+"|[0-9a-z.]++),)*+"url":"')
_LONGEST_NAME: Final = 64
_LONGEST_ATTACHMENT: Final = 512
# What makes an element another resource's, or part of a signature, or an entry another Bundle's.
_TYPE_MEMBER: Final = b'"resourceType"'
_SIGNATURE_MEMBER: Final = b'ignature"'
_ENTRY_MEMBER: Final = b'"entry"'
_BUNDLE: Final = b'"Bundle"'
_QUOTE: Final = 0x22
_LIST: Final = 0x5B
_IN_LIST: Final = b"[,"
_LISTED: Final = frozenset(name.encode() for name in LISTED_KEYS)
# Elements that may be resources of their own, in which `reference` is no Reference's.
_RESOURCES: Final = frozenset((b"contained", b"issues", b"outcome", b"resource"))
_OPENINGS: Final = tuple(b'"%s"' % name for name in sorted(_RESOURCES))


@lru_cache(maxsize=64)
def _forms(source: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """Of a URL that begins with `source`: all usual forms, and an entry's, the first or another."""
    url = re.escape(source)
    behind = rb"(?<=" + re.escape(NEXT_ENTRY) + rb")" + url
    typed = url + rb"/" + _TYPE + rb"/"
    usual = (
        (behind + _RESOURCE + _UNUSUAL + _TYPE + rb'"()|')
        + (rb"(?<=" + re.escape(REFERENCE) + rb")" + typed + _NAME + rb"|")
        + (rb'(?<=[ "])' + typed + rb"(?:" + _NAME + rb"|" + _MENTIONED + rb")")
    )
    first = url + _RESOURCE + _UNUSUAL + _TYPE + rb'"'
    return re.compile(usual), re.compile(first), re.compile(behind + _RESOURCE)


@lru_cache(maxsize=1024)
def _holds_reference(name: bytes) -> bool:
    """Whether `reference` in an element of that name is a Reference's."""
    usual = name.isalpha() and name not in _RESOURCES
    return usual and is_plain_reference(name.decode("ascii"))


@lru_cache(maxsize=1024)
def _is_attachment(name: bytes) -> bool:
    """Whether an element of that name, which has a `url`, is an Attachment."""
    return name.isalpha() and holds_attachment(name.decode("ascii"))


def may_hold_entries(text: bytes, start: int, *, whole: bool) -> bool:
    """Whether one of the entries from `start` on may hold others, as Bundles do in Bundles.

    `whole`: the text is there to its end. Then the type of such a Bundle is, too, be it behind its
    entries. No other list in FHIR holds elements that look like entries of a Bundle; in what is not
    FHIR one is not noticed.
    """
    if whole and not _stands_behind(text, start, _BUNDLE):
        return False
    return _stands_behind(text, start, _ENTRY_MEMBER)


def _stands_behind(text: bytes, start: int, name: bytes) -> bool:
    found = matches(text, (name,))
    return len(found) > 0 and found[-1][1] >= start


class Leap:
    """Over entries of a Bundle, from the one at `start` on, as far as they look as expected.

    It ends at `end`, before an entry that is yet to be looked at; without progress that is `start`.
    Up to `upto`, which may lie in that entry, it is known what becomes of every URL: `urls` are the
    positions of those to be replaced, each of which begins with `swap.plain_source`. `stays` are
    the positions of those in a string that stays, one for each string; of the strings in `left`,
    given by where they begin and end, it is yet to be found out whether they hold one.

    `places` are the positions from `start` on where URLs under the bases may begin, the last one
    is END. In `text` quotes in strings are masked, and no letter is escaped. Unless `nested`, it
    is known that no entry holds others.
    """

    __slots__ = (
        *("_done", "_is_nested", "_is_request", "_judged", "_last", "_reached"),
        *("_seen", "_source", "_text"),
        *("end", "left", "start", "stays", "upto", "urls"),
    )

    def __init__(
        self, text: bytes, places: list[int], start: int, swap: Swap, *, nested: bool = True
    ) -> None:
        self._text = text
        self._source = swap.plain_source
        self._is_request = swap.is_request
        self._is_nested = nested
        self.start = self.end = self.upto = start
        self.urls: list[int] = []
        self.stays: list[int] = []
        self.left: list[tuple[int, int]] = []
        self._run(places)

    def _run(self, places: list[int]) -> None:
        """Judge one after the other."""
        text, start, source = self._text, self.start, self._source
        usual, first, between = _forms(source)
        match = first.match(text, places[0])
        if match is None or places[0] != start + len(_ENTRY) or not text.startswith(_ENTRY, start):
            return
        self.urls.append(places[0])
        self._enter(match.end())
        find = usual.match
        for at in places[1:]:
            if at < self._done:
                continue
            if at == END:
                self._stop(self._sure())
                return
            if IS_COMPILED:
                form = usual_form(text, at, source)
                kind, behind = form % FORMS, form // FORMS
            else:
                found = find(text, at)
                kind, behind = (found.lastindex or 0, found.end()) if found is not None else (0, 0)
            if kind == IS_ENTRY:
                if not self._was_usual(at):
                    break
                self.end = at - len(_ENTRY)
                self.urls.append(at)
                self._enter(behind)
            elif not self._judge(at, kind, behind):
                if between.match(text, at) is not None and self._was_usual(at):
                    self.end = at - len(_ENTRY)
                break
        self._stop(self.end)

    def _enter(self, seen: int) -> None:
        """An entry begins, the type of whose resource was seen."""
        self._seen = self._reached = seen  # behind that type; up to where URLs were judged
        self._last = 0  # the end of the last Reference's URL
        self._done = 0  # the end of the last string that stays
        self._judged = False  # whether a URL is replaced for the element in which it stands

    def _was_usual(self, upto: int) -> bool:
        """Whether nothing in the entry at hand, up to there, forbids what was judged."""
        text, seen = self._text, self._seen
        if self._is_nested and text.find(_ENTRY_MEMBER, seen, upto) >= 0:
            return False
        if not self._judged:
            return True
        unusual = text.find(_TYPE_MEMBER, seen, upto) >= 0
        return not unusual and text.find(_SIGNATURE_MEMBER, seen, upto) < 0

    def _sure(self) -> int:
        """Up to where URLs were judged for sure in the entry at hand, which may not be whole."""
        text, seen, reached = self._text, self._seen, self._reached
        if not self._was_usual(reached):
            return self.end
        if seen < reached:
            # What follows in a resource of its own may be a signature.
            for opening in _OPENINGS:
                if text.find(opening, seen, reached) >= 0:
                    return seen
        return reached

    def _stop(self, upto: int) -> None:
        """Forget what was judged behind."""
        self.upto = upto
        while self.urls and self.urls[-1] >= upto:
            self.urls.pop()
        while self.stays and self.stays[-1] >= upto:
            self.stays.pop()
        while self.left and self.left[-1][0] >= upto:
            self.left.pop()

    def _judge(self, at: int, kind: int, behind: int) -> bool:
        """Whether it is clear what becomes of the URL at `at`, inside an entry.

        `kind` is its form, 0 if it has none of the usual ones, and `behind` where that ends.
        """
        text, known = self._text, kind > 0
        if kind == IS_REFERENCE:
            return self._is_reference(at, behind - 1)
        if text[at - 1] != _QUOTE:
            begin = text.rfind(b'"', self._seen, at) + 1
            is_query = self._is_request and self._may_be_query(begin - 1)
            return begin > 0 and not is_query and self._leave(begin, at, known=known)
        if text[at - 2] == _LIST:
            return self._leave(at, at, known=known)
        name = self._name_before(at - 1)
        if name not in _LISTED and name.isalpha():  # no member of that name is ever rewritten
            return self._leave(at, at, known=known)
        if name != b"url" or kind != IS_NAME:
            return False
        self._judged = True
        self._reached = behind - 1
        self.urls.append(at)
        return self._is_of_attachment(at)

    def _may_be_query(self, at: int) -> bool:
        """Whether the string at `at`, in a request, may be an entry's own: those hold queries."""
        name = self._name_before(at)
        return name in _LISTED or (not name and self._text[at - 1] not in _IN_LIST)

    def _name_before(self, at: int) -> bytes:
        """The name of the member whose value, or the first one of a list, begins at `at`."""
        text = self._text
        end = at - 2 if text[at - 1] != _LIST else at - 3
        if text[end : end + 2] != b'":':
            return b""
        low = max(self._seen, end - _LONGEST_NAME)
        begin: int = behind_quote(text, low, end) if IS_COMPILED else text.rfind(b'"', low, end) + 1
        return text[begin:end] if begin > 0 else b""

    def _is_reference(self, at: int, end: int) -> bool:
        """Whether the object that begins with the `reference` of that URL is a Reference."""
        text, last, begin = self._text, self._last, at - len(REFERENCE)
        if begin < self._seen:
            return False
        self._judged = True
        self._last = self._reached = end
        self.urls.append(at)
        if last and text[begin - 2 : begin] == b"},":
            sibling = _SIBLING.match(text, last)
            if sibling is not None and sibling.end() == begin:
                return True
        return _holds_reference(self._name_before(begin))

    def _is_of_attachment(self, at: int) -> bool:
        """Whether the URL, behind `"url":"`, is that of an Attachment for sure."""
        text = self._text
        begin = text.rfind(b"{", max(self._seen, at - _LONGEST_ATTACHMENT), at)
        if begin < 0:
            return False
        if IS_COMPILED:
            if not is_behind_members(text, begin + 1, at):
                return False
        elif MEMBERS.fullmatch(text, begin + 1, at) is None:
            return False
        return _is_attachment(self._name_before(begin))

    def _leave(self, begin: int, at: int, *, known: bool) -> bool:
        """A string that begins at `begin` stays; it is `known` that the URL is under a base."""
        end = self._text.find(b'"', at)
        if end < 0 or end - begin > MAX_TOKEN:
            return False
        self._done = self._reached = end
        if known:
            self.stays.append(at)
        else:
            self.left.append((begin, end))
        return True
