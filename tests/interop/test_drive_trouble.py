"""Exports of a caller with limited permissions, at sekmet-fhir and its SSO."""

from __future__ import annotations

import aiohttp

from tests.interop.drive import World, exported
from tests.interop.servers import Sekmet, in_front_of
from tests.interop.stages import Begin


async def status_of(url: str, **fields: str) -> int:
    async with aiohttp.request("GET", url, headers=fields) as answer:
        await answer.read()
        return answer.status


async def test_a_limited_caller_can_export(sekmet: Sekmet, begin_gateway: Begin) -> None:
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
