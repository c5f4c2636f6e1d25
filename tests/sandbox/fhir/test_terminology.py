"""The terminology operations, over code systems that come with the sandbox and that tests add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.sandbox.harness import NOBODY, Answer, Trial

GENDER = "http://hl7.org/fhir/administrative-gender"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"
ICD = "http://hl7.org/fhir/sid/icd-10"
NATIONAL = "https://terminology.dhp.uz/fhir/core"
OWN = "https://poliklinika-1.example.uz"


async def call(given: Trial, operation: str, **parameters: str) -> Answer:
    """An operation by GET; a name's `__` is a dot, as Python's names have none."""
    language = parameters.pop("accept", "")
    headers = {"Accept-Language": language} if language else {}
    return await given.fhir("GET", f"/{operation}?{urlencode(parameters)}", headers=headers)


def values(answer: Answer) -> dict[str, Any]:
    """The simple parameters of an answer by name."""
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
    """The codes of an expansion, in order."""
    assert answer.status == 200, answer.body
    return [each["code"] for each in answer.json["expansion"].get("contains", [])]


async def kept(given: Trial, resource: Mapping[str, Any]) -> str:
    """The id of a resource that was created."""
    answer = await given.fhir("POST", f"/{resource['resourceType']}", body={**resource})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def value_set(*include: Any, **more: Any) -> dict[str, Any]:
    """A ValueSet of these includes."""
    compose = {"include": list(include), **more}
    return {"resourceType": "ValueSet", "url": "urn:vs", "status": "draft", "compose": compose}


async def test_a_code_is_looked_up(given: Trial) -> None:
    """With the system's name and version, what it is called, and where it stands."""
    answer = await call(given, "CodeSystem/$lookup", system=ICD, code="I11")
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
async def test_a_display_comes_in_the_language_asked_for(
    given: Trial, how: dict[str, str], display: str
) -> None:
    """By `displayLanguage`, else by Accept-Language, else as the system has it."""
    answer = await call(given, "CodeSystem/$lookup", system=GENDER, code="male", **how)
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
async def test_what_cannot_be_done_is_an_outcome(
    given: Trial, operation: str, parameters: dict[str, str], status: int, code: str
) -> None:
    """What is missing or not there gets its status and issue code."""
    answer = await call(given, operation, **parameters)
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
    given: Trial, parameters: dict[str, str], result: bool
) -> None:
    """200 either way; a code that is not in it says why."""
    found = values(await call(given, "ValueSet/$validate-code", url=GENDERS, **parameters))
    assert found["result"] is result
    assert ("message" in found) is not result


@pytest.mark.parametrize(("code", "result"), [("I10", True), ("Z99", False)])
async def test_a_code_is_validated_in_a_code_system(given: Trial, code: str, result: bool) -> None:
    """By url or by id, by GET or by POST with a Coding."""
    answer = await call(given, "CodeSystem/$validate-code", url=ICD, code=code)
    assert values(answer)["result"] is result
    (id_,) = await given.found(f"/CodeSystem?url={ICD}")
    answer = await call(given, f"CodeSystem/{id_}/$validate-code", code=code)
    assert values(answer)["result"] is result
    parameter = {"name": "coding", "valueCoding": {"system": ICD, "code": code}}
    body = {"resourceType": "Parameters", "parameter": [parameter]}
    answer = await given.fhir("POST", "/CodeSystem/$validate-code", body=body)
    assert values(answer)["result"] is result


async def test_one_good_coding_of_a_concept_is_enough(given: Trial) -> None:
    """A CodeableConcept is valid when one of its codings is."""
    codings = [{"system": "urn:local", "code": "1"}, {"system": GENDER, "code": "male"}]
    parameter = [
        {"name": "url", "valueUri": GENDERS},
        {"name": "codeableConcept", "valueCodeableConcept": {"coding": codings}},
    ]
    body = {"resourceType": "Parameters", "parameter": parameter}
    found = values(await given.fhir("POST", "/ValueSet/$validate-code", body=body))
    assert (found["result"], found["code"]) == (True, "male")


@pytest.mark.parametrize(
    "body", [{"resourceType": "Patient"}, {"parameter": {}}, {"parameter": [1]}]
)
async def test_parameters_must_be_parameters(given: Trial, body: dict[str, Any]) -> None:
    """Anything else posted to an operation is 400."""
    document = {"resourceType": "Parameters", **body}
    assert (await given.fhir("POST", "/ValueSet/$expand", body=document)).status == 400


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("I11", "I11", "equivalent"),
        ("IX", "I11.0", "subsumes"),
        ("I11.0", "I10-I15", "subsumed-by"),
        ("I10", "J00", "not-subsumed"),
    ],
)
async def test_codes_subsume_each_other(
    given: Trial, first: str, second: str, outcome: str
) -> None:
    """By the hierarchy of their system, over any number of steps."""
    answer = await call(given, "CodeSystem/$subsumes", system=ICD, codeA=first, codeB=second)
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
async def test_a_value_set_is_expanded(given: Trial, url: str, expected: list[str]) -> None:
    """Whole systems, listed codes, filters, exclusions and other value sets; by url and by id."""
    answer = await call(given, "ValueSet/$expand", url=url)
    assert codes(answer) == expected
    assert (answer.json["expansion"]["total"], answer.json["url"]) == (len(expected), url)
    assert "compose" not in answer.json
    (id_,) = await given.found(f"/ValueSet?url={url}")
    assert codes(await call(given, f"ValueSet/{id_}/$expand")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("male", ["male", "female"]), ("AYOL", ["female"]), ("noma'lum", ["unknown"]), ("zz", [])],
)
async def test_an_expansion_is_filtered(given: Trial, text: str, expected: list[str]) -> None:
    """By any part of a code or of its names, without case and kinds of apostrophes."""
    answer = await call(given, "ValueSet/$expand", url=GENDERS, filter=text)
    assert codes(answer) == expected
    assert answer.json["expansion"]["total"] == len(expected)


async def test_an_expansion_is_paged(given: Trial) -> None:
    """`count` and `offset` cut it, `total` stays, and `next` is absolute and leads on."""
    answer = await call(given, "ValueSet/$expand", url=GENDERS, count="3")
    expansion = answer.json["expansion"]
    assert codes(answer) == ["male", "female", "other"]
    assert (expansion["total"], expansion["offset"]) == (4, 0)
    assert expansion["next"].startswith(f"{given.sandbox.fhir_base_url}/ValueSet/$expand?")
    rest = await given.fhir("GET", expansion["next"])
    assert codes(rest) == ["unknown"]
    assert (rest.json["expansion"]["offset"], "next" in rest.json["expansion"]) == (3, False)
    assert codes(await call(given, "ValueSet/$expand", url=GENDERS, count="0")) == []
    assert codes(await call(given, "ValueSet/$expand", url=GENDERS, offset="9")) == []


async def test_designations_come_when_asked_for(given: Trial) -> None:
    """Not unasked, as they make an expansion long."""
    plain = await call(given, "ValueSet/$expand", url=GENDERS, count="1")
    whole = await call(
        given, "ValueSet/$expand", url=GENDERS, count="1", includeDesignations="true"
    )
    assert "designation" not in plain.json["expansion"]["contains"][0]
    assert len(whole.json["expansion"]["contains"][0]["designation"]) == 2


@pytest.mark.parametrize(
    ("op", "expected"),
    [("is-a", ["I11", "I11.0", "I11.9"]), ("descendent-of", ["I11.0", "I11.9"])],
)
async def test_filters_of_an_include(given: Trial, op: str, expected: list[str]) -> None:
    """A value set that was added is expanded like any other."""
    only = {"property": "concept", "op": op, "value": "I11"}
    id_ = await kept(given, value_set({"system": ICD, "filter": [only]}))
    assert codes(await call(given, f"ValueSet/{id_}/$expand")) == expected


@pytest.mark.parametrize(
    "include",
    [
        {"system": "urn:nowhere"},
        {"system": ICD, "filter": [{"property": "code", "op": "exists", "value": "true"}]},
        {"valueSet": ["urn:vs"]},
    ],
)
async def test_what_cannot_be_expanded_says_so(given: Trial, include: Any) -> None:
    """An unknown system or filter, and a value set that includes itself, are 422."""
    id_ = await kept(given, value_set(include))
    answer = await call(given, f"ValueSet/{id_}/$expand")
    assert (answer.status, answer.issue["code"]) == (422, "not-supported")


async def test_many_codes_have_to_be_asked_for_in_pages(given: Trial) -> None:
    """More than a thousand at once are `too-costly`; with `count` they come."""
    listed = [{"code": f"c{number}"} for number in range(1001)]
    id_ = await kept(given, value_set({"system": "urn:any", "concept": listed}))
    answer = await call(given, f"ValueSet/{id_}/$expand")
    assert (answer.status, answer.issue["code"]) == (422, "too-costly")
    assert len(codes(await call(given, f"ValueSet/{id_}/$expand", count="1001"))) == 1001


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
async def test_a_code_is_translated(
    given: Trial, parameters: dict[str, str], expected: list[str]
) -> None:
    """By all maps at hand, there and back; without a match the result is false and says why."""
    answer = await call(given, "ConceptMap/$translate", **parameters)
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


async def test_a_translation_says_how_near_it_is(given: Trial) -> None:
    """With the relationship, turned round for the way back, and the map it is from."""
    url = f"{OWN}/ConceptMap/jins"
    there = _matches(await call(given, "ConceptMap/$translate", url=url, sourceCode="0"))[0]
    assert there["relationship"]["valueCode"] == "source-is-narrower-than-target"
    assert there["originMap"]["valueUri"] == url
    (id_,) = await given.found(f"/ConceptMap?url={url}")
    back = await call(given, f"ConceptMap/{id_}/$translate", targetCode="unknown")
    assert _matches(back)[0]["relationship"]["valueCode"] == "source-is-broader-than-target"


async def test_the_newest_version_counts(given: Trial) -> None:
    """10 is newer than 9, and an older one is there when it is named."""
    for version, display in (("10.0", "new"), ("9.0", "old")):
        system = {"resourceType": "CodeSystem", "status": "active", "content": "complete"}
        concept = [{"code": "a", "display": display}]
        await kept(given, {**system, "url": "urn:s", "version": version, "concept": concept})
    assert (
        values(await call(given, "CodeSystem/$lookup", system="urn:s", code="a"))["display"]
        == "new"
    )
    old = await call(given, "CodeSystem/$lookup", system="urn:s", version="9.0", code="a")
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
async def test_terminology_is_searched(given: Trial, query: str, count: int) -> None:
    """By what is declared of the three types."""
    assert (await given.fhir("GET", f"/{query}")).json["total"] == count


@pytest.mark.parametrize("type_", ["CodeSystem", "ConceptMap", "ValueSet"])
async def test_terminology_is_read_and_cannot_be_deleted(given: Trial, type_: str) -> None:
    """As the playground declares it."""
    id_ = (await given.found(f"/{type_}"))[0]
    assert (await given.fhir("GET", f"/{type_}/{id_}")).json["resourceType"] == type_
    assert (await given.fhir("DELETE", f"/{type_}/{id_}")).status == 405
