"""Finding host names in bytes, and replacing the front of a string without touching its rest."""

from __future__ import annotations

import re
from typing import Final, Protocol

END: Final = (1 << 62) - 1
"""Beyond every position."""

# Bytes: more than "https://" takes in references to characters, each with leading zeros.
_LONGEST_SCHEME: Final = 128


class Rewriter(Protocol):
    """Replaces URLs in a body as it streams by; the result does not depend on the chunks.

    `rewritten` counts URLs replaced, `unrewritten` values under the same bases left as they were.
    """

    @property
    def rewritten(self) -> int:
        """How many URLs were replaced."""

    @property
    def unrewritten(self) -> int:
        """How many values with a URL under the bases were left alone."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body; give what can be sent on."""

    def finish(self) -> bytes:
        """The body ended; give the rest."""


class HostFinder:
    """The places where a host stands behind a slash, as it does in an absolute URL.

    In text of any case, and the slash may be percent-encoded. `escape` begins every escape of the
    format, `hiding` matches those that may spell a part of a host: where there is
    one, `scheme` finds URLs, however they are spelled. To be looked at again: a place may turn out
    to be none.
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
        self._overlap = self._reach + _LONGEST_SCHEME

    def has_match(self, data: bytes, known: int) -> bool:
        """Whether there is one in `data`, whose first `known` bytes were searched before."""
        tail = data[max(0, known - self._overlap) :] if known else data
        return len(self.positions(tail)) > 1

    def has_obscuring_escape(self, data: bytes) -> bool:
        """Whether an escape in `data` may spell a letter, a digit or the like."""
        return self._escape in data and self._hiding.search(data) is not None

    def positions(self, data: bytes) -> list[int]:
        """All of them, in order, then END."""
        is_escaped = self._escape[:1] in data
        is_encoded = is_escaped or b"%" in data
        found: list[int] = []
        # Single bytes are searched at the speed of memory, and base64 holds none of these.
        if is_encoded or b":" in data:
            lower = data.lower()
            if is_escaped and self.has_obscuring_escape(data):
                found = self._escaped(lower)
            else:
                for start in self._starts if is_encoded else self._plain_starts:
                    _add_places(found, lower, start)
                found.sort()
        found.append(END)
        return found

    def _escaped(self, lower: bytes) -> list[int]:
        """Where one begins, or may begin behind whose scheme there is an escape."""
        escape, hosts, reach = self._escape, self._hosts, self._reach
        return [
            match.start()
            for match in self._scheme.finditer(lower)
            if lower.startswith(hosts, match.end())
            or lower.find(escape, match.end(), match.end() + reach) >= 0
        ]


def any_in(text: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Whether one of these stands in the text."""
    for each in wanted:  # noqa: SIM110 - a generator costs more than all the rest
        # Not `in`, which first makes an error of that the bytes are no number.
        if text.find(each) >= 0:
            return True
    return False


def _add_places(found: list[int], text: bytes, wanted: bytes) -> None:
    at = text.find(wanted)
    while at >= 0:
        found.append(at)
        at = text.find(wanted, at + 1)


def raw_length(raw: str, length: int, unit: re.Pattern[str], escape: str) -> int:
    """How much of `raw` stands for the first `length` characters.

    `unit` matches what stands for one of them; `escape` begins those that are longer than one.
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
    """Where a pattern that can match nothing stops matching."""
    match = pattern.match(text, pos, end)
    return pos if match is None else match.end()
