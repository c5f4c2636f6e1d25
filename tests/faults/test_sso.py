"""Failures of an SSO that affect more than one request.

Single failures are in the table of faults; responses and times in tests/oauth.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.doubles.clock import FakeClock
from tests.doubles.platform import Platform
from tests.doubles.sso import (
    HANG,
    ScriptedResponse,
    Sso,
    json_body,
    oauth_error,
    status,
    token,
)
from tests.doubles.wire import fetch
from tests.faults.table import READ
from tests.pipeline.conftest import StartGateway

TOKENS = "dhp_gateway_token_requests_total"
FIREWALL = json_body({"success": False, "errors": [{"code": 1010, "message": "blocked"}]}, 401)
DOWN = {"a firewall in front": FIREWALL, "503": status(503)}


@pytest.mark.parametrize("down", [status(503), HANG], ids=["503", "silent"])
async def test_a_valid_token_is_used_while_its_renewal_fails(
    start_gateway: StartGateway,
    token_clock: FakeClock,
    platform: Platform,
    sso: Sso,
    down: ScriptedResponse,
) -> None:
    sso.script(token("first", expires_in=300))
    sso.respond(down)
    async with start_gateway() as gateway:
        assert (await fetch(gateway.address, READ)).status == 200
        # Renewed ahead of expiry, when at most four fifths of its life are over.
        await token_clock.advance(241)
        await sso.wait_for_requests(2)
        assert (await fetch(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
        await gateway.wait_for_metric(1, TOKENS, outcome="ok")
    assert {seen.header("authorization") for seen in platform.requests} == {"Bearer first"}


async def test_without_a_token_all_requests_share_one_token_request(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """They fail alike and fast."""
    sso.respond(status(503))
    async with start_gateway() as gateway:
        replies = await asyncio.gather(*(fetch(gateway.address, READ) for _ in range(30)))
        assert {(reply.status, reply.reason) for reply in replies} == {(503, "sso-unavailable")}
        assert all(int(reply.header("retry-after") or 0) > 0 for reply in replies)
        assert await gateway.metric(TOKENS, outcome="transient") <= 2
        assert (await gateway.ready())[0] == 503
        assert len(await gateway.audit(30)) == 30
    assert platform.requests == []


async def test_a_rejected_client_is_tried_once_more(start_gateway: StartGateway, sso: Sso) -> None:
    """Its secret is read again; then an operator has to act."""
    sso.respond(oauth_error("invalid_client", 401))
    async with start_gateway() as gateway:
        for _ in range(6):
            assert (await fetch(gateway.address, READ)).reason == "token-refused"
        # One that has reached the SSO may not have its answer yet.
        while await gateway.metric(TOKENS, outcome="refused") != len(sso.requests):  # noqa: ASYNC110 - a scrape tells
            await asyncio.sleep(0.01)
    assert len(sso.requests) <= 2


@pytest.mark.parametrize("down", DOWN)
async def test_requests_succeed_once_the_sso_recovers(
    start_gateway: StartGateway, sso: Sso, down: str
) -> None:
    """A firewall's 401 is an outage."""
    sso.script(DOWN[down], DOWN[down])
    async with start_gateway() as gateway:
        reply = await fetch(gateway.address, READ)
        assert reply.reason == "sso-unavailable"
        assert int(reply.header("retry-after") or 0) <= 2
        assert await gateway.metric(TOKENS, outcome="transient") >= 1
        assert await gateway.metric(TOKENS, outcome="refused") == 0
        await gateway.wait_for_metric(1, TOKENS, outcome="ok")
        assert (await fetch(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
    assert len(sso.requests) == 3


async def test_the_retry_after_of_a_429_is_obeyed(start_gateway: StartGateway, sso: Sso) -> None:
    sso.respond(status(429, ("Retry-After", "20")))
    async with start_gateway() as gateway:
        reply = await fetch(gateway.address, READ)
        assert 20 <= int(reply.header("retry-after") or 0) <= 25
        assert (await fetch(gateway.address, READ)).reason == "sso-unavailable"
        assert await gateway.metric(TOKENS, outcome="throttled") == 1
    assert len(sso.requests) == 1


@pytest.mark.parametrize("expires_in", [None, 1e308, math.nan], ids=["none", "huge", "no number"])
async def test_a_token_with_an_invalid_lifetime_is_used(
    start_gateway: StartGateway, platform: Platform, sso: Sso, expires_in: float | None
) -> None:
    """Its expiry is a finite time."""
    sso.respond(token("odd", expires_in=expires_in))
    async with start_gateway() as gateway:
        assert (await fetch(gateway.address, READ)).status == 200
        assert platform.requests[0].header("authorization") == "Bearer odd"
        assert await gateway.metric(TOKENS, outcome="ok") == 1
        expires = await gateway.metric("dhp_gateway_token_expiry_timestamp_seconds")
        assert 0 < expires < 2**33
    assert len(sso.requests) == 1
