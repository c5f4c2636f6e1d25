"""A caller whose requests the platform answers with 401, among others whose it accepts."""

from __future__ import annotations

import asyncio
import time

from tests.doubles.platform import Line, Platform, fhir, read_body, unauthorized
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get
from tests.pipeline.conftest import StartGateway

REFUSED = get("/fhir/Practitioner/refused")
ACCEPTED = get("/fhir/Patient/1")


async def selective(line: Line) -> None:
    """Refuses one resource whatever the token, and takes everything else."""
    await read_body(line.reader, line.seen)
    refused = line.seen.target.endswith("/refused")
    line.writer.write(unauthorized() if refused else fhir())


async def test_alternating_with_accepted_requests(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """However fast 401s and accepted requests alternate, the SSO is asked once a second."""
    platform.answer(selective)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.ask(ACCEPTED)).status == 200
        before = len(sso.requests)
        began = time.monotonic()
        for _ in range(3):
            refused = await asyncio.gather(*(ask(gateway.address, REFUSED) for _ in range(20)))
            assert {reply.reason for reply in refused} == {"token-rejected"}
            assert (await wire.ask(ACCEPTED)).status == 200
        seconds = time.monotonic() - began
        assert len(sso.requests) - before <= 1 + seconds


async def test_others_are_served_meanwhile(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """While one refused request waits for a new token, no other request waits."""
    platform.answer(selective)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await ask(gateway.address, REFUSED)).reason == "token-rejected"
        assert (await wire.ask(ACCEPTED)).status == 200
        asked = len(sso.requests)
        # Keeps its distance from the one before, then hangs.
        sso.hold()
        refused = asyncio.ensure_future(ask(gateway.address, REFUSED))
        while len(sso.requests) == asked:
            assert (await wire.ask(ACCEPTED)).status == 200
        assert (await wire.ask(ACCEPTED)).status == 200
        sso.release()
        assert (await refused).reason == "token-rejected"
        assert (await wire.ask(ACCEPTED)).status == 200


async def test_revoked_again_and_again(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """A token that is really revoked, just after it was new, is replaced once for all requests."""
    revoked = set()

    async def check(line: Line) -> None:
        await read_body(line.reader, line.seen)
        bearer = line.seen.header("authorization")
        line.writer.write(unauthorized() if bearer in revoked else fhir())

    platform.answer(check)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.ask(ACCEPTED)).status == 200
            revoked.add(platform.seen[-1].header("authorization"))
        replies = await asyncio.gather(*(ask(gateway.address, ACCEPTED) for _ in range(20)))
        assert {reply.status for reply in replies} == {200}
    assert len(revoked) == 3
    assert len(sso.requests) == 1 + 3
