"""The attacks of RFC 9700 and of the guidance for browser-based apps that concern the gateway."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import pytest

from gateway.login.session_store import MemorySessionStore, digest, store_key
from tests.doubles.clock import FakeClock
from tests.doubles.platform import PATIENT, fhir
from tests.doubles.sso import oauth_error
from tests.login.provider import LoginSetup, back, between_doubles, signed_in
from tests.login.stage import Browser, Page, Stage

FOREIGN = "https://evil.example"
COUNTED = "dhp_gateway_requests_total"


@pytest.fixture
async def victim(scene: Stage) -> Browser:
    return await scene.browser()


@pytest.fixture
async def attacker(scene: Stage) -> Browser:
    return await scene.browser()


@pytest.fixture
async def silent() -> AsyncIterator[LoginSetup]:
    """An SSO that records what it is asked, and a gateway with a public name by https."""
    uri = "https://gateway.clinic.uz/auth/callback"
    async with between_doubles(login={"redirect_uri": uri}) as made:
        yield made


async def begin(browser: Browser) -> tuple[Page, str]:
    """Begin a sign-in. Return the page and its cookie, which a browser keeps for https only."""
    begun = await browser.begin()
    return begun, begun.set_cookies[0].partition(";")[0]


async def test_a_code_and_state_of_another_browser_create_no_session(
    victim: Browser, attacker: Browser
) -> None:
    link = await attacker.agree(await attacker.begin(), user="attacker")
    assert (await victim.open(link)).status == 400
    assert "dhp-session" not in victim.cookies()
    # The victim's own sign-in under way does not help either.
    await victim.begin()
    assert (await victim.open(link)).status == 400


async def test_a_used_state_creates_no_session(victim: Browser) -> None:
    begun = await victim.begin()
    cookie = victim.cookies()
    link = await victim.agree(begun)
    assert (await victim.open(link)).status == 302
    for name, value in cookie.items():
        victim.set_cookie(name, value)
    again = await victim.open(link)
    assert (again.status, again.location) == (302, "/fhir/Patient")
    assert not [line for line in again.set_cookies if line.startswith("dhp-session")]
    assert (await victim.get("/fhir/Patient")).status == 200


async def test_an_unknown_state_sends_no_code_to_the_sso(silent: LoginSetup) -> None:
    browser = silent.browser
    begun, own = await begin(browser)
    for query in (
        "",
        "code=a-code",
        "code=a-code&state=",
        "code=a-code&state=made-up",
        f"code=a-code&state={begun.query['state'][:-1]}",
        f"code=a-code&code=another&state={begun.query['state']}",
        f"code=a-code&state={begun.query['state']}&state=made-up",
    ):
        page = await browser.open(f"/auth/callback?{query}", Cookie=own)
        assert page.status == 400
    assert silent.sso.user_requests == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "access_denied"}, 403),
        ({"error": "server_error"}, 403),
        ({"error": "temporarily_unavailable"}, 403),
        ({"error": "invalid_request"}, 403),
        ({"error": "made up"}, 403),
        ({"error": ""}, 403),
        ({"code": "made-up"}, 400),
        ({"code": ""}, 400),
        ({}, 400),
    ],
)
async def test_forged_callbacks_are_not_counted_as_failures_of_the_sso(
    silent: LoginSetup, answer: dict[str, str], expected: int
) -> None:
    for _ in range(3):
        browser = await silent.scene.browser()
        begun, own = await begin(browser)
        silent.sso.user_tokens(oauth_error("invalid_grant"))
        said = urlencode({"state": begun.query["state"], **answer})
        page = await browser.open(f"/auth/callback?{said}", Cookie=own)
        assert page.status == expected
        assert page.headers["Content-Type"].startswith("text/html")
    assert await silent.scene.gateway.metric(COUNTED, status=str(expected)) == 3
    for code in ("500", "502", "503", "504"):
        assert await silent.scene.gateway.metric(COUNTED, status=code) == 0


async def test_raw_octets_in_targets_and_cookies(scene: Stage) -> None:
    for target in ("/fhir/Patient?name=\xff", "/auth/callback?code=\xff&state=\xff"):
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.address.port)
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: a",
            "Accept: text/html",
            "Cookie: dhp-session=\xff",
        ]
        lines += ["Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        status = int((await reader.read()).split()[1])
        writer.close()
        assert status in (302, 400)


async def test_a_stolen_code_is_rejected_for_its_verifier(
    victim: Browser, attacker: Browser
) -> None:
    stolen = (await victim.agree(await victim.begin())).partition("code=")[2].partition("&")[0]
    mine = await attacker.begin()
    answer = urlencode({"code": stolen, "state": mine.query["state"]})
    page = await attacker.open(f"/auth/callback?{answer}")
    assert page.status == 400
    assert "dhp-session" not in attacker.cookies()


async def test_challenges_and_states_are_unique(victim: Browser) -> None:
    asked = [(await victim.begin()).query for _ in range(4)]
    assert len({each["state"] for each in asked}) == 4
    assert len({each["code_challenge"] for each in asked}) == 4


async def test_the_verifier_of_a_code_matches_its_challenge(silent: LoginSetup) -> None:
    browser = silent.browser
    for number in range(2):
        begun, own = await begin(browser)
        assert (await browser.open(back(begun), Cookie=own)).status == 302
        assert begun.query["code_challenge_method"] == "S256"
        verifier = silent.sso.user_requests[number].form["code_verifier"]
        hashed = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        assert begun.query["code_challenge"] == challenge


async def test_a_code_without_a_challenge_creates_no_session(victim: Browser) -> None:
    begun = await victim.begin()
    weakened = re.sub(r"&code_challenge(_method)?=[^&]+", "", begun.location)
    assert weakened != begun.location
    link = await victim.agree(dataclasses.replace(begun, headers={"Location": weakened}))
    assert (await victim.open(link)).status == 403
    assert "dhp-session" not in victim.cookies()


async def test_a_planted_session_ends_at_the_sign_in(victim: Browser, attacker: Browser) -> None:
    await attacker.sign_in(user="attacker")
    planted = attacker.cookies()["dhp-session"]
    victim.set_cookie("dhp-session", planted)
    await victim.sign_in()
    assert victim.cookies()["dhp-session"] != planted
    assert json.loads((await victim.get("/auth/session")).text)["user"] == "dr.karimova"
    assert (await attacker.get("/fhir/Patient")).status == 401


async def test_an_unknown_session_identifier_is_no_session(victim: Browser) -> None:
    victim.set_cookie("dhp-session", "chosen-by-somebody")
    assert (await victim.get("/fhir/Patient")).status == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Origin": "null", "X-Requested-With": "x"},
        {"Origin": FOREIGN, "X-Requested-With": "x"},
        {"Origin": "OWN"},
        {"X-Requested-With": "x"},
        {"Origin": "OWN.evil.example", "X-Requested-With": "x"},
    ],
)
async def test_forged_requests_are_rejected(
    victim: Browser, method: str, fields: dict[str, str]
) -> None:
    await victim.sign_in()
    sent = {name: value.replace("OWN", victim.base) for name, value in fields.items()}
    for path in ("/fhir/Patient/1", "/fhir/Patient/_search"):
        answer = await victim.request(method, path, sent, data=b"{}")
        assert (answer.status, answer.headers["X-Gateway-Error"]) == (403, "caller-forbidden")


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"Origin": "OWN"}, "add the header X-Requested-With, with any value"),
        ({"X-Requested-With": "x"}, "Origin is missing, or is not in login.cors_origins"),
    ],
)
async def test_the_error_names_the_missing_field(
    victim: Browser, fields: dict[str, str], advice: str
) -> None:
    await victim.sign_in()
    sent = {name: value.replace("OWN", victim.base) for name, value in fields.items()}
    answer = await victim.request("PUT", "/fhir/Patient/1", sent, data=b"{}")
    issue = json.loads(answer.text)["issue"][0]
    assert issue["diagnostics"].endswith(f"; {advice}")
    assert "must add the header X-Requested-With" in issue["details"]["text"]
    assert "permission" not in issue["details"]["text"]


async def test_a_forged_sign_out_ends_no_session(victim: Browser) -> None:
    await victim.sign_in()
    form = {"Origin": FOREIGN, "Content-Type": "application/x-www-form-urlencoded"}
    assert (await victim.request("POST", "/auth/logout", form, data=b"a=b")).status == 403
    assert (await victim.open("/auth/logout")).status == 405
    cookies = victim.cookies()
    victim.session.cookie_jar.clear()
    # As a browser sends it from another site: without the cookie.
    answer = await victim.request("POST", "/auth/logout", form, data=b"a=b")
    assert (answer.status, answer.set_cookies) == (403, [])
    victim.set_cookie("dhp-session", cookies["dhp-session"])
    assert (await victim.get("/fhir/Patient")).status == 200


async def test_requests_of_another_origin_are_rejected(victim: Browser) -> None:
    await victim.sign_in()
    answer = await victim.get("/fhir/Patient", Origin=FOREIGN)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "return_to",
    [
        *("//evil.example", "/\\evil.example", "\\\\evil.example", "https:evil.example"),
        *("https://evil.example", "http:/evil.example", "javascript:alert(1)", "data:text/html,x"),
        *("/%2fevil.example", "/%5cevil.example", "/%252fevil.example", "///evil.example"),
        *("/\t/evil.example", "\t//evil.example", " //evil.example", "/\r\nSet-Cookie: a=b"),
        *("/a/..//evil.example", "/./evil", "/@evil.example", "evil.example", "?a", "#a", ""),
        *("BASE.evil.example", "BASE@evil.example", "BASE:80@evil.example", "BASE//evil.example"),
        *("http://his.localhost:1234.evil.example", "http://his.localhost:12345/", "/auth/login"),
        *(
            "/auth/callback?code=a",
            "BASE/auth/login?return_to=/",
            "/%61uth/login",
            "/" + "a" * 5000,
        ),
    ],
)
async def test_return_to_another_origin_is_rejected(scene: Stage, return_to: str) -> None:
    browser = await scene.browser()
    asked = quote(return_to.replace("BASE", scene.base), safe="")
    page = await browser.open(f"/auth/login?return_to={asked}")
    assert page.status == 400
    assert "Location" not in page.headers
    assert page.set_cookies == []
    assert "evil" not in page.text


@pytest.mark.parametrize(
    ("return_to", "location"),
    [
        ("/fhir/Patient?name=a%20b&_next=https://x", "/fhir/Patient?name=a%20b&_next=https://x"),
        ("/app#/patients", "/app#/patients"),
        ("/беморлар", "/%D0%B1%D0%B5%D0%BC%D0%BE%D1%80%D0%BB%D0%B0%D1%80"),
        ("BASE/app", "/app"),
        ("http://his.localhost:1234/app?a=b", "http://his.localhost:1234/app?a=b"),
        ("http://his.localhost:1234", "http://his.localhost:1234"),
    ],
)
async def test_return_to_allowed_addresses(scene: Stage, return_to: str, location: str) -> None:
    browser = await scene.browser()
    landed = await browser.sign_in(return_to.replace("BASE", scene.base))
    assert landed.location == location


async def test_two_session_cookies_are_rejected(victim: Browser, attacker: Browser) -> None:
    await attacker.sign_in(user="attacker")
    await victim.sign_in()
    own, tossed = victim.cookies()["dhp-session"], attacker.cookies()["dhp-session"]
    victim.session.cookie_jar.clear()
    for cookie in (f"dhp-session={tossed}; dhp-session={own}", f"dhp-session={own}; x=1"):
        answer = await victim.get("/fhir/Patient", Cookie=cookie)
        assert answer.status == (401 if tossed in cookie else 200)


async def test_a_key_of_the_store_is_no_session_identifier(victim: Browser, scene: Stage) -> None:
    await victim.sign_in()
    identifier = victim.cookies()["dhp-session"]
    stolen = digest(identifier)
    victim.set_cookie("dhp-session", stolen)
    assert (await victim.get("/fhir/Patient")).status == 401
    assert len(identifier) >= 43


async def test_a_pending_sign_in_is_read_once_and_expires() -> None:
    clock = FakeClock()
    store = MemorySessionStore(clock)
    first, second = store_key("a"), store_key("b")
    await store.save_sign_in(first, object())  # type: ignore[arg-type]
    await store.save_sign_in(second, object())  # type: ignore[arg-type]
    assert await store.pop_sign_in(first) is not None
    assert await store.pop_sign_in(first) is None
    clock.now += 601
    assert await store.pop_sign_in(second) is None


async def test_cookies_over_https_are_secure_and_host_prefixed(
    silent: LoginSetup,
) -> None:
    browser = silent.browser
    begun = await browser.begin()
    (line,) = begun.set_cookies
    assert line.startswith("__Host-dhp-login-")
    name_and_value = line.partition(";")[0]
    landed = await browser.open(back(begun), Cookie=name_and_value)
    assert landed.status == 302
    for each in (*begun.set_cookies, *landed.set_cookies):
        assert each.startswith("__Host-")
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(each.split("; "))


async def test_a_cookie_without_the_host_prefix_is_ignored_over_https(
    silent: LoginSetup,
) -> None:
    browser = silent.browser
    begun, own = await begin(browser)
    assert (await browser.open(back(begun), Cookie=own.removeprefix("__Host-"))).status == 400
    begun, own = await begin(browser)
    landed = await browser.open(back(begun), Cookie=own)
    session = landed.set_cookies[0].partition(";")[0]
    assert (await browser.get("/fhir/Patient/1", Cookie=session)).status == 200
    planted = session.removeprefix("__Host-")
    assert (await browser.get("/fhir/Patient/1", Cookie=planted)).status == 401
    both = f"{session}; {planted}x"
    assert (await browser.get("/fhir/Patient/1", Cookie=both)).status == 200


async def test_errors_in_the_callback_are_not_reflected(scene: Stage) -> None:
    browser = await scene.browser()
    begun = await browser.begin("/fhir/Patient?a=%22%3E%3Cscript%3E")
    planted = "<script>alert(1)</script>"
    answer = {"state": begun.query["state"], "error": planted, "error_description": planted}
    page = await browser.open(f"/auth/callback?{urlencode(answer)}", X_Request_Id='a"<b>')
    assert page.status == 403
    assert "<script" not in page.text
    assert "alert" not in page.text


async def test_responses_have_security_fields(silent: LoginSetup) -> None:
    browser = silent.browser
    pages = [await browser.begin(), await signed_in(browser), await browser.get("/auth/session")]
    pages.append(await browser.open("/auth/callback?state=a"))
    for page in pages:
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


SECURITY_FIELDS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'self'; script-src 'unsafe-inline'"),
    ("Referrer-Policy", "unsafe-url"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
    ("cache-control", "no-store"),
    ("X-Frame-Options", "SAMEORIGIN"),
)


async def test_security_fields_occur_once(setup: LoginSetup) -> None:
    setup.platform.respond(fhir(PATIENT, 200, *SECURITY_FIELDS))
    browser = setup.browser
    answers = [await browser.get("/fhir/Patient/1"), await browser.open("/fhir/Patient/1")]
    answers += [await browser.open("/auth/callback?state="), await browser.open("/nowhere")]
    answers += [await browser.begin(), await signed_in(browser)]
    read = await browser.get("/fhir/Patient/1")
    answers += [read, await browser.open("/fhir/Patient/1"), await browser.get("/nowhere")]
    answers += [await browser.get("/auth/session"), await browser.open("/auth/callback?state=")]
    answers += [await browser.open("/nowhere"), await browser.open("/auth/nowhere")]
    assert {answer.status for answer in answers} == {200, 302, 400, 401, 404}
    for answer in answers:
        once = {name.lower() for name, _ in SECURITY_FIELDS}
        found = [name.lower() for name, _ in answer.headers.items() if name.lower() in once]
        assert len(found) == len(set(found)), (answer.status, found)
    assert "default-src 'none'" in read.headers["Content-Security-Policy"]
    assert read.headers["Referrer-Policy"] == "no-referrer"
    assert read.headers["X-Frame-Options"] == "SAMEORIGIN"


async def test_the_session_endpoint_is_not_limited_by_address(victim: Browser) -> None:
    await victim.sign_in()
    assert {(await victim.get("/auth/session")).status for _ in range(200)} == {200}
