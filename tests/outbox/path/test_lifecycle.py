"""The outbox over the life of a gateway: end, restart, reload, several workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.config import Settings
from gateway.process.factories import StartError
from tests.doubles.cut_line import CutLine
from tests.doubles.platform import Platform, after, fhir, once, silence
from tests.doubles.processes import GatewayProcess, children, start_gateway
from tests.doubles.sso import Sso
from tests.outbox.path.conftest import KEY, Open
from tests.outbox.path.hospital import ASYNC, Hospital, observation


def path_of(location: str) -> str:
    """A status URL below the base of whichever gateway serves now."""
    return "/_outbox/" + location.rsplit("/", 1)[1]


async def test_delivery_goes_on_after_a_restart(opened: Open) -> None:
    """What was kept by one gateway is delivered by the next."""
    async with opened() as hospital:
        hospital.line.cut()
        location = (await hospital.write()).location
    async with opened() as hospital:
        ended = await hospital.ended(path_of(location))
        assert ended.json["entry"][0]["response"]["status"].startswith("200")
    assert hospital.writes() == [("PUT", "/r5/Observation/1")]


async def test_what_is_being_sent_is_sent_to_its_end(opened: Open) -> None:
    """A gateway that stops waits for the answer, and begins nothing more."""
    async with opened(shutdown={"delay": 0, "drain_timeout": 10}) as hospital:
        hospital.line.cut()
        first, second = await hospital.write(number=1), await hospital.write(number=2)
        hospital.platform.answer(after(0.5, fhir()))
        await hospital.line.mend()
        await hospital.platform.until_seen(1)
    async with opened() as hospital:
        assert (await hospital.ask("GET", path_of(first.location))).status == 200
        assert (await hospital.ended(path_of(second.location))).status == 200
    assert [target for _, target in hospital.writes()] == ["/r5/Observation/1", "/r5/Observation/2"]


def changed(settings: Settings, **sections: object) -> Settings:
    """Other settings."""
    return settings.model_copy(update=sections)


async def test_a_reload_lets_others_queue(opened: Open) -> None:
    """A caller's `outbox` is read anew; what waits is delivered by the new settings."""
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": "off"}]
    async with opened(callers=callers) as hospital:
        gateway, settings = hospital.gateway.gateway, hospital.gateway.settings
        hospital.line.cut()
        assert (await hospital.write()).status == 503
        lab = settings.callers[0].model_copy(update={"outbox": "always"})
        await gateway.reload(changed(settings, callers=(lab,)))
        reply = await hospital.ask("PUT", "/Observation/1", observation())
        assert reply.status == 202
        await gateway.reload(changed(settings, callers=(lab,)))
        await hospital.line.mend()
        assert (await hospital.ended(reply.location)).status == 200
        outbox = settings.outbox.model_copy(update={"max_entries": 7})
        with pytest.raises(StartError, match=r"outbox\.max_entries"):
            await gateway.reload(changed(settings, outbox=outbox))


async def test_a_reload_does_not_cut_off_what_is_being_sent(hospital: Hospital) -> None:
    """The way it goes by stays open until it is answered."""
    released = asyncio.Event()

    hospital.line.cut()
    location = (await hospital.write()).location
    hospital.platform.answer(once(released, fhir()))
    await hospital.line.mend()
    await hospital.platform.until_seen(1)
    await hospital.gateway.gateway.reload(hospital.gateway.settings)
    released.set()
    assert (await hospital.ended(location)).status == 200
    assert len(hospital.platform.seen) == 1


async def test_a_late_failure_does_not_undo_a_write_by_newer_settings(opened: Open) -> None:
    """An update that hangs is not repeated after a reload and another one of the resource."""
    async with opened(platform={"response_timeout": 2}) as hospital:
        hospital.platform.script(silence)
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(hospital.write())
            await hospital.platform.until_seen(1)
            await hospital.gateway.gateway.reload(hospital.gateway.settings)
            assert (await hospital.write()).status == 200
        assert hanging.result().status == 504
        assert "entry" not in (await hospital.ask("GET", "/_outbox")).json


def two_workers(port: int, token_url: str, directory: Path) -> GatewayProcess:
    """A gateway of two processes; `port` is the platform's."""
    return start_gateway(
        {
            "workers": 2,
            "platform": {
                "fhir_base_url": f"http://127.0.0.1:{port}/r5",
                "response_timeout": 3,
            },
            "sso": {"token_url": token_url},
            "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
            "retries": {"max_attempts": 1},
            "outbox": {
                "enabled": True,
                "url": f"sqlite:///{directory}/outbox.db",
                "encryption_key": KEY,
            },
        },
        directory,
    )


async def test_a_late_failure_does_not_undo_another_workers_write(
    platform: Platform, tmp_path: Path
) -> None:
    """An update that hangs in one worker is not repeated after another one did a newer."""
    async with Sso() as sso:
        service = two_workers(platform.port, sso.token_url, tmp_path)
        try:
            await service.until_status(200)
            first, second = children(service.process.popen.pid)
            platform.script(silence)
            async with asyncio.TaskGroup() as group:
                with _halted(second):
                    hanging = group.create_task(_write(service.url, 1, patient=1))
                    await platform.until_seen(1)
                with _halted(first):
                    newer, _ = await _write(service.url, 1, patient=2)
            older, _ = hanging.result()
        finally:
            service.process.terminate()
    assert (newer, older) == (200, 504)
    assert (len(platform.seen), platform.seen[-1].body) == (2, observation(2))


@contextlib.contextmanager
def _halted(process: int) -> Iterator[None]:
    """It takes no connection meanwhile."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_workers_share_one_outbox(platform: Platform, tmp_path: Path) -> None:
    """Two processes keep and deliver together; each write reaches the platform once."""
    async with Sso() as sso, CutLine(platform.port) as line:
        service = two_workers(line.port, sso.token_url, tmp_path)
        try:
            await service.until_status(200)
            line.cut()
            locations = await _write_many(service.url, 30)
            await line.mend()
            await _all_ended(locations)
        finally:
            service.process.terminate()
    # But for what a worker asks itself, whose circuit waits for a request.
    targets = [each.target for each in platform.seen if each.target != "/r5/metadata"]
    assert sorted(targets) == sorted(f"/r5/Observation/{number}" for number in range(30))


async def _write_many(base: str, count: int) -> list[str]:
    """Each on a connection of its own, so that both workers get some."""
    locations = []
    for number in range(count):
        status, location = await _write(base, number, patient=number)
        assert status == 202
        locations.append(location)
    return locations


async def _write(base: str, number: int, *, patient: int) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.put(
            f"{base}/Observation/{number}",
            data=observation(patient, number),
            headers={**ASYNC, "Content-Type": "application/fhir+json"},
        ) as answer,
    ):
        return answer.status, answer.headers.get("Content-Location", "")


async def _all_ended(locations: list[str], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    async with aiohttp.ClientSession() as session:
        for location in locations:
            while True:
                async with session.get(location) as answer:
                    if answer.status == 200:
                        break
                assert time.monotonic() < deadline, location
                await asyncio.sleep(0.1)
