"""Six third-party clients walk through a platform by way of the gateway, and not without it."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from yarl import URL

from tests.doubles.recording_proxy import RecordedExchange
from tests.interop.stages import GuardedStage, Stage
from tests.legacy.line import RecordingRelay, fates_of

HERE = Path(__file__).parent
PYTHON_CLIENTS = ("fhirclient", "fhir-pyrate")
DRIVEN_BY_PYTHON = ("fhirpy", *PYTHON_CLIENTS)
CLIENTS = (*DRIVEN_BY_PYTHON, "fhir-kit-client", "@medplum/core", "fhirclient.js")
COUNT = 3
# What of theirs is not sent to the platform: it is about the library, not about the request.
TOLD = {"@medplum/core": {"x-medplum"}}
NO_VERSION = 'W/"from-elsewhere"'


class Walk(Protocol):
    """Lets a client create Patients, page through them, follow a Location and update."""

    async def __call__(
        self, client: str, base_url: str, family: str, etag: str | None = None
    ) -> dict[str, Any]:
        """What the client found, or at which step it failed; `etag` for a silent platform."""


@pytest.fixture
def walk(node: str, clients_python: Path) -> Walk:
    async def call(
        client: str, base_url: str, family: str, etag: str | None = None
    ) -> dict[str, Any]:
        program, script = (node, "walk.mjs")
        if client in DRIVEN_BY_PYTHON:
            script = "walk.py"
            program = str(clients_python) if client in PYTHON_CLIENTS else sys.executable
        order = {"client": client, "baseUrl": base_url, "family": family}
        order |= {"count": COUNT, "etag": etag}
        process = await asyncio.create_subprocess_exec(
            program,
            str(HERE / script),
            json.dumps(order),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()
        result: dict[str, Any] = json.loads(stdout.splitlines()[-1])
        return result

    return call


@pytest.fixture
def family() -> str:
    return f"Rahimova{uuid.uuid4().hex}"


def ids(result: dict[str, Any]) -> list[str]:
    return [location.split("/Patient/")[1].partition("/")[0] for location in result["created"]]


def direct(seen: list[RecordedExchange]) -> list[RecordedExchange]:
    return [one for one in seen if "Via" not in one.headers]


@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_works_with_the_sandbox(
    sandbox_stage: Stage, walk: Walk, family: str, client: str
) -> None:
    gateway = await sandbox_stage.gateway()

    result = await walk(client, gateway.url, family)

    assert "error" not in result
    assert all(location.startswith(f"{gateway.url}/Patient/") for location in result["created"])
    assert sum(len(page) for page in result["pages"]) == len(result["pages"]) == COUNT
    assert {one for page in result["pages"] for one in page} == set(ids(result))
    assert result["followed"] == ids(result)[-1]
    assert (result["updated"]["gender"], result["updated"]["meta"]["versionId"]) == ("female", "2")
    [update] = [one for one in sandbox_stage.platform.requests if one.method == "PUT"]
    assert (update.headers["If-Match"], update.status) == ('W/"1"', 200)
    assert not direct(sandbox_stage.platform.requests)
    sandbox_stage.assert_one_token_served_all()


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_field_of_a_client_is_forwarded_or_reported(
    sandbox_stage: Stage, walk: Walk, family: str, client: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await sandbox_stage.gateway()
    async with RecordingRelay(URL(gateway.url).port or 0) as line:
        result = await walk(client, f"http://127.0.0.1:{line.port}/fhir", family)
    assert "error" not in result
    async with aiohttp.request("GET", f"{gateway.admin_url}/status.json") as answer:
        facts = await answer.json()
    sent = {name for seen in sandbox_stage.platform.requests for name in seen.headers}
    found = fates_of(line.fields, sent, (each["name"] for each in facts["fields_not_forwarded"]))
    with capsys.disabled():
        sys.stdout.write(f"\n{client}: " + ", ".join(map(" ".join, found.items())) + "\n")
    assert {name.lower() for name, fate in found.items() if fate == "told"} == TOLD.get(
        client, set()
    )


@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_works_with_fhirstarter(
    stage: GuardedStage, walk: Walk, family: str, client: str
) -> None:
    gateway = await stage.gateway()

    result = await walk(client, gateway.url, family, NO_VERSION)

    assert "error" not in result
    assert all(location.startswith(f"{gateway.url}/Patient/") for location in result["created"])
    assert {one for page in result["pages"] for one in page} == set(ids(result))
    assert len(set(ids(result))) == COUNT
    assert result["followed"] == ids(result)[-1]
    assert result["updated"]["gender"] == "female"
    [update] = [one for one in stage.platform.requests if one.method == "PUT"]
    assert (update.headers["If-Match"], update.status) == (NO_VERSION, 200)
    stage.assert_one_token_served_all()


@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_fails_without_rewriting(
    sandbox_stage: Stage, walk: Walk, family: str, client: str
) -> None:
    gateway = await sandbox_stage.gateway(rewrite={"enabled": False})

    result = await walk(client, gateway.url, family)

    passed_by = direct(sandbox_stage.platform.requests)
    assert result["error"]["step"] in {"create", "search", "follow"}
    assert all(one.status == 401 for one in passed_by)
    assert passed_by or sandbox_stage.platform.url in result["error"]["message"]
