"""Several gateways that share the sessions of people in a redis-server, and one that restarts."""

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
class Cast:
    """The doubles, and gateways that are one to the people."""

    sso: Provider
    platform: Platform
    server: RedisServer
    port: int

    def gateway(
        self, port: int | None = None, **sections: Any
    ) -> contextlib.AbstractAsyncContextManager[Stage]:
        """A gateway; people know the one on the first port."""
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
async def cast(server: RedisServer) -> AsyncIterator[Cast]:
    """Everything but the gateways."""
    async with Provider() as sso, Platform() as platform:
        yield Cast(sso, platform, server, free_port())


async def elsewhere(browser: Browser, other: Stage, method: str = "GET", path: str = READ) -> Page:
    """The same browser's request, led to another gateway by a load balancer."""
    fields = {"X-Requested-With": "x", "Origin": browser.base}
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies().items())
    return await browser.request(method, other.base + path, {**fields, "Cookie": cookies})


async def test_a_restart_signs_nobody_out(cast: Cast) -> None:
    """After a restart of the gateway the person goes on, with the token and its renewal."""
    cast.sso.user_tokens(token("first", refresh_token="r1"), token("second", refresh_token="r2"))
    async with cast.gateway() as before:
        browser = await before.browser()
        await signed_in(browser)
        kept = browser.cookies()
    async with cast.gateway() as after:
        browser = await after.browser()
        for name, value in kept.items():
            browser.set_cookie(name, value)
        assert (await browser.get(READ)).status == 200
        cast.platform.script(unauthorized())
        assert (await browser.get(READ)).status == 200
        assert cast.sso.user_requests[1].form["refresh_token"] == "r1"
        assert json.loads((await browser.get("/auth/session")).text)["signed_in"] is True
        sent = [seen.header("authorization") for seen in cast.platform.requests]
        assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_every_step_may_be_another_gateways(cast: Cast) -> None:
    """Begun at one, finished at another, read at the first, signed out at the second: for all."""
    async with cast.gateway() as one, cast.gateway(free_port()) as two:
        browser = await one.browser()
        begun = await browser.begin()
        (own,) = browser.cookies().items()
        assert (await elsewhere(browser, two, path=back(begun))).status == 302
        assert (await browser.get(READ)).status == 200
        assert (await elsewhere(browser, two)).status == 200
        cookies = browser.cookies()
        assert (await elsewhere(browser, two, "POST", "/auth/logout")).status == 200
        browser.set_cookie("dhp-session", cookies["dhp-session"])
        assert (await browser.get(READ)).status == 401
        # As if the browser had not been told that its sign-in is over.
        browser.set_cookie(*own)
        for each in (one, two):
            assert (await elsewhere(browser, each, path=back(begun))).status == 400
        assert len(cast.sso.user_requests) == 1


async def test_one_renewal_among_all_gateways(cast: Cast) -> None:
    """Tabs at two gateways need a new token at once: the SSO is asked once."""
    cast.sso.user_tokens(
        token("first", refresh_token="r1"),
        token("second", refresh_token="r2"),
        oauth_error("invalid_grant"),
    )
    async with cast.gateway() as one, cast.gateway(free_port()) as two:
        browser = await one.browser()
        await signed_in(browser)

        async def refuse(connection: PlatformConnection) -> None:
            # Or a tab that came late would wait for the token that the first ones ask for.
            await cast.platform.wait_for_requests(4)
            connection.writer.write(unauthorized())
            connection.request.complete = True

        cast.platform.script(*[refuse] * 4)
        cast.sso.hold()
        tabs = [
            browser.get(READ),
            elsewhere(browser, two),
            browser.get(READ),
            elsewhere(browser, two),
        ]
        answers = asyncio.gather(*tabs)
        await cast.platform.wait_for_requests(4)
        cast.sso.release()
        assert [page.status for page in await answers] == [200] * 4
        assert len(cast.sso.user_requests) == 2
        sent = [seen.header("authorization") for seen in cast.platform.requests]
        assert sent == ["Bearer first"] * 4 + ["Bearer second"] * 4


async def test_without_the_store_nobody_is_signed_out(cast: Cast) -> None:
    """While it is away: 503 with Retry-After for people, pages that say so, others as ever."""
    callers = [{"name": "lab", "api_key": "lab-key"}]
    async with cast.gateway(callers=callers) as scene:
        browser = await scene.browser()
        await signed_in(browser)
        cast.server.freeze()
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
        cast.server.thaw()
        await until(lambda: reads(browser))


async def reads(browser: Browser) -> bool:
    """Whether the person is served."""
    return (await browser.get(READ)).status == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until something is so."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.05)


async def test_a_renewed_token_is_kept_when_the_store_is_back(cast: Cast) -> None:
    """What the SSO gave while the store went away is neither lost nor asked for again."""
    cast.sso.user_tokens(
        token("first", refresh_token="r1"),
        token("second", refresh_token="r2"),
        token("third", refresh_token="r3"),
    )
    async with cast.gateway() as one, cast.gateway(free_port()) as two:
        browser = await one.browser()
        await signed_in(browser)
        cast.platform.script(unauthorized())
        cast.sso.hold()
        before = len(cast.sso.requests)
        asked = asyncio.ensure_future(browser.get(READ))
        await cast.sso.wait_for_requests(before + 1)
        cast.server.freeze()
        cast.sso.release()
        assert (await asked).status == 200
        cast.server.thaw()
        await until(lambda: sends(two, browser, cast, "Bearer second"))
        cast.platform.script(unauthorized())
        assert (await elsewhere(browser, two)).status == 200
        shown = [each.form["refresh_token"] for each in cast.sso.user_requests[1:]]
        assert shown == ["r1", "r2"]


async def sends(other: Stage, browser: Browser, cast: Cast, authorization: str) -> bool:
    """Whether this token goes out from another gateway."""
    await elsewhere(browser, other)
    return cast.platform.requests[-1].header("authorization") == authorization


async def test_the_ssos_sign_out_reaches_every_gateway(server: RedisServer) -> None:
    """Told to one gateway it ends the sessions of all, and a replay at another one is refused."""
    async with Provider(openid=True) as sso, Platform() as platform:
        cast = Cast(sso, platform, server, free_port())
        openid = {"scope": "openid"}
        async with (
            cast.gateway(login=openid) as one,
            cast.gateway(free_port(), login=openid) as two,
        ):
            browser = await one.browser()
            logout_token = sso.logout_token()
            for teller, status in ((two, 200), (one, 400)):
                begun = await browser.begin()
                id_token = sso.id_token(begun.query["nonce"])
                sso.user_tokens(token("for-a-person", id_token=id_token))
                assert (await browser.open(back(begun))).status == 302
                assert (await elsewhere(browser, two)).status == 200
                told = await (await teller.browser()).request(
                    "POST", "/auth/backchannel-logout", data={"logout_token": logout_token}
                )
                assert told.status == status
                over = status == 200
                assert (await browser.get(READ)).status == (401 if over else 200)
                assert (await elsewhere(browser, two)).status == (401 if over else 200)
