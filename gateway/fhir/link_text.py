"""Finding host names in bytes, and replacing the front of a string without touching its rest."""

from __future__ import annotations

import re
from typing import Final, Protocol

END: Final = 1 << 62
"""Beyond every position."""


# Bytes: more than "https://" takes in references to characters, each with leading zeros.
_LONGEST_SCHEME: Final = 128
# From so many on a byte is not rare in a text, and up to so many bytes any search is fast.
_FEW: Final = 50
_SHORT: Final = 4096
# How else than by "://" and escapes a scheme can end: escaped slashes, percent-encoding.
_OTHER_SPELLINGS: Final = (b"\\/", b"%2f", b"%3a")


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


def few(text: bytes, byte: bytes) -> list[int] | None:
    """Where a byte stands that is rare in most texts; None when it is not so rare in this one.

    A single byte is found ten times faster than two of them.
    """
    found: list[int] = []
    at = text.find(byte)
    while at >= 0:
        found.append(at)
        if len(found) > _FEW:
            return None
        at = text.find(byte, at + 1)
    return found


def contains(text: bytes, rare: bytes) -> bool:
    """Whether the text contains something whose first byte is rare."""
    found = None if len(text) < _SHORT else few(text, rare[:1])
    return rare in text if found is None else any(text.startswith(rare, at) for at in found)


def is_free(lower: bytes, hosts: tuple[bytes, ...], escape: bytes) -> bool:
    """Whether neither a host nor an escape, which may hide one, stands in text of lower case."""
    if contains(lower, escape):
        return False
    for host in hosts:  # noqa: SIM110 - a generator costs more than all the rest
        if host in lower:
            return False
    return True


class Needles:
    """The places where an absolute URL with one of the hosts begins, however it is spelled.

    `scheme` matches all spellings of "http://" and "https://" in text of lower case; `escape`
    starts every escape of the format, which may hide the host behind it. To be looked at again:
    a place may turn out to be none.
    """

    __slots__ = ("_escape", "_hosts", "_overlap", "_reach", "_scheme", "_starts")

    def __init__(self, hosts: tuple[bytes, ...], scheme: re.Pattern[bytes], escape: bytes) -> None:
        self._hosts = hosts
        self._starts = tuple(b"://" + host for host in hosts)
        self._scheme = scheme
        self._escape = escape
        self._reach = max(map(len, hosts)) + len(escape)
        self._overlap = self._reach + _LONGEST_SCHEME

    def occur(self, data: bytes, known: int) -> bool:
        """Whether there is one in `data`, whose first `known` bytes were searched before."""
        tail = data[max(0, known - self._overlap) :] if known else data
        if any(start in tail for start in self._starts):
            return True  # as nearly all are written
        return bool(self._found(tail.lower()))

    def positions(self, data: bytes) -> list[int]:
        """All of them, in order, then END."""
        found = self._found(data.lower())
        found.append(END)
        return found

    def _found(self, lower: bytes) -> list[int]:
        escape, hosts, reach = self._escape, self._hosts, self._reach
        if not contains(lower, escape):
            there = [host for host in hosts if host in lower]
            if not there:
                return []
            if not any(contains(lower, other) for other in _OTHER_SPELLINGS):
                return sorted(at for host in there for at in _plain(lower, b"://" + host))
        return [
            match.start()
            for match in self._scheme.finditer(lower)
            if lower.startswith(hosts, match.end())
            or lower.find(escape, match.end(), match.end() + reach) >= 0
        ]


def _plain(lower: bytes, start: bytes) -> list[int]:
    """Where URLs whose scheme is followed by `start` begin: much faster than a pattern."""
    found = []
    at = lower.find(start)
    while at >= 0:
        if lower.endswith(b"https", 0, at):
            found.append(at - 5)
        elif lower.endswith(b"http", 0, at):
            found.append(at - 4)
        at = lower.find(start, at + len(start))
    return found


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
