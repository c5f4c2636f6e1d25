"""The browser sign-in at the sandbox's SSO, from the first address opened to the sign-out."""

from __future__ import annotations

import json

from gateway.sandbox.server import Sandbox
from tests.login.stage import Stage, stage


async def test_the_sign_in_returns_to_the_requested_page(scene: Stage) -> None:
    browser = await scene.browser()
    wanted = "/fhir/Patient?_count=2&name=a%20b"
    sent = await browser.open(wanted)
    assert sent.status == 302
    begun = await browser.open(sent.location)
    landed = await browser.open(await browser.agree(begun))
    assert (landed.status, landed.location) == (302, wanted)
    answer = await browser.open(landed.location)
    assert answer.status == 200
    assert json.loads(answer.text)["resourceType"] == "Bundle"


async def test_the_authorization_request_has_pkce_and_state(
    scene: Stage, platform: Sandbox
) -> None:
    browser = await scene.browser()
    begun = await browser.begin()
    asked = begun.query
    assert begun.location.startswith(platform.authorize_url + "?")
    assert asked["response_type"] == "code"
    assert asked["client_id"] == "hospital-web"
    assert asked["redirect_uri"] == f"{scene.base}/auth/callback"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert not {"scope", "nonce", "code_verifier"} & asked.keys()


async def test_the_session_endpoint(scene: Stage) -> None:
    browser = await scene.browser()
    assert json.loads((await browser.get("/auth/session")).text)["signed_in"] is False
    await browser.sign_in()
    facts = json.loads((await browser.get("/auth/session")).text)
    assert (facts["signed_in"], facts["user"]) == (True, "dr.karimova")
    assert 0 < facts["expires_in"] <= 1800
    assert facts["expires_at"].endswith("Z")
    out = await browser.post("/auth/logout")
    assert out.status == 200
    assert json.loads((await browser.get("/auth/session")).text)["signed_in"] is False


async def test_the_session_has_one_cookie(scene: Stage) -> None:
    browser = await scene.browser()
    begun = await browser.begin()
    assert len(browser.cookies()) == 1
    landed = await browser.open(await browser.agree(begun))
    assert list(browser.cookies()) == ["dhp-session"]
    line = next(line for line in landed.set_cookies if line.startswith("dhp-session="))
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
    assert "Secure" not in line
    assert "Domain" not in line


async def test_the_cookie_is_rejected_after_the_sign_out(scene: Stage) -> None:
    browser = await scene.browser()
    await browser.sign_in()
    kept = browser.cookies()["dhp-session"]
    await browser.post("/auth/logout")
    assert "dhp-session" not in browser.cookies()
    browser.set_cookie("dhp-session", kept)
    assert (await browser.get("/fhir/Patient")).status == 401


async def test_two_tabs_sign_in_at_once(scene: Stage) -> None:
    browser = await scene.browser()
    first, second = await browser.begin("/fhir/Patient"), await browser.begin("/fhir/Practitioner")
    back_second, back_first = await browser.agree(second), await browser.agree(first)
    assert (await browser.open(back_second)).location == "/fhir/Practitioner"
    assert (await browser.open(back_first)).location == "/fhir/Patient"
    assert (await browser.get("/fhir/Patient")).status == 200


async def test_the_audit_names_the_user(scene: Stage) -> None:
    browser = await scene.browser()
    await browser.sign_in()
    await browser.get("/fhir/Patient")
    await browser.post("/auth/logout")
    (login,), (logout,) = await scene.audit("login"), await scene.audit("logout")
    assert (login["user"], login["outcome"]) == ("dr.karimova", "success")
    assert (logout["user"], logout["outcome"]) == ("dr.karimova", "success")
    exchanges = await scene.audit("exchange", 4)
    (read,) = [each for each in exchanges if each["resource"] == "Patient"]
    assert (read["user"], read["caller"], read["credential"]) == ("dr.karimova", "session", "login")
    found = await scene.gateway.metric("dhp_gateway_requests_total", caller="session")
    assert found == 1


async def test_access_denied_is_a_page(scene: Stage) -> None:
    browser = await scene.browser()
    back = await browser.agree(await browser.begin(), decision="deny")
    for language, words in (("en", "Try again"), ("ru", "Попробовать"), ("uz", "Qayta urinib")):
        page = await browser.open(back, Accept_Language=language)
        back = await browser.agree(await browser.begin(), decision="deny")
        assert page.status == 403
        assert words in page.text
        assert f'<html lang="{language}">' in page.text
        assert "/auth/login?return_to=/fhir/Patient" in page.text
        assert "the user refused" not in page.text


async def test_paths_are_unknown_without_the_login(platform: Sandbox) -> None:
    async with stage(
        platform.fhir_base_url, platform.token_url, platform.authorize_url, login={"enabled": False}
    ) as scene:
        browser = await scene.browser()
        for path in ("/auth/login", "/auth/session", "/auth/callback"):
            answer = await browser.open(path)
            assert answer.status == 404
            assert answer.headers["X-Gateway-Error"] == "unknown-path"
