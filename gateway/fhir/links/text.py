"""Finds host names in bytes, and measures the start of an escaped string that is to be replaced."""

from __future__ import annotations

import re
from typing import Final, Protocol

END: Final = (1 << 62) - 1
"""Greater than every position."""

# Bytes: "https://" takes fewer, even in character references with leading zeros.
_MAX_SCHEME_BYTES: Final = 128


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


class HostFinder:
    """Finds the positions of hosts after a slash, as in an absolute URL.

    Case is ignored, and the slash may be percent-encoded. `escape` begins every escape of the
    format. `hiding` matches those that may spell a part of a host: where there is one, `scheme`
    finds URLs in any spelling. The positions are candidates only and have to be checked.
    """

    __slots__ = (
        *("_escape", "_hiding", "_hosts", "_overlap", "_plain_starts", "_reach", "_scheme"),
        "_starts",
    )

    def __init__(
        self,
        hosts: tuple[bytes, ...],
        escape: bytes,
        hiding: re.Pattern[bytes],
        scheme: re.Pattern[bytes],
    ) -> None:
        self._hosts = hosts
        self._plain_starts = [b"/" + host for host in hosts]
        self._starts = [end + host for end in (b"/", b"2f") for host in hosts]
        self._escape = escape
        self._hiding = hiding
        self._scheme = scheme
        self._reach = max(map(len, hosts)) + len(escape)
        self._overlap = self._reach + _MAX_SCHEME_BYTES

    def has_match(self, data: bytes, known: int) -> bool:
        """Return whether `data` has a position; its first `known` bytes were searched before."""
        tail = data[max(0, known - self._overlap) :] if known else data
        return len(self.positions(tail)) > 1

    def has_obscuring_escape(self, data: bytes) -> bool:
        """Return whether an escape in `data` may spell a character of a host."""
        return self._escape in data and self._hiding.search(data) is not None

    def positions(self, data: bytes) -> list[int]:
        """Return all positions in order, then END."""
        is_escaped = self._escape[:1] in data
        is_encoded = is_escaped or b"%" in data
        found: list[int] = []
        # A search for a single byte runs at the speed of memory, and base64 holds none of these.
        if is_encoded or b":" in data:
            lower = data.lower()
            if is_escaped and self.has_obscuring_escape(data):
                found = self._escaped(lower)
            else:
                for start in self._starts if is_encoded else self._plain_starts:
                    _add_positions(found, lower, start)
                found.sort()
        found.append(END)
        return found

    def _escaped(self, lower: bytes) -> list[int]:
        """Return the positions of URLs with such a host, or with an escape where it would be."""
        escape, hosts, reach = self._escape, self._hosts, self._reach
        return [
            match.start()
            for match in self._scheme.finditer(lower)
            if lower.startswith(hosts, match.end())
            or lower.find(escape, match.end(), match.end() + reach) >= 0
        ]


def any_in(text: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Return whether one of `wanted` stands in the text."""
    for part in wanted:  # noqa: SIM110 - a generator would cost more than all the rest
        # Not `in`, which first tries to convert the bytes to an integer and drops the error.
        if text.find(part) >= 0:
            return True
    return False


def _add_positions(found: list[int], text: bytes, wanted: bytes) -> None:
    at = text.find(wanted)
    while at >= 0:
        found.append(at)
        at = text.find(wanted, at + 1)


def raw_length(raw: str, length: int, unit: re.Pattern[str], escape: str) -> int:
    """Return how many characters of `raw` encode the first `length` characters of its value.

    `unit` matches the encoding of one character; `escape` begins encodings of several characters.
    """
    if raw.find(escape, 0, length) < 0:
        return length
    at = 0
    for _ in range(length):
        match = unit.match(raw, at)
        if match is None:
            break
        at = match.end()
    return at


def match_end(pattern: re.Pattern[bytes], text: bytes, pos: int, end: int) -> int:
    """Return where the match of a pattern ends that can match the empty string."""
    match = pattern.match(text, pos, end)
    return pos if match is None else match.end()
