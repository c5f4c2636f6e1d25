"""Pipelined requests of any caller: other callers are served in between."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.wire import Wire, get
from tests.pipeline.stage import Stage

COUNT = 400
LAB = {"name": "lab", "api_key": "planted-callers-key"}
# Requests with an immediate response, on a connection that stays open.
AT_ONCE = {
    "unknown-path": get("/nothing"),
    "no-key": get("/fhir/Patient/1"),
    "wrong-key": get("/fhir/Patient/1", "X-Api-Key: wrong"),
    "foreign-network": get("/fhir/Patient/1", f"X-Api-Key: {LAB['api_key']}"),
}


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    async def go_on(self) -> None:
        """Count until cancelled."""
        while True:
            await asyncio.sleep(0)
            self.count += 1


@pytest.mark.parametrize("kind", AT_ONCE)
async def test_every_answer_leaves_others_their_turn(stage: Stage, kind: str) -> None:
    """While hundreds of requests that need no waiting are answered, the loop turns for each."""
    network = ["10.20.0.0/16"] if kind == "foreign-network" else []
    callers = [] if kind == "unknown-path" else [{**LAB, "networks": network}]
    gateway = await stage.start(callers=callers, limits={"unidentified_rate": None})
    turns = Turns()
    async with await Wire.open(gateway.address) as wire:
        wire.writer.write(AT_ONCE[kind] * COUNT)
        first = await wire.reply()
        counting = asyncio.ensure_future(turns.go_on())
        for _ in range(COUNT - 1):
            assert (await wire.reply()).status == first.status
        counting.cancel()
    assert turns.count > COUNT // 2


async def test_many_who_send_ahead_are_as_one(stage: Stage) -> None:
    """Of forty connections with more to ask a few are answered in each turn, not all."""
    gateway = await stage.start()
    turns = Turns()
    wires = [await stage.open(gateway.address) for _ in range(40)]
    for wire in wires:
        await wire.ask(get("/nothing"))
    counting = asyncio.ensure_future(turns.go_on())
    for wire in wires:
        wire.writer.write(get("/nothing") * 50)
    for wire in wires:
        for _ in range(50):
            await wire.reply()
    counting.cancel()
    assert turns.count > 40 * 50 // 5


@pytest.mark.parametrize("page", ["/livez", "/status", "/nothing"])
async def test_operators_pages_leave_others_their_turn(stage: Stage, page: str) -> None:
    """The same on the operators' listener."""
    gateway = await stage.start()
    turns = Turns()
    async with await Wire.open(gateway.gateway.admin_address) as wire:
        wire.writer.write(get(page).replace(b"Host: gateway", b"Host: localhost") * COUNT)
        await wire.reply()
        counting = asyncio.ensure_future(turns.go_on())
        for _ in range(COUNT - 1):
            await wire.reply()
        counting.cancel()
    assert turns.count > COUNT // 2
