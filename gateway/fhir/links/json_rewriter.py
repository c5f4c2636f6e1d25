"""Rewrites URLs in JSON as it streams by; all other bytes stay unchanged.

The text is never parsed into values and serialized again: that would change numbers (1.10 is not
1.1 in FHIR), spacing, order and duplicate members. It is scanned: a stack of open objects and
arrays gives the path of a string. It is fast because `gateway.fhir.links.stream` examines only text
near a host name, and because one regular expression skips all members without one at once.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.fhir.links.hold import HOLD_LIMIT, Edit, PatchScope, ResourceScope
from gateway.fhir.links.json_sweep import JsonFastPath, StructureNeededError
from gateway.fhir.links.json_text import (
    ARRAYS,
    BEFORE_VALUE,
    BLANKS,
    ELEMENTS,
    GAP,
    LINK,
    MEMBER,
    MEMBERS,
    OPENINGS,
    REFERENCE,
    STRINGS,
    WATCHED,
    escape_like,
    masked,
    needles,
    replace_prefix,
    unescape,
)
from gateway.fhir.links.map import BaseReplacement
from gateway.fhir.links.query import replace_in_query, replace_in_url
from gateway.fhir.links.rules import (
    LISTED_KEYS,
    MAX_ELEMENT_NAME_LENGTH,
    Path,
    may_hold_query,
    names_resource,
    opens_resource,
)
from gateway.fhir.links.stream import MAX_DEPTH, MAX_TOKEN, StreamRewriter
from gateway.fhir.links.text import match_end

_QUOTE: Final = 0x22
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"


class _Frame:
    """An open object or array; `key` is the member whose value comes next, None before a key.

    An array directly in an array has no frame: `inner` counts those open in this array.
    """

    __slots__ = (
        *("holds_entries", "inner", "is_object", "is_resource", "key", "path", "scope", "skip"),
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

    __slots__ = ("_deep", "_fast_path_text", "_frames", "_in_string", "_patch")

    _boundary = b'"'

    def __init__(
        self,
        swap: BaseReplacement,
        *,
        patch: bool = False,
        hold_limit: int = HOLD_LIMIT,
        required_type: str | None = None,
    ) -> None:
        super().__init__(swap, needles(swap), hold_limit, required_type)
        self._patch = patch
        self._frames = [_Frame((), None, is_object=False)]
        self._deep = 0  # levels open beyond MAX_DEPTH
        self._fast_path_text = b""  # the text for which the fast path was tried
        self._in_string = False  # in a string longer than MAX_TOKEN

    def _masked(self, text: bytes) -> bytes:
        return masked(text)

    def _advance(self, text: bytes, pos: int, needle: int, size: int) -> int:
        frame = self._frames[-1]
        if self._in_string:
            return self._leave_string(text, pos, size)
        if frame.key is None and not self._deep:
            pos = match_end(frame.skip, text, pos, needle)
            if frame.holds_entries and needle < size and self._fast_path_text is not text:
                after = self._rewrite_entries(frame, text, pos, needle)
                if after > pos:
                    return after
            if frame.is_object:
                member = MEMBER.match(text, pos, size)
                if member is not None and member.end() - pos <= MAX_TOKEN:
                    return self._member(frame, text, member, needle)
        elif self._deep:
            pos = match_end(STRINGS, text, pos, needle)
        return self._token(frame, text, pos, size, needle)

    def _is_unscanned(self, chunk: bytes) -> bool:
        is_idle = not (self._buffer or self._arrived_chunks or self._output.has_undecided_edit)
        return self._in_string and is_idle and b'"' not in chunk and b"\\" not in chunk

    def _rewrite_complete(self) -> None:
        if not self._patch and self._required_type is None:
            try:
                fast_path = JsonFastPath(self._buffer, self._swap)
            except StructureNeededError:
                pass
            else:
                self._take(fast_path, 0, len(self._buffer))
                self._buffer, self._mark = b"", 0
                return
        super()._rewrite_complete()

    def _rewrite_entries(self, frame: _Frame, text: bytes, pos: int, needle: int) -> int:
        """Rewrite all complete entries in `text` at once; return the position after them."""
        self._fast_path_text = text
        scope = frame.scope
        if scope is None or scope.parent is not None or scope.resource != "Bundle":
            return pos
        if not scope.may_rewrite or self._output.has_undecided_edit:
            return pos
        end = match_end(ELEMENTS, text, pos, len(text))
        if end <= needle:
            return pos
        try:
            fast_path = JsonFastPath(self._buffer[pos:end], self._swap, in_bundle=True)
        except StructureNeededError:
            return pos
        self._copy(pos)
        self._take(fast_path, pos, end)
        if fast_path.rewritten:
            scope.mark_rewritten()
        return end

    def _take(self, fast_path: JsonFastPath, start: int, end: int) -> None:
        """Output a result of the fast path; the text before the mark, without a host, was sent."""
        chunks = fast_path.chunks
        if self._mark > start:
            chunks[0] = chunks[0][self._mark - start :]
        self._output.texts(chunks)
        self._output.rewritten += fast_path.rewritten
        self._output.unrewritten += fast_path.unrewritten
        self._mark = end

    def _token(self, frame: _Frame, text: bytes, pos: int, size: int, needle: int) -> int:
        """Process a token at `pos` that is no complete member; return the same as `_advance`."""
        after = match_end(GAP, text, pos, size)
        if frame.key is not None and match_end(BEFORE_VALUE, text, pos, after) < after:
            frame.key = None  # a number or literal was the value
        if after >= size:
            return after
        token = text[after]
        if token == _QUOTE:
            return self._string(text, after, needle, size)
        if token in _OPENING:
            return self._enter(text, after, needle)
        while after < size and text[after] in _CLOSING:
            self._close(after)
            after += 1
        return after

    def _member(self, frame: _Frame, text: bytes, member: re.Match[bytes], needle: int) -> int:
        """Process a key with its value if that is a string, or with the value's opening bracket."""
        start, end = member.span(1)
        self._key(frame, unescape(self._buffer[start:end]), start - 1)
        end = member.end()
        if member[3] is not None:
            return self._enter(text, end - 1, needle)
        if member[2] is not None:
            key, frame.key = frame.key, None
            self._value(frame, key, member.start(2), end - 1, has_needle=needle < end)
        return end

    def _enter(self, text: bytes, pos: int, needle: int) -> int:
        """Open an object or array; process a complete Reference or link at once (usual cases)."""
        frame = self._frames[-1]
        if self._deep or len(self._frames) > MAX_DEPTH:
            frame.key = None
            return self._open_many(text, pos, OPENINGS)
        if text[pos] == _OPENING[1] and not frame.is_object:
            return self._open_many(text, pos, ARRAYS)
        match, key = REFERENCE.match(text, pos), "reference"
        if match is None:
            match, key = LINK.match(text, pos), "url"
        if match is None or not self._is_usable_match(match, needle) or frame.scope is None:
            self._open(is_object=text[pos] == _OPENING[0])
            return pos + 1
        path = frame.path if frame.key is None else (*frame.path, frame.key)
        if opens_resource(path):
            self._open(is_object=True)
            return pos + 1
        frame.key = None
        self._link(frame.scope, (*path, key), *match.span(1))
        return match.end()

    def _is_usable_match(self, match: re.Match[bytes], needle: int) -> bool:
        """Return whether the needle is in the URL, and the object is not too long or too deep."""
        start, end = match.span(1)
        fits = match.end() - match.start() <= MAX_TOKEN
        return start <= needle < end and fits and len(self._frames) <= MAX_DEPTH and not self._deep

    def _open_many(self, text: bytes, pos: int, run: re.Pattern[bytes]) -> int:
        """Count arrays directly in an array, or levels that are too deep; no more is needed."""
        end = match_end(run, text, pos, len(text))
        number = end - pos - sum(text.count(blank, pos, end) for blank in BLANKS)
        if run is ARRAYS:
            self._frames[-1].inner += number
        else:
            self._deep += number
        return end

    def _open(self, *, is_object: bool) -> None:
        parent = self._frames[-1]
        path, parent.key = parent.path if parent.key is None else (*parent.path, parent.key), None
        frame = _Frame(path, parent.scope, is_object=is_object)
        if is_object and opens_resource(path):
            frame.is_resource, frame.path, frame.skip = True, (), WATCHED
            patch = self._patch and parent.scope is None
            frame.scope = PatchScope(None) if patch else self._scope(parent.scope)
        self._frames.append(frame)

    def _close(self, pos: int) -> None:
        if self._deep:
            self._deep -= 1
        elif self._frames[-1].inner:
            self._frames[-1].inner -= 1
        elif len(self._frames) > 1:
            frame = self._frames.pop()
            if frame.is_resource and frame.scope is not None:
                self._output.expire(self._offset + pos)
                frame.scope.close()
                self._output.release_decided()

    def _leave_string(self, text: bytes, pos: int, size: int) -> int:
        end = text.find(b'"', pos, size)
        if end < 0:
            return size
        self._in_string = False
        return end + 1

    def _string(self, text: bytes, pos: int, needle: int, size: int) -> int:
        end = text.find(b'"', pos + 1, size)
        reach = size if end < 0 else end
        is_long = reach - pos > MAX_TOKEN
        if end < 0 and not is_long:
            return ~pos
        self._in_string = end < 0
        frame = self._frames[-1]
        if frame.is_object and frame.key is None and not self._deep:
            self._key(frame, "" if is_long else unescape(self._buffer[pos + 1 : end]), pos)
        else:
            key, frame.key = frame.key, None
            if not is_long:
                self._value(frame, key, pos + 1, end, has_needle=needle < end)
        return reach + (end >= 0)

    def _key(self, frame: _Frame, key: str, pos: int) -> None:
        frame.key = key if len(key) <= MAX_ELEMENT_NAME_LENGTH else "?"
        if key == "signature" and frame.is_resource:
            self._learn(frame, key, "", pos)

    def _value(
        self, frame: _Frame, key: str | None, start: int, end: int, *, has_needle: bool
    ) -> None:
        """Process the string from `start` to `end`, which is no key."""
        if frame.is_resource and frame.scope is not None and key in frame.scope.watched_members:
            self._learn(frame, key, unescape(self._buffer[start:end]), start)
        if not has_needle:
            return
        path = (*frame.path, key) if key in LISTED_KEYS and not self._deep else ()
        self._link(frame.scope, path, start, end)

    def _link(self, scope: ResourceScope | None, path: Path, start: int, end: int) -> None:
        """Process a string with a needle; `path` is empty where the rules list no element."""
        raw = self._buffer[start:end]
        edit = self._edit(scope, path, start, raw) if path and scope is not None else None
        if edit is not None:
            self._replace(edit)
        elif self._swap.occurs_in(unescape(raw)):
            self._output.unrewritten += 1

    def _learn(self, frame: _Frame, member: str, value: str, pos: int) -> None:
        if frame.scope is not None:
            self._output.expire(self._offset + pos)
            frame.scope.observe_member(member, value)
            self._output.release_decided()

    def _edit(self, scope: ResourceScope, path: Path, start: int, raw: bytes) -> Edit | None:
        value = unescape(raw)
        position = self._offset + start
        if self._swap.is_request and may_hold_query(path, value):
            swapped = (replace_in_url if path[-1] == "url" else replace_in_query)(value, self._swap)
            if swapped != value:
                head = escape_like(raw, swapped)
                return Edit(position, len(raw), head, len(raw), scope, path, None)
            return None
        length = self._swap.prefix_length(value)
        if length is None:
            return None
        head, cut = replace_prefix(raw, length, self._swap.target.text)
        is_name = names_resource(value[length:], path[-1], is_request=self._swap.is_request)
        return Edit(position, len(raw), head, cut, scope, path, is_name)
