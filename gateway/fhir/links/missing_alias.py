"""Finds links by which a platform names itself otherwise than the settings do.

Callers cannot follow them. What counts is what a server writes of itself: a Bundle's links for
paging, its first `fullUrl` or `location`. These are looked up by their names, at the beginning and
at the end of a body, so that a page of a search costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.fhir.links.json_text import unescape
from gateway.fhir.links.map import LinkMap

# Bytes in which an entry or the links begin, and those that all links take.
_NEAR: Final = 16 * 1024
_LINKS: Final = 4096
# Behind a name, in JSON or XML.
_IS: Final = rb"(?:\"\s*+:|\s++value\s*+=)\s*+[\"']"
_BEHIND_NAME: Final = re.compile(_IS)
_URL: Final = re.compile(rb"[^\"'<>\s]*+")
_PAGING: Final = re.compile(rb"relation" + _IS + rb"(?:self|next|prev(?:ious)?|first|last)[\"']")


class AliasWatch:
    """Looks at a Bundle as it passes. `on_missing` is told of a base once, as a missing alias."""

    __slots__ = ("_begin", "_end", "_is_over", "_links", "_on_missing")

    def __init__(self, links: LinkMap, on_missing: Callable[[str], None]) -> None:
        self._links = links
        self._on_missing = on_missing
        self._begin = b""  # at least `_LINKS` bytes, where there are so many
        self._end = b""
        self._is_over = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if len(self._begin) < _LINKS:
            self._begin += piece
            if len(self._begin) >= _LINKS:
                self.transform_complete(self._begin)
        self._end = piece if len(piece) >= _LINKS else self._end[-_LINKS:] + piece

    def finish(self) -> None:
        """The body ended."""
        if len(self._begin) < _LINKS:
            self.transform_complete(self._begin)
        elif not self._is_over and self._end is not self._begin:
            self.transform_complete(self._end[-_LINKS:])

    def transform_complete(self, body: bytes) -> None:
        """Look at all of a body."""
        alias = missing_alias(body, self._links)
        if alias is not None:
            self._is_over = True
            self._on_missing(alias)


def missing_alias(text: bytes, links: LinkMap) -> str | None:
    """The base under which links in a part of a Bundle stand, if it is not a known one."""
    name = b"fullUrl"
    at = text.find(name, 0, _NEAR)
    if at < 0:
        name = b"location"
        at = text.find(name, 0, _NEAR)
    if at >= 0:
        alias = _missing_at(text, at + len(name), links)
        if alias is not None and not _is_canonical(text, at + len(name)):
            return alias
    start = text.find(b"link", 0, _NEAR)
    alias = _missing_in_paging(text, start, links) if start >= 0 else None
    last = text.rfind(b'"link"', -_LINKS) if alias is None else -1
    return _missing_in_paging(text, last, links) if last > start else alias


def _missing_at(text: bytes, at: int, links: LinkMap) -> str | None:
    """The missing alias in the value behind a name that ends there."""
    begin = _BEHIND_NAME.match(text, at)
    if begin is None:
        return None
    for known, _ in links.answers.plain:  # as nearly all are written
        if text.startswith(known, begin.end()):
            return None
    return links.missing_alias(unescape(_url(text, begin.end())))


def _url(text: bytes, at: int) -> bytes:
    match = _URL.match(text, at)
    return b"" if match is None else match[0]


def _missing_in_paging(text: bytes, start: int, links: LinkMap) -> str | None:
    """The same, of the links that begin there."""
    end = text.find(b"]", start, start + _LINKS)
    if end < 0:
        end = start + _LINKS
    at = text.find(b"url", start, end)
    while at >= 0:
        alias = _missing_at(text, at + len(b"url"), links)
        if alias is not None and _is_for_paging(text, at):
            return alias
        at = text.find(b"url", at + 1, end)
    return None


def _is_for_paging(text: bytes, at: int) -> bool:
    """Whether the link around a position, in JSON or XML, is `next` or the like."""
    start = max(text.rfind(b"{", 0, at), text.rfind(b"<link", 0, at))
    end = text.find(b"}" if text.startswith(b"{", start) else b"</", at)
    return _PAGING.search(text, start, end) is not None


def _is_canonical(text: bytes, at: int) -> bool:
    """Whether the `fullUrl` there is the canonical URL of its resource: an identity, no address."""
    begin = _BEHIND_NAME.match(text, at)
    url = b"" if begin is None else _url(text, begin.end())
    return re.search(rb"\burl" + _IS + re.escape(url), text) is not None
