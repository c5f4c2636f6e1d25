"""Deviations of the playground from FHIR, which the sandbox has as well."""

from __future__ import annotations

import gzip
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from gateway.sandbox.options import SandboxOptions
from tests.sandbox.harness import NOBODY, OTHER_PATIENT, PATIENT, SandboxClient, running_sandbox

# Of the guide's page on what the platform can do, June 2026.
UNFILTERED = {
    ("AdverseEvent", "date"),
    ("Condition", "onset-date"),
    ("Immunization", "date"),
    ("Observation", "date"),
    ("Organization", "partof"),
    ("PlanDefinition", "context-type-value"),
    ("PlanDefinition", "date"),
    ("Practitioner", "qualification-code"),
    ("Procedure", "date"),
    ("Procedure", "status"),
    ("Specimen", "collected"),
}
IMPOSSIBLE = {
    "composite": "x$x",
    "date": "1801-01-01",
    "number": "-123456.789",
    "quantity": "-123456.789",
    "reference": f"Basic/{NOBODY}",
    "special": "qqqqqqqqqqqq",
    "string": "qqqqqqqqqqqq",
    "token": "urn:nowhere%7Cqqqqqqqqqqqq",
    "uri": "urn:nowhere:qqqqqqqqqqqq",
}


async def ignored_parameters(client: SandboxClient) -> set[tuple[str, str]]:
    """The declared parameters for which a value that cannot match gives entries."""
    statement = (await client.fhir("GET", "/metadata")).json
    found = set()
    for resource in statement["rest"][0]["resource"]:
        for parameter in resource["searchParam"]:
            query = f"{parameter['name']}={IMPOSSIBLE[parameter['type']]}"
            answer = await client.fhir("GET", f"/{resource['type']}?{query}&_count=1")
            assert answer.status == 200, (query, answer.body)
            assert f"{parameter['name']}=" in answer.json["link"][0]["url"]
            if "entry" in answer.json:
                found.add((resource["type"], parameter["name"]))
    return found


async def test_exactly_eleven_parameters_filter_nothing(client: SandboxClient) -> None:
    assert await ignored_parameters(client) == UNFILTERED


async def test_all_parameters_filter_with_lenient(lenient: SandboxClient) -> None:
    assert await ignored_parameters(lenient) == set()


async def test_an_unfiltered_parameter_leaves_the_others_alone(client: SandboxClient) -> None:
    assert len(await client.found("/Observation?date=1801")) == 2
    assert len(await client.found("/Observation?date=nonsense&code=85354-9")) == 1


async def test_a_chained_parameter_is_ignored(client: SandboxClient) -> None:
    answer = await client.fhir("GET", "/Immunization?patient.identifier=nobody")
    assert answer.json["total"] == 1
    assert answer.json["link"][0]["url"] == f"{client.sandbox.fhir_base_url}/Immunization"


async def test_if_none_exist_is_ignored(client: SandboxClient) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v1"}]}
    for condition in ("identifier=urn:s%7Cv1", "identifier=urn:s%7Cv1", "colour=red"):
        answer = await client.fhir(
            "POST", "/Patient", body=body, headers={"If-None-Exist": condition}
        )
        assert answer.status == 201
    assert len(await client.found("/Patient?identifier=urn:s%7Cv1")) == 3


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_if_none_exist_of_an_entry_is_ignored(client: SandboxClient, kind: str) -> None:
    entry = {
        "resource": {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v"}]},
        "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:s|v"},
    }
    bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry, entry]}
    answer = await client.fhir("POST", "", body=bundle)
    statuses = [each["response"]["status"] for each in answer.json["entry"]]
    assert statuses == ["201 Created", "201 Created"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_conditional_updates_patches_and_deletes_are_405(
    client: SandboxClient, method: str
) -> None:
    body = None if method == "DELETE" else {"resourceType": "Patient"}
    assert (await client.fhir(method, "/Patient?gender=female", body=body)).status == 405
    assert len(await client.found("/Patient")) == 3


@pytest.mark.parametrize("accepted", ["identity", "gzip", "deflate, br", "*;q=0"])
async def test_the_statement_is_compressed_whatever_is_accepted(
    client: SandboxClient, accepted: str
) -> None:
    await client.fhir("GET", f"/Patient/{PATIENT}")
    headers = {"Authorization": f"Bearer {client.token}", "Accept-Encoding": accepted}
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        base = client.sandbox.fhir_base_url
        async with session.get(f"{base}/metadata", headers=headers) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await answer.read()).startswith(b'{"resourceType":"Capability')
        async with session.head(f"{base}/metadata", headers=headers) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
        async with session.get(f"{base}/Patient/{PATIENT}", headers=headers) as answer:
            assert "Content-Encoding" not in answer.headers


async def test_the_statement_is_not_compressed_with_lenient(lenient: SandboxClient) -> None:
    answer = await lenient.fhir("GET", "/metadata", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers


async def test_searches_lag_behind_writes() -> None:
    async with running_sandbox(SandboxOptions(port=0, search_lag=2)) as client:
        id_ = await client.create(gender="male", birthDate="2001-02-03")
        assert (await client.fhir("GET", f"/Patient/{id_}")).status == 200
        assert await client.found(f"/Patient?_id={id_}") == []
        await client.clock.advance(2)
        assert await client.found("/Patient?birthdate=2001-02-03") == [id_]
        body = {"resourceType": "Patient", "id": id_, "birthDate": "2001-02-04"}
        await client.fhir("PUT", f"/Patient/{id_}", body=body, headers={"If-Match": 'W/"1"'})
        assert await client.found("/Patient?birthdate=2001-02-04") == []
        assert await client.found("/Patient?birthdate=2001-02-03") == [id_]
        await client.clock.advance(2)
        assert await client.found("/Patient?birthdate=2001-02-04") == [id_]
        await client.fhir("DELETE", f"/Patient/{id_}")
        assert await client.found(f"/Patient?_id={id_}") == [id_]
        await client.clock.advance(2)
        assert await client.found(f"/Patient?_id={id_}") == []


async def test_a_canonical_url_and_version_is_unique(client: SandboxClient) -> None:
    made: dict[str, Any] = {"resourceType": "CodeSystem", "status": "draft", "content": "complete"}
    made |= {"url": "urn:s", "version": "1"}
    assert (await client.fhir("POST", "/CodeSystem", body=made)).status == 201
    answer = await client.fhir("POST", "/CodeSystem", body=made)
    assert (answer.status, answer.issue["code"]) == (409, "duplicate")
    assert answer.issue["expression"] == ["CodeSystem.url"]
    entry = {"resource": made, "request": {"method": "POST", "url": "CodeSystem"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert (await client.fhir("POST", "", body=bundle)).status == 409
    assert (await client.fhir("POST", "/CodeSystem", body=made | {"version": "2"})).status == 201


@pytest.mark.parametrize("type_", ["Patient", "Practitioner", "Person", "RelatedPerson"])
async def test_names_are_searched_by_part_and_exactly(client: SandboxClient, type_: str) -> None:
    person: dict[str, Any] = {
        "resourceType": type_,
        "name": [{"family": "Qo‘ldoshev", "given": ["Yo‘ldosh"]}],
    }
    if type_ == "RelatedPerson":
        person["patient"] = {"reference": f"Patient/{OTHER_PATIENT}"}
    created = (await client.fhir("POST", f"/{type_}", body=person)).json["id"]
    for query in (
        "name:contains=ldosh",
        "family:contains=O'LDOSH",
        "given:contains=osh",
        "name:exact=Qo‘ldoshev",
        "family:exact=Qo‘ldoshev",
        "given:exact=Yo‘ldosh",
    ):
        assert await client.found(f"/{type_}?{quote(query, ':=')}") == [created], query
    for query in ("name:exact=qo‘ldoshev", "family:contains=nobody", "given:exact=Yo‘l"):
        assert await client.found(f"/{type_}?{quote(query, ':=')}") == [], query
