"""The common base of the streaming rewriters: buffering, and passing text without a host name.

The structure of a body is examined only around candidates: positions at which a host name of the
bases, or the `data` of a patch, may stand. Text without one is sent at once; it is retained (at
most `_MAX_BUFFERED_BYTES`) only to determine the element path of a candidate that comes later.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from gateway.fhir.links.deferred_edits import Edit, EntryDataScope, HeldOutput, ResourceScope
from gateway.fhir.links.link_elements import ContentForm, content_form, names_resource
from gateway.fhir.links.link_map import END

if TYPE_CHECKING:
    from gateway.fhir.links.link_elements import Path
    from gateway.fhir.links.link_map import BaseReplacement, HostFinder


class Rewriter(Protocol):
    """Replaces URLs in a body as it streams by; the result does not depend on the chunks."""

    @property
    def rewritten(self) -> int:
        """The number of URLs replaced."""

    @property
    def unrewritten(self) -> int:
        """The number of values with a URL under the bases that were left unchanged."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""


def any_in(text: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Return whether the text contains one of `wanted`."""
    for part in wanted:
        # Faster than `in`, which first tries to convert the bytes to an integer.
        if text.find(part) >= 0:
            return True
    return False


def may_hold_patch(body: bytes) -> bool:
    """Return whether a body in JSON or XML may hold a Bundle with a JSON Patch."""
    return body.find(b"PATCH") >= 0 and body.find(b"data") >= 0


def match_end(pattern: re.Pattern[bytes], text: bytes, pos: int, end: int) -> int:
    """Return where a match that begins at `pos` ends, `pos` if there is none."""
    match = pattern.match(text, pos, end)
    return pos if match is None else match.end()


MAX_TOKEN: Final = 64 * 1024
"""Bytes: a longer string or tag holds no URL to be rewritten, and is sent in parts."""

MAX_DEPTH: Final = 128
"""Open objects, arrays or elements; deeper levels pass unchanged."""

_MAX_BUFFERED_BYTES: Final = 128 * 1024
"""Bytes: a body up to this length is rewritten when it is complete. Of a longer one this many bytes
without a candidate, already sent, are retained until they are scanned."""

_MAX_UNSCANNED_BYTES: Final = 16 * 1024
"""Bytes: at most this many are still retained after such a scan."""

_MAX_UNTYPED_BYTES: Final = 512 * 1024
"""Bytes: a Bundle whose beginning shows no streaming type is rewritten complete up to this length:
its output would be held anyway."""
# For JSON and XML.
_BUNDLE: Final = re.compile(rb'["<:]Bundle[">\s]')
_STREAMING_TYPE: Final = re.compile(
    rb'["\'](?:searchset|history|subscription-notification|transaction(?:-response)?'
    rb'|batch(?:-response)?)["\']'
)

_RESCAN_BYTES: Final = 4096
"""Bytes: an open token is scanned again after so many more bytes, or a quarter of its length if
that is less. Otherwise every small packet would cause another scan of the whole token."""

_MAX_BACKSLASHES: Final = 64  # in a row that are examined; see `_unescaped`


class StreamRewriter(ABC):
    """Replaces URLs in a body as it streams by; the result does not depend on the chunks.

    Invalid text passes unchanged.
    """

    __slots__ = (
        "_arrived_chunks",
        "_buffer",
        "_candidate",
        "_data_at",
        "_entry_data",
        "_entry_method",
        "_host_finder",
        "_is_streaming",
        "_length",
        "_mark",
        "_max_complete_bytes",
        "_offset",
        "_output",
        "_required_type",
        "_rescan_after",
        "_swap",
    )

    _boundary: ClassVar[bytes]  # the octet that begins every token that may be replaced

    def __init__(
        self,
        swap: BaseReplacement,
        host_finder: HostFinder,
        hold_limit: int,
        required_type: str | None,
    ) -> None:
        self._swap = swap
        self._required_type = required_type  # a body of another resource passes unchanged
        self._host_finder = host_finder
        self._output = HeldOutput(hold_limit)
        self._buffer = b""  # not yet scanned; begins at a token
        self._arrived_chunks: list[bytes] = []  # the chunks after the buffer
        self._rescan_after = 0  # bytes that have to arrive before an open token is scanned again
        self._offset = 0  # the position of the buffer in the body
        self._mark = 0  # the buffer before this index was copied to the output
        self._candidate = END  # the index of the first candidate in the buffer
        self._length = 0  # bytes of the body that have arrived
        self._max_complete_bytes = min(_MAX_BUFFERED_BYTES, hold_limit)
        self._is_streaming = False  # the body is longer than `_max_complete_bytes`
        self._data_at: set[int] = set()  # where in the body a patch may begin, from the buffer on
        # The method and the data scope of the current entry of the outermost Bundle, in requests.
        self._entry_method = ""
        self._entry_data: EntryDataScope | None = None

    @property
    def rewritten(self) -> int:
        """The number of URLs replaced."""
        return self._output.rewritten

    @property
    def unrewritten(self) -> int:
        """The number of values with a URL under the bases that were left unchanged."""
        return self._output.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        if self._is_streaming and self._is_unscanned(chunk):
            self._offset += len(chunk)
            return chunk
        self._append(chunk)
        return b"".join(self._output.take())

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        self._gather()
        self._end()
        return b"".join(self._output.take())

    def transform_complete(self, body: bytes) -> list[bytes]:
        """Return the output of `feed` and `finish` for a complete body, in chunks."""
        if len(body) > self._max_complete_bytes:
            return [self.feed(body), self.finish()]
        self._buffer, self._candidate = body, 0
        self._end()
        return self._output.take()

    def _scope(self, parent: ResourceScope | None) -> ResourceScope:
        """Return the scope of a resource that begins within `parent`."""
        required_type = self._required_type if parent is None else None
        return ResourceScope(parent, streams=self._is_streaming, required_type=required_type)

    def _end(self) -> None:
        if self._candidate < END and not self._is_streaming:
            self._rewrite_complete()
        elif self._candidate < END or self._output.has_undecided_edit:
            self._scan(thorough=False)
        self._output.release_unchanged()
        self._copy(len(self._buffer))

    def _append(self, chunk: bytes) -> None:
        self._arrived_chunks.append(chunk)
        self._length += len(chunk)
        if not self._is_streaming and self._length > self._max_complete_bytes:
            self._start_streaming()
        self._rescan_after -= len(chunk)
        if self._rescan_after > 0 or (self._candidate < END and not self._is_streaming):
            return
        self._gather()
        if self._is_streaming:
            thorough = len(self._buffer) > _MAX_BUFFERED_BYTES
            if self._candidate < END or self._output.has_undecided_edit or thorough:
                self._scan(thorough=thorough)
        if self._candidate == END and not self._output.has_undecided_edit:
            self._release_unscanned()

    def _gather(self) -> None:
        known = len(self._buffer)
        chunks = (self._buffer, *self._arrived_chunks) if self._buffer else self._arrived_chunks
        self._buffer = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._arrived_chunks.clear()
        if self._candidate == END:
            self._candidate = self._host_finder.positions(self._buffer, known, 1)[0]
        for at in self._host_finder.data_positions(self._buffer, known):
            self._candidate = min(self._candidate, at)
            self._data_at.add(self._offset + at)

    def _start_streaming(self) -> None:
        """Stop buffering the complete body, unless it is a Bundle whose output is held anyway."""
        self._gather()
        begin = self._buffer[:_MAX_BUFFERED_BYTES]
        if (
            self._max_complete_bytes == _MAX_BUFFERED_BYTES
            and _BUNDLE.search(begin)
            and not _STREAMING_TYPE.search(begin)
        ):
            self._max_complete_bytes = _MAX_UNTYPED_BYTES
        self._is_streaming = self._length > self._max_complete_bytes

    def _is_unscanned(self, chunk: bytes) -> bool:
        """Return whether the chunk is within a long token that is not scanned."""
        return False

    def _rewrite_complete(self) -> None:
        """Rewrite a body that is completely in the buffer."""
        self._data_at = set(self._host_finder.data_positions(self._buffer))
        self._scan(thorough=False)

    @abstractmethod
    def _advance(self, text: bytes, pos: int, candidate: int, size: int) -> int:
        """Process the first token from `pos` on, after text before `candidate` that can be skipped.

        `size` is the length of the text that can be processed. Return the position after the token,
        or ~position of a token whose end has not arrived yet.
        """

    def _masked(self, text: bytes) -> bytes:
        """Return the text for `_advance`, of the same length, with escapes of JSON masked."""
        return text

    def _release_unscanned(self) -> None:
        """Send unscanned text, except the last token, which may be an incomplete URL."""
        size = len(self._buffer)
        start = max(self._mark, size - MAX_TOKEN)
        begin = self._unescaped(start)
        cut = self._masked(self._buffer[begin:]).rfind(self._boundary, start - begin)
        self._copy(size if cut < 0 else begin + cut)
        self._delay_rescan(size - self._mark)

    def _unescaped(self, pos: int) -> int:
        """Return the last position up to `pos` that is certainly not within an escape.

        It is 0 if all bytes that are examined before `pos` are backslashes.
        """
        before = self._buffer[max(0, pos - _MAX_BACKSLASHES) : pos]
        run = len(before) - len(before.rstrip(b"\\"))
        return 0 if run == _MAX_BACKSLASHES else pos - run

    def _delay_rescan(self, length: int) -> None:
        """Wait for more of an open token, the last `length` bytes of the buffer."""
        self._rescan_after = min(_RESCAN_BYTES, length // 4)

    def _scan(self, *, thorough: bool) -> None:
        """Scan the buffer up to its last candidate; to its end if an edit is held.

        With `thorough` at most `_MAX_UNSCANNED_BYTES` at its end are left.
        """
        text = self._masked(self._buffer)
        size = len(text) - text.endswith(b"\\")  # half an escape waits for the other half
        positions = self._host_finder.positions(self._buffer, self._candidate)
        if self._data_at:
            positions = sorted([*positions, *(at - self._offset for at in self._data_at)])
        pos = number = 0
        while 0 <= pos < size:
            while positions[number] < pos:
                number += 1
            is_short = not thorough or size - pos <= _MAX_UNSCANNED_BYTES
            if is_short and positions[number] == END and self._may_skip_text():
                break
            pos = self._advance(text, pos, min(positions[number], size), size)
        done = pos if pos >= 0 else ~pos
        after = [at - done for at in positions[number:-1] if at >= done]
        self._candidate = after[0] if after else END if self._may_skip_text() else 0
        self._copy(done)
        self._buffer = self._buffer[done:]
        self._mark = max(0, self._mark - done)
        self._offset += done
        self._data_at = {at for at in self._data_at if at >= self._offset}
        self._delay_rescan(size - done)
        self._output.expire(self._offset)

    def _may_skip_text(self) -> bool:
        """Return whether text without a candidate need not be scanned."""
        return not self._output.has_undecided_edit

    def _observe(self, scope: ResourceScope, member: str, value: str, pos: int) -> None:
        """Record a member of a resource that decides about its links."""
        self._output.expire(self._offset + pos)
        scope.observe_member(member, value)
        self._output.release_decided()

    def _open_entry(self, bundle: ResourceScope | None) -> None:
        if bundle is not None and bundle.parent is None:
            self._entry_method, self._entry_data = "", None

    def _observe_method(self, bundle: ResourceScope | None, method: str, pos: int) -> None:
        """Record the method of the current entry."""
        if bundle is not None and bundle.parent is None:
            self._entry_method = method
            if self._entry_data is not None:
                self._observe(self._entry_data, "method", method, pos)

    def _close_entry(self, bundle: ResourceScope | None, pos: int) -> None:
        if bundle is not None and bundle.parent is None and self._entry_data is not None:
            self._close_scope(self._entry_data, pos)

    def _data_scope(self, binary: ResourceScope) -> EntryDataScope:
        """Return the scope of the data of a resource in the current entry."""
        if self._entry_data is None:
            self._entry_data = EntryDataScope(binary, streams=False)
            if self._entry_method:
                self._entry_data.observe_member("method", self._entry_method)
        return self._entry_data

    def _close_scope(self, scope: ResourceScope, pos: int) -> None:
        self._output.expire(self._offset + pos)
        scope.close()
        self._output.release_decided()

    @abstractmethod
    def _unescape(self, raw: bytes) -> str:
        """Return the text of a value."""

    @abstractmethod
    def _replace_prefix(self, raw: bytes, length: int) -> tuple[bytes, int]:
        """Return the replacement of the first `length` characters of `raw`, and their bytes."""

    @abstractmethod
    def _escape_like(self, raw: bytes, text: str) -> bytes | None:
        """Return `text` escaped like `raw`, of which it was made; None where `raw` has to stay."""

    @abstractmethod
    def _rewrite_patch(self, data: str) -> str:
        """Return a JSON Patch in base64 with its URLs replaced."""

    def _edit(self, scope: ResourceScope, path: Path, start: int, raw: bytes) -> Edit | None:
        """Return the edit of the value `raw` at `start` in the buffer; None if it stays."""
        value = self._unescape(raw)
        position = self._offset + start
        form = content_form(scope.resource, path, value, is_request=self._swap.is_request)
        if form is not None:
            if form is ContentForm.PATCH:
                if scope.parent is None or scope.parent.parent is not None:
                    return None  # not in an entry of the outermost Bundle
                swapped = self._rewrite_patch(value)
                scope = self._data_scope(scope)
            else:
                swapped = self._swap.replace_in(value, form)
            new = None if swapped == value else self._escape_like(raw, swapped)
            if new is None:
                return None
            return Edit(position, len(raw), new, len(raw), scope, path, None)
        length = self._swap.prefix_length(value)
        if length is None:
            return None
        head, cut = self._replace_prefix(raw, length)
        is_name = names_resource(value[length:], path[-1], is_request=self._swap.is_request)
        return Edit(position, len(raw), head, cut, scope, path, is_name)

    def _replace_or_count(self, edit: Edit | None, raw: bytes) -> None:
        """Copy the text before an edit and add the edit; without one, count an unchanged URL."""
        if edit is not None:
            start = edit.position - self._offset
            self._copy(start)
            end = start + edit.length
            self._output.edit(edit, self._buffer[start:end])
            self._mark = end
        elif self._swap.occurs_in(self._unescape(raw)):
            self._output.unrewritten += 1

    def _copy(self, upto: int) -> None:
        """Copy the buffer up to a position to the output, unchanged."""
        if upto > self._mark:
            self._output.text(self._buffer[self._mark : upto])
            self._mark = upto
