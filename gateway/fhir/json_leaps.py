"""Takes many entries of a Bundle at once, where they look as nearly all do.

In a page of search results nearly every URL of the platform is a `fullUrl` or a `reference`, in an
entry of a few known forms. Those are found and judged where they stand, without looking at what is
between them, which is several times faster than following the structure. As soon as something
looks otherwise the leap ends before that entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from gateway.fhir.link_map import Swap
from gateway.fhir.link_rules import LISTED_KEYS, holds_attachment, is_plain_reference

_ENTRY: Final = b'{"fullUrl":"'
# The end of an entry's last object and of the entry. Entries of another form may stand between two
# of these: their `resourceType` gives them away.
_BETWEEN: Final = b"}},"
_REFERENCE: Final = b'{"reference":"'
_ANOTHER_REFERENCE: Final = b'"},{"reference":"'
_ID: Final = rb"(?!\.{1,2}[\"/])[A-Za-z0-9\-.]{1,64}"
_TYPE: Final = rb"[A-Z][A-Za-z]+"
# These hold other resources, or are not rewritten at all.
_UNUSUAL: Final = rb"(?!(?:Bundle|OperationOutcome|Parameters|Provenance)\")"
_TYPED: Final = rb"/" + _TYPE + rb"/" + _ID
_RESOURCE: Final = _TYPED + rb'","resource":\{"resourceType":"' + _UNUSUAL + _TYPE + rb'"'
_RESOURCE_NAME: Final = re.compile(_TYPED + rb"(?:/_history/" + _ID + rb')?"')
_PARENT: Final = re.compile(rb'"([A-Za-z]+)":\[?\Z')
_KEY: Final = re.compile(rb'"([A-Za-z]+)":"\Z')
_ATTACHMENT: Final = re.compile(
    rb'"([A-Za-z]+)":\[?\{(?:"[a-zA-Z]+":(?:"[^"]*+"|[0-9a-z.]++),)*+"url":"\Z'
)
_LONGEST_MEMBER: Final = 16
_LONGEST_PARENT: Final = 64
_LONGEST_ATTACHMENT: Final = 512
# What makes an element another resource's, or part of a signature.
_UNUSUAL_MEMBERS: Final = (b'"resourceType"', b'"contained"', b'"issues"', b'ignature"')


@lru_cache(maxsize=64)
def _resource_of_entry(source: bytes) -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Matches a `fullUrl` that begins with `source`, up to the type of the entry's resource."""
    return re.compile(re.escape(source) + _RESOURCE).match


class Leap:
    """Over entries of a Bundle, from the one at `start` on, as far as they look as expected.

    It ends at `end`, before an entry that is yet to be looked at; without progress that is `start`.
    `urls` are the positions of those to be replaced: each begins with `swap.plain_source`.
    `left` are the strings with a URL that stays: where they begin and end.

    `places` are the positions from `start` on where URLs under the bases may begin, the last one
    beyond the text. In `text` quotes in strings are masked, and no letter is escaped.
    """

    __slots__ = (
        *("_checked", "_done", "_last", "_seen", "_swap", "_text"),
        *("end", "left", "start", "urls"),
    )

    def __init__(self, text: bytes, places: Sequence[int], start: int, swap: Swap) -> None:
        self._text = text
        self._swap = swap
        # In the entry at hand: behind its resource's type or its last Reference (0: there is no
        # entry yet), and up to where nothing unusual stands.
        self._seen = self._checked = 0
        self._last = 0  # the end of the last URL of a Reference there
        self._done = 0  # the end of the last string that stays
        self.start = self.end = start
        self.urls: list[int] = []
        self.left: list[tuple[int, int]] = []
        urls, left = self._run(places)
        del self.urls[urls:], self.left[left:]

    def _run(self, places: Sequence[int]) -> tuple[int, int]:
        """Judge one after the other; gives how much of it lies before the end."""
        text, start, urls = self._text, self.start, self.urls
        find_resource = _resource_of_entry(self._swap.plain_source)
        sure = (0, 0)
        for at in places:
            if text.endswith(_ENTRY, start, at):
                begin = at - len(_ENTRY)
                if not self._follows(begin):
                    break
                self.end, sure = begin, (len(urls), len(self.left))
                match = find_resource(text, at)
                if match is None:
                    break
                self._seen = self._checked = match.end()
                urls.append(at)
            elif at >= self._done and not self._judge(at):
                break
        return sure

    def _follows(self, begin: int) -> bool:
        """Whether the entry at `begin` is the first one, or the next after that at hand."""
        if not self._seen:
            return begin == self.start
        if not self._text.endswith(_BETWEEN, self._seen, begin) or self._meets_unusual(begin):
            return False
        self._last = 0
        return True

    def _judge(self, at: int) -> bool:
        """Whether it is clear what becomes of the URL at `at`, inside an entry."""
        text = self._text
        if not self._seen or self._meets_unusual(at):
            return False
        if text.endswith(_REFERENCE, self._seen, at):
            return self._refers(at)
        if not text.endswith(b'"', self._seen, at):
            return self._leave(text.rfind(b'"', self._seen, at) + 1, at)
        key = _KEY.search(text[max(self._seen, at - _LONGEST_PARENT) : at])
        if key is None:
            return False
        name = key[1].decode("ascii")
        if name not in LISTED_KEYS:
            return self._leave(at, at)
        return name == "url" and self._is_of_attachment(at)

    def _meets_unusual(self, upto: int) -> bool:
        """Whether something unusual stands in the entry at hand, up to there."""
        text, start = self._text, self._checked
        for member in _UNUSUAL_MEMBERS:
            if text.find(member, start, upto) >= 0:
                return True
        # None of them is longer; one may have begun before `upto`.
        self._checked = max(start, upto - _LONGEST_MEMBER)
        return False

    def _refers(self, at: int) -> bool:
        """Whether the URL, behind `"reference":"`, is that of a Reference for sure."""
        text, source = self._text, self._swap.plain_source
        match = _RESOURCE_NAME.match(text, at + len(source))
        if match is None or not text.startswith(source, at):
            return False
        begin = at - len(_REFERENCE)
        if self._last and text.startswith(_ANOTHER_REFERENCE, self._last):
            plain = self._last + len(_ANOTHER_REFERENCE) == at
        else:
            parent = _PARENT.search(text[max(self._seen, begin - _LONGEST_PARENT) : begin])
            plain = parent is not None and is_plain_reference(parent[1].decode("ascii"))
        self._last, self._seen = match.end() - 1, begin
        self.urls.append(at)
        return plain

    def _is_of_attachment(self, at: int) -> bool:
        """Whether the URL, behind `"url":"`, is that of an Attachment for sure."""
        text, source = self._text, self._swap.plain_source
        found = _ATTACHMENT.search(text[max(self._seen, at - _LONGEST_ATTACHMENT) : at])
        match = _RESOURCE_NAME.match(text, at + len(source))
        self.urls.append(at)
        return (
            found is not None
            and match is not None
            and text.startswith(source, at)
            and holds_attachment(found[1].decode("ascii"))
        )

    def _leave(self, begin: int, at: int) -> bool:
        """A string that begins at `begin` stays, whatever else it holds."""
        end = self._text.find(b'"', at)
        self._done = end
        self.left.append((begin, end))
        return begin > 0 and end >= 0
