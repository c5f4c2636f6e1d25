"""Finds links in which a platform uses a base URL that is not in the settings.

Callers cannot follow such links. Only links that a server makes itself count: a Bundle's links for
paging, its first `fullUrl` or `location`. They are searched by their names, at the beginning and at
the end of a body, so that a page of a search costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.fhir.links.json_text import unescape
from gateway.fhir.links.map import LinkMap

# The first bytes in which an entry or the links begin, and the bytes that all links take.
_SEARCHED_BYTES: Final = 16 * 1024
_MAX_LINKS_BYTES: Final = 4096
# The text between a name and its value, in JSON or XML.
_IS: Final = rb"(?:\"\s*+:|\s++value\s*+=)\s*+[\"']"
_BEHIND_NAME: Final = re.compile(_IS)
_URL: Final = re.compile(rb"[^\"'<>\s]*+")
_PAGING: Final = re.compile(rb"relation" + _IS + rb"(?:self|next|prev(?:ious)?|first|last)[\"']")


class AliasWatch:
    """Examines a Bundle as it streams by; calls `on_missing` at most once, with a missing alias."""

    __slots__ = ("_begin", "_end", "_is_over", "_links", "_on_missing")

    def __init__(self, links: LinkMap, on_missing: Callable[[str], None]) -> None:
        self._links = links
        self._on_missing = on_missing
        self._begin = b""  # at least `_MAX_LINKS_BYTES` bytes, if the body has so many
        self._end = b""
        self._is_over = False

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of the body."""
        if len(self._begin) < _MAX_LINKS_BYTES:
            self._begin += chunk
            if len(self._begin) >= _MAX_LINKS_BYTES:
                self.examine(self._begin)
        self._end = (
            chunk if len(chunk) >= _MAX_LINKS_BYTES else self._end[-_MAX_LINKS_BYTES:] + chunk
        )

    def finish(self) -> None:
        """End the body, and examine the bytes that are left."""
        if len(self._begin) < _MAX_LINKS_BYTES:
            self.examine(self._begin)
        elif not self._is_over and self._end is not self._begin:
            self.examine(self._end[-_MAX_LINKS_BYTES:])

    def examine(self, body: bytes) -> None:
        """Examine a complete body, or a part of one."""
        alias = missing_alias(body, self._links)
        if alias is not None:
            self._is_over = True
            self._on_missing(alias)


def missing_alias(text: bytes, links: LinkMap) -> str | None:
    """Return the base of the links in a part of a Bundle if the settings do not have it."""
    name = b"fullUrl"
    at = text.find(name, 0, _SEARCHED_BYTES)
    if at < 0:
        name = b"location"
        at = text.find(name, 0, _SEARCHED_BYTES)
    if at >= 0:
        alias = _missing_at(text, at + len(name), links)
        if alias is not None and not _is_canonical(text, at + len(name)):
            return alias
    start = text.find(b"link", 0, _SEARCHED_BYTES)
    alias = _missing_in_paging(text, start, links) if start >= 0 else None
    last = text.rfind(b'"link"', -_MAX_LINKS_BYTES) if alias is None else -1
    return _missing_in_paging(text, last, links) if last > start else alias


def _missing_at(text: bytes, at: int, links: LinkMap) -> str | None:
    """Return the missing alias in the value after a name that ends at `at`, or None."""
    begin = _BEHIND_NAME.match(text, at)
    if begin is None:
        return None
    for known, _ in links.responses.plain:  # the spelling of nearly all URLs
        if text.startswith(known, begin.end()):
            return None
    return links.missing_alias(unescape(_url(text, begin.end())))


def _url(text: bytes, at: int) -> bytes:
    match = _URL.match(text, at)
    return b"" if match is None else match[0]


def _missing_in_paging(text: bytes, start: int, links: LinkMap) -> str | None:
    """Return the missing alias in the paging links that begin at `start`, or None."""
    end = text.find(b"]", start, start + _MAX_LINKS_BYTES)
    if end < 0:
        end = start + _MAX_LINKS_BYTES
    at = text.find(b"url", start, end)
    while at >= 0:
        alias = _missing_at(text, at + len(b"url"), links)
        if alias is not None and _is_for_paging(text, at):
            return alias
        at = text.find(b"url", at + 1, end)
    return None


def _is_for_paging(text: bytes, at: int) -> bool:
    """Return whether the link around a position, in JSON or XML, is one for paging (`next`)."""
    start = max(text.rfind(b"{", 0, at), text.rfind(b"<link", 0, at))
    end = text.find(b"}" if text.startswith(b"{", start) else b"</", at)
    return _PAGING.search(text, start, end) is not None


def _is_canonical(text: bytes, at: int) -> bool:
    """Return whether the `fullUrl` is the canonical URL of its resource: an identifier only."""
    begin = _BEHIND_NAME.match(text, at)
    url = b"" if begin is None else _url(text, begin.end())
    return re.search(rb"\burl" + _IS + re.escape(url), text) is not None
