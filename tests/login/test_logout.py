"""The sign-out that reaches the SSO, and the SSO's own that reaches the gateway."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.doubles.sso import HANG, status, token
from tests.login.provider import Provider, back, between_doubles
from tests.login.stage import Browser, Page, Stage

BACK_CHANNEL = "/auth/backchannel-logout"
READ = "/fhir/Patient/1"


@dataclass
class LoginSetup:
    """An SSO that is an OpenID provider, and a gateway."""

    sso: Provider
    scene: Stage

    async def signed_in_browser(
        self,
        refresh_token: str = "planted-refresh",  # noqa: S107
        **claims: Any,
    ) -> Browser:
        """Return a browser in which a user is signed in; `claims` change the ID token."""
        browser = await self.scene.browser()
        begun = await browser.begin()
        id_token = self.sso.id_token(begun.query["nonce"], **claims)
        self.sso.user_tokens(token("opaque", id_token=id_token, refresh_token=refresh_token))
        assert (await browser.open(back(begun))).status == 302
        return browser

    async def post_logout_token(self, logout_token: str) -> Page:
        sso = await self.scene.browser()
        return await sso.request("POST", BACK_CHANNEL, data={"logout_token": logout_token})


@pytest.fixture
async def setup() -> AsyncIterator[LoginSetup]:
    login = {
        "scope": "openid",
        "client_secret": "s3cret",
        "post_logout_redirect_uri": "https://his.clinic.uz/bye",
    }
    async with between_doubles(openid=True, login=login) as made:
        yield LoginSetup(made.sso, made.scene)


async def is_signed_in(browser: Browser) -> bool:
    return (await browser.get(READ)).status == 200


async def test_sign_out_revokes_the_refresh_token(setup: LoginSetup) -> None:
    browser = await setup.signed_in_browser()
    out = await browser.post("/auth/logout")
    (seen,) = setup.sso.revocations
    assert seen.form == {
        "token": "planted-refresh",
        "token_type_hint": "refresh_token",
        "client_id": "hospital-web",
        "client_secret": "s3cret",
    }
    assert json.loads(out.text) == {
        "signed_in": False,
        "end_session_url": f"{setup.sso.issuer}/bye?client_id=hospital-web"
        "&post_logout_redirect_uri=https%3A%2F%2Fhis.clinic.uz%2Fbye",
    }
    assert not await is_signed_in(browser)


@pytest.mark.parametrize(
    ("answer", "refresh_token"),
    [
        (status(503), "planted-refresh"),
        (HANG, "planted-refresh"),
        # It cannot be encoded.
        (status(200), "planted-\ud800"),
    ],
)
async def test_a_failed_revocation_ends_the_session_too(
    setup: LoginSetup, answer: Any, refresh_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup.sso.revoking = answer
    browser = await setup.signed_in_browser(refresh_token)
    with caplog.at_level(logging.WARNING):
        assert (await browser.post("/auth/logout")).status == 200
    assert not await is_signed_in(browser)
    assert "could not be revoked" in caplog.text
    assert "planted" not in caplog.text


async def test_a_revocation_endpoint_elsewhere_is_not_used(setup: LoginSetup) -> None:
    async with Provider() as other:
        setup.sso.says["revocation_endpoint"] = f"{other.issuer}/revoke"
        browser = await setup.signed_in_browser()
        assert (await browser.post("/auth/logout")).status == 200
        assert other.requests == []
        assert setup.sso.revocations == []


async def test_a_logout_token_with_sub_ends_all_sessions_of_the_user(setup: LoginSetup) -> None:
    first, second = await setup.signed_in_browser(), await setup.signed_in_browser()
    other = await setup.signed_in_browser(sub="person-8")
    answer = await setup.post_logout_token(setup.sso.logout_token())
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert [await is_signed_in(each) for each in (first, second, other)] == [False, False, True]
    (logout,) = await setup.scene.audit("logout")
    assert (logout["user"], logout["outcome"], logout["sessions"]) == ("person-7", "sso", 2)


async def test_a_logout_token_with_sid_ends_its_sessions(setup: LoginSetup) -> None:
    first, second = await setup.signed_in_browser(sid="a"), await setup.signed_in_browser(sid="b")
    assert (await setup.post_logout_token(setup.sso.logout_token(sid="a"))).status == 200
    assert [await is_signed_in(each) for each in (first, second)] == [False, True]
    assert (await setup.post_logout_token(setup.sso.logout_token(sid="b", sub=None))).status == 200
    assert not await is_signed_in(second)


@pytest.mark.parametrize(
    ("wrong", "claims"),
    [
        ("iss", {"iss": "https://evil.example"}),
        ("iss", {"iss": None}),
        ("aud", {"aud": "another-client"}),
        ("aud", {"aud": None}),
        ("iat", {"iat": None}),
        ("iat", {"iat": 1_000_000_000}),
        ("iat", {"iat": 4_000_000_000}),
        ("iat", {"iat": "now"}),
        ("exp", {"exp": 1_000_000_000}),
        ("exp", {"exp": "tomorrow"}),
        ("iat", {"exp": None, "iat": None}),
        ("iat", {"exp": None, "iat": 1_000_000_000}),
        ("iat", {"exp": None, "iat": 4_000_000_000}),
        ("jti", {"jti": None}),
        ("jti", {"jti": 7}),
        ("events", {"events": None}),
        ("events", {"events": {"http://schemas.openid.net/event/another": {}}}),
        ("events", {"events": ["http://schemas.openid.net/event/backchannel-logout"]}),
        ("nonce", {"nonce": "a"}),
        ("sub", {"sub": 7}),
        ("sid", {"sub": None}),
    ],
)
async def test_an_invalid_claim_of_a_logout_token_is_rejected(
    setup: LoginSetup, wrong: str, claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    browser = await setup.signed_in_browser()
    logout_token = setup.sso.logout_token(**claims)
    with caplog.at_level(logging.WARNING):
        answer = await setup.post_logout_token(logout_token)
    assert f"a logout token of the SSO was refused: {wrong}" in caplog.text
    assert logout_token not in caplog.text
    assert (answer.status, answer.headers["Cache-Control"]) == (400, "no-store")
    post_logout_token = {"error": "invalid_request", "error_description": f"logout_token: {wrong}"}
    assert json.loads(answer.text) == post_logout_token
    assert await is_signed_in(browser)


async def test_a_logout_token_may_have_no_expiry(setup: LoginSetup) -> None:
    browser = await setup.signed_in_browser()
    logout_token = setup.sso.logout_token(exp=None)
    assert (await setup.post_logout_token(logout_token)).status == 200
    assert not await is_signed_in(browser)
    again = await setup.signed_in_browser()
    assert (await setup.post_logout_token(logout_token)).status == 400
    assert await is_signed_in(again)


async def test_each_forged_logout_token_is_refused_and_logged(
    setup: LoginSetup, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await setup.signed_in_browser()
    assert (await setup.post_logout_token(setup.sso.logout_token(sub="nobody"))).status == 200
    before = [seen.target for seen in setup.sso.requests].count("/jwks")
    forged = RSAKey.generate_key(2048, {"kid": setup.sso.keys[0].kid or ""})
    unknown = RSAKey.generate_key(2048, auto_kid=True)
    right = setup.sso.logout_token()
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for wrong, logout_token in (
        ("signature", setup.sso.logout_token(key=forged)),
        ("signature", right[:-8]),
        ("signature", f"{right.rpartition('.')[0]}."),
        *(("key", setup.sso.logout_token(key=unknown)) for _ in range(20)),
        ("alg", f"{head}.{right.split('.')[1]}."),
        *(("form", malformed) for malformed in ("", "planted", "a.b.c", "e30.bm90LWpzb24.")),
    ):
        caplog.clear()
        assert (await setup.post_logout_token(logout_token)).status == 400
        assert f"a logout token of the SSO was refused: {wrong}" in caplog.text
        assert not logout_token or logout_token not in caplog.text
    assert await is_signed_in(browser)
    assert [seen.target for seen in setup.sso.requests].count("/jwks") <= before + 4


async def test_a_logout_token_needs_keys(caplog: pytest.LogCaptureFixture) -> None:
    async with between_doubles(openid=True, login={"scope": "openid"}) as made:
        made.sso.says["jwks_uri"] = None
        setup = LoginSetup(made.sso, made.scene)
        assert (await setup.post_logout_token(made.sso.logout_token())).status == 400
    assert "refused: keys" in caplog.text


async def test_an_id_token_is_rejected_as_a_logout_token(setup: LoginSetup) -> None:
    browser = await setup.signed_in_browser()
    assert (await setup.post_logout_token(setup.sso.id_token("a"))).status == 400
    assert await is_signed_in(browser)


async def test_a_logout_token_works_once(setup: LoginSetup) -> None:
    await setup.signed_in_browser()
    logout_token = setup.sso.logout_token()
    assert (await setup.post_logout_token(logout_token)).status == 200
    again = await setup.signed_in_browser()
    replayed = await setup.post_logout_token(logout_token)
    assert replayed.status == 400
    assert json.loads(replayed.text)["error_description"] == "logout_token: jti"
    assert await is_signed_in(again)


async def test_malformed_logout_requests_are_rejected(setup: LoginSetup) -> None:
    browser = await setup.signed_in_browser()
    logout_token = setup.sso.logout_token()
    assert (await browser.get(BACK_CHANNEL)).status == 405
    answers = [
        await browser.request("POST", f"{BACK_CHANNEL}?logout_token={logout_token}"),
        await browser.request("POST", BACK_CHANNEL, json={"logout_token": logout_token}),
        await browser.request(
            "POST", BACK_CHANNEL, data=[("logout_token", logout_token), ("logout_token", "a")]
        ),
        await browser.request("POST", BACK_CHANNEL, data={"logout_token": "a" * 100_000}),
    ]
    assert [each.status for each in answers] == [400, 400, 400, 413]
    assert await is_signed_in(browser)


async def test_logout_requests_are_not_limited(setup: LoginSetup) -> None:
    for _ in range(200):
        assert (await setup.post_logout_token(setup.sso.logout_token())).status == 200
