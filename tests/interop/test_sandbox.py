"""fhirpy and fhir-kit-client work with the embedded platform through the gateway."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aiohttp
import pytest
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound

from tests.doubles.processes import GatewayProcess
from tests.interop.stages import Begin, FhirKit, Stage, sandbox_settings

PAGE = 2


def patient(family: str, **more: Any) -> dict[str, Any]:
    """A Patient whom a search by this family name finds."""
    return {"resourceType": "Patient", "name": [{"family": family, "given": ["Dilnoza"]}], **more}


@pytest.fixture
def family() -> str:
    """A family name that no other test uses."""
    return f"Karimova{uuid.uuid4().hex}"


async def create(gateway: GatewayProcess, family: str, count: int) -> set[str]:
    """Creates Patients one after the other and gives their ids."""
    client = AsyncFHIRClient(gateway.url)
    created = [await client.resource("Patient", **patient(family)).create() for _ in range(count)]
    return {one.id for one in created}


async def test_async_fhirpy_follows_every_page(sandbox_stage: Stage, family: str) -> None:
    """The asynchronous fhirpy, which refuses foreign URLs, collects all pages of a search."""
    gateway = await sandbox_stage.gateway()
    identities = await create(gateway, family, 5)
    before = len(sandbox_stage.platform.seen)

    search = AsyncFHIRClient(gateway.url).resources("Patient").search(family=family)
    found = await search.limit(PAGE).fetch_all()

    assert {one.id for one in found} == identities
    assert len(found) == 5
    assert [one.call for one in sandbox_stage.platform.seen[before:]] == ["GET /fhir/Patient"] * 3
    sandbox_stage.assert_one_token_served_all()


async def test_fhirpy_follows_every_page_of_the_sandbox_command(
    sandbox: str, begin_gateway: Begin, family: str
) -> None:
    """With `dhp-gateway sandbox --platform-only` and `run` as two processes, paging works."""
    gateway = begin_gateway(sandbox_settings(sandbox, sandbox))
    await gateway.until_status(200)
    identities = await create(gateway, family, 3)

    search = AsyncFHIRClient(gateway.url).resources("Patient").search(family=family)

    assert {one.id for one in await search.limit(1).fetch_all()} == identities


async def test_sync_fhirpy_follows_every_page(sandbox_stage: Stage, family: str) -> None:
    """The synchronous fhirpy collects all pages of a search, too."""
    gateway = await sandbox_stage.gateway()
    identities = await create(gateway, family, 3)

    def search() -> list[Any]:
        client = SyncFHIRClient(gateway.url)
        return client.resources("Patient").search(family=family).limit(PAGE).fetch_all()

    found = await asyncio.to_thread(search)

    assert [one.id for one in found if one.id in identities] == [one.id for one in found]
    assert len(found) == 3
    sandbox_stage.assert_one_token_served_all()


async def test_fhirpy_updates_the_version_that_it_names(sandbox_stage: Stage, family: str) -> None:
    """With the version read before an update works; with an older one it is refused with 412."""
    gateway = await sandbox_stage.gateway()
    [identity] = await create(gateway, family, 1)
    versioned = AsyncFHIRClient(gateway.url, extra_headers={"If-Match": 'W/"1"'})
    first = await versioned.get("Patient", identity)

    first["gender"] = "female"
    await versioned.resource("Patient", **first).save()
    first["gender"] = "male"
    with pytest.raises(MultipleResourcesFound, match="OperationOutcome"):
        await versioned.resource("Patient", **first).save()
    last = await versioned.get("Patient", identity)

    assert (last["gender"], last["meta"]["versionId"]) == ("female", "2")
    updates = [one for one in sandbox_stage.platform.seen if one.method == "PUT"]
    assert [(one.headers["If-Match"], one.status) for one in updates] == [
        ('W/"1"', 200),
        ('W/"1"', 412),
    ]
    sandbox_stage.assert_one_token_served_all()


async def test_fhir_kit_client_follows_every_page(
    sandbox_stage: Stage, fhir_kit: FhirKit, family: str
) -> None:
    """fhir-kit-client fetches each `next` link as it stands: from the gateway."""
    gateway = await sandbox_stage.gateway()
    identities = await create(gateway, family, 5)
    parameters = {"family": family, "_count": PAGE}

    told = await fhir_kit(gateway.url, "pages", resourceType="Patient", searchParams=parameters)

    pages = told["result"]
    assert [len(page["entry"]) for page in pages] == [2, 2, 1]
    entries = [entry for page in pages for entry in page["entry"]]
    assert {entry["resource"]["id"] for entry in entries} == identities
    assert all(entry["fullUrl"].startswith(f"{gateway.url}/Patient/") for entry in entries)
    links = [link["url"] for page in pages for link in page["link"]]
    assert all(link.startswith(f"{gateway.url}/Patient?") for link in links)
    sandbox_stage.assert_one_token_served_all()


async def test_fhir_kit_client_updates_the_version_that_it_read(
    sandbox_stage: Stage, fhir_kit: FhirKit, family: str
) -> None:
    """fhir-kit-client creates, reads and updates with the `ETag` that it was given."""
    gateway = await sandbox_stage.gateway()

    created = await fhir_kit(gateway.url, "create", resourceType="Patient", body=patient(family))
    identity = created["result"]["id"]
    read = await fhir_kit(gateway.url, "read", resourceType="Patient", id=identity)
    updated = await fhir_kit(
        gateway.url,
        "update",
        resourceType="Patient",
        id=identity,
        body={**read["result"], "gender": "female"},
        options={"headers": {"If-Match": read["headers"]["etag"]}},
    )
    first = await fhir_kit(gateway.url, "vread", resourceType="Patient", id=identity, version="1")

    assert (created["status"], read["status"], updated["status"]) == (201, 200, 200)
    assert updated["result"]["gender"] == "female"
    assert "gender" not in first["result"]
    update = sandbox_stage.platform.seen[-2]
    assert (update.method, update.headers["If-Match"]) == ("PUT", read["headers"]["etag"])
    sandbox_stage.assert_one_token_served_all()


async def test_location_of_a_created_resource_leads_back_through_the_gateway(
    sandbox_stage: Stage, fhir_kit: FhirKit, family: str
) -> None:
    """The platform's absolute `Location` becomes a URL of the gateway that can be read."""
    gateway = await sandbox_stage.gateway()

    created = await fhir_kit(gateway.url, "create", resourceType="Patient", body=patient(family))

    location = created["headers"]["location"]
    assert location.startswith(f"{gateway.url}/Patient/{created['result']['id']}")
    async with aiohttp.ClientSession() as session, session.get(location) as answer:
        assert answer.status == 200
    sandbox_stage.assert_one_token_served_all()
