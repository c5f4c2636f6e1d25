"""Finding host names in bytes, and replacing the front of a string without touching its rest."""

from __future__ import annotations

import re
from typing import Final, Protocol

END: Final = 1 << 62
"""Beyond every position."""


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


class Needles:
    """The places where a host name occurs, in any case, or may be hidden by an escape.

    `escape` starts every escape of the format; `hidden` matches those of a host's characters.
    """

    __slots__ = ("_escape", "_hidden", "_hosts", "_overlap")

    def __init__(self, hosts: tuple[bytes, ...], escape: bytes, hidden: re.Pattern[bytes]) -> None:
        self._hosts = hosts
        self._escape = escape
        self._hidden = hidden
        self._overlap = max(16, *(len(host) for host in hosts))

    def occur(self, data: bytes, known: int) -> bool:
        """Whether there is one in `data`, whose first `known` bytes were searched before."""
        tail = data[max(0, known - self._overlap) :].lower()
        if any(host in tail for host in self._hosts):
            return True
        return self._escape in tail and self._hidden.search(tail) is not None

    def positions(self, data: bytes) -> list[int]:
        """All of them, in order, then END."""
        lower = data.lower()
        found = []
        for host in self._hosts:
            at = lower.find(host)
            while at >= 0:
                found.append(at)
                at = lower.find(host, at + 1)
        if self._escape in lower:
            found.extend(match.start() for match in self._hidden.finditer(lower))
        found.sort()
        found.append(END)
        return found


def raw_length(raw: str, length: int, unit: re.Pattern[str]) -> int:
    """How much of `raw` stands for the first `length` characters; `unit` matches one of them."""
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
