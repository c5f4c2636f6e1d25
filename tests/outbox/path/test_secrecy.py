"""The outbox reveals no patient data on disk, in logs, audit or metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.doubles.platform import Platform, outcome
from tests.doubles.processes import start_gateway
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.outbox.path.conftest import outbox_in

NAME, PINFL, NOTE = "Karimova", "31507901234567", "hepatitis"
BODY = (
    f'{{"resourceType": "Observation", "status": "final", "note": [{{"text": "{NOTE}"}}],'
    f'"subject": {{"reference": "Patient/{NAME}", "identifier": {{"value": "{PINFL}"}}}}}}'
).encode()
HEADERS = {
    "Content-Type": "application/fhir+json",
    "Prefer": "respond-async",
    "If-None-Exist": f"identifier=urn:pinfl|{PINFL}",
    "X-Patient": NAME,
}


async def test_no_patient_data_is_on_disk_or_in_logs(platform: Platform, tmp_path: Path) -> None:
    async with Sso() as sso, Relay(platform.port) as relay, aiohttp.ClientSession() as session:
        sections = {"log": {"level": "debug"}, "outbox": outbox_in(tmp_path)}
        base = f"http://127.0.0.1:{relay.port}/r5"
        service = start_gateway(gateway_settings(base, sso.token_url, **sections), tmp_path)
        try:
            await service.wait_for_status(200)
            relay.cut()
            url = f"{service.url}/Observation?_pretty={NAME}"
            async with session.post(url, data=BODY, headers=HEADERS) as answer:
                assert answer.status == 202
                location = answer.headers["Content-Location"]
            waiting = _files(tmp_path)
            platform.respond(outcome(422).replace(b"invalid", NOTE.encode()[:7]))
            await relay.restore()
            await _ended(session, location)
            for page in ("metrics", "status", "status.json"):
                async with session.get(f"{service.admin_url}/{page}") as answer:
                    waiting[page] = await answer.read()
        finally:
            service.process.terminate()
    assert [each.body for each in platform.requests if each.method == "POST"] == [BODY]
    for name, content in [*waiting.items(), *_files(tmp_path).items()]:
        for planted in (NAME, PINFL, NOTE, "hepatit"):
            assert planted.encode() not in content, (name, planted)


def _files(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.iterdir() if path.suffix != ".yaml"]
    found = {path.name: path.read_bytes() for path in paths}
    assert {"outbox.db", "gateway.out", "gateway.err"} <= found.keys()
    return found


async def _ended(session: aiohttp.ClientSession, location: str) -> None:
    while True:
        async with session.get(location) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.1)
