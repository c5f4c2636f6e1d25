"""Transactions, all or nothing, and batches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from tests.sandbox.harness import NOBODY, PATIENT, Answer, SandboxClient

TYPES = ("EpisodeOfCare", "Encounter", "Condition", "Observation", "Patient")


def example(client: SandboxClient) -> Any:
    text = (files("gateway.sandbox") / "data/bundle-transaction.json").read_text("utf-8")
    text = text.replace('"https://playground.dhp.uz/fhir/', f'"{client.sandbox.fhir_base_url}/')
    return json.loads(text)


def entry(method: str, url: str, resource: Any = None, **request: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url}}
    if "full_url" in request:
        made["fullUrl"] = request.pop("full_url")
    made["request"] |= request
    return made | ({"resource": resource} if resource is not None else {})


async def send(client: SandboxClient, kind: str, *entries: Any, **headers: str) -> Answer:
    body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return await client.fhir("POST", "", body=body, headers=headers)


async def total(client: SandboxClient) -> dict[str, int]:
    counts = {}
    for type_ in TYPES:
        counts[type_] = (await client.fhir("GET", f"/{type_}?_count=0")).json["total"]
        history = await client.fhir("GET", f"/{type_}/_history?_count=0")
        counts[f"{type_} versions"] = history.json["total"]
    return counts


async def test_the_example_transaction(client: SandboxClient) -> None:
    answer = await client.fhir("POST", "/", body=example(client))
    assert answer.status == 200, answer.body
    assert answer.json["type"] == "transaction-response"
    responses = [entry["response"] for entry in answer.json["entry"]]
    assert [response["status"] for response in responses] == ["201 Created"] * 4 + ["200 OK"]
    for type_, response in zip(TYPES, responses, strict=True):
        assert re.fullmatch(rf"{type_}/[0-9a-f-]{{36}}/_history/\d", response["location"])
    assert responses[4]["etag"] == 'W/"4"'


async def test_references_between_entries_are_resolved(client: SandboxClient) -> None:
    answer = await client.fhir("POST", "", body=example(client))
    places = [entry["response"]["location"].split("/_history")[0] for entry in answer.json["entry"]]
    episode, encounter, condition, observation, _ = places
    for path in places:
        assert b"urn:uuid" not in (await client.fhir("GET", f"/{path}")).body
    got = (await client.fhir("GET", f"/{episode}")).json
    assert got["diagnosis"][0]["condition"][0]["reference"]["reference"] == condition
    assert (await client.fhir("GET", f"/{encounter}")).json["episodeOfCare"][0][
        "reference"
    ] == episode
    assert (await client.fhir("GET", f"/{observation}")).json["encounter"]["reference"] == encounter


def make_stale(bundle: Any) -> None:
    bundle["entry"][4]["request"]["ifMatch"] = 'W/"2"'


def make_invalid(bundle: Any) -> None:
    del bundle["entry"][3]["resource"]["code"]


def make_dangling(bundle: Any) -> None:
    del bundle["entry"][2]


@pytest.mark.parametrize(
    ("spoil", "status", "code", "expression"),
    [
        (make_stale, 412, "invalid", ["Bundle.entry[4]"]),
        (make_invalid, 422, "required", ["Bundle.entry[3].resource.code"]),
        (make_dangling, 400, "not-found", ["Bundle.entry[0]"]),
    ],
)
async def test_a_failed_entry_rolls_back_all_others(
    *,
    lenient: SandboxClient,
    spoil: Callable[[Any], None],
    status: int,
    code: str,
    expression: list[str],
) -> None:
    before = await total(lenient)
    bundle = example(lenient)
    spoil(bundle)
    answer = await lenient.fhir("POST", "", body=bundle)
    assert (answer.status, answer.issue["code"]) == (status, code)
    assert answer.issue["expression"] == expression
    assert await total(lenient) == before


async def test_entries_are_processed_in_the_order_of_fhir(client: SandboxClient) -> None:
    id_ = await client.create(active=True)
    update = {"resourceType": "Patient", "id": id_, "active": False}
    other = await client.create()
    answer = await send(
        client,
        "transaction",
        entry("GET", f"Patient/{id_}"),
        entry("PUT", f"Patient/{id_}", update, ifMatch='W/"1"'),
        entry("GET", f"Patient?_id={other}"),
        entry("DELETE", f"Patient/{other}"),
        entry("GET", f"Patient/{id_}/_history/1"),
    )
    assert answer.status == 200, answer.body
    got, _, found, deleted, old = answer.json["entry"]
    assert got["resource"]["active"] is False
    assert got["response"]["etag"] == 'W/"2"'
    assert found["resource"]["total"] == 0
    assert (deleted["response"]["status"], "resource" in deleted) == ("200 OK", False)
    assert old["resource"]["active"] is True


async def test_two_writes_of_one_resource_are_rejected(client: SandboxClient) -> None:
    body = {"resourceType": "Patient", "id": PATIENT}
    answer = await send(
        client,
        "transaction",
        entry("PUT", f"Patient/{PATIENT}", body, ifMatch='W/"3"'),
        entry("DELETE", f"Patient/{PATIENT}"),
    )
    assert (answer.status, answer.issue["expression"]) == (400, ["Bundle.entry[1]"])
    assert (await client.fhir("GET", f"/Patient/{PATIENT}")).status == 200


async def test_references_to_a_conditional_create_resolve_to_the_match(
    lenient: SandboxClient,
) -> None:
    identifier = {"system": "urn:s", "value": "known"}
    patient = {"resourceType": "Patient", "identifier": [identifier]}
    known = await lenient.create(identifier=[identifier])
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "urn:uuid:1"},
    }
    answer = await send(
        lenient,
        "transaction",
        entry(
            "POST", "Patient", patient, ifNoneExist="identifier=urn:s|known", full_url="urn:uuid:1"
        ),
        entry("POST", "Observation", observation),
        Prefer="return=representation",
    )
    first, second = answer.json["entry"]
    assert first["response"]["status"] == "200 OK"
    assert first["response"]["location"] == f"Patient/{known}/_history/1"
    assert second["resource"]["subject"]["reference"] == f"Patient/{known}"
    assert second["fullUrl"].startswith(lenient.sandbox.fhir_base_url)


async def test_conditions_are_evaluated_before_any_change(lenient: SandboxClient) -> None:
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "new"}]}
    conditional = entry("POST", "Patient", patient, ifNoneExist="identifier=urn:s|new")
    answer = await send(lenient, "transaction", entry("POST", "Patient", patient), conditional)
    statuses = [entry["response"]["status"] for entry in answer.json["entry"]]
    assert statuses == ["201 Created", "201 Created"]


async def test_two_equal_conditional_creates_are_rejected(lenient: SandboxClient) -> None:
    """The same condition twice in a transaction would create twice."""
    conditional = entry("POST", "Patient", {"resourceType": "Patient"}, ifNoneExist="name=x")
    answer = await send(lenient, "transaction", conditional, conditional)
    assert (answer.status, answer.issue["expression"]) == (400, ["Bundle.entry[1]"])


async def test_decimals_survive_a_transaction(client: SandboxClient) -> None:
    body = (
        b'{"resourceType":"Bundle","type":"transaction","entry":[{"fullUrl":"urn:uuid:1","resource":'
        b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":'
        b'{"value":1.10}},"request":{"method":"POST","url":"Observation"}}]}'
    )
    answer = await client.fhir("POST", "", body=body)
    location = answer.json["entry"][0]["response"]["location"]
    assert b'"value":1.10}' in (await client.fhir("GET", f"/{location}")).body


async def test_entries_of_a_batch_are_independent(client: SandboxClient) -> None:
    patient = {"resourceType": "Patient"}
    answer = await send(
        client,
        "batch",
        entry("POST", "Patient", patient),
        entry("POST", "Patient", {"resourceType": "Patient", "name": "x"}),
        entry("GET", f"Patient/{NOBODY}"),
        entry("GET", f"{client.sandbox.fhir_base_url}/Patient/{PATIENT}"),
        entry("PATCH", f"Patient/{PATIENT}"),
        entry("GET", "Pateint"),
        Prefer="return=OperationOutcome",
    )
    assert (answer.status, answer.json["type"]) == (200, "batch-response")
    statuses = [entry["response"]["status"][:3] for entry in answer.json["entry"]]
    assert statuses == ["201", "422", "404", "200", "400", "404"]
    outcomes = [entry["response"].get("outcome") for entry in answer.json["entry"]]
    assert outcomes[1]["issue"][0]["expression"] == ["Bundle.entry[1].resource.name"]
    assert [outcome is not None for outcome in outcomes] == [True, True, True, False, True, True]


@pytest.mark.parametrize(
    ("bundle", "expression"),
    [
        ({"type": "searchset"}, "Bundle.type"),
        ({}, "Bundle.type"),
        ({"type": "transaction", "entry": {}}, "Bundle.entry"),
        ({"type": "transaction", "entry": [1]}, "Bundle.entry[0].request"),
        ({"type": "transaction", "entry": [{}]}, "Bundle.entry[0].request"),
        (
            {"type": "transaction", "entry": [entry("PATCH", "Patient/1")]},
            "Bundle.entry[0].request",
        ),
        ({"type": "transaction", "entry": [entry("POST", "Patient")]}, "Bundle.entry[0].resource"),
        (
            {"type": "transaction", "entry": [entry("POST", "Patient", {"resourceType": "Group"})]},
            "Bundle.entry[0].resource",
        ),
        (
            {"type": "transaction", "entry": [entry("GET", "Patient") | {"fullUrl": []}]},
            "Bundle.entry[0].fullUrl",
        ),
        ({"type": "transaction", "entry": [entry("DELETE", "Patient")]}, "Bundle.entry[0]"),
    ],
)
async def test_invalid_bundles_are_rejected(
    client: SandboxClient, bundle: Any, expression: str
) -> None:
    answer = await client.fhir("POST", "", body={"resourceType": "Bundle"} | bundle)
    assert (answer.status, answer.issue["expression"]) == (400, [expression])


async def test_an_empty_transaction(client: SandboxClient) -> None:
    answer = await send(client, "transaction")
    assert (answer.status, "entry" in answer.json) == (200, False)


async def test_only_bundles_are_posted_to_the_base(client: SandboxClient) -> None:
    assert (await client.fhir("POST", "", body={"resourceType": "Patient"})).status == 400


async def test_restrictions_of_types_apply_in_bundles(client: SandboxClient) -> None:
    answer = await send(client, "transaction", entry("DELETE", f"Consent/{NOBODY}"))
    assert (answer.status, answer.issue["code"]) == (405, "not-supported")
