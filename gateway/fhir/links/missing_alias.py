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
_URL: Final = re.compile(_IS + rb"(https?:[^\"'<>\s]*+)", re.IGNORECASE)
_LINK: Final = re.compile(rb"\{[^{}]*+\}|<relation[^<>]*+>\s*+<url[^<>]*+>")
_PAGING: Final = re.compile(rb"relation" + _IS + rb"(?:self|next|prev(?:ious)?|first|last)[\"']")


class AliasWatch:
    """Looks at a Bundle as it passes. `on_missing` is told of a base once, as a missing alias."""

    __slots__ = ("_is_over", "_last", "_links", "_on_missing")

    def __init__(self, links: LinkMap, on_missing: Callable[[str], None]) -> None:
        self._links = links
        self._on_missing = on_missing
        self._last: bytes | None = None  # the last piece, of several
        self._is_over = False

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the body, unless it is in the middle."""
        if self._last is None:
            self._look(piece)
        self._last = piece

    def finish(self) -> None:
        """The body ended."""
        if self._last is not None and not self._is_over:
            self._look(self._last[-_LINKS:])

    def _look(self, text: bytes) -> None:
        alias = missing_alias(text, self._links)
        if alias is not None:
            self._is_over = True
            self._on_missing(alias)


def missing_alias(text: bytes, links: LinkMap) -> str | None:
    """The base under which links in a part of a Bundle stand, if it is not a known one."""
    at = text.find(b"fullUrl", 0, _NEAR)
    if at < 0:
        at = text.find(b"location", 0, _NEAR)
    url = None if at < 0 else _URL.search(text, at, at + _LINKS)
    if url is not None and url.start() - at <= len(b"location"):
        alias = links.missing_alias(unescape(url[1]))
        if alias is not None and not _is_canonical(url[1], text):
            return alias
    at = text.find(b"link", 0, _NEAR)
    return _of_paging(text, at, links) or _of_paging(text, text.rfind(b'"link"', -_LINKS), links)


def _of_paging(text: bytes, at: int, links: LinkMap) -> str | None:
    """The same, of the links that begin at a position."""
    if at < 0:
        return None
    end = text.find(b"]", at, at + _LINKS)
    for link in _LINK.finditer(text, at, at + _LINKS if end < 0 else end):
        url = _URL.search(link[0]) if _PAGING.search(link[0]) else None
        alias = None if url is None else links.missing_alias(unescape(url[1]))
        if alias is not None:
            return alias
    return None


def _is_canonical(url: bytes, text: bytes) -> bool:
    """Whether a `fullUrl` is the canonical URL of its resource: an identity, no address."""
    return re.search(rb"\burl" + _IS + re.escape(url) + rb"[\"']", text) is not None
