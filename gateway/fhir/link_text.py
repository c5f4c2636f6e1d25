"""Finding host names in bytes, and replacing the front of a string without touching its rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

END: Final = 1 << 62
"""Beyond every position."""


# Bytes: more than "https://" takes in references to characters, each with leading zeros.
_LONGEST_SCHEME: Final = 128
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


def is_free(lower: bytes, hosts: tuple[bytes, ...], escape: bytes) -> bool:
    """Whether neither a host nor an escape, which may hide one, stands in text of lower case."""
    if escape in lower:
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

    __slots__ = ("_escape", "_hosts", "_overlap", "_reach", "_scheme")

    def __init__(self, hosts: tuple[bytes, ...], scheme: re.Pattern[bytes], escape: bytes) -> None:
        self._hosts = hosts
        self._scheme = scheme
        self._escape = escape
        self._reach = max(map(len, hosts)) + len(escape)
        self._overlap = self._reach + _LONGEST_SCHEME

    def occur(self, data: bytes, known: int) -> bool:
        """Whether there is one in `data`, whose first `known` bytes were searched before."""
        tail = data[max(0, known - self._overlap) :].lower()
        return next(self._found(tail), None) is not None

    def positions(self, data: bytes) -> list[int]:
        """All of them, in order, then END."""
        return [*sorted(self._found(data.lower())), END]

    def _found(self, lower: bytes) -> Iterator[int]:
        escape, hosts, reach = self._escape, self._hosts, self._reach
        if is_free(lower, hosts, escape):
            return
        if escape not in lower and not any(other in lower for other in _OTHER_SPELLINGS):
            for host in hosts:
                yield from _plain(lower, b"://" + host)
            return
        for match in self._scheme.finditer(lower):
            at = match.end()
            if lower.startswith(hosts, at) or lower.find(escape, at, at + reach) >= 0:
                yield match.start()


def _plain(lower: bytes, start: bytes) -> Iterator[int]:
    """Where URLs whose scheme is followed by `start` begin: much faster than a pattern."""
    at = lower.find(start)
    while at >= 0:
        for scheme in (b"https", b"http"):
            if lower.endswith(scheme, 0, at):
                yield at - len(scheme)
                break
        at = lower.find(start, at + len(start))


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
