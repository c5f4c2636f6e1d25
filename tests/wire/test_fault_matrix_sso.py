"""The fault matrix, part 1: what can go wrong at the SSO, as a caller sees it.

Time and the finer points are tested with a clock of their own in tests/oauth.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.doubles.gateway import Running, running
from tests.doubles.platform import Platform
from tests.doubles.processes import free_port
from tests.doubles.sso import (
    HANG,
    RESET,
    Answer,
    Sso,
    http,
    json_body,
    refusal,
    status,
    token,
)
from tests.doubles.wire import ask, get
from tests.pipeline.conftest import StartGateway
from tests.wire.evidence import Expected, check, until_metric

READ = get("/fhir/Patient/1")
TOKENS = "dhp_gateway_token_requests_total"
UNAVAILABLE = Expected(503, "sso-unavailable", seen=0, outcome="failure", retry_after=True)
REFUSED = Expected(502, "token-refused", seen=0, outcome="failure")
WORKS = Expected(200, upstream_status=200)


async def served(gateway: Running, platform: Platform, bearer: str) -> None:
    """One read goes through with this token."""
    reply = await ask(gateway.address, READ)
    await check(gateway, platform, reply, WORKS)
    assert platform.seen[0].header("authorization") == f"Bearer {bearer}"
    assert await gateway.metric(TOKENS, outcome="ok") == 1


FIREWALL = json_body({"success": False, "errors": [{"code": 1010, "message": "blocked"}]}, 401)


@pytest.mark.parametrize(
    "down",
    [RESET, status(503), HANG, FIREWALL, status(403)],
    ids=["reset", "503", "silent", "firewall", "firewall's page"],
)
async def test_down_with_a_valid_token(
    start_gateway: StartGateway, platform: Platform, sso: Sso, down: Answer
) -> None:
    """While a token is valid it stays in use, however often renewing it fails."""
    sso.script(token("first", expires_in=3))
    sso.handle(down)
    async with start_gateway(sso={"timeout": 0.3}) as gateway:
        assert (await ask(gateway.address, READ)).status == 200
        # Renewed ahead of expiry: the first failures come long before the end.
        await asyncio.wait_for(sso.seen(2), 30)
        assert (await ask(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
        await until_metric(gateway, TOKENS, 1, outcome="ok")
    assert {seen.header("authorization") for seen in platform.seen} == {"Bearer first"}


async def test_refused_connection(platform: Platform) -> None:
    """Without a listener and without a token: 503 with Retry-After."""
    async with running(platform.url, f"http://127.0.0.1:{free_port()}/token") as gateway:
        await check(gateway, platform, await ask(gateway.address, READ), UNAVAILABLE)
        assert await gateway.metric(TOKENS, outcome="transient") == 1


async def test_name_is_not_known(platform: Platform) -> None:
    """The SSO's name cannot be resolved."""
    sso = {"allow_plaintext": True}
    async with running(platform.url, "http://sso.invalid/token", platform=sso) as gateway:
        await check(gateway, platform, await ask(gateway.address, READ), UNAVAILABLE)


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


async def test_slow(start_gateway: StartGateway, platform: Platform, sso: Sso) -> None:
    """An SSO that says nothing: callers wait no longer than sso.timeout."""
    sso.handle(HANG)
    async with start_gateway(sso={"timeout": 0.3}) as gateway:
        await check(gateway, platform, await ask(gateway.address, READ), UNAVAILABLE)


REFUSALS = {
    "invalid_client": refusal("invalid_client", 401),
    "unauthorized_client": refusal("unauthorized_client"),
    "invalid_scope": refusal("invalid_scope"),
    "invalid_client with 400": refusal("invalid_client"),
    "403": refusal("access_denied", 403),
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS.keys())
async def test_refusal(
    start_gateway: StartGateway, platform: Platform, sso: Sso, answer: Answer
) -> None:
    """A refused client is an operator's business: 502, never 401, and no storm of requests."""
    sso.handle(answer)
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.header("www-authenticate") is None
        assert b"as the test wants it" not in reply.body
        await check(gateway, platform, reply, REFUSED)
        for _ in range(5):
            assert (await ask(gateway.address, READ)).reason == "token-refused"
        assert await gateway.metric(TOKENS, outcome="refused") == len(sso.requests)
    # The secret is read once more after a refusal, and may be tried once more.
    assert len(sso.requests) <= 2


async def test_a_firewall_in_front(
    start_gateway: StartGateway, platform: Platform, sso: Sso
) -> None:
    """Its 401 is an outage: counted as transient, and over with the SSO's first answer."""
    sso.script(FIREWALL, FIREWALL)
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        await check(gateway, platform, reply, UNAVAILABLE)
        assert int(reply.header("retry-after") or 0) <= 2
        assert await gateway.metric(TOKENS, outcome="transient") >= 1
        assert await gateway.metric(TOKENS, outcome="refused") == 0
        await until_metric(gateway, TOKENS, 1, outcome="ok")
        assert (await ask(gateway.address, READ)).status == 200
    assert len(sso.requests) == 3


async def test_throttled(start_gateway: StartGateway, platform: Platform, sso: Sso) -> None:
    """A 429 is obeyed: no token request is sent before its Retry-After has passed."""
    sso.handle(status(429, ("Retry-After", "20")))
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        assert 20 <= int(reply.header("retry-after") or 0) <= 25
        await check(gateway, platform, reply, UNAVAILABLE)
        assert (await ask(gateway.address, READ)).reason == "sso-unavailable"
        assert await gateway.metric(TOKENS, outcome="throttled") == 1
    assert len(sso.requests) == 1


NOT_UNDERSTANDABLE = {
    "500": status(500),
    "503": status(503),
    "redirect": http(302, b"", ("Location", "http://elsewhere.invalid/")),
    "307": http(307, b"", ("Location", "http://elsewhere.invalid/")),
    "page": http(200, b"<html>Log in</html>"),
    "404 page": status(404),
    "broken JSON": http(200, b'{"access_token":"x"', content_type="application/json"),
    "list": json_body(["access_token"]),
    "empty": http(200, b"", content_type="application/json"),
    "too long": json_body({"access_token": "x" * 2_000_000, "token_type": "Bearer"}),
    "no token": token("", access_token=None),
    "empty token": token(""),
    "token with a line end": token("a\r\nX-Evil: 1"),
    "token no string": token("", access_token=17),
    "token of other letters": token("tökén"),
    "mac": token("t", token_type="mac"),
    "DPoP": token("t", token_type="DPoP"),
    "not HTTP": Answer(b"220 mail ESMTP\r\n"),
    "cut": Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
}


@pytest.mark.parametrize("answer", NOT_UNDERSTANDABLE.values(), ids=NOT_UNDERSTANDABLE.keys())
async def test_not_understandable(
    start_gateway: StartGateway, platform: Platform, sso: Sso, answer: Answer
) -> None:
    """A response without a usable token is a 503, and no caller sees any of it."""
    sso.handle(answer)
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, READ)
        assert b"X-Evil" not in reply.body
        await check(gateway, platform, reply, UNAVAILABLE)
        for _ in range(500):
            if await gateway.metric(TOKENS, outcome="transient") == len(sso.requests):
                break
            await asyncio.sleep(0.01)  # On a slow machine the next attempt may be under way.
        assert await gateway.metric(TOKENS, outcome="transient") == len(sso.requests)
    assert {seen.target for seen in sso.requests} == {"/oauth/token"}


ODD_BUT_USABLE = {
    "bEaReR": token("odd", token_type="bEaReR"),
    "no type": token("odd", token_type=None),
    "no lifetime": token("odd", expires_in=None),
    "lifetime in a string": token("odd", expires_in="300"),
    "lifetime 0": token("odd", expires_in=0),
    "negative lifetime": token("odd", expires_in=-1),
    "huge lifetime": token("odd", expires_in=10**30),
    "very huge lifetime": token("odd", expires_in=1e308),
    "no number": token("odd", expires_in=math.nan),
    "fraction in a string": token("odd", expires_in="300.5"),
    "list": token("odd", expires_in=[300]),
    "cookies": json_body(
        {"access_token": "odd", "token_type": "Bearer"}, 200, ("Set-Cookie", "a=b")
    ),
}


@pytest.mark.parametrize("answer", ODD_BUT_USABLE.values(), ids=ODD_BUT_USABLE.keys())
async def test_odd_but_usable(
    start_gateway: StartGateway, platform: Platform, sso: Sso, answer: Answer
) -> None:
    """A token that can be used is used, whatever is odd about its lifetime or type."""
    sso.handle(answer)
    async with start_gateway() as gateway:
        await served(gateway, platform, "odd")
        expires = await gateway.metric("dhp_gateway_token_expiry_timestamp_seconds")
        assert 0 < expires < 2**33
    assert len(sso.requests) == 1


async def test_recovery(start_gateway: StartGateway, platform: Platform, sso: Sso) -> None:
    """When the SSO comes back the gateway does too, by itself."""
    sso.script(status(503))
    async with start_gateway() as gateway:
        await asyncio.wait_for(sso.seen(2), 30)
        await until_metric(gateway, TOKENS, 1, outcome="ok")
        assert (await ask(gateway.address, READ)).status == 200
        assert (await gateway.ready())[0] == 200
    assert len(platform.seen) == 1
