"""Search results and ignored parameters.

Without the playground's traps, which are in `test_playground`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.sandbox.harness import OTHER_PATIENT, PATIENT, SandboxClient

FOREIGNER = "5d0c6f0a-1f1e-4c55-9a1b-000000000013"
ALL = {PATIENT, OTHER_PATIENT, FOREIGNER}
NI = "https://dhp.uz/fhir/core/sid/pid/uz/ni"


@pytest.fixture
def client(lenient: SandboxClient) -> SandboxClient:
    return lenient


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ALL),
        (f"_id={PATIENT}", {PATIENT}),
        (f"_id={PATIENT},{FOREIGNER}", {PATIENT, FOREIGNER}),
        (f"identifier={NI}%7C40101900000009", {PATIENT}),
        (f"identifier={NI}|40101900000009", {PATIENT}),
        ("identifier=40101900000009", {PATIENT}),
        ("identifier=urn:other%7C40101900000009", set()),
        ("identifier=%7C40101900000009", set()),
        ("identifier=https://dhp.uz/fhir/core/sid/pid/ee/ppn%7C", {FOREIGNER}),
        ("family=namunaliyeva", {PATIENT}),
        ("family=Namun", {PATIENT}),
        ("family=liyeva", set()),
        ("family:contains=liyeva", {PATIENT}),
        ("family:exact=namunaliyeva", set()),
        ("family:exact=Namunaliyeva", {PATIENT}),
        ("family=N%C3%A4idis", {FOREIGNER}),
        ("family=naidis", {FOREIGNER}),
        ("given=Sample", {FOREIGNER}),
        ("name=sinovoy", {PATIENT}),
        ("gender=female", {PATIENT}),
        ("gender=female,other", {PATIENT, FOREIGNER}),
        ("gender:not=female", {OTHER_PATIENT, FOREIGNER}),
        ("gender=female&active=false", set()),
        ("active=true", ALL),
        ("birthdate=1990-01-01", {PATIENT}),
        ("birthdate=1990", {PATIENT}),
        ("birthdate=1999-12", {FOREIGNER}),
        ("birthdate=1999-12-01", set()),
        ("birthdate=ge1990-01-01", {PATIENT, FOREIGNER}),
        ("birthdate=gt1990-01-01", {FOREIGNER}),
        ("birthdate=lt1990", {OTHER_PATIENT}),
        ("birthdate=le1990-01-01", {PATIENT, OTHER_PATIENT}),
        ("birthdate=ne1990-01-01", {OTHER_PATIENT, FOREIGNER}),
        ("birthdate=sa1990-01-01", {FOREIGNER}),
        ("birthdate=eb1990-01-01", {OTHER_PATIENT}),
        ("birthdate=ap1999-12-24", {FOREIGNER}),
        ("birthdate=ge1985&birthdate=lt1995", {PATIENT}),
        ("organization=Organization/5d0c6f0a-1f1e-4c55-9a1b-000000000001", {PATIENT}),
        ("organization=5d0c6f0a-1f1e-4c55-9a1b-000000000001", {PATIENT}),
        ("organization:Organization=5d0c6f0a-1f1e-4c55-9a1b-000000000001", {PATIENT}),
        ("organization:Patient=5d0c6f0a-1f1e-4c55-9a1b-000000000001", set()),
        ("organization:missing=true", {OTHER_PATIENT, FOREIGNER}),
        ("organization:missing=false", {PATIENT}),
        ("telecom=phone%7C%2B998%2000%20000%2000%2003", {PATIENT}),
        ("phone=%2B998901234567", {FOREIGNER}),
        ("phone=90%20123-45-67", {FOREIGNER}),
        ("phone=34567", set()),
        ("phone=000000000", set()),
        ("telecom=email%7C%2B998901234567", set()),
        ("email=%2B998901234567", set()),
        ("deceased=false", set()),
        ("address-country=UZ", {PATIENT, OTHER_PATIENT}),
        ("_tag=HTEST", ALL),
        ("_lastUpdated=2026-11-20T09:12:00%2B05:00", ALL),
        ("_lastUpdated=2026-11-20T09:12:00+05:00", ALL),
        ("_lastUpdated=gt2026-11-21", set()),
        ("_lastUpdated=2026-11-20T04:12:00.000Z", set()),
    ],
)
async def test_search_of_patients(client: SandboxClient, query: str, ids: set[str]) -> None:
    assert set(await client.found(f"/Patient?{query}")) == ids


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (f"Observation?patient={PATIENT}", 2),
        (f"Observation?patient=Patient/{PATIENT}", 2),
        (f"Observation?subject=Patient/{PATIENT}", 2),
        (f"Observation?subject=Patient/{OTHER_PATIENT}", 0),
        ("Observation?code=http://loinc.org%7C85354-9", 1),
        ("Observation?combo-code=8480-6", 1),
        ("Observation?status=final&category=laboratory", 1),
        ("Observation?date=ge2026-11-20T09:30:00%2B05:00", 1),
        ("Observation?date=2026-11-20", 2),
        ("Encounter?date=2026-11-20", 1),
        ("Encounter?date=gt2026-11-20", 0),
        ("Encounter?class=AMB&status=completed", 1),
        ("EpisodeOfCare?date=gt2026-12-01", 1),
        (f"DiagnosticReport?patient={PATIENT}", 1),
        ("ServiceRequest?code-concept=lab-pan-E", 1),
        ("Specimen?collected=2026-11-20", 1),
        (f"AuditEvent?patient={OTHER_PATIENT}", 1),
        ("Provenance?target=DocumentReference/5d0c6f0a-1f1e-4c55-9a1b-000000000032", 1),
        ("PractitionerRole?practitioner=Practitioner/5d0c6f0a-1f1e-4c55-9a1b-000000000003", 1),
        ("Location?name=TERAPIYA%20BO%E2%80%98LIMI", 1),
        ("Organization?name=Namuna", 1),
        ("Consent?period=2026-06-01", 0),
        ("Consent?period=ap2026-06-01", 1),
    ],
)
async def test_search_of_other_types(client: SandboxClient, query: str, count: int) -> None:
    assert (await client.fhir("GET", f"/{query}")).json["total"] == count


async def test_absolute_and_relative_references_match(client: SandboxClient) -> None:
    base = client.sandbox.fhir_base_url
    for value in (PATIENT, f"Patient/{PATIENT}", f"{base}/Patient/{PATIENT}"):
        assert len(await client.found(f"/DiagnosticReport?subject={value}")) == 1
        assert len(await client.found(f"/Condition?subject={value}")) == 1


async def test_unknown_parameters_are_missing_in_the_self_link(client: SandboxClient) -> None:
    answer = await client.fhir("GET", "/Patient?colour=red&gender=female&_sort=name&subject.name=x")
    assert answer.json["total"] == 1
    assert answer.json["link"][0] == {
        "relation": "self",
        "url": f"{client.sandbox.fhir_base_url}/Patient?gender=female",
    }


async def test_strict_handling_refuses_unknown_parameters(client: SandboxClient) -> None:
    headers = {"Prefer": "handling=strict"}
    answer = await client.fhir("GET", "/Patient?colour=red&gender=female", headers=headers)
    assert (answer.status, answer.issue["code"]) == (400, "not-supported")
    assert "colour" in answer.issue["diagnostics"]
    assert "red" not in answer.issue["diagnostics"]
    fine = "/Patient?gender=female&_count=1&_page=1&_total=accurate&_format=json&_pretty=false"
    assert (await client.fhir("GET", fine, headers=headers)).status == 200


@pytest.mark.parametrize(
    "query",
    [
        "birthdate=yesterday",
        "birthdate=1990-13-01",
        "birthdate=xx1990",
        "gender:exact=male",
        "name:not=a",
        "birthdate:contains=1990",
        "organization:identifier=a",
        "organization:missing=maybe",
        "_page=0",
        "_page=x",
        "_count=-1",
        "_count=%C2%B2",
    ],
)
async def test_invalid_values_are_rejected(client: SandboxClient, query: str) -> None:
    answer = await client.fhir("GET", f"/Patient?{query}")
    assert answer.status == 400
    assert answer.issue["code"] in ("value", "not-supported")


async def test_a_search_can_be_posted(client: SandboxClient) -> None:
    answer = await client.fhir("POST", "/Patient/_search?active=true", form={"gender": "female"})
    assert [entry["resource"]["id"] for entry in answer.json["entry"]] == [PATIENT]
    query = dict(parse_qsl(urlsplit(answer.json["link"][0]["url"]).query))
    assert query == {"active": "true", "gender": "female"}


async def test_a_search_by_post_needs_a_form(client: SandboxClient) -> None:
    answer = await client.fhir("POST", "/Patient/_search", body={"gender": "female"})
    assert answer.status == 415


async def test_escaped_commas_belong_to_the_value(client: SandboxClient) -> None:
    id_ = await client.create(identifier=[{"system": "urn:s", "value": "a,b|c"}])
    assert await client.found("/Patient?identifier=urn:s%7Ca%5C,b%5C%7Cc") == [id_]
    assert await client.found("/Patient?identifier=a%5C,b%5C%7Cc") == [id_]


async def test_the_self_link_repeats_the_search(client: SandboxClient) -> None:
    path = f"/Patient?identifier={NI}%7C40101900000009&name=Namuna%20%26%2B&_count=7"
    first = (await client.fhir("GET", path)).json
    link = first["link"][0]["url"]
    assert dict(parse_qsl(urlsplit(link).query)) == {
        "identifier": f"{NI}|40101900000009",
        "name": "Namuna &+",
        "_count": "7",
    }
    assert (await client.fhir("GET", link)).json["link"] == first["link"]


async def test_created_resources_are_found_at_once(client: SandboxClient) -> None:
    id_ = await client.create(gender="male", birthDate="2001-02-03")
    assert await client.found("/Patient?birthdate=2001-02-03") == [id_]
    body = {"resourceType": "Patient", "id": id_, "birthDate": "2001-02-04"}
    await client.fhir("PUT", f"/Patient/{id_}", body=body, headers={"If-Match": 'W/"1"'})
    assert await client.found("/Patient?birthdate=2001-02-03") == []
    assert await client.found("/Patient?birthdate=2001-02-04") == [id_]


async def test_a_search_with_no_hits_is_an_empty_bundle(client: SandboxClient) -> None:
    answer = await client.fhir("GET", "/Patient?family=Nobody")
    assert answer.status == 200
    bundle = json.loads(answer.body)
    assert (bundle["total"], "entry" in bundle) == (0, False)


async def create(client: SandboxClient, **resource: Any) -> str:
    answer = await client.fhir("POST", f"/{resource['resourceType']}", body=resource)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("5.4", True),
        ("5.40", False),
        ("5", True),
        ("6", False),
        ("ne5.4", False),
        ("gt5.41", True),
        ("gt5.42", False),
        ("sa5.42", False),
        ("ge5.42", True),
        ("le5.42", True),
        ("lt5.42", False),
        ("eb5.43", True),
        ("ap5", True),
        ("ap50", False),
        ("54.2e-1", True),
    ],
)
async def test_numbers_match_within_their_precision(
    client: SandboxClient, value: str, found: bool
) -> None:
    answered = [{"linkId": "1", "answer": [{"valueDecimal": 5.42}]}]
    questionnaire = "urn:questionnaire|1"
    id_ = await create(
        client,
        resourceType="QuestionnaireResponse",
        status="completed",
        questionnaire=questionnaire,
        item=answered,
    )
    assert (id_ in await client.found(f"/QuestionnaireResponse?answer-number={value}")) is found


@pytest.mark.parametrize("value", ["", "x", "5.4.1", "nan", "inf", "gt", "1e1001", "1e999999999"])
async def test_invalid_numbers_are_rejected(client: SandboxClient, value: str) -> None:
    answer = await client.fhir("GET", f"/QuestionnaireResponse?answer-number={value}")
    assert answer.status == (400 if value else 200)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("context-quantity=40", True),
        ("context-quantity=gt39%7C%7Ca", True),
        ("context-quantity=40%7Chttp://unitsofmeasure.org%7Ca", True),
        ("context-quantity=40%7Chttp://unitsofmeasure.org%7Cmo", False),
        ("context-quantity=40%7Curn:other%7Ca", False),
        ("context-quantity=41", False),
        ("context-type-quantity=age$40", True),
        ("context-type-quantity=age$41", False),
        ("context-type-quantity=focus$40", False),
        ("context-type-quantity=age", False),
        ("context-type-quantity=age$forty", False),
        ("context-type-value=focus$I10", True),
        ("context-type-value=age$I10", False),
        ("context-type=age&context=I10", True),
        ("derived-from=urn:library", True),
        ("derived-from=urn:library%7C2", True),
        ("derived-from=urn:library%7C3", False),
        ("predecessor=urn:library", False),
        ("url:below=urn:activity", True),
        ("effective=2026-06", True),
        ("effective=2027", False),
    ],
)
async def test_search_of_quantities_composites_and_canonicals(
    client: SandboxClient, query: str, found: bool
) -> None:
    concept = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I10"}]}
    quantity = {"value": 40, "system": "http://unitsofmeasure.org", "code": "a"}
    contexts = "http://terminology.hl7.org/CodeSystem/usage-context-type"
    id_ = await create(
        client,
        resourceType="ActivityDefinition",
        status="active",
        url="urn:activity:1",
        effectivePeriod={"start": "2026-06-01", "end": "2026-06-30"},
        useContext=[
            {"code": {"system": contexts, "code": "focus"}, "valueCodeableConcept": concept},
            {"code": {"system": contexts, "code": "age"}, "valueQuantity": quantity},
        ],
        relatedArtifact=[{"type": "derived-from", "resource": "urn:library|2"}],
    )
    assert await client.found(f"/ActivityDefinition?{query}") == ([id_] if found else [])


async def test_patient_matches_patients_only(client: SandboxClient) -> None:
    id_ = await client.create(deceasedDateTime="2026-01-01")
    assert await client.found("/Patient?deceased=true") == [id_]
    body = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Group/{id_}"},
    }
    made = await create(client, **body)
    assert await client.found(f"/Observation?subject={id_}") == [made]
    assert await client.found(f"/Observation?patient={id_}") == []
