"""The terminology operations, over code systems that come with the sandbox and that tests add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.sandbox.harness import NOBODY, Answer, SandboxClient

GENDER = "http://hl7.org/fhir/administrative-gender"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"
ICD = "http://hl7.org/fhir/sid/icd-10"
NATIONAL = "https://terminology.dhp.uz/fhir/core"
OWN = "https://poliklinika-1.example.uz"


async def call(client: SandboxClient, operation: str, **parameters: str) -> Answer:
    """An operation by GET; a name's `__` is a dot, as Python's names have none."""
    language = parameters.pop("accept", "")
    headers = {"Accept-Language": language} if language else {}
    return await client.fhir("GET", f"/{operation}?{urlencode(parameters)}", headers=headers)


def values(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    assert answer.json["resourceType"] == "Parameters"
    return {
        parameter["name"]: value
        for parameter in answer.json["parameter"]
        for key, value in parameter.items()
        if key.startswith("value")
    }


def parts(answer: Answer, name: str) -> list[dict[str, Any]]:
    """The parameters of that name that have parts, each as a mapping."""
    return [
        {
            part["name"]: value
            for part in each["part"]
            for key, value in part.items()
            if key != "name"
        }
        for each in answer.json["parameter"]
        if each["name"] == name
    ]


def codes(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [each["code"] for each in answer.json["expansion"].get("contains", [])]


async def create(client: SandboxClient, resource: Mapping[str, Any]) -> str:
    answer = await client.fhir("POST", f"/{resource['resourceType']}", body={**resource})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def value_set(*include: Any, **more: Any) -> dict[str, Any]:
    compose = {"include": list(include), **more}
    return {"resourceType": "ValueSet", "url": "urn:vs", "status": "draft", "compose": compose}


async def test_lookup(client: SandboxClient) -> None:
    answer = await call(client, "CodeSystem/$lookup", system=ICD, code="I11")
    found = values(answer)
    assert found["display"] == "Hypertensive heart disease"
    assert (found["name"], found["version"]) == ("ICD10Examples", "2019")
    languages = {each["language"] for each in parts(answer, "designation")}
    assert languages == {"ru", "uz"}
    assert parts(answer, "property") == [
        {"code": "parent", "value": "I10-I15"},
        {"code": "child", "value": "I11.0"},
        {"code": "child", "value": "I11.9"},
    ]


@pytest.mark.parametrize(
    ("how", "display"),
    [
        ({}, "Male"),
        ({"displayLanguage": "ru"}, "Мужской"),
        ({"displayLanguage": "uz-Latn"}, "Erkak"),
        ({"displayLanguage": "kaa"}, "Male"),
        ({"accept": "ru-RU,ru;q=0.9"}, "Мужской"),
        ({"accept": "kaa, uz;q=0.5"}, "Erkak"),
        ({"accept": "ru", "displayLanguage": "uz"}, "Erkak"),
    ],
)
async def test_display_language(client: SandboxClient, how: dict[str, str], display: str) -> None:
    answer = await call(client, "CodeSystem/$lookup", system=GENDER, code="male", **how)
    assert values(answer)["display"] == display


@pytest.mark.parametrize(
    ("operation", "parameters", "status", "code"),
    [
        ("CodeSystem/$lookup", {"system": GENDER, "code": "x"}, 404, "not-found"),
        ("CodeSystem/$lookup", {"system": "urn:nowhere", "code": "x"}, 404, "not-found"),
        ("CodeSystem/$lookup", {"system": f"{ICD}|1999", "code": "I10"}, 404, "not-found"),
        ("CodeSystem/$lookup", {"system": GENDER}, 400, "required"),
        ("CodeSystem/$lookup", {"code": "male"}, 400, "required"),
        (f"CodeSystem/{NOBODY}/$lookup", {"code": "male"}, 404, "not-found"),
        ("CodeSystem/icd-10/$lookup", {"code": "male"}, 400, "invalid"),
        ("CodeSystem/$validate-code", {"url": GENDER}, 400, "required"),
        ("CodeSystem/$validate-code", {"url": "urn:x", "code": "x"}, 404, "not-found"),
        ("CodeSystem/$subsumes", {"system": ICD, "codeA": "I10"}, 400, "required"),
        ("CodeSystem/$subsumes", {"system": ICD, "codeA": "I10", "codeB": "x"}, 404, "not-found"),
        ("ValueSet/$expand", {"url": "urn:nowhere"}, 404, "not-found"),
        ("ValueSet/$expand", {}, 400, "required"),
        ("ValueSet/$expand", {"url": GENDERS, "count": "x"}, 400, "value"),
        ("ValueSet/$expand", {"url": GENDERS, "offset": "-1"}, 400, "value"),
        ("ValueSet/$expand", {"url": GENDERS, "valueSetVersion": "9"}, 404, "not-found"),
        ("ValueSet/$validate-code", {"url": GENDERS, "code": "male"}, 400, "required"),
        ("ValueSet/$validate-code", {"url": GENDERS, "system": GENDER}, 400, "required"),
        ("ConceptMap/$translate", {"system": ICD}, 400, "required"),
        ("ConceptMap/$translate", {"url": "urn:x", "sourceCode": "x"}, 404, "not-found"),
        ("ValueSet/$lookup", {}, 404, "not-supported"),
    ],
)
async def test_invalid_operations_are_an_outcome(
    client: SandboxClient, operation: str, parameters: dict[str, str], status: int, code: str
) -> None:
    answer = await call(client, operation, **parameters)
    assert (answer.status, answer.issue["code"]) == (status, code)


@pytest.mark.parametrize(
    ("parameters", "result"),
    [
        ({"code": "male", "system": GENDER}, True),
        ({"code": "male", "system": GENDER, "display": "MALE"}, True),
        ({"code": "male", "system": GENDER, "display": "Erkak"}, True),
        ({"code": "male", "system": GENDER, "display": "Female"}, False),
        ({"code": "x", "system": GENDER}, False),
        ({"code": "male", "system": "urn:other"}, False),
        ({"code": "male", "inferSystem": "true"}, True),
    ],
)
async def test_a_code_is_validated_in_a_value_set(
    client: SandboxClient, parameters: dict[str, str], result: bool
) -> None:
    found = values(await call(client, "ValueSet/$validate-code", url=GENDERS, **parameters))
    assert found["result"] is result
    assert ("message" in found) is not result


@pytest.mark.parametrize(("code", "result"), [("I10", True), ("Z99", False)])
async def test_a_code_is_validated_in_a_code_system(
    client: SandboxClient, code: str, result: bool
) -> None:
    answer = await call(client, "CodeSystem/$validate-code", url=ICD, code=code)
    assert values(answer)["result"] is result
    (id_,) = await client.found(f"/CodeSystem?url={ICD}")
    answer = await call(client, f"CodeSystem/{id_}/$validate-code", code=code)
    assert values(answer)["result"] is result
    parameter = {"name": "coding", "valueCoding": {"system": ICD, "code": code}}
    body = {"resourceType": "Parameters", "parameter": [parameter]}
    answer = await client.fhir("POST", "/CodeSystem/$validate-code", body=body)
    assert values(answer)["result"] is result


async def test_a_concept_is_valid_with_one_valid_coding(client: SandboxClient) -> None:
    codings = [{"system": "urn:local", "code": "1"}, {"system": GENDER, "code": "male"}]
    parameter = [
        {"name": "url", "valueUri": GENDERS},
        {"name": "codeableConcept", "valueCodeableConcept": {"coding": codings}},
    ]
    body = {"resourceType": "Parameters", "parameter": parameter}
    found = values(await client.fhir("POST", "/ValueSet/$validate-code", body=body))
    assert (found["result"], found["code"]) == (True, "male")


@pytest.mark.parametrize(
    "body", [{"resourceType": "Patient"}, {"parameter": {}}, {"parameter": [1]}]
)
async def test_invalid_parameters_are_rejected(client: SandboxClient, body: dict[str, Any]) -> None:
    document = {"resourceType": "Parameters", **body}
    assert (await client.fhir("POST", "/ValueSet/$expand", body=document)).status == 400


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("I11", "I11", "equivalent"),
        ("IX", "I11.0", "subsumes"),
        ("I11.0", "I10-I15", "subsumed-by"),
        ("I10", "J00", "not-subsumed"),
    ],
)
async def test_subsumes(client: SandboxClient, first: str, second: str, outcome: str) -> None:
    answer = await call(client, "CodeSystem/$subsumes", system=ICD, codeA=first, codeB=second)
    assert values(answer) == {"outcome": outcome}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (GENDERS, ["male", "female", "other", "unknown"]),
        (f"{NATIONAL}/ValueSet/identifier-type-vs", ["NI", "PPN", "BCT", "HC", "DL"]),
        (f"{OWN}/ValueSet/gipertoniya", ["I10", "I11.0", "I11.9"]),
        (f"{OWN}/ValueSet/terapiya", ["I10", "I11.0", "I11.9", "X", "J00", "J06.9"]),
    ],
)
async def test_expand(client: SandboxClient, url: str, expected: list[str]) -> None:
    answer = await call(client, "ValueSet/$expand", url=url)
    assert codes(answer) == expected
    assert (answer.json["expansion"]["total"], answer.json["url"]) == (len(expected), url)
    assert "compose" not in answer.json
    (id_,) = await client.found(f"/ValueSet?url={url}")
    assert codes(await call(client, f"ValueSet/{id_}/$expand")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("male", ["male", "female"]), ("AYOL", ["female"]), ("noma'lum", ["unknown"]), ("zz", [])],
)
async def test_an_expansion_is_filtered(
    client: SandboxClient, text: str, expected: list[str]
) -> None:
    answer = await call(client, "ValueSet/$expand", url=GENDERS, filter=text)
    assert codes(answer) == expected
    assert answer.json["expansion"]["total"] == len(expected)


async def test_an_expansion_is_paged(client: SandboxClient) -> None:
    answer = await call(client, "ValueSet/$expand", url=GENDERS, count="3")
    expansion = answer.json["expansion"]
    assert codes(answer) == ["male", "female", "other"]
    assert (expansion["total"], expansion["offset"]) == (4, 0)
    assert expansion["next"].startswith(f"{client.sandbox.fhir_base_url}/ValueSet/$expand?")
    rest = await client.fhir("GET", expansion["next"])
    assert codes(rest) == ["unknown"]
    assert (rest.json["expansion"]["offset"], "next" in rest.json["expansion"]) == (3, False)
    assert codes(await call(client, "ValueSet/$expand", url=GENDERS, count="0")) == []
    assert codes(await call(client, "ValueSet/$expand", url=GENDERS, offset="9")) == []


async def test_designations_are_included_on_request(client: SandboxClient) -> None:
    plain = await call(client, "ValueSet/$expand", url=GENDERS, count="1")
    whole = await call(
        client, "ValueSet/$expand", url=GENDERS, count="1", includeDesignations="true"
    )
    assert "designation" not in plain.json["expansion"]["contains"][0]
    assert len(whole.json["expansion"]["contains"][0]["designation"]) == 2


@pytest.mark.parametrize(
    ("op", "expected"), [("is-a", ["I11", "I11.0", "I11.9"]), ("descendent-of", ["I11.0", "I11.9"])]
)
async def test_filters_of_an_include(client: SandboxClient, op: str, expected: list[str]) -> None:
    only = {"property": "concept", "op": op, "value": "I11"}
    id_ = await create(client, value_set({"system": ICD, "filter": [only]}))
    assert codes(await call(client, f"ValueSet/{id_}/$expand")) == expected


@pytest.mark.parametrize(
    "include",
    [
        {"system": "urn:nowhere"},
        {"system": ICD, "filter": [{"property": "code", "op": "exists", "value": "true"}]},
        {"valueSet": ["urn:vs"]},
    ],
)
async def test_an_unsupported_expansion_is_422(client: SandboxClient, include: Any) -> None:
    id_ = await create(client, value_set(include))
    answer = await call(client, f"ValueSet/{id_}/$expand")
    assert (answer.status, answer.issue["code"]) == (422, "not-supported")


async def test_a_large_expansion_is_too_costly_without_count(client: SandboxClient) -> None:
    listed = [{"code": f"c{number}"} for number in range(1001)]
    id_ = await create(client, value_set({"system": "urn:any", "concept": listed}))
    answer = await call(client, f"ValueSet/{id_}/$expand")
    assert (answer.status, answer.issue["code"]) == (422, "too-costly")
    assert len(codes(await call(client, f"ValueSet/{id_}/$expand", count="1001"))) == 1001


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"sourceCode": "UZB", "system": "urn:iso:std:iso:3166"}, ["UZ"]),
        ({"code": "UZB", "system": "urn:iso:std:iso:3166"}, ["UZ"]),
        ({"sourceCode": "1", "system": f"{OWN}/CodeSystem/jins"}, ["male"]),
        ({"sourceCode": "1", "targetSystem": GENDER}, ["male"]),
        ({"sourceCode": "1", "targetSystem": ICD}, []),
        ({"targetCode": "female", "system": GENDER}, ["2"]),
        ({"sourceCode": "9", "system": f"{OWN}/CodeSystem/jins"}, []),
    ],
)
async def test_translate(
    client: SandboxClient, parameters: dict[str, str], expected: list[str]
) -> None:
    answer = await call(client, "ConceptMap/$translate", **parameters)
    found = values(answer)
    assert [each["concept"]["valueCoding"]["code"] for each in _matches(answer)] == expected
    assert found["result"] is bool(expected)
    assert ("message" in found) is not bool(expected)


def _matches(answer: Answer) -> list[dict[str, Any]]:
    return [
        {part["name"]: part for part in each["part"]}
        for each in answer.json["parameter"]
        if each["name"] == "match"
    ]


async def test_translations_have_a_relationship(client: SandboxClient) -> None:
    url = f"{OWN}/ConceptMap/jins"
    there = _matches(await call(client, "ConceptMap/$translate", url=url, sourceCode="0"))[0]
    assert there["relationship"]["valueCode"] == "source-is-narrower-than-target"
    assert there["originMap"]["valueUri"] == url
    (id_,) = await client.found(f"/ConceptMap?url={url}")
    back = await call(client, f"ConceptMap/{id_}/$translate", targetCode="unknown")
    assert _matches(back)[0]["relationship"]["valueCode"] == "source-is-broader-than-target"


async def test_the_newest_version_is_used(client: SandboxClient) -> None:
    for version, display in (("10.0", "new"), ("9.0", "old")):
        system = {"resourceType": "CodeSystem", "status": "active", "content": "complete"}
        concept = [{"code": "a", "display": display}]
        await create(client, {**system, "url": "urn:s", "version": version, "concept": concept})
    assert (
        values(await call(client, "CodeSystem/$lookup", system="urn:s", code="a"))["display"]
        == "new"
    )
    old = await call(client, "CodeSystem/$lookup", system="urn:s", version="9.0", code="a")
    assert values(old)["display"] == "old"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (f"CodeSystem?url={GENDER}", 1),
        ("CodeSystem?title=identifier&version=3.0.0&publisher=HL7", 1),
        ("CodeSystem?name:contains=profession", 1),
        ("CodeSystem?code=I10-I15&status=active", 0),
        ("CodeSystem?code=IX&content-mode=example", 1),
        (f"CodeSystem?url:below={NATIONAL}", 3),
        (f"ValueSet?reference={ICD}", 2),
        ("ValueSet?code=NI", 1),
        ("ConceptMap?source-scope-uri=urn:iso:std:iso:3166&target-code=UZ", 1),
        ("ConceptMap?source-code=UZ", 0),
    ],
)
async def test_search_of_terminology(client: SandboxClient, query: str, count: int) -> None:
    assert (await client.fhir("GET", f"/{query}")).json["total"] == count


@pytest.mark.parametrize("type_", ["CodeSystem", "ConceptMap", "ValueSet"])
async def test_terminology_is_read_and_cannot_be_deleted(client: SandboxClient, type_: str) -> None:
    id_ = (await client.found(f"/{type_}"))[0]
    assert (await client.fhir("GET", f"/{type_}/{id_}")).json["resourceType"] == type_
    assert (await client.fhir("DELETE", f"/{type_}/{id_}")).status == 405
