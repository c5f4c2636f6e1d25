"""The command `doctor` checks the sign-in: it names what would prevent it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from tests.cli.test_doctor import DoctorSetup, platform_with_statement  # noqa: F401 - a fixture
from tests.doubles.platform import Platform
from tests.doubles.processes import free_port, start_gateway
from tests.doubles.sso import ScriptedResponse, http, oauth_error, status, token
from tests.login.provider import Provider
from tests.oauth.test_signing_keys import EC, pem

REDIRECT_URI = "https://gateway.clinic.uz/auth/callback"


@pytest.fixture
async def sso() -> AsyncIterator[Provider]:
    async with Provider(openid=True) as double:
        double.user_tokens(oauth_error("invalid_grant"))
        yield double


@pytest.fixture
def setup(tmp_path: Path, platform: Platform, sso: Provider) -> DoctorSetup:
    made = DoctorSetup(tmp_path, platform, sso)
    made.settings["sso"]["authorize_url"] = sso.issuer
    made.settings["login"] = {
        "enabled": True,
        "client_id": "hospital-web",
        "redirect_uri": REDIRECT_URI,
        "scope": "openid",
    }
    return made


async def test_a_working_sign_in_passes_every_check(setup: DoctorSetup, sso: Provider) -> None:
    """Document, page and client are each told of."""
    code, text = await setup.doctor()
    assert code == 0
    assert f"ok      login discovery: {sso.issuer} is an OpenID provider" in text
    assert f"ok      login page: the SSO permits sign-ins for {REDIRECT_URI}" in text
    assert "ok      login client: the SSO accepts the client_id" in text
    assert sso.user_requests[0].form["redirect_uri"] == REDIRECT_URI


async def test_the_page_is_requested_like_a_sign_in_requests_it(
    setup: DoctorSetup, sso: Provider
) -> None:
    setup.settings["login"]["extra_params"] = {"audience": "https://platform.example"}
    await setup.doctor()
    (asked,) = [seen for seen in sso.requests if "response_type=code" in seen.target]
    gateway = start_gateway(setup.settings, setup.folder)
    try:
        await gateway.wait_for_status(200, "/livez")
        login = f"{gateway.url.removesuffix('/fhir')}/auth/login"
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(login, allow_redirects=False) as redirect,
        ):
            wanted = redirect.headers["Location"]
    finally:
        gateway.process.terminate()
    assert _of_any_sign_in(asked.target) == _of_any_sign_in(wanted)
    # Firewalls let browsers pass, and no library of scripts.
    assert "User-Agent" not in asked.headers


def _of_any_sign_in(url: str) -> dict[str, str | int]:
    """Return the parameters, and of those that are random the length."""
    params = dict(parse_qsl(urlsplit(url).query))
    random = ("state", "nonce", "code_challenge")
    return {name: len(value) if name in random else value for name, value in params.items()}


async def test_the_error_description_of_the_sso_is_shown(setup: DoctorSetup, sso: Provider) -> None:
    sso.clear_user_tokens()
    sso.user_tokens(oauth_error("invalid_client", 401))
    _, text = await setup.doctor()
    assert "login client: the SSO refuses the client_id: invalid_client" in text
    assert "it reports “as the test wants it”" in text


async def test_a_disabled_sign_in_is_not_checked(setup: DoctorSetup, sso: Provider) -> None:
    setup.settings["login"]["enabled"] = False
    _, text = await setup.doctor()
    assert "login" not in text
    assert sso.user_requests == []


async def test_an_sso_without_metadata_passes_without_the_scope_openid(
    setup: DoctorSetup, sso: Provider
) -> None:
    sso.openid = False
    del setup.settings["login"]["scope"]
    code, text = await setup.doctor()
    assert code == 0
    assert "skipped login discovery" in text
    assert "ok      login page" in text


def _to_callback(error: str) -> ScriptedResponse:
    return status(302, ("Location", f"{REDIRECT_URI}?error={error}&state=doctor"))


@pytest.mark.parametrize(
    ("says", "page", "token", "check", "words"),
    [
        ({"issuer": "https://evil.example"}, None, None, "login discovery", "another issuer"),
        ({"token_endpoint": "https://x/t"}, None, None, "login discovery", "https://x/t"),
        ({"code_challenge_methods_supported": ["plain"]}, None, None, "login discovery", "S256"),
        ({"jwks_uri": "https://keys.example/jwks"}, None, None, "login discovery", "support"),
        ({"jwks_uri": ""}, None, None, "login discovery", "no usable keys"),
        ({}, status(400), None, "login page", f"hospital-web, {REDIRECT_URI}"),
        ({}, status(403), None, "login page", f"hospital-web, {REDIRECT_URI}"),
        (
            {},
            status(302, ("Location", "/error?error=invalid_client")),
            None,
            "login page",
            "invalid_client. Register at the SSO, exactly as written here: hospital-web, "
            f"{REDIRECT_URI}",
        ),
        (
            {},
            status(303, ("Location", "https://127.0.0.1/error?state=a&error=invalid_redirect")),
            None,
            "login page",
            f"Register at the SSO, exactly as written here: hospital-web, {REDIRECT_URI}",
        ),
        ({}, _to_callback("invalid_scope"), None, "login page", "invalid_scope. Check login.scope"),
        ({}, status(503), None, "login page", "status 503"),
        ({}, None, oauth_error("invalid_client", 401), "login client", "invalid_client"),
    ],
)
async def test_each_fault_of_the_sign_in_fails_one_check(
    *, setup: DoctorSetup, sso: Provider, says: Any, page: Any, token: Any, check: str, words: str
) -> None:
    sso.says.update(says)
    sso.page = page
    if token is not None:
        sso.clear_user_tokens()
        sso.user_tokens(token)
    failed = await setup.failed()
    assert list(failed) == [check]
    assert words in failed[check]


@pytest.mark.parametrize(
    "page",
    [
        http(200, b"<html><form>"),
        status(302, ("Location", "/admin/login/?next=/o/authorize/")),
        status(302, ("Location", "https://elsewhere.example/login")),
        status(302),
        _to_callback("login_required"),
    ],
)
async def test_a_sign_in_page_does_not_prove_the_registration_of_the_client(
    setup: DoctorSetup, sso: Provider, page: ScriptedResponse
) -> None:
    sso.page = page
    (found,) = [each for each in await setup.findings() if each["code"] == "login-page"]
    assert found["level"] == "skipped"
    assert (
        "only a sign-in shows whether client_id and redirect_uri are registered"
        in (found["message"])
    )
    assert len([seen for seen in sso.requests if "response_type=code" in seen.target]) == 1


async def test_missing_metadata_fails_with_the_scope_openid(
    setup: DoctorSetup, sso: Provider
) -> None:
    sso.openid = False
    failed = await setup.failed()
    assert list(failed) == ["login discovery"]
    assert "sso.issuer" in failed["login discovery"]
    assert [seen for seen in sso.requests if "response_type=code" in seen.target] == []


async def test_an_sso_without_keys_passes_with_a_note(setup: DoctorSetup, sso: Provider) -> None:
    sso.says["jwks_uri"] = None
    code, text = await setup.doctor()
    assert code == 0
    assert "ok      login discovery" in text
    assert "it publishes no keys" in text
    assert "only because of TLS to sso.token_url" in text


async def test_the_metadata_is_found_below_the_configured_issuer(
    setup: DoctorSetup, sso: Provider
) -> None:
    sso.path = "/tenant"
    assert list(await setup.failed()) == ["login discovery"]
    setup.settings["sso"] |= {"issuer": f"{sso.issuer}/"}
    del setup.settings["sso"]["authorize_url"]
    code, text = await setup.doctor()
    assert code == 0
    assert f"ok      login discovery: {sso.issuer} is an OpenID provider" in text


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (oauth_error("invalid_grant"), "ok", "the SSO accepts the client_id"),
        (oauth_error("invalid_grant", 401), "ok", "the SSO accepts the client_id"),
        (oauth_error("invalid_client"), "error", "the SSO refuses the client_id: invalid_client"),
        (
            oauth_error("invalid_client", 401),
            "error",
            "the SSO refuses the client_id: invalid_client",
        ),
        (oauth_error("unauthorized_client"), "error", "refuses the client_id: unauthorized_client"),
        (oauth_error("invalid_request", 401), "error", "refuses the client_id: invalid_request"),
        (oauth_error("of_its_own", 401), "error", "refuses the client_id: status 401, of_its_own"),
        (status(401), "error", "the SSO refuses the client_id: status 401"),
        (
            oauth_error("invalid_request"),
            "skipped",
            "the SSO's response does not show it: invalid_request",
        ),
        (
            oauth_error("invalid_scope"),
            "skipped",
            "the SSO's response does not show it: invalid_scope",
        ),
        (oauth_error("unsupported_grant_type"), "skipped", "not show it: unsupported_grant_type"),
        (
            oauth_error("invalid_request", 403),
            "skipped",
            "the SSO's response does not show it: invalid_request",
        ),
        (
            oauth_error("of_its_own"),
            "skipped",
            "the SSO's response does not show it: status 400, of_its_own",
        ),
        (status(403), "skipped", "the SSO's response does not show it: status 403"),
        (status(404), "skipped", "the SSO's response does not show it: status 404"),
        (status(429), "skipped", "the SSO's response does not show it: status 429"),
        (oauth_error("server_error", 500), "skipped", "not show it: status 500, server_error"),
        (
            http(200, b"<html>"),
            "skipped",
            "the SSO's response does not show it: it answers with a web page",
        ),
        (token("for-nobody"), "skipped", "not tested: the SSO does not check the code"),
    ],
)
async def test_the_response_to_an_invalid_code_shows_whether_the_client_is_known(
    setup: DoctorSetup, sso: Provider, answer: ScriptedResponse, level: str, said: str
) -> None:
    sso.clear_user_tokens()
    sso.user_tokens(answer)
    (found,) = [each for each in await setup.findings() if each["code"] == "login-client"]
    assert (found["level"], said in found["message"]) == (level, True), found["message"]


async def test_an_sso_that_checks_the_code_first_proves_nothing(
    setup: DoctorSetup, sso: Provider
) -> None:
    """An unregistered client gets the same response: nothing is known of the configured one.

    Better Auth responds like this.
    """
    sso.clear_user_tokens()
    sso.user_tokens(oauth_error("invalid_grant", 401), oauth_error("invalid_grant", 401))
    (found,) = [each for each in await setup.findings() if each["code"] == "login-client"]
    assert found["level"] == "skipped"
    assert "the SSO's response does not show it: invalid_grant" in found["message"]
    ours, other = [each.form["client_id"] for each in sso.user_requests]
    assert (ours, other) == ("hospital-web", "dhp-gateway-doctor")


async def test_an_invalid_private_key_of_the_login_is_reported(setup: DoctorSetup) -> None:
    key = setup.folder / "key"
    key.write_text("planted")
    key.chmod(0o600)
    setup.settings["login"] |= {"auth_method": "private_key_jwt", "private_key_file": str(key)}
    failed = await setup.failed()
    assert list(failed) == ["secret login.private_key", "login client"]
    assert "login.private_key_file" in failed["login client"]
    assert "planted" not in "".join(failed.values())
    code, text = await setup.run("check")
    assert code == 2
    assert "login.private_key_file" in text


async def test_an_unpublished_key_of_the_login_is_explained(
    setup: DoctorSetup, sso: Provider
) -> None:
    key = setup.folder / "key.pem"
    key.write_text(pem(EC))
    key.chmod(0o600)
    setup.settings["login"] |= {"auth_method": "private_key_jwt", "private_key_file": str(key)}
    sso.clear_user_tokens()
    sso.user_tokens(oauth_error("invalid_client", 401))
    message = (await setup.failed())["login client"]
    assert "jwks.json of this gateway, start the gateway first. Compare login.client_id" in message


async def test_the_host_of_the_authorization_endpoint_is_checked(setup: DoctorSetup) -> None:
    setup.settings["sso"]["authorize_url"] = f"http://127.0.0.1:{free_port()}"
    failed = await setup.failed()
    assert list(failed) == ["SSO page TCP"]
