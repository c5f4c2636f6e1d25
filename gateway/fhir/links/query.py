"""Replaces gateway URLs among the values of a query string; all else stays unchanged.

A value is replaced when it, or one of its comma-separated parts, is an absolute URL under the base,
percent-encoded or not. A part with `|` is a token or a versioned canonical: an identifier, no link.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from gateway.fhir.links.map import BaseReplacement
from gateway.fhir.links.text import END, HostFinder, raw_length

_MAX_FIELD_BYTES: Final = 64 * 1024  # a longer form field passes unchanged
_UNIT: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_COMMA: Final = re.compile(r"(,|%2[Cc])")
_SCHEME: Final = re.compile(
    rb"(?:h|%[46]8)(?:t|%[57]4){2}(?:p|%[57]0)(?:s|%[57]3)?(?::|%3a)(?:/|%2f){2}"
)
_ESCAPE: Final = re.compile(rb"%")
# An escape other than that of a colon, slash, bar or space, of which only a colon is in some hosts.
_HIDING: Final = re.compile(r"%(?!3[Aa]|2[Ff]|7[Cc]|20)")
_ENCODED: Final = {":": re.compile(r"%3[Aa]"), "/": re.compile(r"%2[Ff]")}


def replace_in_query(raw: str, swap: BaseReplacement) -> str:
    """Return the query string with its absolute URLs under the other base."""
    is_encoded = swap.holds_colon or _HIDING.search(raw) is not None
    plain = (unquote(raw, encoding="latin-1") if is_encoded else raw).lower()
    if not any(host.decode() in plain for host in swap.hosts):
        return raw
    return "&".join(_replace_in_pair(pair, swap) for pair in raw.split("&"))


def replace_in_url(raw: str, swap: BaseReplacement) -> str:
    """Return the URL, absolute or relative, with its base and those in its query replaced."""
    head, mark, query = raw.partition("?")
    return (swap.translate(head) or head) + mark + replace_in_query(query, swap)


def _replace_in_pair(pair: str, swap: BaseReplacement) -> str:
    name, equals, value = pair.partition("=")
    parts = _COMMA.split(value)
    return name + equals + "".join(_replace_in_part(part, swap) for part in parts)


def _replace_in_part(raw: str, swap: BaseReplacement) -> str:
    text = unquote(raw, encoding="latin-1")
    length = swap.prefix_length(text)
    if length is None or "|" in text:
        return raw
    cut = raw_length(raw, length, _UNIT, "%")
    target = swap.target.text
    for char, encoded in _ENCODED.items():
        match = encoded.search(raw, 0, cut)
        if match is not None:
            target = target.replace(char, match.group())
    return target + raw[cut:]


class FormRewriter:
    """Does the same for the body of a `_search` form, field by field as it streams by.

    Consecutive fields without a URL of the known hosts pass together.
    """

    __slots__ = ("_buffer", "_needles", "_passing", "_swap", "rewritten", "unrewritten")

    def __init__(self, swap: BaseReplacement) -> None:
        self._swap = swap
        self._needles = HostFinder(swap.hosts, b"%", _ESCAPE, _SCHEME)
        self._buffer = b""  # an incomplete field
        self._passing = False  # in a field longer than `_MAX_FIELD_BYTES`
        self.rewritten = 0
        self.unrewritten = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        start = 0
        if self._passing:
            start = chunk.find(b"&") + 1
            if not start:
                return chunk
        self._passing = False
        data = self._buffer + chunk[start:]
        cut = data.rfind(b"&") + 1
        ready, self._buffer = chunk[:start] + self._fields(data[:cut]), data[cut:]
        if len(self._buffer) > _MAX_FIELD_BYTES:
            self._passing = True
            ready, self._buffer = ready + self._buffer, b""
        return ready

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        rest, self._buffer = self._fields(self._buffer), b""
        return rest

    def _fields(self, data: bytes) -> bytes:
        """Return complete fields, of which only those with a needle are read."""
        ready: list[bytes] = []
        done = 0
        for needle in self._needles.positions(data):
            if needle < done:
                continue  # in a field that was just read
            if needle == END:
                break
            start = data.rfind(b"&", done, needle) + 1 or done
            end = data.find(b"&", needle)
            end = len(data) if end < 0 else end
            ready += (data[done:start], self._field(data[start:end]))
            done = end
        ready.append(data[done:])
        return b"".join(ready)

    def _field(self, field: bytes) -> bytes:
        if len(field) > _MAX_FIELD_BYTES:
            return field
        text = field.decode("latin-1")
        swapped = replace_in_query(text, self._swap)
        self.rewritten += swapped != text
        return swapped.encode("latin-1")
