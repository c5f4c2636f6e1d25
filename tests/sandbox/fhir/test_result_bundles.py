"""Paging through searches and histories."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.harness import OTHER_PATIENT, PATIENT, SandboxClient


def links(bundle: Any) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


async def test_pages_are_linked_in_both_directions(client: SandboxClient) -> None:
    url, forward = "/Patient?active=true&_count=1", []
    while url:
        page = (await client.fhir("GET", url)).json
        assert page["total"] == 3
        assert len(page["entry"]) == 1
        assert links(page)["self"].startswith(
            f"{client.sandbox.fhir_base_url}/Patient?active=true&"
        )
        forward.append(page["entry"][0]["resource"]["id"])
        last, url = page, links(page).get("next", "")
    backward = [forward[-1]]
    while url := links(last).get("previous", ""):
        last = (await client.fhir("GET", url)).json
        backward.append(last["entry"][0]["resource"]["id"])
    assert forward == sorted(set(forward))
    assert len(forward) == 3
    assert backward == forward[::-1]


async def test_a_page_has_twenty_entries_unless_asked(client: SandboxClient) -> None:
    for number in range(105):
        await client.create(active=False, id=str(number))
    default = (await client.fhir("GET", "/Patient?active=false")).json
    most = (await client.fhir("GET", "/Patient?active=false&_count=500")).json
    assert (len(default["entry"]), len(most["entry"])) == (20, 100)
    assert links(default)["next"].endswith("/Patient?active=false&_page=2")
    assert links(most)["self"].endswith("/Patient?active=false&_count=100")
    assert most["total"] == 105


async def test_entries_have_full_url_and_search_mode(client: SandboxClient) -> None:
    entry = (await client.fhir("GET", f"/Patient?_id={PATIENT}")).json["entry"][0]
    assert entry["fullUrl"] == f"{client.sandbox.fhir_base_url}/Patient/{PATIENT}"
    assert entry["search"] == {"mode": "match"}


async def test_a_page_past_the_end_links_to_the_last(client: SandboxClient) -> None:
    page = (await client.fhir("GET", "/Patient?_count=2&_page=9")).json
    assert "entry" not in page
    assert set(links(page)) == {"self", "previous"}
    assert links(page)["previous"].endswith("_count=2&_page=2")


async def test_a_count_of_zero_only_counts(client: SandboxClient) -> None:
    page = (await client.fhir("GET", "/Patient?_count=0")).json
    assert (page["total"], "entry" in page, set(links(page))) == (3, False, {"self"})


async def test_a_history_has_every_version_newest_first(client: SandboxClient) -> None:
    id_ = await client.create(active=True)
    body = {"resourceType": "Patient", "id": id_, "active": False}
    await client.fhir("PUT", f"/Patient/{id_}", body=body, headers={"If-Match": 'W/"1"'})
    await client.fhir("DELETE", f"/Patient/{id_}")
    history = (await client.fhir("GET", f"/Patient/{id_}/_history")).json
    entries = history["entry"]
    assert (history["type"], history["total"]) == ("history", 3)
    assert [entry["request"] for entry in entries] == [
        {"method": "DELETE", "url": f"Patient/{id_}"},
        {"method": "PUT", "url": f"Patient/{id_}"},
        {"method": "POST", "url": "Patient"},
    ]
    assert [entry["response"]["etag"] for entry in entries] == ['W/"3"', 'W/"2"', 'W/"1"']
    assert ["resource" in entry for entry in entries] == [False, True, True]


async def test_a_history_is_paged(lenient: SandboxClient) -> None:
    page = (await lenient.fhir("GET", "/Patient/_history?_count=2")).json
    rest = (await lenient.fhir("GET", links(page)["next"])).json
    assert links(page)["next"] == (
        f"{lenient.sandbox.fhir_base_url}/Patient/_history?_count=2&_page=2"
    )
    ids = [entry["resource"]["id"] for bundle in (page, rest) for entry in bundle["entry"]]
    assert {PATIENT, OTHER_PATIENT} < set(ids)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("path", ["/Patient", "/Patient/_history", "/Patient?_count=1&_page=2"])
async def test_bundles_are_valid(lenient: SandboxClient, path: str) -> None:
    from fhir.resources.bundle import Bundle

    Bundle.model_validate_json((await lenient.fhir("GET", path)).body)
