"""What the platform's memory keeps, and what it lets go."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sandbox.fhir import resource_store
from tests.sandbox.harness import Trial

CHUNK = b"x" * 3000


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two contents of that size in base64, and not for three."""
    monkeypatch.setattr(resource_store, "MAX_BINARY_BYTES", 8500)


async def upload(given: Trial, content: bytes) -> str:
    """The id of a Binary."""
    answer = await given.fhir(
        "POST", "/Binary", body=content, headers={"Content-Type": "application/pdf"}
    )
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


async def statuses(given: Trial, ids: list[str]) -> list[int]:
    """How reading each ends."""
    return [(await given.fhir("GET", f"/Binary/{id_}")).status for id_ in ids]


@pytest.mark.usefixtures("room_for_two")
async def test_the_newest_binaries_are_kept(given: Trial) -> None:
    """An upload always succeeds; the oldest make room and are gone, from searches too."""
    ids = [await upload(given, CHUNK) for _ in range(4)]
    assert await statuses(given, ids) == [410, 410, 200, 200]
    gone = await given.fhir("GET", f"/Binary/{ids[0]}")
    assert (gone.issue["code"], "made room" in gone.issue["diagnostics"]) == ("deleted", True)
    assert set(await given.found("/Binary")) == set(ids[2:])


@pytest.mark.usefixtures("room_for_two")
async def test_one_that_is_too_long_alone_is_kept(given: Trial) -> None:
    """The newest stays until the next comes, however long it is."""
    ids = [await upload(given, CHUNK), await upload(given, CHUNK * 9)]
    assert await statuses(given, ids) == [410, 200]
    ids.append(await upload(given, CHUNK))
    assert await statuses(given, ids) == [410, 410, 200]


@pytest.mark.usefixtures("room_for_two")
async def test_old_versions_make_room_first(given: Trial) -> None:
    """An update's former content counts like any other, and what is current stays readable."""
    id_ = await upload(given, CHUNK)
    for number in (1, 2):
        headers = {"Content-Type": "application/pdf", "If-Match": f'W/"{number}"'}
        answer = await given.fhir("PUT", f"/Binary/{id_}", body=CHUNK, headers=headers)
        assert answer.status == 200, answer.body
    assert (await given.fhir("GET", f"/Binary/{id_}")).body == CHUNK
    assert (await given.fhir("GET", f"/Binary/{id_}/_history/1")).status == 410
    assert (await given.fhir("GET", f"/Binary/{id_}/_history/2")).status == 200


@pytest.mark.usefixtures("room_for_two")
async def test_other_resources_are_never_let_go(given: Trial) -> None:
    """Only Binaries are bounded."""
    narrative: dict[str, Any] = {"name": [{"text": "x" * 3000}]}
    ids = [await given.create(**narrative) for _ in range(4)]
    assert {(await given.fhir("GET", f"/Patient/{id_}")).status for id_ in ids} == {200}
