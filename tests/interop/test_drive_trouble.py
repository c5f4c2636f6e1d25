"""What a drive does not show: limits, a change of secrets, and programs that die with work in hand.

At sekmet-fhir and its SSO, and at oidc-provider.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc.jwk import RSAKey

from tests.doubles.processes import GatewayProcess
from tests.interop.drive import FHIR, World, exported
from tests.interop.servers import Sekmet, in_front_of, token_of
from tests.interop.stages import SECRETS, Begin, SetStage, Sso

NEW = "the-next-secret-of-lab-post"
_QUEUED = {"Prefer": "respond-async", "Content-Type": FHIR}


def by_secret(file: Path) -> dict[str, Any]:
    """A credential whose secret is in that file."""
    return {"default": {"client_id": "lab-post", "client_secret_file": str(file)}}


async def status_of(url: str, **fields: str) -> int:
    """The status of a read."""
    async with aiohttp.request("GET", url, headers=fields) as answer:
        await answer.read()
        return answer.status


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it holds; the time limit of every test ends that."""
    while not await condition():  # noqa: ASYNC110 - asks over a socket
        await asyncio.sleep(0.1)


async def test_a_limited_caller_sees_its_export_to_the_end(
    sekmet: Sekmet, begin_gateway: Begin
) -> None:
    """It may start one and follow the URL that it was given; files need a permission, too."""
    allow = {"interactions": ["operation", "create"], "operations": ["$export"]}
    callers = [
        {"name": name, "api_key": f"the-key-of-{name}", "allow": allow} for name in ("lab", "his")
    ]
    gateway = begin_gateway(in_front_of(sekmet, callers=callers))
    await gateway.wait_for_status(200)
    async with aiohttp.ClientSession() as session:
        world = World(session, gateway.url, {"X-Api-Key": "the-key-of-lab"})
        await world.ask("POST", "/Patient", world.patient())
        place, manifest = await exported(world, "/Patient/$export")
        (file,) = (each["url"] for each in manifest["output"])
        refused = [
            await status_of(file, **{"X-Api-Key": "the-key-of-lab"}),
            await status_of(place, **{"X-Api-Key": "the-key-of-his"}),
        ]
        await world.ask("DELETE", place)
    assert refused == [403, 403]
    assert [each.status for each in world.answers] == [201, 202, 200, 202]


async def test_a_secret_is_changed_at_sekmet(sekmet: Sekmet, begin_gateway: Begin) -> None:
    """A gateway that was told late says what is wrong, and mends itself when it is told."""
    sekmet.end(signal.SIGTERM)
    sekmet.token_lifetime = 2
    sekmet.start()
    file = sekmet.directory / "secret"
    file.write_text(SECRETS["lab-post"])
    gateway = begin_gateway(in_front_of(sekmet, credentials=by_secret(file)))
    await gateway.wait_for_status(200)
    sekmet.end(signal.SIGTERM)
    sekmet.secret = NEW
    sekmet.start()

    async def refused() -> bool:
        return await status_of(f"{gateway.url}/Patient") == 502

    async def served() -> bool:
        return await status_of(f"{gateway.url}/Patient") == 200

    await until(refused)
    file.write_text(NEW)
    await until(served)
    await asyncio.sleep(2 * sekmet.token_lifetime)
    assert await served()
    with pytest.raises(KeyError, match="access_token"):
        await token_of(sekmet.token_url, "lab-post", SECRETS["lab-post"])


async def test_a_secret_is_changed_at_oidc_provider(
    set_stage: SetStage, start_sso: Callable[..., Sso], tmp_path: Path
) -> None:
    """With both secrets in the file meanwhile no request fails."""
    key = RSAKey.generate_key(2048, {"kid": "kept", "use": "sig"}).as_dict(private=True)
    # A token has to outlast the SSO's way from one secret to the other.
    before = start_sso(20, key=key)
    file = tmp_path / "secret"
    file.write_text(SECRETS["lab-post"])
    async with set_stage(before, "lab-post") as stage:
        gateway = await stage.gateway(credentials=by_secret(file))
        statuses: list[int] = []

        async def renewed() -> bool:
            known = set(stage.guard.tokens)
            for _ in range(3):
                statuses.append(await status_of(f"{gateway.url}/Patient"))
            return bool(known) and set(stage.guard.tokens) > known

        await until(renewed)
        file.write_text(f"{NEW}\n{SECRETS['lab-post']}")
        await until(renewed)
        # A fresh token lasts until the SSO is there again.
        before.process.terminate()
        port = int(before.issuer.rpartition(":")[2])
        await asyncio.to_thread(start_sso, 20, secret=NEW, port=port, key=key)
        await until(renewed)
        file.write_text(NEW)
        await until(renewed)
    assert set(statuses) == {200}
    # Each secret was refused once: the new one before the change, the old one behind it.
    assert [each.status for each in stage.token_endpoint.requests].count(401) == 2


async def queue(
    session: aiohttp.ClientSession, gateway: GatewayProcess, bodies: list[Any]
) -> list[str]:
    """Send creates under a condition, of which each is taken in; gives where to ask for them."""
    places = []
    for body in bodies:
        number = body["identifier"][0]["value"]
        fields = {**_QUEUED, "If-None-Exist": f"identifier=drive%7C{number}"}
        url = f"{gateway.url}/Observation"
        async with session.post(url, json=body, headers=fields) as answer:
            assert answer.status == 202, await answer.text()
            places.append(answer.headers["Content-Location"].removeprefix(gateway.url))
    return places


async def test_either_side_dies_with_writes_in_hand(sekmet: Sekmet, begin_gateway: Begin) -> None:
    """What was taken in comes to the server once, whatever is killed, and its caller learns it."""
    key = base64.urlsafe_b64encode(bytes(range(32))).decode()
    place = f"sqlite:///{sekmet.directory}/outbox.db"
    outbox = {"enabled": True, "url": place, "encryption_key": key}
    settings = in_front_of(sekmet, outbox=outbox)
    gateway = begin_gateway(settings)
    await gateway.wait_for_status(200)
    async with aiohttp.ClientSession() as session:
        world = World(session, gateway.url)
        _, patient = await world.ask("POST", "/Patient", world.patient())
        subject = {"reference": f"Patient/{patient['id']}"}
        bodies = [
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "x"},
                "subject": subject,
                "identifier": [{"system": "drive", "value": str(uuid.uuid4())}],
            }
            for _ in range(24)
        ]
        sekmet.end()
        places = await queue(session, gateway, bodies[:12])
        gateway.process.popen.kill()
        gateway.process.popen.wait()
        gateway = begin_gateway(settings)
        await gateway.wait_for_status(200, "/livez")
        places += await queue(session, gateway, bodies[12:])
        sekmet.start()

        async def some_are_there() -> bool:
            return await status_of(f"{gateway.url}{places[0]}") == 200

        await until(some_are_there)
        gateway.process.popen.kill()
        gateway.process.popen.wait()
        sekmet.end()
        sekmet.start()
        gateway = begin_gateway(settings)
        await gateway.wait_for_status(200)

        async def all_are_there() -> bool:
            return all([await status_of(f"{gateway.url}{each}") == 200 for each in places])

        await until(all_are_there)
        results = []
        for each in places:
            async with session.get(f"{gateway.url}{each}") as answer:
                (entry,) = (await answer.json(content_type=None))["entry"]
                results.append(entry["response"]["status"][:3])
        token = await token_of(sekmet.token_url, "lab-post", SECRETS["lab-post"])
        direct = World(session, sekmet.base, {"Authorization": f"Bearer {token}"})
        found = await direct.to_the_end(f"/Observation?subject=Patient/{patient['id']}&_count=50")
    assert set(results) <= {"200", "201"}
    assert len(found) == len(bodies)
