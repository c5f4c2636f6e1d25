"""Removes the platform's sign-in offers from its CapabilityStatement.

`rest.security` describes where to get a token (`oauth-uris` of SMART on FHIR, `service`, often a
sentence in plain text). Only the gateway needs that: a caller that followed it would sign in at the
SSO and send a token that the gateway drops. The element is cut out; all other bytes stay, except
for escaped letters in JSON.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.fhir.links.json_text import CONTAINER, masked, plainly_spelled
from gateway.fhir.links.text import Rewriter

# Bytes. A longer statement passes unchanged.
_MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
# No other member of a CapabilityStatement has this name. A comma after it is part of the match.
_MEMBER: Final = re.compile(rb'"security"\s*+:\s*+' + CONTAINER)
_SEPARATOR_BEFORE: Final = re.compile(rb",\s*+\Z")
_ELEMENT: Final = re.compile(
    rb"<((?:[^\s<>\"'/:!?]+:)?security)(?:\s[^<>]*)?(?<!/)>.*?</\1\s*>\s*", re.DOTALL
)


def remove_rest_security(statement: bytes, *, xml: bool) -> bytes:
    """Return the CapabilityStatement without `rest.security`."""
    if xml:
        return _ELEMENT.sub(b"", statement)
    statement = plainly_spelled(statement)
    text, chunks, done = masked(statement), [], 0
    for match in _MEMBER.finditer(text):
        before = statement[done : match.start()]
        if text[match.end() : match.end() + 1] == b"}":  # the last member
            before = _SEPARATOR_BEFORE.sub(b"", before)
        chunks.append(before)
        done = match.end()
    return b"".join((*chunks, statement[done:]))


class SecurityRemovingRewriter:
    """Buffers a CapabilityStatement, removes the offers and passes the rest to another rewriter.

    `rewritten` and `unrewritten` are the counts of that rewriter.
    """

    __slots__ = ("_chunks", "_inner", "_size", "_xml")

    def __init__(self, inner: Rewriter, *, xml: bool) -> None:
        self._inner = inner
        self._xml = xml
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def rewritten(self) -> int:
        """The number of URLs replaced."""
        return self._inner.rewritten

    @property
    def unrewritten(self) -> int:
        """The number of values with a URL under the bases that were left unchanged."""
        return self._inner.unrewritten

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        if self._size > _MAX_STATEMENT_BYTES:
            return self._inner.feed(chunk)
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size <= _MAX_STATEMENT_BYTES:
            return b""
        return self._inner.feed(b"".join(self._chunks))

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        if self._size > _MAX_STATEMENT_BYTES:
            return self._inner.finish()
        statement = remove_rest_security(b"".join(self._chunks), xml=self._xml)
        return self._inner.feed(statement) + self._inner.finish()
