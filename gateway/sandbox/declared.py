"""The declared resource types with their interactions, operations and search parameters.

The declarations are in `declared.txt`. `lenient` adds what only the lenient server supports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Final

from gateway.sandbox.parameters import SearchParameter, parse_parameter

# For every type, since all resources have these elements.
_COMMON: Final = """
_id token id
_lastUpdated date meta.lastUpdated
_profile uri meta.profile
_tag token meta.tag
"""


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """The codes of a type's interactions, the names of its operations, and its parameters."""

    interactions: tuple[str, ...]
    operations: tuple[str, ...]
    parameters: Mapping[str, SearchParameter]


Declared = Mapping[str, DeclaredType]


@cache
def declared(*, lenient: bool) -> Declared:
    """Return all types by name."""
    text = (files("gateway.sandbox") / "declared.txt").read_text("utf-8")
    rows = (row for row in text.splitlines() if row.strip() and not row.startswith("#"))
    return {type_: _type(head, below, lenient) for type_, head, below in _blocks(rows)}


def _blocks(rows: Iterable[str]) -> list[tuple[str, str, list[str]]]:
    """Return each type, the rest of its row, and the indented rows below."""
    heads: list[tuple[str, str, list[str]]] = []
    for row in rows:
        if row.startswith(" "):
            heads[-1][2].append(row)
        else:
            type_, _, rest = row.partition(":")
            heads.append((type_, rest, []))
    return heads


def _type(head: str, rows: list[str], lenient: bool) -> DeclaredType:
    codes = list(_chosen(head.split(), lenient))
    operations = [code[1:] for code in codes if code.startswith("$")]
    interactions = [code for code in codes if not code.startswith("$")]
    if lenient:
        operations.append("validate")
        interactions += ["history-type"] if "history-instance" in interactions else []
    declared_parameters = map(
        parse_parameter, [*_COMMON.split("\n")[1:-1], *_chosen(map(str.strip, rows), lenient)]
    )
    parameters = [
        replace(parameter, filters=parameter.filters or lenient)
        for parameter in declared_parameters
    ]
    return DeclaredType(
        tuple(interactions),
        tuple(operations),
        {parameter.name: parameter for parameter in parameters},
    )


def _chosen(words: Iterable[str], lenient: bool) -> Iterator[str]:
    """Yield the words without their tilde. Words with a tilde are included only if `lenient`."""
    return (word.removeprefix("~") for word in words if lenient or not word.startswith("~"))
