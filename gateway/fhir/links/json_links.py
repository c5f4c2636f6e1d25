"""Rewrites URLs in JSON and in newline-delimited JSON; all other bytes stay unchanged.

The text is never parsed into values and serialized again: that would change numbers (1.10 is not
1.1 in FHIR), spacing, order and duplicate members.

`_NearbyPass` examines each host name by the text around it: the string, the member name before it
and, where that does not decide, the object around both. It does not follow the structure, so that
text without a host name costs nothing, and the spelling (blanks, order of members, escaped slashes)
makes no difference. It takes complete text: a whole body, or complete entries of a Bundle, whose
borders `_last_entry` finds. What comes after a link in its resource is thus known. What comes after
the entries in their Bundle (its type, a signature) decides about their result as a whole.

Where that text does not decide (signatures, documents, elements that are links in some resources
only), and in all else that streams, `JsonRewriter` follows the structure: a stack of open objects
and arrays gives the path of a string.

In newline-delimited JSON (bulk data), every line is one resource. Consecutive lines without a URL
of the known hosts pass together; only the others are scanned one by one.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.fhir.json_text import (
    ARRAYS,
    BEFORE_VALUE,
    BLANKS,
    ELEMENTS,
    FILL,
    GAP,
    MEMBERS,
    OPENINGS,
    STRINGS,
    VALUE,
    escape_like,
    masked,
    unescape,
)
from gateway.fhir.links.deferred_edits import ENTRIES, HOLD_LIMIT, Edit, PatchScope
from gateway.fhir.links.link_elements import (
    LISTED_KEYS,
    MAX_ELEMENT_NAME_LENGTH,
    holds_attachment,
    is_plain_reference,
    names_resource,
    opens_resource,
)
from gateway.fhir.links.link_map import HostFinder, raw_length
from gateway.fhir.links.stream_rewriter import (
    MAX_DEPTH,
    MAX_TOKEN,
    StreamRewriter,
    any_in,
    match_end,
    may_hold_patch,
)

if TYPE_CHECKING:
    from gateway.fhir.links.deferred_edits import ResourceScope
    from gateway.fhir.links.link_elements import Path
    from gateway.fhir.links.link_map import BaseReplacement

_ESCAPE_UNIT: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|.", re.DOTALL)
_ESCAPED_SLASH: Final = re.compile(r"\\u002[fF]|\\/")
# In a string that is a query, a URL may be percent-encoded.
_SCHEME: Final = re.compile(
    rb"(?:h|\\u00[46]8)(?:t|\\u00[57]4){2}(?:p|\\u00[57]0)(?:s|\\u00[57]3)?"
    rb"(?::|\\u003a|(?:%|\\u0025)(?:3|\\u0033)(?:a|\\u00[46]1))"
    rb"(?:\\?/|\\u002f|(?:%|\\u0025)(?:2|\\u0032)(?:f|\\u00[46]6)){2}"
)

# Escapes of the characters of a host or of an element name.
_HIDING: Final = re.compile(rb"\\u00(?:2[dDeE]|3[0-9aA]|[4-7])")
# Members of a resource up to a watched one, or to `entry`, which is too long to match completely.
_WATCHED: Final = re.compile(
    rb"(?>(?:"
    + FILL
    + rb'"(?!(?:resourceType|type|signature|entry|path)")[^"\\]*+"\s*+:\s*+'
    + VALUE
    + rb")*)"
)


# May begin a JSON Patch in base64.
_DATA: Final = b'"data"'
_SPELLED_DATA: Final = re.compile(rb'"(?:d|\\u0064)(?:a|\\u0061)(?:t|\\u0074)(?:a|\\u0061)"')


@lru_cache(maxsize=64)
def host_finder(swap: BaseReplacement) -> HostFinder:
    """Return the finder of positions in JSON that may belong to a URL under the bases."""
    data = (_DATA, _SPELLED_DATA) if swap.is_request else ()
    return HostFinder(swap.hosts, b"\\u00", _HIDING, _SCHEME, *data)


def rewrite_patch(data: str, swap: BaseReplacement) -> str:
    """Return a JSON Patch in base64 with its URLs replaced; anything else unchanged."""
    try:
        patch = base64.b64decode(data)
    except (ValueError, binascii.Error):
        return data
    rewriter = JsonRewriter(swap, patch=True)
    rewritten = rewriter.feed(patch) + rewriter.finish()
    return base64.b64encode(rewritten).decode("ascii") if rewriter.rewritten else data


def _replace_prefix(raw: bytes, length: int, target: str) -> tuple[bytes, int]:
    """Return the replacement of the first `length` characters, and the bytes these take in `raw`.

    Slashes in the replacement are escaped as in the replaced text.
    """
    if b"\\" not in raw:
        return target.encode(), length
    text = raw.decode("latin-1")
    cut = raw_length(text, length, _ESCAPE_UNIT, "\\")
    slash = _ESCAPED_SLASH.search(text, 0, cut)
    if slash is not None:
        target = target.replace("/", slash.group())
    return target.encode(), cut


_NEAR: Final = 96  # bytes that hold the names of a member and of the element around it, mostly
# Bytes in front of a member: the beginning of its object is searched in the few ones first.
_OPENING_DISTANCES: Final = (512, 8 * 1024)
# What these searches may cover together, in lengths of the text and in bytes: beyond, the structure
# is followed, since they examine many bytes one by one.
_MAX_COVERED: Final = (2, 64 * 1024)
_MAX_REMEMBERED: Final = 32
_BLANKS: Final = b" \t\r\n"
_SEPARATORS: Final = b" \t\r\n,:"
_COLON: Final = re.compile(rb"\s*+:")
_PLACEHOLDER: Final = b"\x00"  # does not occur in JSON
_MEMBER_PARTS: Final = 3  # what is before a name, the name, and the colon
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"
_OBJECT: Final = 0x7B
_COLON_BYTE: Final = 0x3A
_SLASHES: Final = (b"/", b"\\/", b"\\u002f", b"\\u002F")  # as in `BaseReplacement.plain`
# The rest of the URL of a resource and the quote after it, if nothing in it needs a closer check;
# most have no dot.
_RESOURCE: Final = re.compile(
    rb"/[^\"\\%?#.\x00-\x20\x7f]{1,255}+\"|"
    rb"(?>(?:(?:\\?/|\\u002[fF])[^\"\\%/?#\x00-\x20\x7f.][^\"\\%/?#\x00-\x20\x7f]{0,255}+){1,40})"
    rb"(?>(?:[?#][^\"\\%/]{0,4000}+)?)\""
)
# Text in which signatures, outcomes and documents are found: what is so short is found fastest.
_DECISIVE: Final = (b"gnatu", b"nOutc", b"docum")
_ARGUMENTS: Final = (b'"query"', b'"variables"')  # of `$graphql`
_DOCUMENT: Final = re.compile(rb'"type"\s*+:\s*+"document"')
# From one Reference of an array to the next.
_NEXT: Final = re.compile(rb'\s*+\}\s*+,\s*+\{\s*+"reference"\s*+:\s*+')

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
        *[(name, b"criteria") for name in (b"", b"resource", b"contained")],
        *[(b"part", b"valueString"), (b"request", b"ifNoneExist"), (b"", b"request")],
        (b"filterBy", b"value"),
        (b"expansion", b"next"),
    }
)
_NAMES: Final = frozenset({b"fullUrl", *[name for _, name in (*_SIBLINGS, *_UNCERTAIN)]})
# The names of members whose values are resources, b"" being the root of the text.
_AROUND_RESOURCES: Final = frozenset({b"", b"resource", b"contained", b"issues", b"outcome"})


class _StructureNeededError(Exception):
    """The text around a host name cannot decide: the structure has to be followed."""


class _NearbyPass:
    """One pass over JSON that is a complete resource, or the entries of a Bundle (`in_bundle`).

    Raises `_StructureNeededError`. `output` is the rewritten text; `rewritten` counts the URLs
    replaced, `unrewritten` the strings with a URL under the bases that stay unchanged.
    """

    def __init__(self, text: bytes, swap: BaseReplacement, *, in_bundle: bool = False) -> None:
        finder = host_finder(swap)
        has_escape = finder.has_escape(text)
        # A Bundle with a JSON Patch, or a request to `$graphql`.
        if swap.is_request and not in_bundle and (may_hold_patch(text) or any_in(text, _ARGUMENTS)):
            raise _StructureNeededError
        if _needs_structure(text) or (has_escape and finder.has_obscuring_escape(text)):
            raise _StructureNeededError
        self._text = text
        self._swap = swap
        # The type mostly stands at the beginning or at the end.
        is_bundle = text.find(b'"Bundle"', 0, _NEAR) >= 0 or text.rfind(b'"Bundle"') >= 0
        self._in_bundle = in_bundle or is_bundle
        self._mark = 0  # the text before this index is in `_done`
        # Bytes that searches for the beginning of an object may still cover.
        self._coverage = _MAX_COVERED[0] * len(text) + _MAX_COVERED[1]
        self._done: list[bytes] = []
        self.rewritten = 0
        self.unrewritten = 0
        source, target = swap.plain[_spelling(text, swap.sources[0].host.encode())]
        # A target that holds a host would be found again, so that a placeholder is inserted.
        if text.find(_PLACEHOLDER) >= 0:
            raise _StructureNeededError
        self._replace_usual(source, _PLACEHOLDER)
        self._masked = masked(self._text)
        done = 0
        for position in finder.unescaped_positions(self._text, has_escape=has_escape):
            if position >= done:
                done = self._inspect_string(position)
        self._done.append(self._text[self._mark :])
        self.output = b"".join(self._done).replace(_PLACEHOLDER, target)

    def _replace_usual(self, source: bytes, target: bytes) -> None:
        """Replace URLs in the usual spelling if the text just before them makes them links."""
        source, target = b'"' + source, b'"' + target
        parts = self._text.split(source)
        remembered: tuple[bytes, ...] = ()  # what stood before links
        runs: list[bytes] = []  # what stands between URLs that stay
        begin = 0
        before = parts[0]
        rest: re.Match[bytes] | None = None  # of the URL before, if it is a link
        for number in range(1, len(parts)):
            part = parts[number]
            is_link = before.endswith(remembered)
            if not is_link:
                length = self._length_before_link(before[-_NEAR:])
                is_next = rest is not None and _NEXT.fullmatch(before, rest.end()) is not None
                is_link = length > 0 or is_next
                if length > 0 and len(remembered) < _MAX_REMEMBERED:
                    remembered += (before[-length:],)
            rest = _RESOURCE.match(part) if is_link else None
            if rest is None:
                runs.append(target.join(parts[begin:number]))
                begin = number
            before = part
        runs.append(target.join(parts[begin:]))
        self.rewritten = len(parts) - len(runs)
        self._text = source.join(runs)

    def _length_before_link(self, near: bytes) -> int:
        """Return how many bytes before a string make it a link, 0 if they do not do so alone."""
        if masked(near) != near:
            return 0
        start = -1
        name, key = _member_before(near)
        if name == b"fullUrl" and self._in_bundle:
            start = key
        elif name == b"reference":
            parent, _, begin = _object_around(near[:key])
            if parent is not None and _holds_reference(parent):
                start = begin
        # The byte before a quote shows whether that is an escaped one.
        return len(near) - start + 1 if start > 0 else 0

    def _inspect_string(self, position: int) -> int:
        """Process the string around a host name; return the position after it."""
        quote = self._masked.rfind(b'"', 0, position)
        end = self._masked.find(b'"', position)
        if end < 0:
            raise _StructureNeededError
        raw = self._text[quote + 1 : end]
        if len(raw) > MAX_TOKEN:
            return end + 1
        name = self._link_name(quote, end)
        value = unescape(raw)
        length = self._swap.prefix_length(value) if name else None
        if length is not None and (name != b"reference" or names_resource(value[length:])):
            head, cut = _replace_prefix(raw, length, self._swap.target.text)
            self._done += (self._text[self._mark : quote + 1], head)
            self._mark = quote + 1 + cut
            self.rewritten += 1
        elif _COLON.match(self._masked, end + 1) is None:  # not the name of a member
            self.unrewritten += self._swap.occurs_in(value)
        return end + 1

    def _link_name(self, quote: int, end: int) -> bytes:
        """Return the name of the member with the string between two quotes; empty if no link."""
        near = self._masked[max(0, quote - _NEAR) : quote]
        if len(near) == _NEAR and not near.strip(_BLANKS):
            raise _StructureNeededError
        if not near.rstrip(_BLANKS).endswith(b":"):
            return b""
        name, key = _member_before(near)
        if key < 0:
            raise _StructureNeededError
        key += quote - len(near)
        if name == b"reference":
            is_link = _holds_reference(self._around(key)[0])
            if is_link is None:
                raise _StructureNeededError
        elif name == b"fullUrl" and self._in_bundle:
            is_link = True
        else:
            is_link = name in _NAMES and self._is_other_link(name, key, quote, end)
        return name if is_link else b""

    def _is_other_link(self, name: bytes, key: int, quote: int, end: int) -> bool:
        """Return whether a member whose name alone does not decide is a link."""
        parent, opening = self._around(key)
        if name == b"fullUrl" or (parent, name) in _UNCERTAIN:
            raise _StructureNeededError
        sibling = _SIBLINGS.get((parent, name))
        if sibling is None:
            return name == b"url" and holds_attachment(parent.decode("utf-8", "replace"))
        closing = self._masked.find(b"}", end)
        is_sent = self._swap.is_request and parent == b"request"
        may_hold_query = is_sent and any_in(self._text[quote:end], (b"?", b"\\u"))
        if may_hold_query or not self._in_bundle or sibling not in self._masked[opening:closing]:
            raise _StructureNeededError
        return True

    def _around(self, key: int) -> tuple[bytes, int]:
        """Return the name of the element around a member, empty at the root, and where it begins.

        Raises `_StructureNeededError` if both are too far away, or were for many members.
        """
        for distance in _OPENING_DISTANCES:
            start = max(0, key - distance)
            name, opening, begin = _object_around(self._masked[start:key])
            self._coverage -= key - start - max(0, begin)
            if self._coverage < 0:
                break
            if opening >= 0 and (name is not None or not start):
                return name or b"", start + opening
        raise _StructureNeededError


def _member_before(text: bytes) -> tuple[bytes, int]:
    """Return the name of the member whose value follows a text, and the index of its quote.

    The index is -1 if the text does not end in a name and a colon.
    """
    parts = text.rsplit(b'"', 2)
    if len(parts) < _MEMBER_PARTS or parts[2].strip(_BLANKS) != b":":
        return b"", -1
    return parts[1], len(parts[0])


def _object_around(text: bytes) -> tuple[bytes | None, int, int]:
    """Return the name of the element in whose object a text ends, and where object and name begin.

    The name is None if it is not in the text; an index is -1 if what begins there is not.
    """
    parts = text.split(b'"')
    closed = 0
    opening = -1
    end = len(text)
    for number in range(len(parts) - 1, -1, -2):  # every other part is a string
        part = parts[number]
        begin = end - len(part)
        is_plain = opening < 0 and not part.strip(_SEPARATORS)
        for index in () if is_plain else range(len(part) - 1, -1, -1):
            byte = part[index]
            if byte in _CLOSING:
                closed += 1
            elif byte in _OPENING and closed:
                closed -= 1
            elif byte == _OBJECT and opening < 0:
                opening = begin + index
            elif byte == _COLON_BYTE and opening >= 0 and not closed:
                name = parts[number - 1] if number > 1 else None
                return name, opening, -1 if name is None else begin - len(name) - 2
            elif byte in _OPENING and opening < 0:
                return None, -1, -1  # in an array
        end = begin - len(parts[number - 1]) - 2
    return None, opening, -1


def _spelling(text: bytes, host: bytes) -> int:
    """Return the index in `BaseReplacement.plain` of the likely spelling of URLs in a text."""
    at = text.find(host)
    for number in range(1, len(_SLASHES)):
        if at >= 0 and text.endswith(_SLASHES[number], 0, at):
            return number
    return 0


def _needs_structure(text: bytes) -> bool:
    """Return whether the structure of the text matters: a signature, an outcome, a document."""
    if not any_in(text, _DECISIVE):
        return False
    if b'ignature"' in text or b'OperationOutcome"' in text:
        return True
    return b'"document"' in text and _DOCUMENT.search(text) is not None


@lru_cache(maxsize=1024)
def _holds_reference(parent: bytes) -> bool | None:
    """Return whether `reference` in an element of that name is a Reference's; None: it depends."""
    if parent == b"condition" or parent in _AROUND_RESOURCES or b"\\" in parent:
        return None
    return len(parent) > MAX_ELEMENT_NAME_LENGTH or is_plain_reference(
        parent.decode("utf-8", "replace")
    )


# Text that only entries of a Bundle have: what leads from one to the next. A Bundle or Parameters
# within an entry may have the same, before their type or after it; `_NESTING` finds both.
_NEXT_ENTRY: Final = re.compile(
    rb'\}\s*+,\s*+(?=\{\s*+"(?:fullUrl"\s*+:|resource"\s*+:\s*+\{\s*+"resourceType"'
    rb'|search"\s*+:\s*+\{\s*+"(?:mode|score)"|request"\s*+:\s*+\{\s*+"(?:method|url)"))'
)
_FIRST_MEMBERS: Final = (b'"fullUrl"', b'"resource"', b'"search"', b'"request"')
_NESTING: Final = (b"entry", b"arame")
_MAX_TRIALS: Final = 4
_MAX_ENTRIES_BYTES: Final = 128 * 1024  # of the entries that are rewritten together


def _last_entry(text: bytes, start: int, end: int) -> int:
    """Return where the last entry begins that certainly begins there, or else `start`."""
    for name in _FIRST_MEMBERS:
        at = end
        for _ in range(_MAX_TRIALS):
            at = text.rfind(name, start, at)
            bracket = text.rfind(b"}", start, at) if at >= 0 else -1
            border = _NEXT_ENTRY.match(text, bracket, end) if bracket >= 0 else None
            if border is not None:
                return border.end()
            if bracket < 0:
                break
    return start


_QUOTE: Final = 0x22
# Members of an entry that is sent, up to a request that is not surely without PATCH, and none of
# that request: its method decides about the entry's data.
_WITHOUT_PATCH: Final = (
    rb'\s*+:\s*+\{(?>(?:[^"{}]*+"(?!PATCH")[^"\\]*+")*)[^"{}]*+\}'  # and without objects in it
)
_BEFORE_PATCH: Final = re.compile(
    rb"(?>(?:"
    + FILL
    + rb'"(?!request"(?!'
    + _WITHOUT_PATCH
    + rb'))[^"\\]*+"\s*+:\s*+'
    + VALUE
    + rb")*)"
)
_NOTHING: Final = re.compile(rb"")
_SENT_SKIPS: Final = {("entry",): _BEFORE_PATCH, ("entry", "request"): _NOTHING}


class _Frame:
    """An open object or array; `key` is the member whose value comes next, None before a key.

    An array directly in an array has no frame: `inner` counts those open in this array.
    """

    __slots__ = (
        "holds_entries",
        "inner",
        "is_object",
        "is_resource",
        "key",
        "path",
        "scope",
        "skip",
    )

    def __init__(self, path: Path, scope: ResourceScope | None, *, is_object: bool) -> None:
        self.path = path
        self.scope = scope
        self.is_object = is_object
        self.is_resource = False
        self.holds_entries = not is_object and path == ("entry",)
        self.inner = 0
        self.key: str | None = None
        self.skip = MEMBERS if is_object else ELEMENTS


class JsonRewriter(StreamRewriter):
    """Replaces one base by another in the listed elements of a JSON body, chunk by chunk.

    `patch`: the body is a JSON Patch (RFC 6902). With `required_type` only a resource of that type
    changes.
    """

    __slots__ = ("_deep", "_doubtful_until", "_frames", "_in_string", "_patch")

    _boundary = b'"'

    def __init__(
        self,
        swap: BaseReplacement,
        *,
        patch: bool = False,
        hold_limit: int = HOLD_LIMIT,
        required_type: str | None = None,
    ) -> None:
        super().__init__(swap, host_finder(swap), hold_limit, required_type)
        self._patch = patch
        self._frames = [_Frame((), None, is_object=False)]
        self._deep = 0  # levels open beyond MAX_DEPTH
        self._doubtful_until = 0  # entries up to this position in the body are scanned
        self._in_string = False  # in a string longer than MAX_TOKEN

    def _masked(self, text: bytes) -> bytes:
        return masked(text)

    def _advance(self, text: bytes, pos: int, candidate: int, size: int) -> int:
        frame = self._frames[-1]
        if self._in_string:
            return self._leave_string(text, pos, size)
        if self._deep:
            pos = match_end(STRINGS, text, pos, candidate)
        elif frame.key is None:
            after = (
                self._rewrite_entries(frame, text, pos, candidate) if frame.holds_entries else pos
            )
            if after > pos:
                return after
            pos = match_end(frame.skip, text, pos, candidate)
        after = match_end(GAP, text, pos, size)
        if frame.key is not None and match_end(BEFORE_VALUE, text, pos, after) < after:
            frame.key = None  # a number or literal was the value
        if after >= size:
            return after
        token = text[after]
        if token == _QUOTE:
            return self._string(frame, text, after, candidate, size)
        if token in _OPENING:
            return self._open(frame, text, after)
        while after < size and text[after] in _CLOSING:
            self._close(after)
            after += 1
        return after

    def _may_skip_text(self) -> bool:
        frame = self._frames[-1]
        return not self._is_data(frame, frame.key) and super()._may_skip_text()

    def _is_unscanned(self, chunk: bytes) -> bool:
        is_idle = not (self._buffer or self._arrived_chunks or self._output.has_undecided_edit)
        return self._in_string and is_idle and b'"' not in chunk and b"\\" not in chunk

    def _rewrite_complete(self) -> None:
        if not self._patch and self._required_type is None:
            try:
                nearby = _NearbyPass(self._buffer, self._swap)
            except _StructureNeededError:
                pass
            else:
                self._output.text(nearby.output[self._mark :])  # the rest was sent, without a host
                self._output.rewritten += nearby.rewritten
                self._output.unrewritten += nearby.unrewritten
                self._buffer, self._mark = b"", 0
                return
        super()._rewrite_complete()

    def _rewrite_entries(self, frame: _Frame, text: bytes, pos: int, candidate: int) -> int:
        """Rewrite complete entries of a Bundle together; return the position after them."""
        scope = frame.scope
        if scope is None or scope.parent is not None or scope.required_type is not None:
            return pos
        # `resourceType` may come after the entries.
        if scope.resource not in {"Bundle", None} or self._offset + pos < self._doubtful_until:
            return pos
        limit = min(len(text), pos + _MAX_ENTRIES_BYTES)
        end = _last_entry(text, pos, limit)
        entries = self._buffer[pos:end]
        if not entries:
            self._doubtful_until = self._offset + (limit if limit < len(text) else 0)
            return pos
        is_patch = bool(self._data_at) and may_hold_patch(entries)
        if is_patch or any_in(entries, _NESTING) or self._host_finder.has_obscuring_escape(entries):
            self._doubtful_until = self._offset + end
            return pos
        if candidate >= end:
            self._copy(end)
            return end
        # Only the entries from the first to the last with a host are examined further.
        start = _last_entry(text, pos, candidate)
        hosts_at = text[candidate:end].lower()
        last = candidate + max(0, *(hosts_at.rfind(host) for host in self._swap.hosts))
        border = _NEXT_ENTRY.search(text, last, end)
        end = end if border is None else border.end()
        try:
            nearby = _NearbyPass(self._buffer[start:end], self._swap, in_bundle=True)
        except _StructureNeededError:
            self._doubtful_until = self._offset + end
            return pos
        if nearby.rewritten:
            sent = max(0, self._mark - start)  # bytes that were sent, without a host
            edit = Edit(
                position=self._offset + start + sent,
                length=end - start - sent,
                head=nearby.output[sent:],
                cut=end - start - sent,
                scope=scope,
                path=ENTRIES,
                names_resource=True,
                urls=nearby.rewritten,
                kept_urls=nearby.unrewritten,
            )
            self._replace_or_count(edit, b"")
        else:
            self._output.unrewritten += nearby.unrewritten
            self._copy(end)
        return end

    def _open(self, parent: _Frame, text: bytes, pos: int) -> int:
        """Open an object or array; return the position after its bracket."""
        is_object = text[pos] == _OBJECT
        if self._deep or len(self._frames) > MAX_DEPTH:
            parent.key = None
            return self._open_many(text, pos, OPENINGS)
        if not (is_object or parent.is_object):
            return self._open_many(text, pos, ARRAYS)
        path, parent.key = parent.path if parent.key is None else (*parent.path, parent.key), None
        frame = _Frame(path, parent.scope, is_object=is_object)
        if is_object and self._swap.is_request and path in _SENT_SKIPS:
            frame.skip = _SENT_SKIPS[path]
            if path == ("entry",):
                self._open_entry(frame.scope)
        elif is_object and opens_resource(path):
            frame.is_resource, frame.path, frame.skip = True, (), _WATCHED
            patch = self._patch and parent.scope is None
            frame.scope = PatchScope(None) if patch else self._scope(parent.scope)
        self._frames.append(frame)
        return pos + 1

    def _open_many(self, text: bytes, pos: int, run: re.Pattern[bytes]) -> int:
        """Count arrays directly in an array, or levels that are too deep; no more is needed."""
        end = match_end(run, text, pos, len(text))
        number = end - pos - sum(text.count(blank, pos, end) for blank in BLANKS)
        if run is ARRAYS:
            self._frames[-1].inner += number
        else:
            self._deep += number
        return end

    def _close(self, pos: int) -> None:
        if self._deep:
            self._deep -= 1
        elif self._frames[-1].inner:
            self._frames[-1].inner -= 1
        elif len(self._frames) > 1:
            frame = self._frames.pop()
            if frame.is_resource and frame.scope is not None:
                self._close_scope(frame.scope, pos)
            elif frame.is_object and frame.path == ("entry",):
                self._close_entry(frame.scope, pos)

    def _leave_string(self, text: bytes, pos: int, size: int) -> int:
        end = text.find(b'"', pos, size)
        if end < 0:
            return size
        self._in_string = False
        return end + 1

    def _string(self, frame: _Frame, text: bytes, pos: int, candidate: int, size: int) -> int:
        end = text.find(b'"', pos + 1, size)
        reach = size if end < 0 else end
        is_long = reach - pos > MAX_TOKEN
        if end < 0 and not is_long:
            return ~pos
        self._in_string = end < 0
        key, frame.key = frame.key, None
        if frame.is_object and key is None and not self._deep:
            name = "" if is_long else unescape(self._buffer[pos + 1 : end])
            frame.key = name if len(name) <= MAX_ELEMENT_NAME_LENGTH else "?"
            if name == "signature" and frame.is_resource and frame.scope is not None:
                self._observe(frame.scope, name, "", pos)
        elif not is_long:
            self._value(
                frame, key, pos + 1, self._buffer[pos + 1 : end], has_candidate=candidate < end
            )
        return reach + (end >= 0)

    def _value(
        self, frame: _Frame, key: str | None, start: int, raw: bytes, *, has_candidate: bool
    ) -> None:
        """Process a string that is no key."""
        scope = frame.scope
        if frame.is_resource and scope is not None and key in scope.watched_members:
            self._observe(scope, key, unescape(raw), start)
        elif key == "method" and frame.path == ("entry", "request"):
            self._observe_method(scope, unescape(raw), start)
        if not (has_candidate or self._is_data(frame, key)):
            return
        edit = None
        is_listed = key in LISTED_KEYS or frame.path[:1] == ("variables",)
        if scope is not None and is_listed and not self._deep:
            path = frame.path if key is None else (*frame.path, key)
            edit = self._edit(scope, path, start, raw)
        if edit is not None or has_candidate:
            self._replace_or_count(edit, raw)

    def _is_data(self, frame: _Frame, key: str | None) -> bool:
        """Return whether the value of a member may be a JSON Patch in base64."""
        return key == "data" and frame.is_resource and self._swap.is_request

    def _unescape(self, raw: bytes) -> str:
        return unescape(raw)

    def _replace_prefix(self, raw: bytes, length: int) -> tuple[bytes, int]:
        return _replace_prefix(raw, length, self._swap.target.text)

    def _escape_like(self, raw: bytes, text: str) -> bytes | None:
        return escape_like(raw, text)

    def _rewrite_patch(self, data: str) -> str:
        return rewrite_patch(data, self._swap)


class NdjsonRewriter:
    """Rewrites as `JsonRewriter`, line by line; an invalid line does not affect the next."""

    __slots__ = ("_host_finder", "_is_fresh", "_line", "_rewritten", "_swap", "_unrewritten")

    def __init__(self, swap: BaseReplacement) -> None:
        self._swap = swap
        self._host_finder = host_finder(swap)
        self._line = JsonRewriter(swap)
        self._is_fresh = True  # no byte of the current line was fed
        self._rewritten = 0
        self._unrewritten = 0

    @property
    def rewritten(self) -> int:
        """The number of URLs replaced."""
        return self._rewritten + self._line.rewritten

    @property
    def unrewritten(self) -> int:
        """The number of strings with a URL under the bases that were left unchanged."""
        return self._unrewritten + self._line.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            return self._line_chunk(chunk)
        ready: list[bytes] = []
        start = 0
        if not self._is_fresh:
            start = chunk.index(b"\n")
            ready += (self._line_chunk(chunk[:start]), self._end_line())
        ready += self._lines(chunk[start:cut])
        ready.append(self._line_chunk(chunk[cut:]))
        return b"".join(ready)

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        return self._end_line()

    def _lines(self, lines: bytes) -> list[bytes]:
        """Return complete lines, of which only those with a candidate are rewritten."""
        ready: list[bytes] = []
        done = 0
        for candidate in self._host_finder.positions(lines)[:-1]:
            if candidate < done:
                continue  # in a line that was just rewritten
            start = lines.rfind(b"\n", done, candidate) + 1 or done
            end = lines.index(b"\n", candidate)
            ready += (lines[done:start], self._line_chunk(lines[start:end]), self._end_line())
            done = end
        ready.append(lines[done:])
        return ready

    def _line_chunk(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        self._is_fresh = False
        return self._line.feed(chunk)

    def _end_line(self) -> bytes:
        """End the current line; return the rest of its output."""
        if self._is_fresh:
            return b""
        rest = self._line.finish()
        self._is_fresh = True
        self._rewritten += self._line.rewritten
        self._unrewritten += self._line.unrewritten
        self._line = JsonRewriter(self._swap)
        return rest
