"""The sandbox as a whole: addresses, start and stop, other event loops."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import uvloop

from gateway.sandbox.example_data import PATIENT_ID
from gateway.sandbox.options import Faults, SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.sandbox.harness import SandboxClient, running_sandbox


async def test_the_example_patient_can_be_read(client: SandboxClient) -> None:
    answer = await client.fhir("GET", f"/Patient/{PATIENT_ID}")
    assert (answer.status, answer.json["resourceType"]) == (200, "Patient")


async def test_a_public_url_is_used_in_links_only() -> None:
    public = "http://platform.test/fhir/"
    async with running_sandbox(SandboxOptions(port=0, public_url=public)) as client:
        page = (await client.fhir("GET", "/Patient?_count=1")).json
        created = await client.fhir("POST", "/Patient", body={"resourceType": "Patient"})
        report = (await client.fhir("GET", "/DiagnosticReport")).json["entry"][0]["resource"]
        assert client.sandbox.fhir_base_url.startswith("http://127.0.0.1:")
    assert {link["url"].split("?")[0] for link in page["link"]} == {
        "http://platform.test/fhir/Patient"
    }
    assert created.headers["Location"].startswith("http://platform.test/fhir/Patient/")
    assert report["subject"]["reference"].startswith("http://platform.test/fhir/Patient/")


async def test_a_port_in_use_is_an_error_at_start() -> None:
    async with running_sandbox() as client:
        port = int(client.sandbox.fhir_base_url.rsplit(":", 1)[1].split("/")[0])
        second = Sandbox(SandboxOptions(port=port))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()


async def test_a_sandbox_starts_again() -> None:
    sandbox = Sandbox(SandboxOptions(port=0))
    for _ in range(2):
        await sandbox.start()
        await sandbox.stop()
    await sandbox.stop()


def test_it_runs_under_uvloop() -> None:
    async def run() -> None:
        async with running_sandbox() as client:
            await client.create()
        faults = Faults.parse(["platform=reset"])
        async with running_sandbox(SandboxOptions(port=0, faults=faults)) as client:
            with pytest.raises(OSError, match="reset"):
                await client.fhir("GET", "/metadata")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_the_models_are_not_imported_at_start() -> None:
    code = (
        "import sys, gateway.sandbox\n"
        "parts = {m.split('.')[1] for m in sys.modules if m.startswith('gateway.')}\n"
        "print('fhir.resources' in sys.modules, parts)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False {'sandbox'}"
