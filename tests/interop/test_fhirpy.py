"""fhirpy's asynchronous client works through the gateway; the walks drive its synchronous one."""

from __future__ import annotations

import uuid

import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from tests.interop.stages import GuardedStage, Stage

FAMILY = f"Karimov{uuid.uuid4().hex}"
PATIENT = {"resourceType": "Patient", "name": [{"family": FAMILY}]}


async def test_create_search_update_read_and_delete(stage: GuardedStage) -> None:
    gateway = await stage.gateway()
    client = AsyncFHIRClient(gateway.url)

    await client.resource("Patient", **PATIENT).create()
    [found] = await client.resources("Patient").search(family=FAMILY).fetch_all()
    identity = found.id
    found["gender"] = "female"
    await found.save()
    read = await client.get("Patient", identity)
    await client.delete("Patient", identity)

    assert (read["name"][0]["family"], read["gender"]) == (FAMILY, "female")
    assert [one.call for one in stage.platform.requests] == [
        "POST /Patient",
        "GET /Patient",
        f"PUT /Patient/{identity}",
        f"GET /Patient/{identity}",
        f"DELETE /Patient/{identity}",
    ]
    stage.assert_one_token_served_all()


async def test_outcomes_of_the_platform_are_forwarded(stage: GuardedStage) -> None:
    gateway = await stage.gateway()
    client = AsyncFHIRClient(gateway.url)

    with pytest.raises(ResourceNotFound):
        await client.get("Patient", str(uuid.uuid4()))
    with pytest.raises(OperationOutcome) as refusal:
        await client.resource("Patient", gender=["not", "a", "code"]).save()

    assert refusal.value.resource["issue"][0]["severity"] == "error"
    assert [one.status for one in stage.platform.requests] == [404, 400]


async def test_search_follows_every_page(sandbox_stage: Stage) -> None:
    gateway = await sandbox_stage.gateway()
    client = AsyncFHIRClient(gateway.url)
    created = [await client.resource("Patient", **PATIENT).create() for _ in range(5)]
    before = len(sandbox_stage.platform.requests)

    found = await client.resources("Patient").search(family=FAMILY).limit(2).fetch_all()

    assert sorted(one.id for one in found) == sorted(one.id for one in created)
    assert [one.call for one in sandbox_stage.platform.requests[before:]] == [
        "GET /fhir/Patient"
    ] * 3
    sandbox_stage.assert_one_token_served_all()
