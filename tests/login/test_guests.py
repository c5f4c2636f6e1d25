"""Who is let in beside those who signed in, and what pages of other origins may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.doubles.platform import Platform, http
from tests.doubles.sso import token
from tests.login.provider import Provider, signed_in
from tests.login.stage import Stage, stage

LISTED = "http://127.0.0.1:4321"
LAB: dict[str, Any] = {"name": "lab", "api_key": "lab-key"}
OLD: dict[str, Any] = {"name": "old", "basic_auth": {"username": "old", "password": "pw"}}
ASKS = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


@pytest.fixture
async def mixed() -> AsyncIterator[tuple[Platform, Stage]]:
    """People sign in, and two callers are known by key and password."""
    async with Provider() as sso, Platform() as platform:
        sso.user_tokens(token("for-the-doctor"))
        async with stage(
            platform.url,
            sso.token_url,
            sso.issuer,
            callers=[LAB, OLD],
            login={"cors_origins": [LISTED]},
        ) as scene:
            yield platform, scene


async def test_callers_are_served_beside_sessions(mixed: tuple[Platform, Stage]) -> None:
    """A key goes out with the gateway's token, a session with the person's."""
    platform, scene = mixed
    browser = await scene.browser()
    assert (await browser.get("/fhir/Patient/1", X_Api_Key="lab-key")).status == 200
    await signed_in(browser)
    assert (await browser.get("/fhir/Patient/1")).status == 200
    assert (await browser.get("/fhir/Patient/1", X_Api_Key="lab-key")).status == 200
    sent = [seen.header("authorization") for seen in platform.requests]
    assert sent == ["Bearer token-1", "Bearer for-the-doctor", "Bearer token-1"]
    records = await scene.audit("exchange", 5)
    named = [(each["caller"], each["user"]) for each in records if each["resource"]]
    assert named == [("lab", None), ("session", "unknown"), ("lab", None)]


async def test_a_callers_write_needs_no_browser(mixed: tuple[Platform, Stage]) -> None:
    """The rules for browsers are not for programs with a key."""
    _, scene = mixed
    browser = await scene.browser()
    answer = await browser.request("POST", "/fhir/Patient", {"X-Api-Key": "lab-key"}, data=b"{}")
    assert answer.status == 200


async def test_a_wrong_key_is_not_a_sign_in(mixed: tuple[Platform, Stage]) -> None:
    """Who shows a wrong key is told so, also with a session."""
    _, scene = mixed
    browser = await scene.browser()
    await signed_in(browser)
    answer = await browser.open("/fhir/Patient", X_Api_Key="wrong")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unknown")


async def test_challenges_fit_who_asks(mixed: tuple[Platform, Stage]) -> None:
    """A program is asked for its password, a page of a browser must not be."""
    _, scene = mixed
    browser = await scene.browser()
    program = await browser.get("/fhir/Patient")
    challenges = program.headers.getall("WWW-Authenticate")  # type: ignore[attr-defined]
    assert [each.partition(" ")[0] for each in challenges] == ["Basic", "ApiKey", "Cookie"]
    script = await browser.get("/fhir/Patient", Sec_Fetch_Mode="cors")
    challenges = script.headers.getall("WWW-Authenticate")  # type: ignore[attr-defined]
    assert [each.partition(" ")[0] for each in challenges] == ["Cookie"]
    assert (await browser.open("/fhir/Patient")).status == 302


async def test_a_listed_origin_may_ask_and_read(mixed: tuple[Platform, Stage]) -> None:
    """The gateway answers the preflight itself and names the origin, errors included."""
    platform, scene = mixed
    browser = await scene.browser()
    answer = await browser.request("OPTIONS", "/fhir/Patient/1", {"Origin": LISTED, **ASKS})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "If-Match" in answer.headers["Access-Control-Allow-Headers"]
    assert "X-Requested-With" in answer.headers["Access-Control-Allow-Headers"]
    assert platform.requests == []
    refused = await browser.get("/fhir/Patient/1", Origin=LISTED)
    await signed_in(browser)
    read = await browser.get("/fhir/Patient/1", Origin=LISTED)
    written = await browser.post("/fhir/Patient", headers={"Origin": LISTED}, data=b"{}")
    assert [each.status for each in (refused, read, written)] == [401, 200, 200]
    for each in (refused, read, written):
        assert each.headers["Access-Control-Allow-Origin"] == LISTED
        assert "Origin" in each.headers["Vary"]


async def test_another_origin_may_not(mixed: tuple[Platform, Stage]) -> None:
    """A preflight of an origin that is not listed is refused and contains no other origin."""
    platform, scene = mixed
    browser = await scene.browser()
    for path in ("/fhir/Patient/1", "/auth/session"):
        answer = await browser.request("OPTIONS", path, {"Origin": "https://evil.example", **ASKS})
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert platform.requests == []


async def test_answers_for_a_session_vary_by_its_cookie(mixed: tuple[Platform, Stage]) -> None:
    """No cache may give one person what another one read."""
    _, scene = mixed
    browser = await scene.browser()
    await signed_in(browser)
    assert "Cookie" in (await browser.get("/fhir/Patient/1")).headers["Vary"]


async def test_nothing_that_is_stored_runs_in_a_browser(mixed: tuple[Platform, Stage]) -> None:
    """A stored page of the platform has no scripts, forms or foreign frames here."""
    platform, scene = mixed
    browser = await scene.browser()
    await signed_in(browser)
    html = ("Content-Type", "text/html")
    platform.script(http(200, b"<script>alert(1)</script>", html))
    answer = await browser.open("/fhir/Binary/1", Accept="text/html")
    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'"} <= set(
        policy.split("; ")
    )
    assert policy.endswith(f"frame-ancestors 'self' {LISTED}")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-site"


async def test_what_is_no_page_of_the_login_is_unknown(mixed: tuple[Platform, Stage]) -> None:
    """`/auth/…` is the login's as a whole, with its own methods; paths outside are unknown."""
    _, scene = mixed
    browser = await scene.browser()
    for path in ("/auth", "/auth/", "/auth/other", "/other"):
        answer = await browser.open(path)
        assert (answer.status, answer.headers["X-Gateway-Error"]) == (404, "unknown-path")
    answer = await browser.post("/auth/session")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert (await browser.request("HEAD", "/auth/session")).status == 200
