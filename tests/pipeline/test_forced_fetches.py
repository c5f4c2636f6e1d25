"""A caller whose requests the platform rejects with 401, among others that it accepts."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body, unauthorized
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get
from tests.pipeline.conftest import StartGateway

REFUSED = get("/fhir/Practitioner/refused")
ACCEPTED = get("/fhir/Patient/1")


async def selective(connection: PlatformConnection) -> None:
    """Reject one resource whatever the token, and accept everything else."""
    await read_body(connection.reader, connection.request)
    refused = connection.request.target.endswith("/refused")
    connection.writer.write(unauthorized() if refused else fhir())


async def test_alternating_401_and_success_cause_one_token_request_a_second(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    platform.respond(selective)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(ACCEPTED)).status == 200
        before = len(sso.requests)
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            refused = await asyncio.gather(*(fetch(gateway.address, REFUSED) for _ in range(20)))
            assert {response.reason for response in refused} == {"token-rejected"}
            assert (await wire.fetch(ACCEPTED)).status == 200
        seconds = asyncio.get_running_loop().time() - began
        assert len(sso.requests) - before <= 1 + seconds


async def test_the_first_fresh_token_that_the_platform_rejects_is_logged(
    start_gateway: StartGateway, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.respond(unauthorized())
    async with start_gateway() as gateway:
        assert (await fetch(gateway.address, ACCEPTED)).reason == "token-rejected"
    assert len(platform.requests) == 2
    assert "credential default: the platform refused a fresh token" in caplog.messages


async def test_other_requests_do_not_wait_for_a_replacement_token(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    platform.respond(selective)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await fetch(gateway.address, REFUSED)).reason == "token-rejected"
        assert (await wire.fetch(ACCEPTED)).status == 200
        asked = len(sso.requests)
        # Keeps its distance from the one before, then hangs.
        sso.hold()
        refused = asyncio.ensure_future(fetch(gateway.address, REFUSED))
        while len(sso.requests) == asked:
            assert (await wire.fetch(ACCEPTED)).status == 200
        assert (await wire.fetch(ACCEPTED)).status == 200
        sso.release()
        assert (await refused).reason == "token-rejected"
        assert (await wire.fetch(ACCEPTED)).status == 200


async def test_a_revoked_token_is_replaced_once_for_all_requests(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """Also when it was new."""
    revoked = set()

    async def check(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        bearer = connection.request.header("authorization")
        connection.writer.write(unauthorized() if bearer in revoked else fhir())

    platform.respond(check)
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.fetch(ACCEPTED)).status == 200
            revoked.add(platform.requests[-1].header("authorization"))
        responses = await asyncio.gather(*(fetch(gateway.address, ACCEPTED) for _ in range(20)))
        assert {response.status for response in responses} == {200}
    assert len(revoked) == 3
    assert len(sso.requests) == 1 + 3
