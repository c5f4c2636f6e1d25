"""Bundles of search results and histories: pages with absolute links.

Paging is that of the national platform: `_page` counts from 1, `_count` is 20 by default and at
most 100, and the link relations are self, next and previous.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway.sandbox.fhir.errors import fhir_error
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import Version, instant

_DEFAULT_COUNT: Final = 20
_MAX_COUNT: Final = 100

# These do not influence which resources match. They are neither reported as ignored nor repeated in
# links.
_PRESENTATION: Final = frozenset({"_format", "_pretty", "_total"})
_STATUS_TEXTS: Final = {"POST": "201 Created", "PUT": "200 OK", "DELETE": "200 OK"}


@dataclass(frozen=True, slots=True)
class Page:
    """The requested page of a result; `explicit_count` means that `_count` was sent."""

    number: int = 1
    count: int = _DEFAULT_COUNT
    explicit_count: bool = False

    def cut(self, versions: Sequence[Version]) -> Sequence[Version]:
        """Return the versions of a result that belong to this page."""
        start = (self.number - 1) * self.count
        return versions[start : start + self.count]

    def link(self, url: str, applied: Sequence[tuple[str, str]], number: int) -> str:
        """Return the URL of page `number` of the same search."""
        pairs = list(applied)
        if self.explicit_count:
            pairs.append(("_count", str(self.count)))
        if number > 1 or self.number > 1:
            pairs.append(("_page", str(number)))
        # `_lastUpdated=ge…`, `system|value` and lists are encoded as clients encode them; the
        # platform's guide encodes the bar as %7C.
        query = "&".join(f"{quote(n, ':')}={quote(v, ',:/')}" for n, v in pairs)
        return f"{url}?{query}" if query else url


def split_paging(pairs: Sequence[tuple[str, str]]) -> tuple[Page, list[tuple[str, str]]]:
    """Return the requested page, and the pairs that are search criteria. Raises FhirError 400."""
    number, count, explicit = 1, _DEFAULT_COUNT, False
    rest = []
    for name, value in pairs:
        if name == "_page":
            number = _whole(name, value, minimum=1)
        elif name == "_count":
            count, explicit = min(_whole(name, value, minimum=0), _MAX_COUNT), True
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
    """Return one page of a search result."""
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
    """Return one page of a history, newest version first."""
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
        # Beyond the end, `previous` is the last page that has entries.
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


def _whole(name: str, value: str, *, minimum: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) >= minimum):
        raise fhir_error(400, "value", f"{name} takes a whole number from {minimum}")
    return int(value)
