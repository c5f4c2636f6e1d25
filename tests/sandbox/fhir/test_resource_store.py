"""Limits of the resource store."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sandbox.fhir import resource_store
from tests.sandbox.harness import SandboxClient

CHUNK = b"x" * 3000


@pytest.fixture
def small_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two contents of that size in base64, and not for three."""
    monkeypatch.setattr(resource_store, "MAX_BINARY_BYTES", 8500)


async def upload(client: SandboxClient, content: bytes) -> str:
    answer = await client.fhir(
        "POST", "/Binary", body=content, headers={"Content-Type": "application/pdf"}
    )
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


async def statuses(client: SandboxClient, ids: list[str]) -> list[int]:
    return [(await client.fhir("GET", f"/Binary/{id_}")).status for id_ in ids]


@pytest.mark.usefixtures("small_store")
async def test_the_oldest_binaries_are_removed(client: SandboxClient) -> None:
    ids = [await upload(client, CHUNK) for _ in range(4)]
    assert await statuses(client, ids) == [410, 410, 200, 200]
    gone = await client.fhir("GET", f"/Binary/{ids[0]}")
    assert (gone.issue["code"], "made room" in gone.issue["diagnostics"]) == ("deleted", True)
    assert set(await client.found("/Binary")) == set(ids[2:])


@pytest.mark.usefixtures("small_store")
async def test_an_oversized_binary_is_kept_until_the_next(client: SandboxClient) -> None:
    ids = [await upload(client, CHUNK), await upload(client, CHUNK * 9)]
    assert await statuses(client, ids) == [410, 200]
    ids.append(await upload(client, CHUNK))
    assert await statuses(client, ids) == [410, 410, 200]


@pytest.mark.usefixtures("small_store")
async def test_old_versions_are_removed_first(client: SandboxClient) -> None:
    id_ = await upload(client, CHUNK)
    for number in (1, 2):
        headers = {"Content-Type": "application/pdf", "If-Match": f'W/"{number}"'}
        answer = await client.fhir("PUT", f"/Binary/{id_}", body=CHUNK, headers=headers)
        assert answer.status == 200, answer.body
    assert (await client.fhir("GET", f"/Binary/{id_}")).body == CHUNK
    assert (await client.fhir("GET", f"/Binary/{id_}/_history/1")).status == 410
    assert (await client.fhir("GET", f"/Binary/{id_}/_history/2")).status == 200


@pytest.mark.usefixtures("small_store")
async def test_other_resources_are_not_removed(client: SandboxClient) -> None:
    narrative: dict[str, Any] = {"name": [{"text": "x" * 3000}]}
    ids = [await client.create(**narrative) for _ in range(4)]
    assert {(await client.fhir("GET", f"/Patient/{id_}")).status for id_ in ids} == {200}
