"""Which fields of a browser's requests reach the platform."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.browser.conftest import BrowserUser
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch
from tests.legacy.line import RecordingRelay, fates_of

_OPENED = ("Host", "User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Connection")
_FETCH = ("Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User")
# Of browsers that the test machine lacks, what their makers document: Firefox's default fields and
# those of its privacy settings (`nsHttpHandler`, MDN), Safari's of WebKit.
DOCUMENTED = {
    "Firefox": (
        *(*_OPENED, *_FETCH, "Upgrade-Insecure-Requests", "Priority", "DNT", "Sec-GPC"),
        *("Referer", "Cookie", "Content-Type", "Pragma", "Cache-Control", "X-Requested-With"),
    ),
    "Safari": (
        *(*_OPENED, *_FETCH, "Upgrade-Insecure-Requests", "Priority", "Referer", "Cookie"),
        *("Content-Type", "Pragma", "Cache-Control", "X-Requested-With"),
    ),
}
# By these the browser describes itself and its page; nothing in FHIR or HTTP needs them.
DESCRIPTIVE = {
    *("dnt", "priority", "referer", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform"),
    *("sec-gpc", "upgrade-insecure-requests"),
}
WRITE = """fetch("/fhir/Patient", {method: "POST", body: "{}", headers: {
    "Content-Type": "application/fhir+json", "Accept": "application/fhir+json",
    "X-Requested-With": "page", "If-None-Exist": "identifier=1"}}).then(answer => answer.status)"""


def show(browser: str, found: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{browser}: " + ", ".join(map(" ".join, found.items())) + "\n")


async def reported_by(gateway: Any) -> list[str]:
    """Return the names on the status page."""
    facts = gateway.gateway.status.facts("en")["fields_not_forwarded"]
    return [each["name"] for each in facts]


async def test_only_fields_about_the_browser_are_not_forwarded(
    user: BrowserUser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an opened page, and a write by its script."""
    async with (
        Platform() as platform,
        Sso() as sso,
        running_gateway(platform.url, sso.token_url) as gateway,
        RecordingRelay(gateway.address.port) as line,
    ):
        await user.do("open", url=f"http://127.0.0.1:{line.port}/fhir/Patient/1")
        assert await user.run(WRITE) == 200
        sent = {name for request in platform.requests for name, _ in request.headers}
        found = fates_of(line.fields, sent, await reported_by(gateway))
    show("Chromium", found, capsys)
    assert {name.lower() for name, fate in found.items() if fate == "told"} <= DESCRIPTIVE
    assert {found[name] for name in ("Accept", "Content-Type", "If-None-Exist", "User-Agent")} == {
        "sent"
    }


@pytest.mark.parametrize("browser", DOCUMENTED)
async def test_documented_fields_of_other_browsers_are_sent_used_or_reported(
    browser: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = DOCUMENTED[browser]
    async with (
        Platform() as platform,
        Sso() as sso,
        running_gateway(platform.url, sso.token_url) as gateway,
    ):
        lines = "".join(f"{name}: gateway\r\n" for name in names)
        request = f"GET /fhir/Patient/1 HTTP/1.1\r\n{lines}\r\n".encode()
        assert (await fetch(gateway.address, request)).status == 200
        sent = [name for name, _ in platform.requests[0].headers]
        found = fates_of(names, sent, await reported_by(gateway))
    show(browser, found, capsys)
    assert {name.lower() for name, fate in found.items() if fate == "told"} <= DESCRIPTIVE
