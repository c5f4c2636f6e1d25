"""Bundles the platform answers with: pages of searches and histories, with absolute links.

Paging is the national platform's: `_page` from 1, `_count` of 20 unless asked and at most 100,
relations self, next and previous.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.outcomes import fhir_error
from gateway.sandbox.store import Version, instant

DEFAULT_COUNT: Final = 20
MAX_COUNT: Final = 100

# Not about which resources are found; they are neither ignored nor repeated in the links.
_PRESENTATION: Final = frozenset({"_format", "_pretty", "_total"})
_STATUS_TEXTS: Final = {"POST": "201 Created", "PUT": "200 OK", "DELETE": "200 OK"}


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a result is asked for; `explicit_count` says that `_count` was given."""

    number: int = 1
    count: int = DEFAULT_COUNT
    explicit_count: bool = False

    def cut(self, versions: Sequence[Version]) -> Sequence[Version]:
        """The part of a result that stands on this page."""
        start = (self.number - 1) * self.count
        return versions[start : start + self.count]

    def link(self, url: str, applied: Sequence[tuple[str, str]], number: int) -> str:
        """The URL of page `number` of the same search."""
        pairs = list(applied)
        if self.explicit_count:
            pairs.append(("_count", str(self.count)))
        if number > 1 or self.number > 1:
            pairs.append(("_page", str(number)))
        # `_lastUpdated=ge…`, `system|value` and lists are written as clients write them; %7C is the
        # guide's way for the bar.
        query = "&".join(f"{quote(n, ':')}={quote(v, ',:/')}" for n, v in pairs)
        return f"{url}?{query}" if query else url


def split_paging(pairs: Sequence[tuple[str, str]]) -> tuple[Page, list[tuple[str, str]]]:
    """The page asked for, and the pairs that say what is searched. Raises FhirError 400."""
    number, count, explicit = 1, DEFAULT_COUNT, False
    rest = []
    for name, value in pairs:
        if name == "_page":
            number = _whole(name, value, least=1)
        elif name == "_count":
            count, explicit = min(_whole(name, value, least=0), MAX_COUNT), True
        elif name not in _PRESENTATION:
            rest.append((name, value))
    return Page(number, count, explicit), rest


def searchset(
    base: str,
    type_: str,
    found: Sequence[Version],
    page: Page,
    applied: Sequence[tuple[str, str]],
) -> JsonObject:
    """One page of a search's result."""
    bundle = _paged("searchset", f"{base}/{type_}", len(found), page, applied)
    entries = [
        {
            "fullUrl": f"{base}/{version.type}/{version.id}",
            "resource": version.resource,
            "search": {"mode": "match"},
        }
        for version in page.cut(found)
    ]
    return bundle | ({"entry": entries} if entries else {})


def history(base: str, path: str, versions: Sequence[Version], page: Page) -> JsonObject:
    """One page of a history, newest version first."""
    bundle = _paged("history", f"{base}/{path}/_history", len(versions), page, ())
    entries = [_history_entry(base, version) for version in page.cut(versions)]
    return bundle | ({"entry": entries} if entries else {})


def _paged(
    kind: str, url: str, total: int, page: Page, applied: Sequence[tuple[str, str]]
) -> JsonObject:
    links = [{"relation": "self", "url": page.link(url, applied, page.number)}]
    if page.number * page.count < total and page.count:
        links.append({"relation": "next", "url": page.link(url, applied, page.number + 1)})
    if page.number > 1:
        # Past the end, back means the last page that has something on it.
        last = -(-total // page.count) if page.count else 1
        before = max(1, min(page.number - 1, last))
        links.append({"relation": "previous", "url": page.link(url, applied, before)})
    return {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": kind,
        "total": total,
        "link": links,
    }


def _history_entry(base: str, version: Version) -> JsonObject:
    url = version.type if version.method == "POST" else f"{version.type}/{version.id}"
    entry: JsonObject = {"fullUrl": f"{base}/{version.type}/{version.id}"}
    if version.resource is not None:
        entry["resource"] = version.resource
    entry["request"] = {"method": version.method, "url": url}
    entry["response"] = {
        "status": _STATUS_TEXTS[version.method],
        "etag": version.etag,
        "lastModified": instant(version.modified),
    }
    return entry


def _whole(name: str, value: str, *, least: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) >= least):
        raise fhir_error(400, "value", f"{name} takes a whole number from {least}")
    return int(value)
