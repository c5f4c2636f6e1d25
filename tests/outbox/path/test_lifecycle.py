"""The outbox over restarts, reloads and a second gateway."""

from __future__ import annotations

import asyncio

import pytest

from gateway.app.application import Gateway
from gateway.config.settings import Settings
from gateway.errors import StartError
from tests.doubles.platform import after, fhir, once
from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import Hospital, observation


def path_of(location: str) -> str:
    return "/_outbox/" + location.rsplit("/", 1)[1]


async def test_delivery_continues_after_a_restart(opened: Open) -> None:
    async with opened() as hospital:
        hospital.line.cut()
        location = (await hospital.write()).location
    async with opened() as hospital:
        ended = await hospital.ended(path_of(location))
        assert ended.json["entry"][0]["response"]["status"].startswith("200")
    assert hospital.writes() == [("PUT", "/r5/Observation/1")]


async def test_a_shutdown_waits_for_active_attempts(opened: Open) -> None:
    async with opened(shutdown={"delay": 0, "drain_timeout": 10}) as hospital:
        hospital.line.cut()
        first, second = await hospital.write(number=1), await hospital.write(number=2)
        hospital.platform.respond(after(0.5, fhir()))
        await hospital.line.restore()
        await hospital.wait_until_sent(1)
    async with opened() as hospital:
        assert (await hospital.ask("GET", path_of(first.location))).status == 200
        assert (await hospital.ended(path_of(second.location))).status == 200
    assert [target for _, target in hospital.writes()] == ["/r5/Observation/1", "/r5/Observation/2"]


def changed(settings: Settings, **sections: object) -> Settings:
    return settings.model_copy(update=sections)


async def test_a_reload_changes_who_may_queue(opened: Open) -> None:
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
        assert (await hospital.mended(reply.location)).status == 200
        outbox = settings.outbox.model_copy(update={"max_entries": 7})
        with pytest.raises(StartError, match=r"outbox\.max_entries"):
            await gateway.reload(changed(settings, outbox=outbox))


async def test_a_reload_does_not_abort_active_attempts(hospital: Hospital) -> None:
    released = asyncio.Event()

    hospital.line.cut()
    location = (await hospital.write()).location
    hospital.platform.respond(once(released, fhir()))
    await hospital.line.restore()
    await hospital.wait_until_sent(1)
    await hospital.gateway.gateway.reload(hospital.gateway.settings)
    released.set()
    assert (await hospital.ended(location)).status == 200
    assert len(hospital.sent) == 1


async def test_a_late_failure_does_not_undo_a_write_after_a_reload(hospital: Hospital) -> None:
    async with hospital.late_failure() as hanging:
        await hospital.gateway.gateway.reload(hospital.gateway.settings)
        assert (await hospital.write()).status == 200
    assert hanging.result().status == 502
    assert "entry" not in (await hospital.ask("GET", "/_outbox")).json


async def test_a_second_gateway_on_the_file_does_not_start(hospital: Hospital) -> None:
    second = Gateway(hospital.gateway.settings)
    place = hospital.gateway.settings.outbox.url
    with pytest.raises(StartError, match=f"outbox.url: {place} is in use by another gateway"):
        await second.start()
    hospital.line.cut()
    location = (await hospital.write()).location
    assert (await hospital.mended(location)).status == 200
