"""The status page of several processes: one page, over the supervisor's lines to its workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import aiohttp

from tests.doubles.load import Load
from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import PATIENCE, SECRET, Service, StartService
from tests.lifecycle.test_workers import TWO, serving, workers


async def facts_of(service: Service) -> dict[str, Any]:
    """The facts as programs see them."""
    status, body = await service.operators("/status.json")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


async def until_facts(service: Service, **care: str) -> dict[str, Any]:
    """The facts once the verdict is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        facts = await facts_of(service)
        if care.items() <= facts["care"].items():
            return facts
        if service.process.ended or time.monotonic() > deadline:
            raise service.process.failure(f"/status.json is not {care}, but {facts['care']}")
        await asyncio.sleep(0.1)


async def test_the_page_is_of_all_workers(start_service: StartService) -> None:
    """Requests to both workers add up on one page, which says how many workers answer."""
    service = start_service(**TWO)
    await service.until_ready()
    load = Load(service.address, 20)
    await serving(service, load)
    await load.finish()
    facts = await until_facts(service, answer="yes")
    assert facts["workers"] == {"configured": 2, "answering": 2}
    assert facts["last_hour"]["requests"] == load.served
    counts = {"requests": load.served, "errors": 0, "refusals": 0}
    assert facts["callers"] == [{"name": "anonymous", **counts}]
    assert facts["tokens"]["default"]["valid"] is True
    _, page = await service.operators("/status")
    assert "2 of 2 answer" in page
    assert SECRET not in page


async def test_a_stopped_worker_is_told_of(start_service: StartService) -> None:
    """While a worker does not answer care goes on with limits, until another has come."""
    service = start_service(**TWO)
    await service.until_ready()
    stopped = workers(service)[0]
    os.kill(stopped, signal.SIGSTOP)
    facts = await until_facts(service, answer="degraded", reason="workers-missing")
    assert facts["workers"] == {"configured": 2, "answering": 1}
    os.kill(stopped, signal.SIGKILL)
    await until_facts(service, answer="yes")
    assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200


async def test_an_open_page_does_not_hold_up_the_end(start_service: StartService) -> None:
    """SIGTERM ends the stream of a page regularly, and the processes at once."""
    service = start_service(**TWO)
    await service.until_ready()
    connector = aiohttp.UnixConnector(service.admin.path)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://localhost/status/events") as stream,
    ):
        assert (await stream.content.readline()).startswith(b"data: ")
        service.send(signal.SIGTERM)
        while await stream.content.read(2**16):
            pass
    assert await service.ended() == 0
