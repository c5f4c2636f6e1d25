"""What an SSO that fails means for more than one request.

Single failures are in the table of faults; answers, time and the finer points in tests/oauth.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.doubles.clock import FakeClock
from tests.doubles.platform import Platform
from tests.doubles.sso import (
    HANG,
    Answer,
    Sso,
    json_body,
    refusal,
    status,
    token,
)
from tests.doubles.wire import ask
from tests.faults.table import READ
from tests.pipeline.conftest import StartGateway

TOKENS = "dhp_gateway_token_requests_total"
FIREWALL = json_body({"success": False, "errors": [{"code": 1010, "message": "blocked"}]}, 401)
DOWN = {"a firewall in front": FIREWALL, "503": status(503)}


@pytest.mark.parametrize("down", [status(503), HANG], ids=["503", "silent"])
async def test_down_with_a_valid_token(
    start_gateway: StartGateway,
    token_clock: FakeClock,
    platform: Platform,
    sso: Sso,
    down: Answer,
) -> None:
    """While a token is valid it stays in use, although renewing it fails."""
    sso.script(token("first", expires_in=300))
    sso.handle(down)
    async with start_gateway() as gateway:
        assert (await ask(gateway.address, READ)).status == 200
        # Renewed ahead of expiry, when at most four fifths of its life are over.
        await token_clock.advance(241)
        await sso.seen(2)
        assert (await ask(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
        await gateway.until_metric(1, TOKENS, outcome="ok")
    assert {seen.header("authorization") for seen in platform.seen} == {"Bearer first"}


async def test_down_without_a_token(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """However many requests wait, the SSO is asked once, and all fail alike and fast."""
    sso.handle(status(503))
    async with start_gateway() as gateway:
        replies = await asyncio.gather(*(ask(gateway.address, READ) for _ in range(30)))
        assert {(reply.status, reply.reason) for reply in replies} == {(503, "sso-unavailable")}
        assert all(int(reply.header("retry-after") or 0) > 0 for reply in replies)
        assert await gateway.metric(TOKENS, outcome="transient") <= 2
        assert (await gateway.ready())[0] == 503
        assert len(await gateway.audit(30)) == 30
    assert platform.seen == []


async def test_a_refused_client_starts_no_storm(start_gateway: StartGateway, sso: Sso) -> None:
    """An operator has to act: the secret is read, and may be tried, once more after a refusal."""
    sso.handle(refusal("invalid_client", 401))
    async with start_gateway() as gateway:
        for _ in range(6):
            assert (await ask(gateway.address, READ)).reason == "token-refused"
        # One that has reached the SSO may not have its answer yet.
        while await gateway.metric(TOKENS, outcome="refused") != len(sso.requests):  # noqa: ASYNC110 - a scrape tells
            await asyncio.sleep(0.01)
    assert len(sso.requests) <= 2


@pytest.mark.parametrize("down", DOWN)
async def test_recovery(start_gateway: StartGateway, sso: Sso, down: str) -> None:
    """When the SSO answers again the gateway does too, by itself; a firewall's 401 is an outage."""
    sso.script(DOWN[down], DOWN[down])
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.reason == "sso-unavailable"
        assert int(reply.header("retry-after") or 0) <= 2
        assert await gateway.metric(TOKENS, outcome="transient") >= 1
        assert await gateway.metric(TOKENS, outcome="refused") == 0
        await gateway.until_metric(1, TOKENS, outcome="ok")
        assert (await ask(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
    assert len(sso.requests) == 3


async def test_throttled(start_gateway: StartGateway, sso: Sso) -> None:
    """A 429 is obeyed: no token request is sent before its Retry-After has passed."""
    sso.handle(status(429, ("Retry-After", "20")))
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        assert 20 <= int(reply.header("retry-after") or 0) <= 25
        assert (await ask(gateway.address, READ)).reason == "sso-unavailable"
        assert await gateway.metric(TOKENS, outcome="throttled") == 1
    assert len(sso.requests) == 1


@pytest.mark.parametrize("expires_in", [None, 1e308, math.nan], ids=["none", "huge", "no number"])
async def test_an_odd_lifetime(
    start_gateway: StartGateway, platform: Platform, sso: Sso, expires_in: float | None
) -> None:
    """A token that can be used is used, and its expiry is a moment that can be shown."""
    sso.handle(token("odd", expires_in=expires_in))
    async with start_gateway() as gateway:
        assert (await ask(gateway.address, READ)).status == 200
        assert platform.seen[0].header("authorization") == "Bearer odd"
        assert await gateway.metric(TOKENS, outcome="ok") == 1
        expires = await gateway.metric("dhp_gateway_token_expiry_timestamp_seconds")
        assert 0 < expires < 2**33
    assert len(sso.requests) == 1
