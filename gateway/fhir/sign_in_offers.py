"""Takes the platform's sign-in offers out of its CapabilityStatement.

`rest.security` tells clients where to get a token (`oauth-uris` of SMART on FHIR, `service`, often
a sentence for people). That is the gateway's business: a caller that followed it would sign in at
the SSO and send a token that the gateway drops. The element is cut out as it stands; all other
bytes stay, but for escaped letters in JSON.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.fhir.links.json_text import CONTAINER, masked, plainly_spelled
from gateway.fhir.links.text import Rewriter

# A longer statement passes as it is.
_LONGEST: Final = 16 * 1024 * 1024
# In a CapabilityStatement no other member has this name. With what separates it from the next one.
_MEMBER: Final = re.compile(rb'"security"\s*+:\s*+' + CONTAINER)
_SEPARATOR_BEFORE: Final = re.compile(rb",\s*+\Z")
_ELEMENT: Final = re.compile(
    rb"<((?:[^\s<>\"'/:!?]+:)?security)(?:\s[^<>]*)?(?<!/)>.*?</\1\s*>\s*", re.DOTALL
)


def remove_rest_security(statement: bytes, *, xml: bool) -> bytes:
    """The CapabilityStatement without `rest.security`."""
    if xml:
        return _ELEMENT.sub(b"", statement)
    statement = plainly_spelled(statement)
    text, kept, done = masked(statement), [], 0
    for match in _MEMBER.finditer(text):
        before = statement[done : match.start()]
        if text[match.end() : match.end() + 1] == b"}":  # the last member
            before = _SEPARATOR_BEFORE.sub(b"", before)
        kept.append(before)
        done = match.end()
    return b"".join((*kept, statement[done:]))


class SecurityRemovingRewriter:
    """Collects a CapabilityStatement, cuts the offers out and lets another rewriter have the rest.

    Its rewriter's counts are its own.
    """

    __slots__ = ("_inner", "_pieces", "_size", "_xml")

    def __init__(self, inner: Rewriter, *, xml: bool) -> None:
        self._inner = inner
        self._xml = xml
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def rewritten(self) -> int:
        """How many URLs were replaced."""
        return self._inner.rewritten

    @property
    def unrewritten(self) -> int:
        """How many values under the same bases were left as they were."""
        return self._inner.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the body; give what can be sent on."""
        if self._size > _LONGEST:
            return self._inner.feed(chunk)
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size <= _LONGEST:
            return b""
        return self._inner.feed(b"".join(self._pieces))

    def finish(self) -> bytes:
        """The body ended; give the rest."""
        if self._size > _LONGEST:
            return self._inner.finish()
        statement = remove_rest_security(b"".join(self._pieces), xml=self._xml)
        return self._inner.feed(statement) + self._inner.finish()
