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

from tests.doubles.platform import Platform
from tests.doubles.sso import HANG, status, token
from tests.login.provider import Provider, back
from tests.login.stage import Browser, Page, Stage, stage

BACK_CHANNEL = "/auth/backchannel-logout"
READ = "/fhir/Patient/1"


@dataclass
class Cast:
    """An SSO that is an OpenID provider, and a gateway."""

    sso: Provider
    scene: Stage

    async def somebody(self, refresh_token: str = "planted-refresh", **claims: Any) -> Browser:  # noqa: S107
        """Return a browser in which a user is signed in; `claims` change the ID token."""
        browser = await self.scene.browser()
        begun = await browser.begin()
        id_token = self.sso.id_token(begun.query["nonce"], **claims)
        self.sso.user_tokens(token("opaque", id_token=id_token, refresh_token=refresh_token))
        assert (await browser.open(back(begun))).status == 302
        return browser

    async def told(self, logout_token: str) -> Page:
        """The SSO calls."""
        sso = await self.scene.browser()
        return await sso.request("POST", BACK_CHANNEL, data={"logout_token": logout_token})


@pytest.fixture
async def cast() -> AsyncIterator[Cast]:
    """Yield a running gateway, SSO and platform, before any sign-in."""
    async with (
        Provider(openid=True) as sso,
        Platform() as platform,
        stage(
            platform.url,
            sso.token_url,
            sso.issuer,
            login={
                "scope": "openid",
                "client_secret": "s3cret",
                "post_logout_redirect_uri": "https://his.clinic.uz/bye",
            },
        ) as scene,
    ):
        yield Cast(sso, scene)


async def is_signed_in(browser: Browser) -> bool:
    """Whether the person is served."""
    return (await browser.get(READ)).status == 200


async def test_the_sign_out_revokes_the_refresh_token(cast: Cast) -> None:
    """The SSO is told to forget it, in the client's name; no token reaches the browser."""
    browser = await cast.somebody()
    out = await browser.post("/auth/logout")
    (seen,) = cast.sso.revocations
    assert seen.form == {
        "token": "planted-refresh",
        "token_type_hint": "refresh_token",
        "client_id": "hospital-web",
        "client_secret": "s3cret",
    }
    assert json.loads(out.text) == {
        "signed_in": False,
        "end_session_url": f"{cast.sso.issuer}/bye?client_id=hospital-web"
        "&post_logout_redirect_uri=https%3A%2F%2Fhis.clinic.uz%2Fbye",
    }
    assert not await is_signed_in(browser)


@pytest.mark.parametrize("answer", [status(503), HANG])
async def test_an_sso_that_cannot_revoke_keeps_nobody_signed_in(
    cast: Cast, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The session ends here whatever the SSO says; the log tells of it, without the token."""
    cast.sso.revoking = answer
    browser = await cast.somebody()
    with caplog.at_level(logging.WARNING):
        assert (await browser.post("/auth/logout")).status == 200
    assert not await is_signed_in(browser)
    assert "could not be revoked" in caplog.text
    assert "planted" not in caplog.text


async def test_a_refresh_token_that_no_form_can_hold_keeps_nobody_signed_in(
    cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON may have half a character, which UTF-8 has no bytes for."""
    browser = await cast.somebody(refresh_token="planted-\ud800")
    with caplog.at_level(logging.WARNING):
        assert (await browser.post("/auth/logout")).status == 200
    assert not await is_signed_in(browser)
    assert "could not be revoked" in caplog.text
    assert "planted" not in caplog.text


async def test_a_refresh_token_is_revoked_at_the_sso_only(cast: Cast) -> None:
    """An address elsewhere in the SSO's document is not sent the refresh token."""
    async with Provider() as other:
        cast.sso.says["revocation_endpoint"] = f"{other.issuer}/revoke"
        browser = await cast.somebody()
        assert (await browser.post("/auth/logout")).status == 200
        assert other.requests == []
        assert cast.sso.revocations == []


async def test_the_sso_ends_all_sessions_of_a_person(cast: Cast) -> None:
    """A logout token with `sub` ends that user's sessions in all browsers, and no others."""
    first, second = await cast.somebody(), await cast.somebody()
    other = await cast.somebody(sub="person-8")
    answer = await cast.told(cast.sso.logout_token())
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert [await is_signed_in(each) for each in (first, second, other)] == [False, False, True]
    (logout,) = await cast.scene.audit("logout")
    assert (logout["user"], logout["outcome"], logout["sessions"]) == ("person-7", "sso", 2)


async def test_the_sso_ends_one_session_of_a_person(cast: Cast) -> None:
    """With `sid` only the sessions that came of that one of the SSO end."""
    first, second = await cast.somebody(sid="a"), await cast.somebody(sid="b")
    assert (await cast.told(cast.sso.logout_token(sid="a"))).status == 200
    assert [await is_signed_in(each) for each in (first, second)] == [False, True]
    assert (await cast.told(cast.sso.logout_token(sid="b", sub=None))).status == 200
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
async def test_a_wrong_logout_token_ends_nothing(
    cast: Cast, wrong: str, claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Every claim has to be right; answer (section 2.8) and log name the wrong one."""
    browser = await cast.somebody()
    logout_token = cast.sso.logout_token(**claims)
    with caplog.at_level(logging.WARNING):
        answer = await cast.told(logout_token)
    assert f"a logout token of the SSO was refused: {wrong}" in caplog.text
    assert logout_token not in caplog.text
    assert (answer.status, answer.headers["Cache-Control"]) == (400, "no-store")
    told = {"error": "invalid_request", "error_description": f"logout_token: {wrong}"}
    assert json.loads(answer.text) == told
    assert await is_signed_in(browser)


async def test_a_logout_token_may_have_no_expiry(cast: Cast) -> None:
    """LemonLDAP::NG and Glewlwyd send none; such a token works once, too."""
    browser = await cast.somebody()
    logout_token = cast.sso.logout_token(exp=None)
    assert (await cast.told(logout_token)).status == 200
    assert not await is_signed_in(browser)
    again = await cast.somebody()
    assert (await cast.told(logout_token)).status == 400
    assert await is_signed_in(again)


@pytest.mark.parametrize(
    ("wrong", "logout_token"),
    [("form", ""), ("form", "planted"), ("form", "a.b.c"), ("form", "e30.bm90LWpzb24.")],
)
async def test_what_is_no_logout_token_is_logged_as_such(
    cast: Cast, wrong: str, logout_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of what came is in the log."""
    with caplog.at_level(logging.WARNING):
        assert (await cast.told(logout_token)).status == 400
    assert f"a logout token of the SSO was refused: {wrong}" in caplog.text
    assert not logout_token or logout_token not in caplog.text


async def test_each_fault_of_a_signature_has_its_reason(
    cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    """Another key, the SSO's key under another name, no signature, no keys: the log tells which."""
    known = cast.sso.keys[0]
    forged = RSAKey.generate_key(2048, {"kid": known.kid or ""})
    unknown = RSAKey.generate_key(2048, auto_kid=True)
    right = cast.sso.logout_token()
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for wrong, logout_token in (
        ("signature", cast.sso.logout_token(key=forged)),
        ("key", cast.sso.logout_token(key=unknown)),
        ("alg", f"{head}.{right.split('.')[1]}."),
    ):
        caplog.clear()
        assert (await cast.told(logout_token)).status == 400
        assert f"refused: {wrong}" in caplog.text


async def test_a_logout_token_needs_keys(caplog: pytest.LogCaptureFixture) -> None:
    """It comes from anywhere: no connection vouches for it, unlike for an ID token."""
    async with Provider(openid=True) as sso, Platform() as platform:
        sso.says["jwks_uri"] = None
        settings = (platform.url, sso.token_url, sso.issuer)
        async with stage(*settings, login={"scope": "openid"}) as scene:
            answer = await Cast(sso, scene).told(sso.logout_token())
            assert answer.status == 400
    assert "refused: keys" in caplog.text


async def test_an_id_token_is_no_logout_token(cast: Cast) -> None:
    """What the SSO signed for another purpose ends nothing."""
    browser = await cast.somebody()
    assert (await cast.told(cast.sso.id_token("a"))).status == 400
    assert await is_signed_in(browser)


async def test_a_forged_logout_token_ends_nothing(cast: Cast) -> None:
    """Another key, another algorithm, no token at all; and the SSO is not asked for keys for it."""
    browser = await cast.somebody()
    assert (await cast.told(cast.sso.logout_token(sub="nobody"))).status == 200
    before = [seen.target for seen in cast.sso.requests].count("/jwks")
    forged = RSAKey.generate_key(2048, {"kid": cast.sso.keys[0].kid or ""})
    unknown = RSAKey.generate_key(2048, auto_kid=True)
    right = cast.sso.logout_token()
    for wrong in (
        cast.sso.logout_token(key=forged),
        *(cast.sso.logout_token(key=unknown) for _ in range(20)),
        right[:-8],
        f"{right.rpartition('.')[0]}.",
        "a.b.c",
        "",
    ):
        assert (await cast.told(wrong)).status == 400
    assert await is_signed_in(browser)
    assert [seen.target for seen in cast.sso.requests].count("/jwks") <= before + 4


async def test_a_logout_token_works_once(cast: Cast) -> None:
    """Who has overheard one cannot sign the person out again."""
    await cast.somebody()
    logout_token = cast.sso.logout_token()
    assert (await cast.told(logout_token)).status == 200
    again = await cast.somebody()
    replayed = await cast.told(logout_token)
    assert replayed.status == 400
    assert json.loads(replayed.text)["error_description"] == "logout_token: jti"
    assert await is_signed_in(again)


async def test_what_is_no_form_of_a_logout(cast: Cast) -> None:
    """Another method, another type, a field twice, a body without end: none is believed."""
    browser = await cast.somebody()
    logout_token = cast.sso.logout_token()
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


async def test_an_sso_may_sign_out_a_whole_hospital(cast: Cast) -> None:
    """Hundreds of logout tokens at once are all taken: the SSO sends none a second time."""
    for _ in range(200):
        assert (await cast.told(cast.sso.logout_token())).status == 200
