"""The embedded platform's example data through the gateway: links change, traps hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.sandbox.example_data import PATIENT_ID, examples
from tests.fhir.examples import CHANGES, DATA, FILES, PLATFORM, strings
from tests.interop.stages import Stage

JSON = {"Content-Type": "application/fhir+json"}
ALONE = [path for path in FILES if path.suffix == ".json" and not path.stem.startswith("bundle-")]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A caller that shows bodies as they come."""
    async with aiohttp.ClientSession(headers={"Accept": "application/fhir+json"}) as session:
        yield session


async def body(session: aiohttp.ClientSession, url: str) -> bytes:
    """What stands at a URL."""
    async with session.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


def token(stage: Stage) -> dict[str, str]:
    """The gateway's token, for a look past the gateway."""
    return {"Authorization": stage.platform.requests[-1].headers["Authorization"]}


async def test_every_example_holds_its_traps(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """Of each resource exactly the listed places lead to the gateway."""
    gateway = await sandbox_stage.gateway()
    base = f"{sandbox_stage.platform.url}/fhir"
    for path in ALONE:
        resource = json.loads(path.read_bytes())
        place = f"{resource['resourceType']}/{resource['id']}"
        seen = await body(session, f"{gateway.url}/{place}")
        async with session.get(f"{base}/{place}", headers=token(sandbox_stage)) as direct:
            sent = await direct.read()
        assert seen.replace(gateway.url.encode(), base.encode()) == sent, path.name
        before, after = strings(json.loads(sent)), strings(json.loads(seen))
        changed = {one for one in before if before[one] != after[one]}
        assert changed == CHANGES.get(path.stem, set()), path.name


async def test_searches_and_histories_lead_to_the_gateway(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """Links and full URLs of the Bundles that the platform makes do; text in them does not."""
    gateway = await sandbox_stage.gateway()
    for place in ("Patient?_count=1", "Condition", f"Patient/{PATIENT_ID}/_history"):
        bundle = json.loads(await body(session, f"{gateway.url}/{place}"))
        links = [link["url"] for link in bundle["link"]]
        links += [entry["fullUrl"] for entry in bundle["entry"]]
        assert links
        assert all(link.startswith(f"{gateway.url}/") for link in links), place
    condition = json.loads(await body(session, f"{gateway.url}/Condition"))
    assert PLATFORM in json.dumps(condition)


async def test_the_statement_names_the_gateway(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """`implementation.url` is where the caller reached the platform; no sign-in is offered."""
    gateway = await sandbox_stage.gateway()
    statement = json.loads(await body(session, f"{gateway.url}/metadata"))
    assert statement["implementation"]["url"] == gateway.url
    assert [sorted(rest) for rest in statement["rest"]] == [["mode", "resource"]]


async def test_transaction_reaches_the_platform_in_its_own_terms(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """Gateway URLs become platform URLs, `urn:uuid` stays, and the answer leads back."""
    gateway = await sandbox_stage.gateway()
    base = f"{sandbox_stage.platform.url}/fhir"
    original = (DATA / "bundle-transaction.json").read_text()
    link = f'"fullUrl": "{PLATFORM}'
    text = original.replace(link, link.replace(PLATFORM, gateway.url))
    async with session.post(gateway.url, data=text.encode(), headers=JSON) as answer:
        result = json.loads(await answer.read())
    sent = sandbox_stage.platform.requests[-1].body.decode()
    assert answer.status == 200, result
    assert gateway.url in text
    assert sent == original.replace(link, link.replace(PLATFORM, base))
    assert "urn:uuid:" in sent
    assert result["type"] == "transaction-response"
    assert base not in json.dumps(result)


async def test_what_was_read_is_written_back_in_the_platforms_terms(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """A report that a caller read and sends back has the platform's links again, to the byte."""
    gateway = await sandbox_stage.gateway()
    report = next(one for one in loaded() if one["resourceType"] == "DiagnosticReport")
    url = f"{gateway.url}/DiagnosticReport/{report['id']}"
    async with session.get(url) as answer:
        read, etag = await answer.read(), answer.headers["ETag"]
    async with session.put(url, data=read, headers={**JSON, "If-Match": etag}) as answer:
        assert answer.status == 200
    sent = sandbox_stage.platform.requests[-1].body
    assert gateway.url.encode() in read
    assert sent == read.replace(gateway.url.encode(), f"{sandbox_stage.platform.url}/fhir".encode())


def loaded() -> list[dict[str, Any]]:
    """The resources that the platform starts with."""
    return examples(PLATFORM)


async def test_ignored_search_parameter_is_told_of(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """`Immunization?patient.identifier=…` is ignored by the platform; the caller learns of it."""
    gateway = await sandbox_stage.gateway()
    identifier = "https://dhp.uz/fhir/core/sid/pid/uz/ni%7C30211850000112"
    for type_ in ("Immunization", "Condition"):
        url = f"{gateway.url}/{type_}?patient.identifier={identifier}"
        async with session.get(url) as answer:
            found = await answer.json(content_type=None)
            assert answer.status == 200
            assert answer.headers["X-Gateway-Warning"] == (
                'search-parameter-ignored; names="patient.identifier"'
            )
    assert found["entry"]  # the conditions of all patients, hence the warning
    async with session.get(f"{gateway.url}/Condition?patient={PATIENT_ID}") as answer:
        assert "X-Gateway-Warning" not in answer.headers


async def test_block_keeps_the_wrong_patients_back(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    """With `block` the same search is an error without data; so it is when strictly handled."""
    gateway = await sandbox_stage.gateway(fhir={"search_guard": "block"})
    for prefer in ("handling=lenient", "return=representation"):
        url = f"{gateway.url}/Immunization?patient.identifier=x"
        async with session.get(url, headers={"Prefer": prefer}) as answer:
            outcome = await answer.json(content_type=None)
        assert answer.status == 400
        assert outcome["resourceType"] == "OperationOutcome"
        assert "patient.identifier" in json.dumps(outcome)
    async with session.get(f"{gateway.url}/Condition?patient={PATIENT_ID}") as answer:
        assert answer.status == 200
