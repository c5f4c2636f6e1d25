"""Replicas that share the sessions of users in a redis-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.doubles.platform import Platform, PlatformConnection, unauthorized
from tests.doubles.processes import free_port
from tests.doubles.sso import oauth_error, token
from tests.login.provider import Provider, back, signed_in
from tests.login.stage import Browser, Page, Stage, stage
from tests.store.redis_server import RedisServer

READ = "/fhir/Patient/1"


@dataclass
class ReplicaSetup:
    """SSO, platform and redis-server for replicas with one redirect URI, at `port`."""

    sso: Provider
    platform: Platform
    server: RedisServer
    port: int

    def gateway(
        self, port: int | None = None, **sections: Any
    ) -> contextlib.AbstractAsyncContextManager[Stage]:
        redirect_uri = f"http://127.0.0.1:{self.port}/auth/callback"
        return stage(
            self.platform.url,
            self.sso.token_url,
            self.sso.issuer,
            login={"redirect_uri": redirect_uri, **sections.pop("login", {})},
            port=port or self.port,
            store={"url": self.server.url},
            **sections,
        )


@pytest.fixture
async def setup(server: RedisServer) -> AsyncIterator[ReplicaSetup]:
    async with Provider() as sso, Platform() as platform:
        yield ReplicaSetup(sso, platform, server, free_port())


async def sent_to(replica: Stage, browser: Browser, method: str = "GET", path: str = READ) -> Page:
    """Return the response of a replica to a request of the browser, as by a load balancer."""
    fields = {"X-Requested-With": "x", "Origin": browser.base}
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies().items())
    return await browser.request(method, replica.base + path, {**fields, "Cookie": cookies})


async def test_sessions_survive_a_restart(setup: ReplicaSetup) -> None:
    setup.sso.user_tokens(token("first", refresh_token="r1"), token("second", refresh_token="r2"))
    async with setup.gateway() as before:
        browser = await before.browser()
        await signed_in(browser)
        cookies = browser.cookies()
    async with setup.gateway() as after:
        browser = await after.browser()
        for name, value in cookies.items():
            browser.set_cookie(name, value)
        assert (await browser.get(READ)).status == 200
        setup.platform.script(unauthorized())
        assert (await browser.get(READ)).status == 200
        assert setup.sso.user_requests[1].form["refresh_token"] == "r1"
        assert json.loads((await browser.get("/auth/session")).text)["signed_in"] is True
        sent = [seen.header("authorization") for seen in setup.platform.requests]
        assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_each_step_of_a_sign_in_may_reach_another_replica(setup: ReplicaSetup) -> None:
    async with setup.gateway() as one, setup.gateway(free_port()) as two:
        browser = await one.browser()
        begun = await browser.begin()
        (sign_in_cookie,) = browser.cookies().items()
        assert (await sent_to(two, browser, path=back(begun))).status == 302
        assert (await browser.get(READ)).status == 200
        assert (await sent_to(two, browser)).status == 200
        cookies = browser.cookies()
        assert (await sent_to(two, browser, "POST", "/auth/logout")).status == 200
        browser.set_cookie("dhp-session", cookies["dhp-session"])
        assert (await browser.get(READ)).status == 401
        # As if the browser had not received that the cookie of the sign-in is deleted.
        browser.set_cookie(*sign_in_cookie)
        for each in (one, two):
            assert (await sent_to(each, browser, path=back(begun))).status == 400
        assert len(setup.sso.user_requests) == 1


async def test_replicas_share_one_refresh(setup: ReplicaSetup) -> None:
    setup.sso.user_tokens(
        token("first", refresh_token="r1"),
        token("second", refresh_token="r2"),
        oauth_error("invalid_grant"),
    )
    async with setup.gateway() as one, setup.gateway(free_port()) as two:
        browser = await one.browser()
        await signed_in(browser)

        async def refuse(connection: PlatformConnection) -> None:
            # Otherwise a late request would wait for the token that the first ones request.
            await setup.platform.wait_for_requests(4)
            connection.writer.write(unauthorized())
            connection.request.complete = True

        setup.platform.script(*[refuse] * 4)
        setup.sso.hold()
        tabs = [
            browser.get(READ),
            sent_to(two, browser),
            browser.get(READ),
            sent_to(two, browser),
        ]
        pages = asyncio.gather(*tabs)
        await setup.platform.wait_for_requests(4)
        setup.sso.release()
        assert [page.status for page in await pages] == [200] * 4
        assert len(setup.sso.user_requests) == 2
        sent = [seen.header("authorization") for seen in setup.platform.requests]
        assert sent == ["Bearer first"] * 4 + ["Bearer second"] * 4


async def test_sessions_survive_an_outage_of_the_store(
    setup: ReplicaSetup, caplog: pytest.LogCaptureFixture
) -> None:
    callers = [{"name": "lab", "api_key": "lab-key"}]
    async with setup.gateway(callers=callers) as scene:
        browser = await scene.browser()
        await signed_in(browser)
        setup.server.freeze()
        for path in (READ, "/auth/session"):
            answer = await browser.get(path)
            assert (answer.status, answer.headers["X-Gateway-Error"]) == (503, "sso-unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        out = await browser.post("/auth/logout")
        assert (out.status, out.set_cookies) == (503, [])
        page = await browser.open("/auth/login?return_to=/fhir/Patient")
        assert (page.status, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert int(page.headers["Retry-After"]) >= 1
        other = await scene.browser()
        assert (await other.get(READ, X_Api_Key="lab-key")).status == 200
        setup.server.thaw()
        await until(lambda: can_read(browser))
    (line,) = [each.getMessage() for each in caplog.records if "get 503 until" in each.getMessage()]
    assert line.startswith("session store: no response in time (TimeoutError)")
    assert "to do: check store.url" in line


async def can_read(browser: Browser) -> bool:
    return (await browser.get(READ)).status == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.05)


async def test_a_token_refreshed_during_an_outage_is_stored_later(setup: ReplicaSetup) -> None:
    setup.sso.user_tokens(
        token("first", refresh_token="r1"),
        token("second", refresh_token="r2"),
        token("third", refresh_token="r3"),
    )
    async with setup.gateway() as one, setup.gateway(free_port()) as two:
        browser = await one.browser()
        await signed_in(browser)
        setup.platform.script(unauthorized())
        setup.sso.hold()
        before = len(setup.sso.requests)
        reading = asyncio.ensure_future(browser.get(READ))
        await setup.sso.wait_for_requests(before + 1)
        setup.server.freeze()
        setup.sso.release()
        assert (await reading).status == 200
        setup.server.thaw()
        await until(lambda: uses_token(two, browser, setup, "Bearer second"))
        setup.platform.script(unauthorized())
        assert (await sent_to(two, browser)).status == 200
        redeemed = [each.form["refresh_token"] for each in setup.sso.user_requests[1:]]
        assert redeemed == ["r1", "r2"]


async def uses_token(
    replica: Stage, browser: Browser, setup: ReplicaSetup, authorization: str
) -> bool:
    """Return whether a replica sends the browser's request to the platform with this token."""
    await sent_to(replica, browser)
    return setup.platform.requests[-1].header("authorization") == authorization


async def test_back_channel_logout_reaches_every_replica(server: RedisServer) -> None:
    async with Provider(openid=True) as sso, Platform() as platform:
        setup = ReplicaSetup(sso, platform, server, free_port())
        openid = {"scope": "openid"}
        async with (
            setup.gateway(login=openid) as one,
            setup.gateway(free_port(), login=openid) as two,
        ):
            browser = await one.browser()
            logout_token = sso.logout_token()
            # The second sign-in stays: the logout token was used already.
            for replica, status in ((two, 200), (one, 400)):
                begun = await browser.begin()
                id_token = sso.id_token(begun.query["nonce"])
                sso.user_tokens(token("for-a-person", id_token=id_token))
                assert (await browser.open(back(begun))).status == 302
                assert (await sent_to(two, browser)).status == 200
                response = await (await replica.browser()).request(
                    "POST", "/auth/backchannel-logout", data={"logout_token": logout_token}
                )
                assert response.status == status
                is_ended = status == 200
                assert (await browser.get(READ)).status == (401 if is_ended else 200)
                assert (await sent_to(two, browser)).status == (401 if is_ended else 200)
