"""Callers beside sessions, and pages of other origins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.doubles.platform import http
from tests.doubles.sso import token
from tests.login.provider import LoginSetup, between_doubles, signed_in

LISTED = "http://127.0.0.1:4321"
LAB: dict[str, Any] = {"name": "lab", "api_key": "lab-key"}
OLD: dict[str, Any] = {"name": "old", "basic_auth": {"username": "old", "password": "pw"}}
ASKS = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}


@pytest.fixture
async def mixed() -> AsyncIterator[LoginSetup]:
    """Yield a gateway with a login and two callers with key and password."""
    async with between_doubles(callers=[LAB, OLD], login={"cors_origins": [LISTED]}) as made:
        made.sso.user_tokens(token("for-the-doctor"))
        yield made


async def test_callers_and_sessions_use_their_own_tokens(mixed: LoginSetup) -> None:
    platform, browser = mixed.platform, mixed.browser
    assert (await browser.get("/fhir/Patient/1", X_Api_Key="lab-key")).status == 200
    await signed_in(browser)
    assert (await browser.get("/fhir/Patient/1")).status == 200
    assert (await browser.get("/fhir/Patient/1", X_Api_Key="lab-key")).status == 200
    sent = [seen.header("authorization") for seen in platform.requests]
    assert sent == ["Bearer token-1", "Bearer for-the-doctor", "Bearer token-1"]
    records = await mixed.scene.audit("exchange", 5)
    named = [(each["caller"], each["user"]) for each in records if each["resource"]]
    assert named == [("lab", None), ("session", "unknown"), ("lab", None)]


async def test_writes_of_callers_need_no_browser_fields(mixed: LoginSetup) -> None:
    browser = mixed.browser
    answer = await browser.request("POST", "/fhir/Patient", {"X-Api-Key": "lab-key"}, data=b"{}")
    assert answer.status == 200


async def test_a_wrong_api_key_is_rejected_with_a_session_too(
    mixed: LoginSetup,
) -> None:
    browser = mixed.browser
    await signed_in(browser)
    answer = await browser.open("/fhir/Patient", X_Api_Key="wrong")
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unknown")


async def test_challenges_differ_for_programs_and_pages(mixed: LoginSetup) -> None:
    browser = mixed.browser
    program = await browser.get("/fhir/Patient")
    challenges = program.headers.getall("WWW-Authenticate")  # type: ignore[attr-defined]
    assert [each.partition(" ")[0] for each in challenges] == ["Basic", "ApiKey", "Cookie"]
    script = await browser.get("/fhir/Patient", Sec_Fetch_Mode="cors")
    challenges = script.headers.getall("WWW-Authenticate")  # type: ignore[attr-defined]
    assert [each.partition(" ")[0] for each in challenges] == ["Cookie"]
    assert (await browser.open("/fhir/Patient")).status == 302


async def test_a_configured_origin_passes_cors(mixed: LoginSetup) -> None:
    platform, browser = mixed.platform, mixed.browser
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


async def test_another_origin_fails_cors(mixed: LoginSetup) -> None:
    platform, browser = mixed.platform, mixed.browser
    for path in ("/fhir/Patient/1", "/auth/session"):
        answer = await browser.request("OPTIONS", path, {"Origin": "https://evil.example", **ASKS})
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert platform.requests == []


async def test_responses_of_sessions_vary_by_cookie(mixed: LoginSetup) -> None:
    browser = mixed.browser
    await signed_in(browser)
    assert "Cookie" in (await browser.get("/fhir/Patient/1")).headers["Vary"]


async def test_stored_pages_have_a_restrictive_policy(mixed: LoginSetup) -> None:
    platform, browser = mixed.platform, mixed.browser
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


async def test_unknown_paths_and_methods_of_the_login(mixed: LoginSetup) -> None:
    browser = mixed.browser
    for path in ("/auth", "/auth/", "/auth/other", "/other"):
        answer = await browser.open(path)
        assert (answer.status, answer.headers["X-Gateway-Error"]) == (404, "unknown-path")
    answer = await browser.post("/auth/session")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert (await browser.request("HEAD", "/auth/session")).status == 200
