"""Operations on organisations and practitioners."""

from __future__ import annotations

import pytest

from tests.sandbox.harness import NOBODY, SandboxClient

ORGANIZATION = "5d0c6f0a-1f1e-4c55-9a1b-000000000001"
LONELY = "5d0c6f0a-1f1e-4c55-9a1b-000000000005"
PRACTITIONER = "5d0c6f0a-1f1e-4c55-9a1b-000000000003"
ROLE = "5d0c6f0a-1f1e-4c55-9a1b-000000000004"


@pytest.mark.parametrize(
    ("operation", "id_"),
    [
        (f"Organization/{ORGANIZATION}/$practitioners", PRACTITIONER),
        (f"Practitioner/{PRACTITIONER}/$organizations", ORGANIZATION),
        (f"Practitioner/{PRACTITIONER}/$specializations", ROLE),
    ],
)
async def test_operations_follow_practitioner_roles(
    client: SandboxClient, operation: str, id_: str
) -> None:
    role = (await client.fhir("GET", f"/PractitionerRole/{ROLE}")).json
    if "specializations" not in operation:
        assert (await client.fhir("POST", "/PractitionerRole", body=role)).status == 201
    bundle = (await client.fhir("GET", f"/{operation}")).json
    assert [entry["resource"]["id"] for entry in bundle["entry"]] == [id_]
    type_ = bundle["entry"][0]["resource"]["resourceType"]
    assert bundle["entry"][0]["fullUrl"] == f"{client.sandbox.fhir_base_url}/{type_}/{id_}"


@pytest.mark.parametrize("id_", [LONELY, NOBODY])
async def test_no_hits_are_a_bundle_with_an_outcome(client: SandboxClient, id_: str) -> None:
    answer = await client.fhir("GET", f"/Organization/{id_}/$practitioners")
    assert (answer.status, answer.json["resourceType"]) == (200, "Bundle")
    (entry,) = answer.json["entry"]
    assert entry["resource"]["resourceType"] == "OperationOutcome"
    assert entry["resource"]["issue"][0]["code"] == "not-found"
    assert entry["search"]["mode"] == "outcome"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("Organization/x/$practitioners", 400),
        ("Organization/$practitioners", 404),
        (f"Practitioner/{PRACTITIONER}/$practitioners", 404),
    ],
)
async def test_unknown_operations_and_invalid_ids(
    client: SandboxClient, path: str, status: int
) -> None:
    assert (await client.fhir("GET", f"/{path}")).status == status
