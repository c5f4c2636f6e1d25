"""Validation of resources."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gateway.sandbox.fhir.errors import Issue
from gateway.sandbox.fhir.resource_validation import Validator
from tests.sandbox.harness import SandboxClient

OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}


@pytest.mark.parametrize(
    ("resource", "code", "expression"),
    [
        ({"resourceType": "Observation", "status": "final"}, "required", "Observation.code"),
        ({**OBSERVATION, "component": [{}]}, "required", "Observation.component[0].code"),
        ({**OBSERVATION, "colour": "red"}, "structure", "Observation.colour"),
        ({**OBSERVATION, "category": {}}, "structure", "Observation.category"),
        ({**OBSERVATION, "effectiveDateTime": "soon"}, "value", "Observation.effectiveDateTime"),
        ({**OBSERVATION, "status": "done"}, "code-invalid", "Observation.status"),
        ({**OBSERVATION, "note": []}, "structure", "Observation.note"),
        ({**OBSERVATION, "note": None}, "structure", "Observation.note"),
        ({**OBSERVATION, "meta": None}, "structure", "Observation.meta"),
        ({**OBSERVATION, "meta": "x"}, "structure", "Observation.meta"),
        ({**OBSERVATION, "valueString": "a", "valueInteger": 1}, "value", "Observation"),
        ({**OBSERVATION, "contained": [{"resourceType": "Foo"}]}, "structure", "Observation"),
    ],
)
async def test_an_invalid_resource_is_rejected_with_issues(
    client: SandboxClient, resource: Any, code: str, expression: str
) -> None:
    before = (await client.fhir("GET", "/Observation?_count=0")).json["total"]
    answer = await client.fhir("POST", "/Observation", body=resource)
    assert answer.status == 422
    issues = answer.json["issue"]
    assert (code, [expression]) in [(issue["code"], issue["expression"]) for issue in issues]
    assert all(issue["diagnostics"] for issue in issues)
    assert (await client.fhir("GET", "/Observation?_count=0")).json["total"] == before


async def test_an_invalid_update_is_rejected(client: SandboxClient) -> None:
    id_ = await client.create()
    body = {"resourceType": "Patient", "id": id_, "gender": "x"}
    headers = {"If-Match": 'W/"1"'}
    answer = await client.fhir("PUT", f"/Patient/{id_}", body=body, headers=headers)
    assert (answer.status, answer.issue["expression"]) == (422, ["Patient.gender"])


async def test_nulls_may_fill_gaps_between_primitives(client: SandboxClient) -> None:
    extension = {"extension": [{"url": "urn:x", "valueBoolean": True}]}
    name = {"given": ["a", None], "_given": [None, extension]}
    answer = await client.fhir("POST", "/Patient", body={"resourceType": "Patient", "name": [name]})
    assert answer.status == 201, answer.body


@pytest.mark.parametrize("wrapped", [False, True])
async def test_validate_stores_nothing(lenient: SandboxClient, wrapped: bool) -> None:
    """`$validate` is always 200, and its outcome tells whether the resource would do."""

    def body(resource: Any) -> Any:
        parameter = [{"name": "resource", "resource": resource}]
        return {"resourceType": "Parameters", "parameter": parameter} if wrapped else resource

    bad = await lenient.fhir(
        "POST", "/Patient/$validate", body=body({"resourceType": "Patient", "x": 1})
    )
    good = await lenient.fhir(
        "POST", "/Patient/%24validate", body=body({"resourceType": "Patient"})
    )
    assert (bad.status, bad.issue["severity"], bad.issue["code"]) == (200, "error", "structure")
    assert (good.status, good.issue["severity"]) == (200, "information")
    assert (await lenient.fhir("GET", "/Patient?_count=0")).json["total"] == 3


@pytest.mark.parametrize("parameter", [None, 1, [], [{"name": "mode"}], [{"name": "resource"}]])
async def test_validate_needs_a_resource(lenient: SandboxClient, parameter: Any) -> None:
    body = {"resourceType": "Parameters", "parameter": parameter}
    assert (await lenient.fhir("POST", "/Patient/$validate", body=body)).status == 400


async def test_without_the_models_resources_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for what the additional checks find."""
    monkeypatch.setitem(sys.modules, "fhir.resources", None)
    validator = Validator()
    assert await validator.issues({"resourceType": "Patient", "colour": "red"}) == []
    assert await validator.issues({"resourceType": "Patient", "name": None}) == [
        Issue("structure", "an element must not be empty or null", "Patient.name")
    ]
