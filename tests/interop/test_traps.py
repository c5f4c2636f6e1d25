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
    async with aiohttp.ClientSession(headers={"Accept": "application/fhir+json"}) as session:
        yield session


async def body(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


def token(stage: Stage) -> dict[str, str]:
    return {"Authorization": stage.platform.requests[-1].headers["Authorization"]}


async def test_exactly_the_listed_links_of_each_example_are_rewritten(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
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


async def test_links_of_searches_and_histories_are_rewritten(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    gateway = await sandbox_stage.gateway()
    for place in ("Patient?_count=1", "Condition", f"Patient/{PATIENT_ID}/_history"):
        bundle = json.loads(await body(session, f"{gateway.url}/{place}"))
        links = [link["url"] for link in bundle["link"]]
        links += [entry["fullUrl"] for entry in bundle["entry"]]
        assert links
        assert all(link.startswith(f"{gateway.url}/") for link in links), place
    condition = json.loads(await body(session, f"{gateway.url}/Condition"))
    assert PLATFORM in json.dumps(condition)


async def test_the_capability_statement_names_the_gateway(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
    gateway = await sandbox_stage.gateway()
    statement = json.loads(await body(session, f"{gateway.url}/metadata"))
    assert statement["implementation"]["url"] == gateway.url
    assert [sorted(rest) for rest in statement["rest"]] == [["mode", "resource"]]


async def test_links_of_a_transaction_are_rewritten_in_both_directions(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
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


async def test_links_are_restored_in_an_update(
    sandbox_stage: Stage, session: aiohttp.ClientSession
) -> None:
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
    return examples(PLATFORM)
