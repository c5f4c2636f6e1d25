"""Cookies of the SSO are stored only where they hold the refresh token."""

from __future__ import annotations

import json

import pytest

from tests.doubles.platform import unauthorized
from tests.doubles.sso import RESET, ScriptedResponse, http, json_body, oauth_error, status
from tests.login.provider import LoginSetup, signed_in
from tests.login.test_user_tokens import FIREWALL, sent_tokens

BALANCER = "SERVERID=node2; Path=/"
HIDDEN = "RefreshToken=r1; HttpOnly; Path=/oauth; SameSite=Strict"
LONG_AGO = "Thu, 01 Jan 1970 00:00:01 GMT"
LATER = "Fri, 31 Dec 2100 23:59:59 GMT"


def issued(value: str, *cookies: str, **members: object) -> ScriptedResponse:
    body = {"access_token": value, "token_type": "Bearer", "expires_in": 300, **members}
    return json_body(body, 200, *(("Set-Cookie", each) for each in cookies))


async def read_with_rejected_token(setup: LoginSetup, times: int = 1) -> int:
    """Return the status of a read whose token is rejected and refreshed."""
    for _ in range(times):
        setup.platform.script(unauthorized())
        answer = await setup.browser.get("/fhir/Patient/1")
    return answer.status


def shown(setup: LoginSetup) -> list[tuple[str | None, str | None]]:
    """The refresh token and the Cookie field of every refresh that the SSO saw."""
    return [
        (seen.form.get("refresh_token"), seen.headers.get("Cookie"))
        for seen in setup.sso.user_requests[1:]
    ]


# The responses to the token requests, and the refresh tokens and cookies that were sent for them.
RENEWALS = [
    *(
        ([issued("first", *cookies), issued("second")], [(None, sent)])
        for cookies, sent in (
            ([BALANCER], "SERVERID=node2"),
            ([HIDDEN], "RefreshToken=r1"),
            ([f"{HIDDEN}; Max-Age=2592000"], "RefreshToken=r1"),
            ([f"{HIDDEN}; Expires={LATER}"], "RefreshToken=r1"),
            ([f"{HIDDEN}; Expires={LONG_AGO}; Max-Age=60"], "RefreshToken=r1"),
            ([f"{HIDDEN}; Expires=soon"], "RefreshToken=r1"),
            ([BALANCER, HIDDEN], "SERVERID=node2; RefreshToken=r1"),
            ([BALANCER, f"{HIDDEN}; Max-Age=0"], "SERVERID=node2"),
        )
    ),
    # Better Auth refuses each POST that has a cookie and no Origin, as CSRF. A refresh token stays
    # valid (RFC 6749 section 6); the cookie does not take its place.
    *(
        (
            [
                issued("first", cookie, refresh_token="a"),
                issued("second", cookie),
                issued("third", cookie, refresh_token="b"),
                issued("fourth"),
            ],
            [("a", None), ("a", None), ("b", None)],
        )
        for cookie in (BALANCER, HIDDEN)
    ),
    (
        [issued("first", HIDDEN), issued("second", BALANCER, refresh_token="a"), issued("third")],
        [(None, "RefreshToken=r1"), ("a", None)],
    ),
    # Each response updates them.
    (
        [
            issued("first", BALANCER, HIDDEN),
            issued("second", "RefreshToken=r2; Path=/oauth"),
            issued("third", f"SERVERID=; Expires={LONG_AGO}"),
            issued("fourth"),
        ],
        [
            (None, "SERVERID=node2; RefreshToken=r1"),
            (None, "SERVERID=node2; RefreshToken=r2"),
            (None, "RefreshToken=r2"),
        ],
    ),
]


@pytest.mark.parametrize(("responses", "sent"), RENEWALS)
async def test_cookies_are_sent_where_there_is_no_refresh_token(
    setup: LoginSetup, responses: list[ScriptedResponse], sent: list[tuple[str | None, str | None]]
) -> None:
    setup.sso.user_tokens(*responses)
    await signed_in(setup.browser)
    assert await read_with_rejected_token(setup, times=len(sent)) == 200
    assert shown(setup) == sent


@pytest.mark.parametrize(
    "attributes",
    ["", "; Max-Age=0", "; Max-Age=-1", f"; Expires={LONG_AGO}", f"; Max-Age=0; Expires={LATER}"],
)
async def test_a_removed_cookie_renews_nothing(setup: LoginSetup, attributes: str) -> None:
    value = "" if not attributes else "r1"
    setup.sso.user_tokens(issued("first", f"RefreshToken={value}; Path=/oauth{attributes}"))
    await signed_in(setup.browser)
    assert await read_with_rejected_token(setup) == 401
    assert shown(setup) == []


async def test_the_credentials_tokens_are_renewed_without_cookies(setup: LoginSetup) -> None:
    setup.sso.respond(issued("own", BALANCER))
    tokens = setup.scene.gateway.gateway._cores.current.tokens["default"]
    await tokens.wait_for_token()
    tokens.fetch_now()
    await setup.sso.wait_for_requests(2)
    assert [seen.headers.get("Cookie") for seen in setup.sso.requests] == [None, None]


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
    setup: LoginSetup, cookie: str, answer: ScriptedResponse
) -> None:
    setup.sso.user_tokens(issued("first", cookie), answer)
    await signed_in(setup.browser)
    assert await read_with_rejected_token(setup) == 401
    assert json.loads((await setup.browser.get("/auth/session")).text)["signed_in"] is False
    page = await setup.browser.open("/fhir/Patient/1")
    assert (page.status, page.location.partition("?")[0]) == (302, "/auth/login")
    assert len(shown(setup)) == 1
    (logout,) = await setup.scene.audit("logout")
    assert logout["outcome"] == "refused"


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("answer", OUTAGES.values(), ids=OUTAGES)
async def test_an_outage_ends_no_session_that_has_only_cookies(
    setup: LoginSetup, answer: ScriptedResponse
) -> None:
    setup.sso.user_tokens(issued("first", HIDDEN), answer, issued("second"))
    await signed_in(setup.browser)
    assert await read_with_rejected_token(setup) == 503
    await setup.wait_until_read()
    assert sent_tokens(setup.platform) == ["Bearer first", "Bearer second"]
    assert [cookie for _, cookie in shown(setup)] == ["RefreshToken=r1"] * 2
