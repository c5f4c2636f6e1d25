"""An SSO that is an OpenID provider: discovery, ID tokens, and who answers."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.doubles.platform import Platform
from tests.doubles.sso import token
from tests.login.provider import Provider, back, signed_in
from tests.login.stage import Browser, Page, stage


@asynccontextmanager
async def browsing(sso: Provider, scope: str | None = "openid") -> AsyncIterator[Browser]:
    """A browser in front of a gateway that knows the SSO by its issuer only."""
    async with (
        Platform() as platform,
        stage(platform.url, sso.token_url, sso.issuer, login={"scope": scope}) as scene,
    ):
        yield await scene.browser()


async def finish(
    browser: Browser, sso: Provider, begun: Page, id_token: str | None = None, **claims: Any
) -> Page:
    """Come back from the SSO, which gives an ID token."""
    given = id_token or sso.id_token(begun.query.get("nonce"), **claims)
    sso.user_tokens(token("opaque", id_token=given))
    return await browser.open(back(begun))


def _part(header: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


async def test_the_provider_is_discovered() -> None:
    """The address to sign in at comes from the document, and the ID token tells who it is."""
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        begun = await browser.begin()
        assert begun.location.startswith(f"{sso.issuer}/found/authorize?")
        assert (await finish(browser, sso, begun)).status == 302
        facts = json.loads((await browser.get("/auth/session")).text)
        assert (facts["user"], facts["name"]) == ("person-7", "Karimova D.")
        out = json.loads((await browser.post("/auth/logout")).text)
        assert out["end_session_url"] == f"{sso.issuer}/bye?client_id=hospital-web"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-client"},
        {"aud": ["hospital-web", "another-client"]},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nonce": "another"},
        {"nonce": None},
    ],
)
async def test_a_wrong_id_token_signs_nobody_in(claims: dict[str, Any]) -> None:
    """Issuer, audience, expiry and nonce have to be right."""
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        page = await finish(browser, sso, await browser.begin(), **claims)
        assert page.status == 502
        assert "dhp-session" not in browser.cookies()


async def test_a_forged_signature_signs_nobody_in() -> None:
    """Another key, the public key as a shared secret, and no signature at all are refused."""
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        other = RSAKey.generate_key(2048, {"kid": sso.keys[0].kid or ""})
        begun = await browser.begin()
        assert (await finish(browser, sso, begun, key=other)).status == 502
        begun = await browser.begin()
        claims = sso.id_token(begun.query["nonce"]).split(".")[1]
        signed = f"{_part({'alg': 'HS256', 'kid': sso.keys[0].kid})}.{claims}"
        public = sso.keys[0].as_pem(private=False)
        mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256"))
        forged = f"{signed}.{mac.rstrip(b'=').decode()}"
        assert (await finish(browser, sso, begun, id_token=forged)).status == 502
        begun = await browser.begin()
        claims = sso.id_token(begun.query["nonce"]).split(".")[1]
        page = await finish(browser, sso, begun, id_token=f"{_part({'alg': 'none'})}.{claims}.")
        assert page.status == 502


async def test_a_missing_id_token_signs_nobody_in() -> None:
    """With the scope openid an answer without one is none."""
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        sso.user_tokens(token("opaque"))
        assert (await signed_in(browser)).status == 502


@pytest.mark.parametrize("claims", [{"aud": "another-client"}, {"iss": "https://evil.example"}])
async def test_without_keys_the_connection_vouches(claims: dict[str, Any]) -> None:
    """An SSO that publishes no keys still tells who it is, and its claims are checked."""
    async with Provider(openid=True) as sso, browsing(sso) as browser:
        sso.says["jwks_uri"] = None
        assert (await finish(browser, sso, await browser.begin())).status == 302
        page = await finish(browser, sso, await browser.begin(), **claims)
        assert page.status == 502


async def test_an_id_token_that_was_not_asked_for_names_the_user() -> None:
    """Without the scope openid and without a document its claims are checked all the same."""
    async with Provider() as sso, browsing(sso, scope=None) as browser:
        assert (await finish(browser, sso, await browser.begin(), nonce=None)).status == 302
        page = await finish(browser, sso, await browser.begin(), nonce=None, aud="another-client")
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
async def test_people_are_named_by_their_user_name(claims: dict[str, Any], user: str) -> None:
    """Session and audit name the user as people do; the record of the sign-in has the subject."""
    async with (
        Provider(openid=True) as sso,
        Platform() as platform,
        stage(platform.url, sso.token_url, sso.issuer, login={"scope": "openid"}) as scene,
    ):
        browser = await scene.browser()
        page = await finish(browser, sso, await browser.begin(), sub="HyO1YEEbwFcp", **claims)
        assert page.status == 302
        facts = json.loads((await browser.get("/auth/session")).text)
        assert (facts["user"], facts["name"]) == (user, "Karimova D.")
        (login,) = await scene.audit("login")
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
async def test_an_answer_of_another_issuer_is_refused(
    names_issuer: bool, iss: str | None, expected: int
) -> None:
    """Mix-up: `iss` is the SSO's own, and is there when the SSO says so (RFC 9207)."""
    async with (
        Provider(openid=True, names_issuer=names_issuer) as sso,
        browsing(sso, scope=None) as browser,
    ):
        page = await signed_in(browser, **({} if iss is None else {"iss": iss}))
        assert page.status == expected
        assert bool(sso.user_requests) == (expected == 302)
