"""What the real playground does otherwise than FHIR has it, and the sandbox therefore too."""

from __future__ import annotations

import gzip
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from gateway.sandbox.options import SandboxOptions
from tests.sandbox.harness import NOBODY, OTHER_PATIENT, PATIENT, Trial, trial

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


async def found_all_the_same(given: Trial) -> set[tuple[str, str]]:
    """The declared parameters for which a value that cannot match gives entries."""
    statement = (await given.fhir("GET", "/metadata")).json
    found = set()
    for resource in statement["rest"][0]["resource"]:
        for parameter in resource["searchParam"]:
            query = f"{parameter['name']}={IMPOSSIBLE[parameter['type']]}"
            answer = await given.fhir("GET", f"/{resource['type']}?{query}&_count=1")
            assert answer.status == 200, (query, answer.body)
            assert f"{parameter['name']}=" in answer.json["link"][0]["url"]
            if "entry" in answer.json:
                found.add((resource["type"], parameter["name"]))
    return found


async def test_exactly_eleven_parameters_filter_nothing(given: Trial) -> None:
    """Of all that are declared; each of them is repeated in `self` all the same."""
    assert await found_all_the_same(given) == UNFILTERED


async def test_in_the_lenient_one_all_parameters_filter(lenient: Trial) -> None:
    """A value that cannot match gives no entries."""
    assert await found_all_the_same(lenient) == set()


async def test_an_unfiltered_parameter_leaves_the_others_alone(given: Trial) -> None:
    """Beside one that filters nothing the rest of the query counts."""
    assert len(await given.found("/Observation?date=1801")) == 2
    assert len(await given.found("/Observation?date=nonsense&code=85354-9")) == 1


async def test_a_chained_parameter_is_ignored(given: Trial) -> None:
    """All is returned, and `self` says so."""
    answer = await given.fhir("GET", "/Immunization?patient.identifier=nobody")
    assert answer.json["total"] == 1
    assert answer.json["link"][0]["url"] == f"{given.sandbox.fhir_base_url}/Immunization"


async def test_the_condition_of_a_create_is_ignored(given: Trial) -> None:
    """If-None-Exist doubles what is there, and no query of it is an error."""
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v1"}]}
    for condition in ("identifier=urn:s%7Cv1", "identifier=urn:s%7Cv1", "colour=red"):
        answer = await given.fhir(
            "POST", "/Patient", body=body, headers={"If-None-Exist": condition}
        )
        assert answer.status == 201
    assert len(await given.found("/Patient?identifier=urn:s%7Cv1")) == 3


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_the_condition_of_an_entry_is_ignored(given: Trial, kind: str) -> None:
    """`ifNoneExist` doubles too, also twice in one Bundle."""
    entry = {
        "resource": {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v"}]},
        "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:s|v"},
    }
    bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry, entry]}
    answer = await given.fhir("POST", "", body=bundle)
    statuses = [each["response"]["status"] for each in answer.json["entry"]]
    assert statuses == ["201 Created", "201 Created"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_query_is_no_place_to_write_to(given: Trial, method: str) -> None:
    """Conditional update, delete and patch do not exist, and nothing happens."""
    body = None if method == "DELETE" else {"resourceType": "Patient"}
    assert (await given.fhir(method, "/Patient?gender=female", body=body)).status == 405
    assert len(await given.found("/Patient")) == 3


@pytest.mark.parametrize("accepted", ["identity", "gzip", "deflate, br", "*;q=0"])
async def test_the_statement_is_compressed_whatever_is_accepted(
    given: Trial, accepted: str
) -> None:
    """`/metadata` comes in gzip, HEAD too; a resource does not."""
    await given.fhir("GET", f"/Patient/{PATIENT}")
    headers = {"Authorization": f"Bearer {given.token}", "Accept-Encoding": accepted}
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        base = given.sandbox.fhir_base_url
        async with session.get(f"{base}/metadata", headers=headers) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await answer.read()).startswith(b'{"resourceType":"Capability')
        async with session.head(f"{base}/metadata", headers=headers) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
        async with session.get(f"{base}/Patient/{PATIENT}", headers=headers) as answer:
            assert "Content-Encoding" not in answer.headers


async def test_the_lenient_one_compresses_nothing(lenient: Trial) -> None:
    """`/metadata` comes as it was asked for."""
    answer = await lenient.fhir("GET", "/metadata", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers


async def test_searches_lag_behind_writes() -> None:
    """What was written is read at once and found later: the new, the changed, not the deleted."""
    async with trial(SandboxOptions(port=0, search_lag=2)) as given:
        id_ = await given.create(gender="male", birthDate="2001-02-03")
        assert (await given.fhir("GET", f"/Patient/{id_}")).status == 200
        assert await given.found(f"/Patient?_id={id_}") == []
        await given.clock.advance(2)
        assert await given.found("/Patient?birthdate=2001-02-03") == [id_]
        body = {"resourceType": "Patient", "id": id_, "birthDate": "2001-02-04"}
        await given.fhir("PUT", f"/Patient/{id_}", body=body, headers={"If-Match": 'W/"1"'})
        assert await given.found("/Patient?birthdate=2001-02-04") == []
        assert await given.found("/Patient?birthdate=2001-02-03") == [id_]
        await given.clock.advance(2)
        assert await given.found("/Patient?birthdate=2001-02-04") == [id_]
        await given.fhir("DELETE", f"/Patient/{id_}")
        assert await given.found(f"/Patient?_id={id_}") == [id_]
        await given.clock.advance(2)
        assert await given.found(f"/Patient?_id={id_}") == []


async def test_a_canonical_url_is_taken_once(given: Trial) -> None:
    """A second resource with the same url and version is a conflict, in a Bundle too."""
    made: dict[str, Any] = {"resourceType": "CodeSystem", "status": "draft", "content": "complete"}
    made |= {"url": "urn:s", "version": "1"}
    assert (await given.fhir("POST", "/CodeSystem", body=made)).status == 201
    answer = await given.fhir("POST", "/CodeSystem", body=made)
    assert (answer.status, answer.issue["code"]) == (409, "duplicate")
    assert answer.issue["expression"] == ["CodeSystem.url"]
    entry = {"resource": made, "request": {"method": "POST", "url": "CodeSystem"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert (await given.fhir("POST", "", body=bundle)).status == 409
    assert (await given.fhir("POST", "/CodeSystem", body=made | {"version": "2"})).status == 201


@pytest.mark.parametrize("type_", ["Patient", "Practitioner", "Person", "RelatedPerson"])
async def test_names_are_searched_by_part_and_exactly(given: Trial, type_: str) -> None:
    """`:contains` and `:exact` match any part of the name, for every type that has names."""
    person: dict[str, Any] = {
        "resourceType": type_,
        "name": [{"family": "Qo‘ldoshev", "given": ["Yo‘ldosh"]}],
    }
    if type_ == "RelatedPerson":
        person["patient"] = {"reference": f"Patient/{OTHER_PATIENT}"}
    created = (await given.fhir("POST", f"/{type_}", body=person)).json["id"]
    for query in (
        "name:contains=ldosh",
        "family:contains=O'LDOSH",
        "given:contains=osh",
        "name:exact=Qo‘ldoshev",
        "family:exact=Qo‘ldoshev",
        "given:exact=Yo‘ldosh",
    ):
        assert await given.found(f"/{type_}?{quote(query, ':=')}") == [created], query
    for query in ("name:exact=qo‘ldoshev", "family:contains=nobody", "given:exact=Yo‘l"):
        assert await given.found(f"/{type_}?{quote(query, ':=')}") == [], query
