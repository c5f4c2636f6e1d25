"""The declared resource types with their interactions, operations and search parameters.

The declarations are in `declared.txt`. `lenient` adds what only the lenient server supports. The
CapabilityStatement is generated from the declarations that the server itself uses. As on the
national platform it declares neither which parameters do not filter, nor that Bundles are accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Final

from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import instant
from gateway.sandbox.fhir.search import SearchParameter, parse_parameter

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


_OAUTH: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def capability_statement(
    base: str, started: datetime, types: Declared, *, lenient: bool
) -> JsonObject:
    """Return what this server supports; `base` is its absolute URL (FHIR R5 http 3.2.0.12)."""
    system = [{"code": "transaction"}, {"code": "batch"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "experimental": True,
        "date": instant(started),
        "kind": "instance",
        "software": {"name": "DHP Gateway sandbox platform"},
        "implementation": {
            "description": "An embedded stand-in for the DHP, synthetic data only",
            "url": base,
        },
        "fhirVersion": "5.0.0",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": False,
                    "service": [{"coding": [{"system": _OAUTH, "code": "OAuth"}]}],
                    "description": "Bearer tokens of the SSO, for every interaction",
                },
                "resource": [
                    _resource(name, types[name], lenient=lenient) for name in sorted(types)
                ],
                **({"interaction": system} if lenient else {}),
            }
        ],
    }


def _resource(name: str, type_: DeclaredType, *, lenient: bool) -> JsonObject:
    allowed = type_.interactions
    resource: JsonObject = {
        "type": name,
        "interaction": [{"code": code} for code in allowed],
        "versioning": "versioned-update",
        "readHistory": "history-instance" in allowed,
        "updateCreate": False,
        "conditionalCreate": lenient and "create" in allowed,
        "conditionalRead": "not-supported",
        "conditionalUpdate": False,
        "conditionalPatch": False,
        "conditionalDelete": "not-supported",
        "searchParam": [
            {"name": parameter.name, "type": parameter.kind}
            for parameter in type_.parameters.values()
        ],
    }
    operations = [_operation(name, operation) for operation in type_.operations]
    return resource | ({"operation": operations} if operations else {})


def _operation(type_: str, name: str) -> JsonObject:
    holder = "Resource" if name == "validate" else type_
    definition = f"http://hl7.org/fhir/OperationDefinition/{holder}-{name}"
    return {"name": name, "definition": definition}
