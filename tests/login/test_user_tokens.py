"""The token of a user: forwarding and rejections."""

from __future__ import annotations

import json
import logging

import pytest

from tests.doubles.platform import Platform, silence, unauthorized
from tests.doubles.sso import ScriptedResponse, json_body, oauth_error, status, token
from tests.doubles.wire import Wire, get
from tests.login.provider import LoginSetup, back, between_doubles, signed_in

FIREWALL = json_body({"success": False, "errors": ["planted words of the firewall"]}, 401)


def cookie_token(value: str, cookie: str) -> object:
    """A token with a refresh token in a cookie, as the national SSO gives it."""
    body = {"access_token": value, "token_type": "bearer", "expires_in": 300}
    return json_body(body, 200, ("Set-Cookie", f"RefreshToken={cookie}; HttpOnly; Path=/oauth"))


def sent_tokens(platform: Platform) -> list[str | None]:
    return [seen.header("authorization") for seen in platform.requests]


async def test_the_users_token_is_forwarded_without_cookies(setup: LoginSetup) -> None:
    setup.sso.user_tokens(token("for-the-doctor"))
    await signed_in(setup.browser)
    assert (await setup.browser.get("/fhir/Patient/1")).status == 200
    assert sent_tokens(setup.platform) == ["Bearer for-the-doctor"]
    assert setup.platform.requests[0].all("cookie") == []


async def test_a_read_is_cancelled_when_its_user_disconnects() -> None:
    async with between_doubles(
        platform={"max_connections": 1, "connect_timeout": 20}, limits={"half_closed": 1}
    ) as setup:
        browser, platform, scene = setup.browser, setup.platform, setup.scene
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


async def test_a_public_client_sends_its_verifier_and_no_secret(setup: LoginSetup) -> None:
    await signed_in(setup.browser)
    form = setup.sso.user_requests[0].form
    assert len(form.pop("code_verifier")) >= 43
    assert form == {
        "grant_type": "authorization_code",
        "code": "a-code",
        "client_id": "hospital-web",
        "redirect_uri": f"{setup.scene.base}/auth/callback",
    }


async def test_a_401_leads_to_a_refreshed_token(setup: LoginSetup) -> None:
    setup.sso.user_tokens(cookie_token("first", "r1"), cookie_token("second", "r2"))  # type: ignore[arg-type]
    await signed_in(setup.browser)
    setup.platform.script(unauthorized())
    answer = await setup.browser.post("/fhir/Patient", data=b"{}")
    assert answer.status == 200
    assert sent_tokens(setup.platform) == ["Bearer first", "Bearer second"]
    asked = setup.sso.user_requests[1]
    assert asked.headers["Cookie"] == "RefreshToken=r1"
    assert asked.form == {"grant_type": "refresh_token", "client_id": "hospital-web"}


async def test_a_rotated_refresh_token_is_used(setup: LoginSetup) -> None:
    setup.sso.user_tokens(
        token("first", refresh_token="r1"), token("second", refresh_token="r2"), token("third")
    )
    await signed_in(setup.browser)
    setup.platform.script(unauthorized())
    await setup.browser.get("/fhir/Patient/1")
    setup.platform.script(unauthorized())
    assert (await setup.browser.get("/fhir/Patient/1")).status == 200
    shown = [each.form["refresh_token"] for each in setup.sso.user_requests[1:]]
    assert shown == ["r1", "r2"]


async def test_a_second_401_is_token_rejected(setup: LoginSetup) -> None:
    """Another sign-in would only give another fresh token."""
    setup.sso.user_tokens(token("first", refresh_token="r1"), token("second", refresh_token="r2"))
    await signed_in(setup.browser)
    setup.platform.script(unauthorized(), unauthorized())
    answer = await setup.browser.get("/fhir/Patient/1")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (502, "token-rejected")
    assert len(setup.platform.requests) == 2
    assert json.loads((await setup.browser.get("/auth/session")).text)["signed_in"] is True


async def test_a_401_without_a_refresh_token_ends_the_session(setup: LoginSetup) -> None:
    await signed_in(setup.browser)
    setup.platform.script(unauthorized())
    answer = await setup.browser.get("/fhir/Patient/1")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unauthenticated")
    assert json.loads((await setup.browser.get("/auth/session")).text)["signed_in"] is False
    (logout,) = await setup.scene.audit("logout")
    assert (logout["user"], logout["outcome"]) == ("unknown", "expired")


async def test_a_user_whose_grant_was_revoked_signs_in_again(setup: LoginSetup) -> None:
    wanted = "/fhir/Patient/1?_elements=name&a=%20"
    for given in (token("first"), token("first", refresh_token="r1")):
        setup.sso.user_tokens(given, oauth_error("invalid_grant"))
        await signed_in(setup.browser)
        assert (await setup.browser.open(wanted)).status == 200
        setup.platform.script(unauthorized())
        sent = await setup.browser.open(wanted)
        assert (sent.status, sent.headers["Cache-Control"]) == (302, "no-store")
        begun = await setup.browser.open(sent.location)
        setup.sso.clear_user_tokens()
        landed = await setup.browser.open(back(begun))
        assert landed.location == wanted
        assert (await setup.browser.open(landed.location)).status == 200
        setup.platform.script(unauthorized())
        refused = await setup.browser.get(wanted)
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (
            401,
            "caller-unauthenticated",
        )
        assert json.loads(refused.text)["resourceType"] == "OperationOutcome"


async def test_repeated_rejections_cause_no_redirect_loop(setup: LoginSetup) -> None:
    await signed_in(setup.browser)
    setup.platform.script(unauthorized())
    page = await setup.browser.open("/fhir/Patient/1?a=b", Accept_Language="ru")
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
        *(oauth_error("invalid_client", 401), oauth_error("invalid_request")),
        oauth_error("made_up"),
    ],
    ids=["firewall", "page 400", "page 403", "away", "client", "request", "other code"],
)
@pytest.mark.usefixtures("short_pauses")
async def test_other_errors_end_no_session(setup: LoginSetup, answer: ScriptedResponse) -> None:
    setup.sso.user_tokens(token("first", refresh_token="r1"), answer, token("second"))
    await signed_in(setup.browser)
    setup.platform.script(unauthorized())
    refused = await setup.browser.get("/fhir/Patient/1")
    assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "sso-unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert "planted" not in refused.text
    assert json.loads((await setup.browser.get("/auth/session")).text)["signed_in"] is True
    await setup.wait_until_read()
    assert sent_tokens(setup.platform) == ["Bearer first", "Bearer second"]
    assert setup.sso.user_requests[2].form["refresh_token"] == "r1"


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
async def test_a_rejected_code_is_an_error_page(
    setup: LoginSetup, given: object, expected: int
) -> None:
    setup.sso.user_tokens(given)  # type: ignore[arg-type]
    page = await signed_in(setup.browser)
    assert page.status == expected
    assert page.headers["Content-Type"].startswith("text/html")
    assert "as the test wants it" not in page.text
    assert "dhp-session" not in setup.browser.cookies()
    (login,) = await setup.scene.audit("login")
    assert (login["outcome"], login["user"]) == ("failure", None)


async def test_sessions_outlive_a_reload(setup: LoginSetup) -> None:
    setup.sso.user_tokens(token("first"))
    await signed_in(setup.browser)
    gateway, settings = setup.scene.gateway.gateway, setup.scene.gateway.settings
    await gateway.reload(settings)
    assert (await setup.browser.get("/fhir/Patient/1")).status == 200
    other = settings.login.model_copy(update={"client_id": "another"})
    await gateway.reload(settings.model_copy(update={"login": other}))
    assert (await setup.browser.get("/fhir/Patient/1")).status == 401


async def test_tokens_reach_neither_browser_nor_logs(
    setup: LoginSetup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    setup.sso.user_tokens(
        token("planted-first", refresh_token="planted-refresh"),
        token("planted-second", refresh_token="planted-again"),
        oauth_error("invalid_grant"),
    )
    await signed_in(setup.browser)
    identifier = setup.browser.cookies()["dhp-session"]
    for _ in range(2):
        setup.platform.script(unauthorized())
        await setup.browser.get("/fhir/Patient/1")
    await setup.browser.get("/auth/session")
    await setup.browser.post("/auth/logout")
    verifier = setup.sso.user_requests[0].form["code_verifier"]
    await setup.scene.audit("exchange", 6)
    setup.scene.gateway.audit_file.seek(0)
    places = [caplog.text, setup.scene.gateway.audit_file.read().decode()]
    assert [place for place in places if identifier in place or "a-code" in place] == []
    for page in setup.browser.pages:
        places += [page.url, page.text, str(list(page.headers.items())), *page.set_cookies]
    for planted in ("planted-", verifier):
        assert [place for place in places if planted in place] == []
