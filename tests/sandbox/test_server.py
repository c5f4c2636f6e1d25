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
from tests.sandbox.harness import Trial, trial


async def test_the_example_patient_is_there(given: Trial) -> None:
    """`PATIENT_ID` can be read, for a first try."""
    answer = await given.fhir("GET", f"/Patient/{PATIENT_ID}")
    assert (answer.status, answer.json["resourceType"]) == (200, "Patient")


async def test_a_public_url_stands_in_links_only() -> None:
    """Links, locations and the examples have it; the sandbox is reached where it listens."""
    public = "http://platform.test/fhir/"
    async with trial(SandboxOptions(port=0, public_url=public)) as given:
        page = (await given.fhir("GET", "/Patient?_count=1")).json
        created = await given.fhir("POST", "/Patient", body={"resourceType": "Patient"})
        report = (await given.fhir("GET", "/DiagnosticReport")).json["entry"][0]["resource"]
        assert given.sandbox.fhir_base_url.startswith("http://127.0.0.1:")
    assert {link["url"].split("?")[0] for link in page["link"]} == {
        "http://platform.test/fhir/Patient"
    }
    assert created.headers["Location"].startswith("http://platform.test/fhir/Patient/")
    assert report["subject"]["reference"].startswith("http://platform.test/fhir/Patient/")


async def test_a_taken_port_is_an_error_at_start() -> None:
    """The second sandbox on a port raises OSError, and can be stopped all the same."""
    async with trial() as given:
        port = int(given.sandbox.fhir_base_url.rsplit(":", 1)[1].split("/")[0])
        second = Sandbox(SandboxOptions(port=port))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()


async def test_a_sandbox_starts_again() -> None:
    """After a stop the same one can be started, with the data as it was at first."""
    sandbox = Sandbox(SandboxOptions(port=0))
    for _ in range(2):
        await sandbox.start()
        await sandbox.stop()
    await sandbox.stop()


def test_it_runs_under_uvloop() -> None:
    """Requests, writes and resets work on uvloop as on asyncio's own loop."""

    async def run() -> None:
        async with trial() as given:
            await given.create()
        faults = Faults.parse(["platform=reset"])
        async with trial(SandboxOptions(port=0, faults=faults)) as given:
            with pytest.raises(OSError, match="reset"):
                await given.fhir("GET", "/metadata")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_the_models_are_not_imported_at_start() -> None:
    """Importing the sandbox loads neither fhir.resources nor anything else of the gateway."""
    code = (
        "import sys, gateway.sandbox\n"
        "parts = {m.split('.')[1] for m in sys.modules if m.startswith('gateway.')}\n"
        "print('fhir.resources' in sys.modules, parts)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False {'sandbox'}"
