"""Parses what a platform declares of its resource types in its CapabilityStatement, in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

_CONDITIONAL: Final = {
    "create": "conditionalCreate",
    "update": "conditionalUpdate",
    "patch": "conditionalPatch",
    "delete": "conditionalDelete",
}
_SINCE_R5: Final = frozenset(("patch",))
# `conditionalDelete` holds how many resources a delete may hit (R5, conditional-delete-status).
_KINDS_OF_DELETE: Final = ("single", "multiple")


@dataclass(frozen=True, slots=True)
class TypeCapability:
    """The declared search parameters and conditional interactions of one resource type.

    `parameters`: names with their search parameter types, "" for none. `conditional`: codes of
    interactions; one that the statement's FHIR version has no element for counts as declared.
    """

    parameters: Mapping[str, str]
    conditional: frozenset[str]


NO_CAPABILITY: Final = TypeCapability({}, frozenset())


def capabilities(statement: bytes) -> Mapping[str, TypeCapability]:
    """Return capabilities by resource type. Raises ValueError if this is no CapabilityStatement.

    Parameters that are declared for all types are added to each type.
    """
    parsed = orjson.loads(statement)
    if not isinstance(parsed, dict) or parsed.get("resourceType") != "CapabilityStatement":
        raise ValueError("no CapabilityStatement")
    undeclarable = _undeclarable(parsed.get("fhirVersion"))
    by_type: dict[str, TypeCapability] = {}
    for rest in json_objects(parsed.get("rest")):
        common = dict(_parameters(rest))
        for resource in json_objects(rest.get("resource")):
            kind = resource.get("type")
            if isinstance(kind, str):
                known = by_type.get(kind, NO_CAPABILITY)
                by_type[kind] = TypeCapability(
                    {**known.parameters, **common, **dict(_parameters(resource))},
                    known.conditional | _conditional(resource) | undeclarable,
                )
    return by_type


def _parameters(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in json_objects(part.get("searchParam")):
        name, kind = parameter.get("name"), parameter.get("type")
        if isinstance(name, str):
            yield name, kind if isinstance(kind, str) else ""


def _conditional(resource: Mapping[str, Any]) -> frozenset[str]:
    declared = {code: resource.get(member) for code, member in _CONDITIONAL.items()}
    return frozenset(
        code for code, value in declared.items() if value is True or value in _KINDS_OF_DELETE
    )


def _undeclarable(version: object) -> frozenset[str]:
    """Return the conditional interactions that a statement of a FHIR version cannot declare."""
    major = version.partition(".")[0] if isinstance(version, str) else ""
    return _SINCE_R5 if major.isdecimal() and int(major) < 5 else frozenset()


def json_objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of an array, in order; none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
