"""A gateway with many credentials, seen from its SSO, its platform and its log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.doubles.clinics import (
    ClinicSso,
    RefusingPlatform,
    clinic_names,
    clinic_settings,
    wait_for_tokens,
)
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform

MAX_REQUESTS = 8
MAX_RATE = 200


@pytest.fixture
async def sso() -> AsyncIterator[ClinicSso]:
    async with ClinicSso() as running:
        yield running


async def test_each_request_counts_where_a_client_has_two_secrets(
    sso: ClinicSso, platform: Platform
) -> None:
    """The first secret of every client is refused."""
    names = clinic_names(150)
    sso.accepted_secret = "before"
    settings = clinic_settings(names, "new\nbefore")
    async with running_gateway(platform.url, sso.token_url, **settings) as gateway:
        await wait_for_tokens(gateway, len(names))
    assert len(sso.requests) == 2 * len(names)
    # Those under way are of clients, not of requests.
    assert sso.most_in_a_second() <= MAX_RATE + MAX_REQUESTS


async def test_a_refused_client_concerns_its_own_callers_and_is_logged_once(
    sso: ClinicSso, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    names = clinic_names(20)
    sso.reject_client(names[0])
    async with (
        running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway,
        aiohttp.ClientSession() as session,
    ):
        await wait_for_tokens(gateway, len(names) - 1)
        statuses = []
        for name in (*names, *[names[0]] * 30):
            async with session.get(
                f"{gateway.url}/Patient/1", headers={"X-Api-Key": f"key-{name}"}
            ) as response:
                statuses.append(response.status)
        ready = await gateway.ready()
    assert statuses == [502, *[200] * (len(names) - 1), *[502] * 30]
    assert ready[0] == 200
    assert ready[1]["degraded"] == {"credentials": {"count": 1, "names": [names[0]]}}
    asked = [request.form["client_id"] for request in sso.requests]
    assert asked.count(names[0]) == 1
    about = [line for line in caplog.records if line.name == "gateway.oauth.tokens"]
    assert len([line for line in about if names[0] in line.getMessage()]) == 1


async def test_a_client_that_the_platform_refuses_is_logged_once_a_pause(
    sso: ClinicSso, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    names = clinic_names(2)
    platform.respond(RefusingPlatform({names[0]}))
    async with (
        running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway,
        aiohttp.ClientSession() as session,
    ):
        await wait_for_tokens(gateway, len(names))
        key = {"X-Api-Key": f"key-{names[0]}"}
        reads = [session.get(f"{gateway.url}/Patient/{n}", headers=key) for n in range(20)]
        statuses = {read.status for read in await asyncio.gather(*reads)}
        async with session.get(
            f"{gateway.url}/Patient/1", headers={"X-Api-Key": f"key-{names[1]}"}
        ) as other:
            assert other.status == 200
    assert statuses == {502}
    told = [line for line in caplog.records if "refused a fresh token" in line.getMessage()]
    assert len([line for line in told if line.name == "gateway.oauth.tokens"]) == 1


async def test_many_clients_that_the_platform_refuses_do_not_stand_for_all(
    sso: ClinicSso, platform: Platform
) -> None:
    """The gateway asks with others for what it wants to know itself, before any caller came."""
    names = clinic_names(100)
    platform.respond(RefusingPlatform(set(names[:50])))
    async with running_gateway(
        platform.url,
        sso.token_url,
        admin={"address": "127.0.0.1:0", "probe_interval": 1},
        **clinic_settings(names),
    ) as gateway:
        # On a busy machine the first probe may find no tokens but those of the refused.
        await gateway.wait_for_metric(1, "dhp_gateway_platform_probes_total", found="answers")
        assert (await gateway.ready())[0] == 200
