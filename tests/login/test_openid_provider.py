"""An SSO that is an OpenID provider: discovery, ID tokens, and `iss`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.doubles.platform import Platform
from tests.doubles.sso import token
from tests.login.provider import Provider, back, between_doubles, signed_in
from tests.login.stage import Browser, Page, stage


@asynccontextmanager
async def browsing(sso: Provider, scope: str | None = "openid") -> AsyncIterator[Browser]:
    """A browser in front of a gateway that knows the SSO by its issuer only."""
    async with (
        Platform() as platform,
        stage(platform.url, sso.token_url, sso.issuer, login={"scope": scope}) as scene,
    ):
        yield await scene.browser()


async def complete_sign_in(
    browser: Browser, sso: Provider, begun: Page, id_token: str | None = None, **claims: Any
) -> Page:
    """Return the page of the callback after the SSO issued an ID token."""
    given = id_token or sso.id_token(begun.query.get("nonce"), **claims)
    sso.user_tokens(token("opaque", id_token=given))
    return await browser.open(back(begun))


async def test_the_authorization_endpoint_is_discovered() -> None:
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        begun = await browser.begin()
        assert begun.location.startswith(f"{sso.issuer}/found/authorize?")
        assert (await complete_sign_in(browser, sso, begun)).status == 302
        facts = json.loads((await browser.get("/auth/session")).text)
        assert (facts["user"], facts["name"]) == ("person-7", "Karimova D.")
        out = json.loads((await browser.post("/auth/logout")).text)
        assert out["end_session_url"] == f"{sso.issuer}/bye?client_id=hospital-web"


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        (
            {"iss": "https://evil.example"},
            "iss (came: 'https://evil.example'; expected: http://127.",
        ),
        ({"aud": "another"}, "aud (came: 'another'; expected: hospital-web)"),
        ({"aud": ["hospital-web", "b"]}, "azp (came: None; expected: hospital-web)"),
        ({"exp": 1_000_000_000}, "exp (came: 1000000000; expected: a time after 1"),
        ({"exp": None}, "exp (came: None; expected: a time after 1"),
        ({"nonce": "planted"}, "nonce (came: another; expected: that of the sign-in)"),
        ({"nonce": None}, "nonce (came: none; expected: that of the sign-in)"),
        ({"sub": None}, "sub (came: none; expected: the user's)"),
    ],
)
async def test_an_invalid_claim_of_an_id_token_is_rejected(
    claims: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        page = await complete_sign_in(browser, sso, await browser.begin(), **claims)
        assert page.status == 502
        assert "dhp-session" not in browser.cookies()
    assert f"a sign-in failed: id_token: {words}" in caplog.text
    for canary in ("planted", "person-7", "Karimova"):
        assert canary not in caplog.text


async def test_a_missing_id_token_is_rejected() -> None:
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        sso.user_tokens(token("opaque"))
        assert (await signed_in(browser)).status == 502


@pytest.mark.parametrize("claims", [{"aud": "another-client"}, {"iss": "https://evil.example"}])
async def test_without_keys_claims_are_checked(claims: dict[str, Any]) -> None:
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        sso.says["jwks_uri"] = None
        assert (await complete_sign_in(browser, sso, await browser.begin())).status == 302
        page = await complete_sign_in(browser, sso, await browser.begin(), **claims)
        assert page.status == 502


async def test_an_unrequested_id_token_names_the_user() -> None:
    async with Provider() as sso, browsing(sso, scope=None) as browser:
        assert (
            await complete_sign_in(browser, sso, await browser.begin(), nonce=None)
        ).status == 302
        page = await complete_sign_in(
            browser, sso, await browser.begin(), nonce=None, aud="another-client"
        )
        assert page.status == 502


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"preferred_username": "dilnoza"}, "dilnoza"),
        ({"preferred_username": ""}, "HyO1YEEbwFcp"),
        ({"preferred_username": 7}, "HyO1YEEbwFcp"),
        ({"preferred_username": "a\nb"}, "HyO1YEEbwFcp"),
        ({"email": "d@clinic.uz"}, "HyO1YEEbwFcp"),
    ],
)
async def test_users_are_named_by_preferred_username(claims: dict[str, Any], user: str) -> None:
    async with between_doubles(openid=True, login={"scope": "openid"}) as setup:
        sso, browser = setup.sso, setup.browser
        page = await complete_sign_in(
            browser, sso, await browser.begin(), sub="HyO1YEEbwFcp", **claims
        )
        assert page.status == 302
        facts = json.loads((await browser.get("/auth/session")).text)
        assert (facts["user"], facts["name"]) == (user, "Karimova D.")
        (login,) = await setup.scene.audit("login")
        named = login["user"], login["subject"], login["display_name"]
        assert named == (user, "HyO1YEEbwFcp", "Karimova D.")
        logout_token = sso.logout_token(sub="HyO1YEEbwFcp")
        data = {"logout_token": logout_token}
        assert (await browser.request("POST", "/auth/backchannel-logout", data=data)).status == 200
        assert not json.loads((await browser.get("/auth/session")).text)["signed_in"]


@pytest.mark.parametrize(
    ("names_issuer", "iss", "expected"),
    [
        (True, None, 400),
        (True, "https://evil.example", 400),
        (False, "https://evil.example", 400),
        (False, None, 302),
    ],
)
async def test_iss_of_another_issuer_is_rejected(
    names_issuer: bool, iss: str | None, expected: int
) -> None:
    """Mix-up attack: `iss` is the issuer, and present if announced by metadata (RFC 9207)."""
    async with (
        Provider(openid=True, names_issuer=names_issuer) as sso,
        browsing(sso, scope=None) as browser,
    ):
        page = await signed_in(browser, **({} if iss is None else {"iss": iss}))
        assert page.status == expected
        assert bool(sso.user_requests) == (expected == 302)
