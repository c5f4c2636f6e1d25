"""Cookies of the SSO: kept only where they hold the refresh token, and no cause of long errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.doubles.platform import Platform, unauthorized
from tests.doubles.sso import RESET, ScriptedResponse, http, json_body, oauth_error, status
from tests.login.provider import Provider, signed_in
from tests.login.stage import stage
from tests.login.test_user_tokens import FIREWALL, Cast, sent_tokens

BALANCER = "SERVERID=node2; Path=/"
HIDDEN = "RefreshToken=r1; HttpOnly; Path=/oauth; SameSite=Strict"
LONG_AGO = "Thu, 01 Jan 1970 00:00:01 GMT"
LATER = "Fri, 31 Dec 2100 23:59:59 GMT"


@pytest.fixture
async def cast() -> AsyncIterator[Cast]:
    """Yield a running gateway, SSO and platform, before any sign-in."""
    async with (
        Provider() as sso,
        Platform() as platform,
        stage(platform.url, sso.token_url, f"{sso.issuer}/authorize") as scene,
    ):
        yield Cast(sso, platform, scene, await scene.browser())


def issued(value: str, *cookies: str, **members: object) -> ScriptedResponse:
    """A token response that sets cookies."""
    body = {"access_token": value, "token_type": "Bearer", "expires_in": 300, **members}
    return json_body(body, 200, *(("Set-Cookie", each) for each in cookies))


async def renewed(cast: Cast, times: int = 1) -> int:
    """The status of a read whose token the platform rejects, so that it is renewed."""
    for _ in range(times):
        cast.platform.script(unauthorized())
        answer = await cast.browser.get("/fhir/Patient/1")
    return answer.status


def shown(cast: Cast) -> list[tuple[str | None, str | None]]:
    """The refresh token and the Cookie field of every refresh that the SSO saw."""
    return [
        (seen.form.get("refresh_token"), seen.headers.get("Cookie"))
        for seen in cast.sso.user_requests[1:]
    ]


@pytest.mark.parametrize(
    ("cookies", "sent"),
    [
        ([BALANCER], "SERVERID=node2"),
        ([HIDDEN], "RefreshToken=r1"),
        ([f"{HIDDEN}; Max-Age=2592000"], "RefreshToken=r1"),
        ([f"{HIDDEN}; Expires={LATER}"], "RefreshToken=r1"),
        ([f"{HIDDEN}; Expires={LONG_AGO}; Max-Age=60"], "RefreshToken=r1"),
        ([f"{HIDDEN}; Expires=soon"], "RefreshToken=r1"),
        ([BALANCER, HIDDEN], "SERVERID=node2; RefreshToken=r1"),
        ([BALANCER, f"{HIDDEN}; Max-Age=0"], "SERVERID=node2"),
    ],
)
async def test_without_a_refresh_token_the_cookies_are_sent(
    cast: Cast, cookies: list[str], sent: str
) -> None:
    """An SSO that hides the refresh token in a cookie gets its cookies with the refresh."""
    cast.sso.user_tokens(issued("first", *cookies), issued("second"))
    await signed_in(cast.browser)
    assert await renewed(cast) == 200
    assert shown(cast) == [(None, sent)]


@pytest.mark.parametrize("cookie", [BALANCER, HIDDEN])
async def test_with_a_refresh_token_no_cookie_is_sent(cast: Cast, cookie: str) -> None:
    """Better Auth refuses each POST that has a cookie and no Origin, as CSRF."""
    cast.sso.user_tokens(
        issued("first", cookie, refresh_token="a"),
        # The refresh token stays valid (RFC 6749 section 6); the cookie does not take its place.
        issued("second", cookie),
        issued("third", cookie, refresh_token="b"),
        issued("fourth"),
    )
    await signed_in(cast.browser)
    assert await renewed(cast, times=3) == 200
    assert shown(cast) == [("a", None), ("a", None), ("b", None)]


async def test_a_refresh_token_takes_the_place_of_the_cookies(cast: Cast) -> None:
    """From the response on that has one."""
    cast.sso.user_tokens(
        issued("first", HIDDEN), issued("second", BALANCER, refresh_token="a"), issued("third")
    )
    await signed_in(cast.browser)
    assert await renewed(cast, times=2) == 200
    assert shown(cast) == [(None, "RefreshToken=r1"), ("a", None)]


async def test_cookies_are_followed_from_response_to_response(cast: Cast) -> None:
    """A replaced one is sent, one that is not named stays, one that is removed is left out."""
    cast.sso.user_tokens(
        issued("first", BALANCER, HIDDEN),
        issued("second", "RefreshToken=r2; Path=/oauth"),
        issued("third", f"SERVERID=; Expires={LONG_AGO}"),
        issued("fourth"),
    )
    await signed_in(cast.browser)
    assert await renewed(cast, times=3) == 200
    assert [cookie for _, cookie in shown(cast)] == [
        *("SERVERID=node2; RefreshToken=r1", "SERVERID=node2; RefreshToken=r2"),
        "RefreshToken=r2",
    ]


@pytest.mark.parametrize(
    "attributes",
    ["", "; Max-Age=0", "; Max-Age=-1", f"; Expires={LONG_AGO}", f"; Max-Age=0; Expires={LATER}"],
)
async def test_a_removed_cookie_renews_nothing(cast: Cast, attributes: str) -> None:
    """The user signs in again without a request to the SSO that could only fail."""
    value = "" if not attributes else "r1"
    cast.sso.user_tokens(issued("first", f"RefreshToken={value}; Path=/oauth{attributes}"))
    await signed_in(cast.browser)
    assert await renewed(cast) == 401
    assert shown(cast) == []


async def test_the_credentials_tokens_are_renewed_without_cookies(cast: Cast) -> None:
    """What a balancer sets in a response to the gateway's own credential is ignored."""
    cast.sso.respond(issued("own", BALANCER))
    tokens = cast.scene.gateway.gateway._cores.current.tokens["default"]
    await tokens.wait_for_token()
    tokens.fetch_now()
    await cast.sso.wait_for_requests(2)
    assert [seen.headers.get("Cookie") for seen in cast.sso.requests] == [None, None]


REFUSALS = {
    "ran out": oauth_error("invalid_request"),
    "revoked": oauth_error("invalid_grant"),
    "client": oauth_error("invalid_client", 401),
    "other code": oauth_error("made_up", 403),
    "page 400": status(400),
    "page 401": status(401),
    "empty 403": http(403),
    "firewall": FIREWALL,
    "not there": status(404),
}
OUTAGES = {
    "throttled": status(429),
    "throttled with a code": oauth_error("slow_down", 429),
    "too slow": status(408),
    "too early": status(425),
    "away": status(503),
    "broken": oauth_error("server_error", 500),
    "redirect": status(302, ("Location", "https://elsewhere.test/")),
    "page 200": status(200),
    "reset": RESET,
}


@pytest.mark.parametrize("cookie", [BALANCER, HIDDEN])
@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
async def test_a_cookie_that_the_sso_refuses_ends_the_session(
    cast: Cast, cookie: str, answer: ScriptedResponse
) -> None:
    """A script gets 401, an opened address leads to the SSO, and no request goes out again."""
    cast.sso.user_tokens(issued("first", cookie), answer)
    await signed_in(cast.browser)
    assert await renewed(cast) == 401
    assert json.loads((await cast.browser.get("/auth/session")).text)["signed_in"] is False
    page = await cast.browser.open("/fhir/Patient/1")
    assert (page.status, page.location.partition("?")[0]) == (302, "/auth/login")
    assert len(shown(cast)) == 1
    (logout,) = await cast.scene.audit("logout")
    assert logout["outcome"] == "refused"


@pytest.mark.parametrize("answer", OUTAGES.values(), ids=OUTAGES)
async def test_an_outage_ends_no_session_that_has_only_cookies(
    cast: Cast, answer: ScriptedResponse
) -> None:
    """It is waited out: 503, and afterwards the session goes on with its cookies."""
    cast.sso.user_tokens(issued("first", HIDDEN), answer, issued("second"))
    await signed_in(cast.browser)
    assert await renewed(cast) == 503
    while (await cast.browser.get("/fhir/Patient/1")).status == 503:
        pass
    assert sent_tokens(cast.platform) == ["Bearer first", "Bearer second"]
    assert [cookie for _, cookie in shown(cast)] == ["RefreshToken=r1"] * 2
