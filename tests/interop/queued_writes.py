"""A thousand writes that are queued during an outage, and their results."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.doubles.recording_proxy import RecordedExchange
from tests.interop.drive import FHIR, World

# Seconds. The server may start twice meanwhile, on a busy machine.
_PATIENCE = 240.0


@dataclass(slots=True)
class Write:
    """One write of a patient; `number` is its place in the order, `result` how it ended."""

    method: str
    path: str
    body: dict[str, Any]
    number: int
    condition: str = ""
    place: str = ""
    result: str = ""


@dataclass(slots=True)
class Patient:
    """A patient with its writes in order; `family` is that of the record its last write makes."""

    path: str
    writes: list[Write] = field(default_factory=list)
    family: str = field(default_factory=lambda: f"Plain{uuid.uuid4()}")


def planned(path: str, count: int, *, conditional: bool) -> Patient:
    """Return a patient with updates, some conditional creates, and at last a plain create."""
    patient = Patient(path)
    subject = path.removeprefix("/")
    for number in range(1, count):
        update = {"resourceType": "Patient", "id": subject.partition("/")[2]}
        write = Write("PUT", path, update | {"multipleBirthInteger": number}, number)
        if conditional and number % 5 == 3:
            identifier = {"system": "drive", "value": f"{uuid.uuid4()}"}
            body = {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": subject},
                "identifier": [identifier],
                "valueInteger": number,
            }
            condition = f"identifier=drive%7C{identifier['value']}"
            write = Write("POST", "/Observation", body, number, condition)
        patient.writes.append(write)
    # Creates that name nothing have one order, and an unclear one holds up all behind it.
    identifier = {"system": "drive", "value": patient.family}
    body = {
        "resourceType": "Patient",
        "identifier": [identifier],
        "name": [{"family": patient.family}],
    }
    patient.writes.append(Write("POST", "/Patient", body, count))
    return patient


def updates(path: str, count: int) -> Patient:
    body = {"resourceType": "Patient", "id": path.rpartition("/")[2]}
    writes = [
        Write("PUT", path, body | {"multipleBirthInteger": number}, number)
        for number in range(count)
    ]
    return Patient(path, writes)


async def send(session: aiohttp.ClientSession, base: str, patient: Patient) -> None:
    """Send the writes of a patient, each once the one before it was answered."""
    for write in patient.writes:
        fields = {"Content-Type": FHIR}
        if write.condition:
            fields["If-None-Exist"] = write.condition
        url, data = f"{base}{write.path}", json.dumps(write.body)
        while not write.place and not write.result:
            async with session.request(write.method, url, data=data, headers=fields) as answer:
                text = await answer.text()
            if answer.status == 202:
                write.place = answer.headers["Content-Location"]
            elif answer.headers.get("X-Gateway-Error") == "upstream-failed":
                write.result = "unclear"
            elif answer.status == 503:
                # Not taken: a busy disk. The gateway asks for a minute.
                await asyncio.sleep(min(2.0, float(answer.headers["Retry-After"])))
            else:
                assert answer.status in {200, 201}, text
                write.result = str(answer.status)


async def wait_for_result(session: aiohttp.ClientSession, write: Write) -> None:
    """Poll the result of a write; a failed one would block those behind it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while not write.result:
        async with session.get(write.place) as answer:
            status = json.loads(await answer.text())
            if answer.status == 200:
                (entry,) = status["entry"]
                outcome = entry["response"].get("outcome", {})
                issues = outcome.get("issue", ())
                codes = [each.get("details", {}).get("coding", [{}])[0] for each in issues]
                is_unclear = any(each.get("code") == "unclear" for each in codes)
                write.result = "unclear" if is_unclear else entry["response"]["status"][:3]
                assert write.result in {"200", "201", "unclear"}, f"ended with {write.result}"
                return
            assert answer.status == 202, status
        assert loop.time() < deadline, f"{write.method} {write.path} waits: {status}"
        await asyncio.sleep(0.5)


def numbers_of(patient: Patient, done: Sequence[RecordedExchange]) -> Iterator[int]:
    """Return the numbers of a patient's writes in the order in which the server did them."""
    subject = patient.path.removeprefix("/")
    for seen in done:
        body = json.loads(seen.body)
        if seen.target.endswith(patient.path):
            yield body["multipleBirthInteger"]
        elif body.get("subject", {}).get("reference") == subject:
            yield body["valueInteger"]


async def verify_writes(direct: World, patient: Patient, done: Sequence[RecordedExchange]) -> None:
    """Check order and number of a patient's writes, in the proxy's record and at the server."""
    *ordered, plain = patient.writes
    assert {write.result for write in ordered} <= {"200", "201"}
    # An update whose answer was lost is sent again before anything that follows it.
    numbers = [number for number, _ in itertools.groupby(numbers_of(patient, done))]
    assert numbers == [write.number for write in ordered]
    _, now = await direct.ask("GET", patient.path)
    updates = [write.number for write in ordered if write.method == "PUT"]
    assert now["multipleBirthInteger"] == updates[-1]
    creates = {write.body["identifier"][0]["value"] for write in ordered if write.condition}
    if creates:
        subject = patient.path.removeprefix("/")
        found = await direct.search_all_pages(f"/Observation?subject={subject}&_count=50")
        assert len(found) == len(creates)
    _, page = await direct.ask("GET", f"/Patient?family={patient.family}")
    copies = len(page.get("entry", ()))
    assert copies == 1 or (plain.result, copies) == ("unclear", 0), (plain.result, copies)
