"""Callbacks without a session, and limits of sign-ins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway.login import auth_routes
from tests.login.provider import back, between_doubles, signed_in
from tests.login.stage import Browser, Page, Stage

_PEOPLE = 200
# A busy machine guesses more slowly than is permitted.
_SLOWLY = 0.01


@pytest.fixture
async def served() -> AsyncIterator[Stage]:
    async with between_doubles(callers=[{"name": "lab", "api_key": "planted-callers-key"}]) as made:
        yield made.scene


async def cancelled_callback(browser: Browser) -> Page:
    return await signed_in(browser, "/fhir/Observation", error="access_denied")


async def callback_with_unknown_state(browser: Browser) -> Page:
    return await browser.open("/auth/callback?code=a-code&state=made-up")


async def repeated_callback(browser: Browser) -> Page:
    link = back(await browser.begin("/fhir/Observation"))
    await browser.open(link)
    return await browser.open(link)


async def repeated_callback_of_an_earlier_session(browser: Browser) -> Page:
    link = back(await browser.begin("/fhir/Observation"))
    await browser.open(link)
    await signed_in(browser, "/fhir/Encounter")
    return await browser.open(link)


async def callback_with_two_states(browser: Browser) -> Page:
    """The page of a callback with the state of a sign-in and the parameter of another twice."""
    link = back(await browser.begin("/fhir/Observation"))
    return await browser.open(f"{link}&state=another")


# What it leads to without a session, and with one.
CALLBACKS = {
    cancelled_callback: (403, "/fhir/Observation"),
    callback_with_unknown_state: (400, "/"),
    callback_with_two_states: (400, "/"),
}
# They create a session themselves.
REPEATED = {
    repeated_callback: "/fhir/Observation",
    repeated_callback_of_an_earlier_session: "/",
}


@pytest.mark.parametrize("callback", CALLBACKS)
async def test_a_failed_callback_is_an_error_page(served: Stage, callback: object) -> None:
    page = await callback(await served.browser())  # type: ignore[operator]
    status = CALLBACKS[callback][0]  # type: ignore[index]
    assert (page.status, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    reason = {400: "bad-request", 403: "caller-forbidden"}[status]
    assert page.headers["X-Gateway-Error"] == reason
    assert reason in page.text
    assert page.headers["X-Request-Id"] in page.text


@pytest.mark.parametrize("callback", CALLBACKS)
async def test_a_failed_callback_with_a_session_redirects(served: Stage, callback: object) -> None:
    browser = await served.browser()
    await signed_in(browser)
    before = browser.cookies()["dhp-session"]
    page = await callback(browser)  # type: ignore[operator]
    assert (page.status, page.location) == (302, CALLBACKS[callback][1])  # type: ignore[index]
    assert browser.cookies()["dhp-session"] == before
    assert (await browser.get("/fhir/Patient/1")).status == 200


@pytest.mark.parametrize("callback", REPEATED)
async def test_a_used_callback_leads_on_to_the_target_of_its_session(
    served: Stage, callback: object
) -> None:
    browser = await served.browser()
    page = await callback(browser)  # type: ignore[operator]
    assert (page.status, page.location) == (302, REPEATED[callback])  # type: ignore[index]
    assert (await browser.get("/fhir/Patient/1")).status == 200


async def test_a_head_request_does_not_use_up_a_sign_in(served: Stage) -> None:
    browser = await served.browser()
    link = back(await browser.begin("/fhir/Observation"))
    head = await browser.request("HEAD", link)
    assert (head.status, head.headers["Allow"], head.set_cookies) == (405, "GET", [])
    page = await browser.open(link)
    assert (page.status, page.location) == (302, "/fhir/Observation")
    assert (await browser.get("/fhir/Patient/1")).status == 200


async def test_a_failed_callback_with_an_ended_session_is_an_error_page(served: Stage) -> None:
    browser = await served.browser()
    await signed_in(browser)
    kept = browser.cookies()["dhp-session"]
    await browser.post("/auth/logout")
    browser.set_cookie("dhp-session", kept)
    assert (await callback_with_unknown_state(browser)).status == 400


async def test_an_error_of_the_sso_is_shown_with_a_session(served: Stage) -> None:
    """A sign-in that failed at the SSO leads nowhere, because an operator may have to know."""
    browser = await served.browser()
    await signed_in(browser)
    page = await signed_in(browser, error="invalid_scope")
    assert (page.status, page.headers["Content-Type"]) == (403, "text/html; charset=utf-8")


async def sign_in_and_read(served: Stage) -> list[int]:
    """Return the statuses of a script's request, of a sign-in and of a read."""
    browser = await served.browser()
    asked = [await browser.get("/auth/session"), await browser.get("/fhir/Patient/1")]
    opened = await browser.open("/fhir/Patient/1")
    begun = await browser.open(opened.location) if opened.status == 302 else opened
    landed = await browser.open(back(begun)) if begun.status == 302 else begun
    shown = await browser.get("/fhir/Patient/1")
    return [page.status for page in (*asked, opened, begun, landed, shown)]


async def test_many_users_of_one_address_can_sign_in(served: Stage) -> None:
    walks = await asyncio.gather(*(sign_in_and_read(served) for _ in range(_PEOPLE)))
    assert {tuple(statuses) for statuses in walks} == {(200, 401, 302, 302, 302, 200)}
    assert len(await served.audit("login", _PEOPLE)) == _PEOPLE


async def test_callbacks_of_pending_sign_ins_are_not_limited(
    served: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_routes, "_ADDRESS_RATE", _SLOWLY)
    browser, guesser = await served.browser(), await served.browser()
    link = back(await browser.begin())
    statuses = [(await callback_with_unknown_state(guesser)).status for _ in range(400)]
    assert statuses[0] == 400
    assert statuses[-1] == 429
    assert sorted(statuses) == statuses
    assert guesser.pages[-1].headers["X-Gateway-Error"] == "rate-limited"
    assert int(guesser.pages[-1].headers["Retry-After"]) >= 1
    failed = await served.audit("login", statuses.count(400))
    assert len(failed) == statuses.count(400)
    assert (await browser.open(link)).status == 302
    assert (await callback_with_unknown_state(browser)).status == 302
    assert (await browser.get("/auth/session")).status == 200
    assert (await browser.post("/auth/logout")).status == 200


async def test_starting_sign_ins_is_limited(served: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(auth_routes._LIMITS, "/auth/login", (_SLOWLY, 5))
    browser = await served.browser()
    statuses = [(await browser.open("/auth/login")).status for _ in range(7)]
    assert statuses == [*[302] * 5, 429, 429]
    assert "text/html" in browser.pages[-1].headers["Content-Type"]


async def test_redirects_to_the_sign_in_are_limited_in_the_audit(
    served: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(auth_routes._LIMITS, "redirect", (_SLOWLY, 5))
    browser = await served.browser()
    statuses = [(await browser.open("/fhir/Patient/1")).status for _ in range(9)]
    assert statuses == [302] * 9
    counted = "dhp_gateway_requests_total"
    assert await served.gateway.metric(counted, status="302") == 9
    assert (await browser.get("/fhir/Patient/1")).status == 401
    records = await served.gateway.audit(6)
    assert [record["status"] for record in records] == [*[302] * 5, 401]


async def test_wrong_api_keys_do_not_limit_sign_ins(served: Stage) -> None:
    guesser, browser = await served.browser(), await served.browser()
    for _ in range(2000):
        answer = await guesser.get("/fhir/Patient/1", X_Api_Key="wrong")
        if answer.status != 401:
            break
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (429, "rate-limited")
    assert (await browser.open("/fhir/Patient/1")).status == 302
    assert (await signed_in(browser)).status == 302


NAVIGATIONS: list[dict[str, str]] = [
    {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
    {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"},
    {"Accept": "text/html, application/xhtml+xml, image/jxr, */*"},
    {"Accept": "*/*", "Sec-Fetch-Mode": "navigate"},
]
PROGRAMS: list[dict[str, str]] = [
    {},
    {"Accept": "text/html, */*"},
    {"Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"},
    {"Accept": "application/json, text/html;q=0.5"},
    {"Accept": "text/html", "Sec-Fetch-Mode": "cors"},
    {"X-Requested-With": "x"},
    {"Accept": "text/html, */*; q=0.01", "X-Requested-With": "XMLHttpRequest"},
]


@pytest.mark.parametrize("fields", NAVIGATIONS)
async def test_a_navigation_is_redirected_to_the_login(
    served: Stage, fields: dict[str, str]
) -> None:
    browser = await served.browser()
    page = await browser.request("GET", "/fhir/Patient?_count=1", fields)
    assert page.status == 302
    assert page.location == "/auth/login?return_to=/fhir/Patient%3F_count%3D1"


@pytest.mark.parametrize("fields", PROGRAMS)
async def test_a_program_gets_401(served: Stage, fields: dict[str, str]) -> None:
    browser = await served.browser()
    answer = await browser.request("GET", "/fhir/Patient?_count=1", fields)
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (401, "caller-unauthenticated")
    assert answer.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    assert json.loads(answer.text)["resourceType"] == "OperationOutcome"


async def test_errors_of_navigations_are_pages(served: Stage) -> None:
    browser = await served.browser()
    await signed_in(browser)
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    pages = [
        await browser.request("GET", "/auth/nowhere", html),
        await browser.request("GET", "/nowhere", html),
        await browser.request("POST", "/auth/login", html),
        await browser.request("POST", "/fhir/Patient", html),
        await browser.request("GET", "/fhir/Patient", {**html, "Origin": "https://evil.example"}),
    ]
    assert [page.status for page in pages] == [404, 404, 405, 403, 403]
    for page in pages:
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        names = [name.lower() for name, _ in page.headers.items()]
        assert len(names) == len(set(names)), names
        assert "style-src 'sha256-" in page.headers["Content-Security-Policy"]
        assert page.headers["X-Gateway-Error"] in page.text
    as_json = await browser.request("GET", "/auth/nowhere?_format=json", html)
    assert as_json.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
