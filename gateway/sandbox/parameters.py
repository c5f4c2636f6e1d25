"""Search parameters, and how they find their values in a resource."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.sandbox.codec import JsonObject

_STEP: Final = re.compile(r"(\w+)(?:\[(\w+)(?:=([\w-]+))?\])?(\?)?")


@dataclass(frozen=True, slots=True)
class Step:
    """One element of a path.

    `key` and `required_value` restrict the elements. With `exists` the value is whether there is
    one.
    """

    name: str
    key: str = ""
    required_value: str = ""
    exists: bool = False

    def values(self, node: JsonObject) -> Iterator[Any]:
        """Yield the values of this step in a node."""
        found = node.get(self.name, [])
        for value in found if isinstance(found, list) else [found]:
            if self._admits(value):
                yield True if self.exists else value

    def _admits(self, value: Any) -> bool:
        if not self.key:
            return True
        if not isinstance(value, dict):
            return False
        if self.required_value:
            return bool(value.get(self.key) == self.required_value)
        return f"/{self.key}/" in f"/{value.get('reference')}"


Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter; `kind` is a code of the value set search-param-type.

    A composite has `parts`, whose paths are relative to its own. If `filters` is false, the
    parameter is accepted like any other, but all resources match.
    """

    name: str
    kind: str
    paths: tuple[Path, ...]
    parts: tuple[SearchParameter, ...] = ()
    filters: bool = True

    def values(self, resource: JsonObject) -> list[Any]:
        """Return the values of the parameter in a resource."""
        return [value for path in self.paths for value in _walk(resource, path)]


def parse_parameter(row: str) -> SearchParameter:
    """Parse `NAME KIND PATH …`, as described in `declared.txt`."""
    name, kind, *paths = row.split()
    parts: tuple[SearchParameter, ...] = ()
    if kind == "composite":
        paths, part_texts = paths[:1], paths[1:]
        parts = tuple(_part(name, text) for text in part_texts)
    return SearchParameter(
        name.rstrip("!"),
        kind,
        tuple(_path(path) for path in paths),
        parts,
        filters=not name.endswith("!"),
    )


def _part(name: str, text: str) -> SearchParameter:
    path, _, kind = text.partition(":")
    return SearchParameter(name, kind, (_path(path),))


def _path(text: str) -> Path:
    steps = (_STEP.fullmatch(step) for step in text.split("."))
    return tuple(
        Step(step[1], step[2] or "", step[3] or "", exists=bool(step[4])) for step in steps if step
    )


def _walk(node: Any, path: Path) -> Iterator[Any]:
    if not path:
        yield node
    elif isinstance(node, dict):
        for value in path[0].values(node):
            yield from _walk(value, path[1:])
