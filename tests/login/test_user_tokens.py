"""The token of the person who is signed in: what goes out, and what becomes of refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.doubles.platform import Platform, silence, unauthorized
from tests.doubles.sso import ScriptedResponse, json_body, oauth_error, status, token
from tests.doubles.wire import Wire, get
from tests.login.provider import Provider, back, signed_in
from tests.login.stage import Browser, Stage, stage

FIREWALL = json_body({"success": False, "errors": ["planted words of the firewall"]}, 401)


@dataclass
class Cast:
    """The doubles and the gateway between them."""

    sso: Provider
    platform: Platform
    scene: Stage
    browser: Browser


@pytest.fixture
async def cast() -> AsyncIterator[Cast]:
    """Yield a running gateway, SSO and platform, before any sign-in."""
    async with (
        Provider() as sso,
        Platform() as platform,
        stage(platform.url, sso.token_url, f"{sso.issuer}/authorize") as scene,
    ):
        yield Cast(sso, platform, scene, await scene.browser())


def cookie_token(value: str, cookie: str) -> object:
    """A token with a refresh token in a cookie, as the national SSO gives it."""
    body = {"access_token": value, "token_type": "bearer", "expires_in": 300}
    return json_body(body, 200, ("Set-Cookie", f"RefreshToken={cookie}; HttpOnly; Path=/oauth"))


def sent_tokens(platform: Platform) -> list[str | None]:
    """The Authorization of every request that the platform saw."""
    return [seen.header("authorization") for seen in platform.requests]


async def test_the_persons_token_goes_out_and_no_cookie(cast: Cast) -> None:
    """With a session a request carries its token in the place of the gateway's."""
    cast.sso.user_tokens(token("for-the-doctor"))
    await signed_in(cast.browser)
    assert (await cast.browser.get("/fhir/Patient/1")).status == 200
    assert sent_tokens(cast.platform) == ["Bearer for-the-doctor"]
    assert cast.platform.requests[0].all("cookie") == []


async def test_a_read_of_a_person_who_left_makes_way() -> None:
    """Also where callers are people with a browser: another that waits gets the connection."""
    async with (
        Provider() as sso,
        Platform() as platform,
        stage(
            platform.url,
            sso.token_url,
            f"{sso.issuer}/authorize",
            platform={"max_connections": 1, "connect_timeout": 5},
        ) as scene,
    ):
        browser = await scene.browser()
        await signed_in(browser)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies().items())
        platform.script(silence)
        async with await Wire.open(scene.gateway.address) as wire:
            await wire.send(get("/fhir/Patient/1", f"Cookie: {cookies}"))
            await platform.wait_for_requests(1)
            wire.writer.write_eof()
            assert (await browser.get("/fhir/Patient/1")).status == 200
            assert await wire.at_end()
        # The sign-in itself took two.
        records = (await scene.audit("exchange", 4))[2:]
        assert sorted(record["outcome"] for record in records) == ["aborted", "success"]


async def test_a_public_client_shows_its_verifier_and_no_secret(cast: Cast) -> None:
    """The code is redeemed with client_id, redirect_uri and a verifier of 43 characters or more."""
    await signed_in(cast.browser)
    form = cast.sso.user_requests[0].form
    assert len(form.pop("code_verifier")) >= 43
    assert form == {
        "grant_type": "authorization_code",
        "code": "a-code",
        "client_id": "hospital-web",
        "redirect_uri": f"{cast.scene.base}/auth/callback",
    }


async def test_a_401_of_the_platform_is_answered_with_a_renewed_token(cast: Cast) -> None:
    """One renewal and one repetition, with the refresh token of the SSO's cookie."""
    cast.sso.user_tokens(cookie_token("first", "r1"), cookie_token("second", "r2"))  # type: ignore[arg-type]
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    answer = await cast.browser.post("/fhir/Patient", data=b"{}")
    assert answer.status == 200
    assert sent_tokens(cast.platform) == ["Bearer first", "Bearer second"]
    asked = cast.sso.user_requests[1]
    assert asked.headers["Cookie"] == "RefreshToken=r1"
    assert asked.form == {"grant_type": "refresh_token", "client_id": "hospital-web"}


async def test_a_replaced_refresh_token_is_used_the_next_time(cast: Cast) -> None:
    """Refresh tokens that work once are followed from answer to answer."""
    cast.sso.user_tokens(
        token("first", refresh_token="r1"), token("second", refresh_token="r2"), token("third")
    )
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    await cast.browser.get("/fhir/Patient/1")
    cast.platform.script(unauthorized())
    assert (await cast.browser.get("/fhir/Patient/1")).status == 200
    shown = [each.form["refresh_token"] for each in cast.sso.user_requests[1:]]
    assert shown == ["r1", "r2"]


async def test_a_second_401_is_token_rejected(cast: Cast) -> None:
    """Signing in again would only bring another fresh token: the platform's refusal is told."""
    cast.sso.user_tokens(token("first", refresh_token="r1"), token("second", refresh_token="r2"))
    await signed_in(cast.browser)
    cast.platform.script(unauthorized(), unauthorized())
    answer = await cast.browser.get("/fhir/Patient/1")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (502, "token-rejected")
    assert len(cast.platform.requests) == 2
    assert json.loads((await cast.browser.get("/auth/session")).text)["signed_in"] is True


async def test_a_401_without_a_refresh_token_ends_the_session(cast: Cast) -> None:
    """Only the person can bring a new token then."""
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    answer = await cast.browser.get("/fhir/Patient/1")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unauthenticated")
    assert json.loads((await cast.browser.get("/auth/session")).text)["signed_in"] is False
    (logout,) = await cast.scene.audit("logout")
    assert (logout["user"], logout["outcome"]) == ("unknown", "expired")


async def test_a_refused_renewal_ends_the_session(cast: Cast) -> None:
    """`invalid_grant` is the end: 401 now and for what follows, and nothing goes out."""
    cast.sso.user_tokens(token("first", refresh_token="r1"), oauth_error("invalid_grant"))
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    for _ in range(2):
        answer = await cast.browser.get("/fhir/Patient/1")
        assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unauthenticated")
    assert len(cast.platform.requests) == 1
    assert len(cast.sso.user_requests) == 2


async def test_a_person_whose_sign_in_was_revoked_signs_in_again(cast: Cast) -> None:
    """An address that is opened then leads over the SSO back to itself; a script gets the 401."""
    wanted = "/fhir/Patient/1?_elements=name&a=%20"
    for given in (token("first"), token("first", refresh_token="r1")):
        cast.sso.user_tokens(given, oauth_error("invalid_grant"))
        await signed_in(cast.browser)
        assert (await cast.browser.open(wanted)).status == 200
        cast.platform.script(unauthorized())
        sent = await cast.browser.open(wanted)
        assert (sent.status, sent.headers["Cache-Control"]) == (302, "no-store")
        begun = await cast.browser.open(sent.location)
        cast.sso.clear_user_tokens()
        landed = await cast.browser.open(back(begun))
        assert landed.location == wanted
        assert (await cast.browser.open(landed.location)).status == 200
        cast.platform.script(unauthorized())
        refused = await cast.browser.get(wanted)
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (
            401,
            "caller-unauthenticated",
        )
        assert json.loads(refused.text)["resourceType"] == "OperationOutcome"


async def test_nobody_is_sent_round_in_circles(cast: Cast) -> None:
    """A platform that refuses whatever the SSO gives is told on a page, with a way to try again."""
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    page = await cast.browser.open("/fhir/Patient/1?a=b", Accept_Language="ru")
    assert page.status == 401
    assert page.headers["WWW-Authenticate"].startswith("Cookie ")
    assert "/auth/login?return_to=/fhir/Patient/1%3Fa%3Db" in page.text
    assert "платформа" in page.text
    # Its one style is allowed by the one policy that there is.
    (policy,) = page.headers.getall("Content-Security-Policy")  # type: ignore[attr-defined]
    assert "style-src 'sha256-" in policy


@pytest.mark.parametrize(
    "answer",
    [
        *(FIREWALL, status(400), status(403), status(503)),
        *(oauth_error("invalid_client", 401), oauth_error("made_up")),
    ],
    ids=["firewall", "page 400", "page 403", "away", "client", "other code"],
)
async def test_only_invalid_grant_signs_anybody_out(cast: Cast, answer: ScriptedResponse) -> None:
    """Whatever else answers a renewal is waited out: 503, and the session is there afterwards."""
    cast.sso.user_tokens(token("first", refresh_token="r1"), answer, token("second"))
    await signed_in(cast.browser)
    cast.platform.script(unauthorized())
    refused = await cast.browser.get("/fhir/Patient/1")
    assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "sso-unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert "planted" not in refused.text
    assert json.loads((await cast.browser.get("/auth/session")).text)["signed_in"] is True
    while (await cast.browser.get("/fhir/Patient/1")).status == 503:
        pass
    assert sent_tokens(cast.platform) == ["Bearer first", "Bearer second"]
    assert cast.sso.user_requests[2].form["refresh_token"] == "r1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (oauth_error("invalid_grant"), 400),
        (oauth_error("invalid_client", 401), 502),
        (FIREWALL, 503),
        (status(503), 503),
        (json_body({"access_token": ""}), 503),
    ],
)
async def test_a_code_that_brings_no_token_is_a_page(
    cast: Cast, given: object, expected: int
) -> None:
    """The person reads what happened; text of the SSO is not shown."""
    cast.sso.user_tokens(given)  # type: ignore[arg-type]
    page = await signed_in(cast.browser)
    assert page.status == expected
    assert page.headers["Content-Type"].startswith("text/html")
    assert "as the test wants it" not in page.text
    assert "dhp-session" not in cast.browser.cookies()
    (login,) = await cast.scene.audit("login")
    assert (login["outcome"], login["user"]) == ("failure", None)


async def test_sessions_outlive_a_reload(cast: Cast) -> None:
    """New settings end no session, unless the tokens are another client's."""
    cast.sso.user_tokens(token("first"))
    await signed_in(cast.browser)
    gateway, settings = cast.scene.gateway.gateway, cast.scene.gateway.settings
    await gateway.reload(settings)
    assert (await cast.browser.get("/fhir/Patient/1")).status == 200
    other = settings.login.model_copy(update={"client_id": "another"})
    await gateway.reload(settings.model_copy(update={"login": other}))
    assert (await cast.browser.get("/fhir/Patient/1")).status == 401


async def test_nothing_secret_reaches_the_browser_or_a_log(
    cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    """No token, refresh token or verifier stands in a URL, header, page, cookie, log or audit."""
    caplog.set_level(logging.DEBUG)
    cast.sso.user_tokens(
        token("planted-first", refresh_token="planted-refresh"),
        token("planted-second", refresh_token="planted-again"),
        oauth_error("invalid_grant"),
    )
    await signed_in(cast.browser)
    identifier = cast.browser.cookies()["dhp-session"]
    for _ in range(2):
        cast.platform.script(unauthorized())
        await cast.browser.get("/fhir/Patient/1")
    await cast.browser.get("/auth/session")
    await cast.browser.post("/auth/logout")
    verifier = cast.sso.user_requests[0].form["code_verifier"]
    await cast.scene.audit("exchange", 6)
    cast.scene.gateway.audit_file.seek(0)
    places = [caplog.text, cast.scene.gateway.audit_file.read().decode()]
    assert [place for place in places if identifier in place or "a-code" in place] == []
    for page in cast.browser.pages:
        places += [page.url, page.text, str(list(page.headers.items())), *page.set_cookies]
    for planted in ("planted-", verifier):
        assert [place for place in places if planted in place] == []
