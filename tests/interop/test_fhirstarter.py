"""fhirpy and fhir-kit-client work with fhirstarter's R5 server through the gateway."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from tests.doubles.recording_proxy import Seen
from tests.interop.stages import FhirKit, GuardedStage


def patient(family: str, **more: Any) -> dict[str, Any]:
    """A Patient whom a search by this family name finds alone."""
    return {"resourceType": "Patient", "name": [{"family": family}], **more}


@pytest.fixture
def family() -> str:
    """A family name that no other test uses."""
    return f"Karimov{uuid.uuid4().hex}"


def calls(seen: list[Seen]) -> list[str]:
    """Methods and paths in the order of arrival."""
    return [one.call for one in seen]


async def test_async_fhirpy_creates_searches_updates_reads_and_deletes(
    stage: GuardedStage, family: str
) -> None:
    """The asynchronous fhirpy goes through a Patient's whole life."""
    gateway = await stage.gateway()
    client = AsyncFHIRClient(gateway.url)

    await client.resource("Patient", **patient(family)).create()
    [found] = await client.resources("Patient").search(family=family).fetch_all()
    identity = found.id
    found["gender"] = "female"
    await found.save()
    read = await client.get("Patient", identity)
    await client.delete("Patient", identity)

    assert (read["name"][0]["family"], read["gender"]) == (family, "female")
    assert calls(stage.platform.seen) == [
        "POST /Patient",
        "GET /Patient",
        f"PUT /Patient/{identity}",
        f"GET /Patient/{identity}",
        f"DELETE /Patient/{identity}",
    ]
    stage.assert_one_token_served_all()


async def test_sync_fhirpy_creates_searches_and_reads(stage: GuardedStage, family: str) -> None:
    """The synchronous fhirpy creates, finds and reads a Patient."""
    gateway = await stage.gateway()

    def use() -> tuple[Any, Any]:
        client = SyncFHIRClient(gateway.url)
        client.resource("Patient", **patient(family)).create()
        found = client.resources("Patient").search(family=family).fetch()[0]
        return found, client.get("Patient", found.id)

    found, read = await asyncio.to_thread(use)

    assert found.id == read.id
    assert read["name"][0]["family"] == family
    assert calls(stage.platform.seen) == [
        "POST /Patient",
        "GET /Patient",
        f"GET /Patient/{found.id}",
    ]
    stage.assert_one_token_served_all()


async def test_fhirpy_hands_over_the_version_that_it_updates(
    stage: GuardedStage, family: str
) -> None:
    """A weak entity tag in `If-Match` reaches the platform byte for byte."""
    gateway = await stage.gateway()
    client = AsyncFHIRClient(gateway.url, extra_headers={"If-Match": 'W/"1"'})
    await client.resource("Patient", **patient(family)).create()
    [found] = await client.resources("Patient").search(family=family).fetch_all()

    await found.save()

    assert stage.platform.seen[-1].method == "PUT"
    assert stage.platform.seen[-1].headers.getall("If-Match") == ['W/"1"']
    stage.assert_one_token_served_all()


async def test_fhirpy_gets_the_platforms_own_outcomes(stage: GuardedStage) -> None:
    """A missing resource and an invalid one arrive as fhirpy's own exceptions."""
    gateway = await stage.gateway()
    client = AsyncFHIRClient(gateway.url)

    with pytest.raises(ResourceNotFound):
        await client.get("Patient", str(uuid.uuid4()))
    with pytest.raises(OperationOutcome) as refusal:
        await client.resource("Patient", gender=["not", "a", "code"]).save()

    assert refusal.value.resource["issue"][0]["severity"] == "error"
    assert [one.status for one in stage.platform.seen] == [404, 400]


async def test_fhir_kit_client_creates_reads_searches_and_updates(
    stage: GuardedStage, fhir_kit: FhirKit, family: str
) -> None:
    """fhir-kit-client goes through a Patient's life and names the version that it updates."""
    gateway = await stage.gateway()
    created = await fhir_kit(gateway.url, "create", resourceType="Patient", body=patient(family))
    identity = created["headers"]["location"].rpartition("/")[2]
    read = await fhir_kit(gateway.url, "read", resourceType="Patient", id=identity)
    found = await fhir_kit(
        gateway.url, "search", resourceType="Patient", searchParams={"family": family}
    )
    updated = await fhir_kit(
        gateway.url,
        "update",
        resourceType="Patient",
        id=identity,
        body=patient(family, id=identity, gender="male"),
        options={"headers": {"If-Match": 'W/"1"'}},
    )

    assert (created["status"], updated["status"]) == (201, 200)
    assert read["result"]["name"] == [{"family": family}]
    assert [entry["resource"]["id"] for entry in found["result"]["entry"]] == [identity]
    assert stage.platform.seen[-1].headers.getall("If-Match") == ['W/"1"']
    assert [one.method for one in stage.platform.seen] == ["POST", "GET", "GET", "PUT"]
    stage.assert_one_token_served_all()


async def test_location_of_a_created_resource_leads_back_through_the_gateway(
    stage: GuardedStage, fhir_kit: FhirKit, family: str
) -> None:
    """fhirstarter's root-relative `Location` names, for the caller, the gateway's own URL."""
    gateway = await stage.gateway()

    created = await fhir_kit(gateway.url, "create", resourceType="Patient", body=patient(family))

    location = urljoin(gateway.url + "/", created["headers"]["location"])
    async with aiohttp.ClientSession() as session, session.get(location) as answer:
        assert answer.status == 200
        assert (await answer.json(content_type=None))["name"] == [{"family": family}]
    assert location.startswith(f"{gateway.url}/Patient/")


async def test_fhir_kit_client_reads_the_capability_statement(
    stage: GuardedStage, fhir_kit: FhirKit
) -> None:
    """The platform's CapabilityStatement passes; it says R5."""
    gateway = await stage.gateway()

    answer = await fhir_kit(gateway.url, "capabilityStatement")

    assert answer["result"]["fhirVersion"] == "5.0.0"
    assert calls(stage.platform.seen) == ["GET /metadata"]
    stage.assert_one_token_served_all()
