"""Which types the platform keeps, and how each search parameter finds its values in a resource.

What stands here is what the CapabilityStatement declares; the rows are in `parameter_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.parameter_table import COMMON, TABLE


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """`kind` is token, string, date, reference or uri (value set search-param-type)."""

    name: str
    kind: str
    paths: tuple[tuple[str, ...], ...]

    def values(self, resource: JsonObject) -> list[Any]:
        """What the parameter finds in a resource."""
        return [value for path in self.paths for value in _walk(resource, path)]


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, path)
    elif not path:
        yield node
    elif isinstance(node, dict) and path[0] in node:
        yield from _walk(node[path[0]], path[1:])


def _parse(rows: str) -> dict[str, SearchParameter]:
    parameters = {}
    for row in filter(None, map(str.strip, (COMMON + rows).splitlines())):
        name, _, rest = row.partition(": ")
        kind, *paths = rest.split()
        parameters[name] = SearchParameter(name, kind, tuple(tuple(p.split(".")) for p in paths))
    return parameters


SEARCH_PARAMETERS: Final[Mapping[str, Mapping[str, SearchParameter]]] = {
    type_: _parse(rows) for type_, rows in TABLE.items()
}

_EVERYTHING: Final = ("read", "vread", "update", "delete", "history", "create", "search")

# The national platform writes Provenance by itself and never changes what is on record.
_RESTRICTED: Final[Mapping[str, tuple[str, ...]]] = {
    "AuditEvent": ("read", "vread", "history", "create", "search"),
    "Consent": ("read", "vread", "update", "history", "create", "search"),
    "Provenance": ("read", "vread", "history", "search"),
}

INTERACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    type_: _RESTRICTED.get(type_, _EVERYTHING) for type_ in SEARCH_PARAMETERS
}
