"""What a CapabilityStatement declares of resource types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.fhir.capability_statement import TypeCapability, capabilities


def declared(*resources: Any, **rest: Any) -> dict[str, TypeCapability]:
    """Return what a statement of these resources declares."""
    statement = {
        "resourceType": "CapabilityStatement",
        "rest": [{**rest, "resource": list(resources)}, "odd"],
    }
    return dict(capabilities(json.dumps(statement).encode()))


def test_parameters_are_listed_by_type() -> None:
    """Those of a type and those of all types, with their kinds."""
    patient = {"type": "Patient", "searchParam": [{"name": "name", "type": "string"}]}
    found = declared(patient, {"type": 1}, searchParam=[{"name": "_id"}])
    assert found == {"Patient": TypeCapability({"_id": "", "name": "string"}, frozenset())}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, set()),
        ({"conditionalCreate": False, "conditionalDelete": "not-supported"}, set()),
        ({"conditionalCreate": 1, "conditionalUpdate": "true"}, set()),
        ({"conditionalCreate": True}, {"create"}),
        ({"conditionalUpdate": True, "conditionalPatch": True}, {"update", "patch"}),
        ({"conditionalDelete": "single"}, {"delete"}),
        ({"conditionalDelete": "multiple"}, {"delete"}),
    ],
)
def test_only_true_declares_a_condition(members: dict[str, Any], expected: set[str]) -> None:
    assert declared({"type": "Patient", **members})["Patient"].conditional == expected


@pytest.mark.parametrize("body", [b"", b"[]", b'{"resourceType":"Patient"}', b"<html>"])
def test_other_documents_declare_nothing(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - orjson's own error is one
        capabilities(body)
