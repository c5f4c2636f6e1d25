"""The outbox over restarts, reloads and a second gateway."""

from __future__ import annotations

import asyncio

import pytest

from gateway.app.application import Gateway
from gateway.config.settings import Settings
from gateway.errors import StartError
from tests.doubles.platform import after, fhir, once
from tests.outbox.path.conftest import Open
from tests.outbox.path.harness import OutboxSetup, observation


def path_of(location: str) -> str:
    return "/_outbox/" + location.rsplit("/", 1)[1]


async def test_delivery_continues_after_a_restart(opened: Open) -> None:
    async with opened() as setup:
        setup.relay.cut()
        location = (await setup.write()).location
    async with opened() as setup:
        ended = await setup.final_response(path_of(location))
        assert ended.json["entry"][0]["response"]["status"].startswith("200")
    assert setup.writes() == [("PUT", "/r5/Observation/1")]


async def test_a_shutdown_waits_for_active_attempts(opened: Open) -> None:
    async with opened(shutdown={"delay": 0, "drain_timeout": 10}) as setup:
        setup.relay.cut()
        first, second = await setup.write(number=1), await setup.write(number=2)
        setup.platform.respond(after(0.5, fhir()))
        await setup.relay.restore()
        await setup.wait_until_sent(1)
    async with opened() as setup:
        assert (await setup.ask("GET", path_of(first.location))).status == 200
        assert (await setup.final_response(path_of(second.location))).status == 200
    assert [target for _, target in setup.writes()] == ["/r5/Observation/1", "/r5/Observation/2"]


def changed(settings: Settings, **sections: object) -> Settings:
    return settings.model_copy(update=sections)


async def test_a_reload_changes_who_may_queue(opened: Open) -> None:
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": "off"}]
    async with opened(callers=callers) as setup:
        gateway, settings = setup.gateway.gateway, setup.gateway.settings
        setup.relay.cut()
        assert (await setup.write()).status == 503
        lab = settings.callers[0].model_copy(update={"outbox": "always"})
        await gateway.reload(changed(settings, callers=(lab,)))
        reply = await setup.ask("PUT", "/Observation/1", observation())
        assert reply.status == 202
        await gateway.reload(changed(settings, callers=(lab,)))
        assert (await setup.deliver(reply.location)).status == 200
        outbox = settings.outbox.model_copy(update={"max_entries": 7})
        with pytest.raises(StartError, match=r"outbox\.max_entries"):
            await gateway.reload(changed(settings, outbox=outbox))


async def test_a_reload_does_not_abort_active_attempts(setup: OutboxSetup) -> None:
    released = asyncio.Event()

    setup.relay.cut()
    location = (await setup.write()).location
    setup.platform.respond(once(released, fhir()))
    await setup.relay.restore()
    await setup.wait_until_sent(1)
    await setup.gateway.gateway.reload(setup.gateway.settings)
    released.set()
    assert (await setup.final_response(location)).status == 200
    assert len(setup.sent) == 1


async def test_a_late_failure_does_not_undo_a_write_after_a_reload(setup: OutboxSetup) -> None:
    async with setup.late_failure() as hanging:
        await setup.gateway.gateway.reload(setup.gateway.settings)
        assert (await setup.write()).status == 200
    assert hanging.result().status == 502
    assert "entry" not in (await setup.ask("GET", "/_outbox")).json


async def test_a_second_gateway_on_the_file_does_not_start(setup: OutboxSetup) -> None:
    second = Gateway(setup.gateway.settings)
    place = setup.gateway.settings.outbox.url
    with pytest.raises(StartError, match=f"outbox.url: {place} is in use by another gateway"):
        await second.start()
    setup.relay.cut()
    location = (await setup.write()).location
    assert (await setup.deliver(location)).status == 200
