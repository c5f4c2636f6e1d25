"""Pipelined requests of any caller: other callers are served in between."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.wire import Wire, get
from tests.pipeline.testbed import Testbed

COUNT = 400
LAB = {"name": "lab", "api_key": "planted-callers-key"}
# Requests with an immediate response, on a connection that stays open.
AT_ONCE = {
    "unknown-path": get("/nothing"),
    "no-key": get("/fhir/Patient/1"),
    "wrong-key": get("/fhir/Patient/1", "X-Api-Key: wrong"),
    "foreign-network": get("/fhir/Patient/1", f"X-Api-Key: {LAB['api_key']}"),
}


class IterationCounter:
    """Counts iterations of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


@pytest.mark.parametrize("kind", AT_ONCE)
async def test_the_loop_iterates_for_each_local_response(testbed: Testbed, kind: str) -> None:
    network = ["10.20.0.0/16"] if kind == "foreign-network" else []
    callers = [] if kind == "unknown-path" else [{**LAB, "networks": network}]
    gateway = await testbed.start(callers=callers, limits={"unidentified_rate": None})
    turns = IterationCounter()
    async with await Wire.open(gateway.address) as wire:
        wire.writer.write(AT_ONCE[kind] * COUNT)
        first = await wire.read_response()
        counting = asyncio.ensure_future(turns.run())
        for _ in range(COUNT - 1):
            assert (await wire.read_response()).status == first.status
        counting.cancel()
    assert turns.count > COUNT // 2


async def test_few_of_forty_pipelining_callers_are_served_in_an_iteration(testbed: Testbed) -> None:
    gateway = await testbed.start()
    turns = IterationCounter()
    wires = [await testbed.open(gateway.address) for _ in range(40)]
    for wire in wires:
        await wire.fetch(get("/nothing"))
    counting = asyncio.ensure_future(turns.run())
    for wire in wires:
        wire.writer.write(get("/nothing") * 50)
    for wire in wires:
        for _ in range(50):
            await wire.read_response()
    counting.cancel()
    assert turns.count > 40 * 50 // 5


@pytest.mark.parametrize("page", ["/livez", "/status", "/nothing"])
async def test_the_loop_iterates_for_each_response_of_the_admin_listener(
    testbed: Testbed, page: str
) -> None:
    gateway = await testbed.start()
    turns = IterationCounter()
    async with await Wire.open(gateway.gateway.admin_address) as wire:
        wire.writer.write(get(page).replace(b"Host: gateway", b"Host: localhost") * 100)
        await wire.read_response()
        counting = asyncio.ensure_future(turns.run())
        for _ in range(99):
            await wire.read_response()
        counting.cancel()
    assert turns.count > 50
