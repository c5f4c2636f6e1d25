"""Client authentication of the sign-in."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.doubles.platform import unauthorized
from tests.doubles.sso import oauth_error, token
from tests.login.provider import LoginSetup, back, between_doubles, signed_in
from tests.login.stage import CLIENT_ID

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def sign_in_refresh_and_sign_out(setup: LoginSetup) -> None:
    """Sign a user in, have the token refreshed, and sign the user out."""
    setup.sso.user_tokens(token("first", refresh_token="r1"), token("second", refresh_token="r2"))
    assert (await signed_in(setup.browser)).status == 302
    setup.platform.script(unauthorized())
    assert (await setup.browser.get("/fhir/Patient/1")).status == 200
    assert (await setup.browser.post("/auth/logout")).status == 200


async def test_private_key_jwt_signs_every_token_request(tmp_path: Path) -> None:
    key = ECKey.generate_key("P-384")
    file = tmp_path / "key.pem"
    file.write_bytes(key.as_pem(private=True))
    login = {"auth_method": "private_key_jwt", "private_key_file": str(file)}
    async with between_doubles(openid=True, login=login) as setup:
        await sign_in_refresh_and_sign_out(setup)
        sso = setup.sso
        forms = [seen.form for seen in (*sso.user_requests, *sso.revocations)]
        assert [form.get("grant_type") for form in forms] == [
            "authorization_code",
            "refresh_token",
            None,
        ]
        assert len(forms[0]["code_verifier"]) >= 43
        seen = set()
        for form in forms:
            assert "client_secret" not in form
            assert form["client_assertion_type"] == JWT_BEARER
            assertion = jwt.decode(form["client_assertion"], key, algorithms=["ES384"])
            claims = assertion.claims
            assert (claims["iss"], claims["sub"]) == (CLIENT_ID, CLIENT_ID)
            assert claims["aud"] == sso.token_url
            assert time.time() < claims["exp"] <= time.time() + 300
            seen.add(claims["jti"])
        assert len(seen) == 3
        _, document = await setup.scene.gateway.admin_page("/.well-known/jwks.json")
        (published,) = json.loads(document)["keys"]
        assert published["x"] == key.as_dict(private=False)["x"]
        assert "d" not in published


async def test_client_secret_basic() -> None:
    login = {"auth_method": "client_secret_basic", "client_secret": "s3cret:ü"}
    async with between_doubles(openid=True, login=login) as setup:
        await sign_in_refresh_and_sign_out(setup)
        for seen in (*setup.sso.user_requests, *setup.sso.revocations):
            assert seen.basic == (CLIENT_ID, "s3cret:ü")
            assert "client_secret" not in seen.form


async def test_a_public_client_sends_its_id_only() -> None:
    async with between_doubles(openid=True) as setup:
        await sign_in_refresh_and_sign_out(setup)
        for seen in (*setup.sso.user_requests, *setup.sso.revocations):
            assert seen.form["client_id"] == CLIENT_ID
            assert "Authorization" not in seen.headers
            assert not {"client_secret", "client_assertion"} & seen.form.keys()


@pytest.mark.parametrize(
    ("answers", "shown", "expected"),
    [
        ([oauth_error("invalid_client", 401), token("first")], ["new", "old"], 302),
        ([token("first")], ["new"], 302),
        ([oauth_error("invalid_grant")], ["new"], 400),
        ([oauth_error("invalid_client", 401)] * 2, ["new", "old"], 502),
    ],
)
async def test_the_second_secret_is_used_when_the_first_is_rejected(
    tmp_path: Path, answers: list[Any], shown: list[str], expected: int
) -> None:
    file = tmp_path / "secret"
    file.write_text("new\nold\n")
    async with between_doubles(openid=True, login={"client_secret_file": str(file)}) as setup:
        setup.sso.user_tokens(*answers)
        assert (await signed_in(setup.browser)).status == expected
        assert [seen.form["client_secret"] for seen in setup.sso.user_requests] == shown


async def test_extra_params_are_sent_to_both_endpoints() -> None:
    extra = {"claims": "organization", "uri": "a&b=c é", "body": "", "audience": "https://x/?y"}
    login = {"extra_params": extra, "scope": "patient/*.rs"}
    async with between_doubles(openid=True, login=login) as setup:
        begun, sso = await setup.browser.begin(), setup.sso
        asked = parse_qs(urlsplit(begun.location).query, keep_blank_values=True)
        assert {name: asked[name] for name in extra} == {k: [v] for k, v in extra.items()}
        assert (asked["code_challenge_method"], asked["scope"]) == (["S256"], ["patient/*.rs"])
        await sign_in_refresh_and_sign_out(setup)
        for seen in sso.user_requests:
            assert {name: seen.form[name] for name in extra} == extra
        kinds = [seen.form["grant_type"] for seen in sso.user_requests]
        assert kinds == ["authorization_code", "refresh_token"]
        assert not extra.keys() & sso.revocations[0].form.keys()


@pytest.mark.parametrize(
    ("error", "told_code"),
    [
        *((each, each) for each in ("invalid_scope", "access_denied", "server_error")),
        ("made_up_by_a_browser", "other"),
    ],
)
async def test_the_cause_of_a_failed_sign_in_is_logged(
    caplog: pytest.LogCaptureFixture, error: str, told_code: str
) -> None:
    caplog.set_level(logging.INFO)
    async with between_doubles(openid=True) as setup:
        browser = setup.browser
        setup.sso.user_tokens(oauth_error("invalid_client", 401))
        by_endpoint = await signed_in(browser)
        begun = await browser.begin()
        words = f"No such scope: {begun.query['state']}"
        by_page = await browser.open(back(begun, error=error, error_description=words))
    assert (by_endpoint.status, by_page.status) == (502, 403)
    told = {record.levelname: record for record in caplog.records if "sign-in" in str(record.msg)}
    assert "invalid_client" in str(told["WARNING"].msg)
    assert '"as the test wants it"' in str(told["WARNING"].msg)
    assert f'{told_code} "No such scope: ***"' in str(told["INFO"].msg)
    for page, record in ((by_endpoint, told["WARNING"]), (by_page, told["INFO"])):
        assert page.headers["X-Request-Id"] == record.msg["request_id"]  # type: ignore[index]
        assert "such scope" not in page.text
        assert "the test wants" not in page.text
