"""The status page in a real browser in front of the sandbox, with axe-core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.config.settings import Settings
from gateway.exchange import Exchange
from gateway.health.health import Component, advice
from gateway.i18n import LANGUAGES, Message
from gateway.sandbox.options import Faults
from gateway.sandbox.server import Sandbox
from gateway.secret import Secret
from tests.browser.conftest import BrowserUser
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.gateway_states import busy_hour, serve_state
from tests.doubles.sections import CLIENT_SECRET
from tests.login.stage import sandbox

IMAGES = Path(__file__).parents[2] / "docs" / "img"
SHOOTS = os.environ.get("DHP_SCREENSHOTS") == "1"
PATIENT_ID = "planted-patient-id"
FAMILY = "planted-family-name"
API_KEY = "planted-api-key"
# For what comes within seconds unless it is broken.
PATIENCE = 120.0
SERIOUS = {"serious", "critical"}
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 375, "height": 812}


@dataclass
class StatusPage:
    """A gateway in front of the sandbox, and its status page."""

    platform: Sandbox
    gateway: RunningGateway

    @property
    def page(self) -> str:
        return f"{self.gateway.admin_url}/status"

    async def request(self, path: str, key: str = API_KEY) -> int:
        """Send a caller's request, and return its status."""
        url = f"{self.gateway.url}/{path}"
        async with aiohttp.request("GET", url, headers={"X-API-Key": key}) as response:
            return response.status


@contextlib.asynccontextmanager
async def status_page(**options: Any) -> AsyncIterator[StatusPage]:
    """Yield a gateway without problems that has served requests of two callers."""
    callers = [
        {"name": "hospital-system", "api_key": API_KEY},
        {"name": "laboratory", "api_key": "planted-other-key"},
    ]
    async with (
        sandbox(**options) as platform,
        running_gateway(platform.fhir_base_url, platform.token_url, callers=callers) as gateway,
    ):
        duty = StatusPage(platform, gateway)
        await gateway.wait_until_ready()
        for path in ("Patient?_count=5", f"Patient/{PATIENT_ID}", f"Patient?family={FAMILY}"):
            await duty.request(path)
        await duty.request("Observation?_count=2", "planted-other-key")
        yield duty


def record_busy_hour(duty: StatusPage) -> None:
    """Record the hour before this minute."""
    now, wall = time.monotonic(), time.time()
    for minute, (status, reason), members in busy_hour():
        if minute:
            exchange = Exchange("id", wall - 60 * minute, now - 60 * minute, status=status)
            for name, value in {"reason": reason, **members}.items():
                setattr(exchange, name, value)
            duty.gateway.gateway.health.recent_requests.record_exchange(exchange)


def with_secret(settings: Settings, secret: str) -> Settings:
    """Return settings with another client secret."""
    default = settings.credentials["default"]
    changed = default.model_copy(update={"client_secret": Secret(secret)})
    return settings.model_copy(update={"credentials": {"default": changed}})


async def shoot(user: BrowserUser, tmp_path: Path, name: str) -> None:
    """Take a picture for the documentation where that was asked for."""
    folder = IMAGES if SHOOTS else tmp_path
    await user.do("shoot", path=str(folder / f"status-{name}.png"))


def words(reason: str, language: str = "en") -> str:
    return advice(Component("platform", "failed", reason), language).replace("`", "")


async def changed(user: BrowserUser, script: str) -> None:
    """Wait until a script returns something else."""
    before = await user.run(script)
    async with asyncio.timeout(PATIENCE):
        while await user.run(script) == before:  # noqa: ASYNC110 - asks a browser
            await asyncio.sleep(0.05)


async def no_complaints(user: BrowserUser) -> None:
    """Check that the console has no error of script, policy or network."""
    assert (await user.do("complaints"))["complaints"] == []


async def assert_accessible(user: BrowserUser) -> None:
    violations = (await user.do("axe"))["violations"]
    assert [each for each in violations if each["impact"] in SERIOUS] == []


async def test_the_service_status_is_on_the_first_screen(user: BrowserUser, tmp_path: Path) -> None:
    async with status_page() as duty:
        record_busy_hour(duty)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await user.do("open", url=duty.page)
        for name, size, scheme in (
            ("desktop", DESKTOP, "light"),
            ("dark", DESKTOP, "dark"),
            ("phone", PHONE, "light"),
        ):
            await user.do("look", **size, scheme=scheme)
            await user.do("wait", selector="#care", text="Yes")
            bottom = "document.querySelector('#care').getBoundingClientRect().bottom"
            assert await user.run(bottom) < size["height"]
            sideways = "document.documentElement.scrollWidth <= innerWidth"
            assert await user.run(sideways), f"{name}: the page has to be moved sideways"
            await shoot(user, tmp_path, name)
        await no_complaints(user)


# Words of headings and of the service status that are broken over lines, or truncated.
BROKEN = """[...document.querySelectorAll("h1,h2,h3,strong,b,th,.badge,nav a,.axis *,figcaption")]
  .filter((part) => part.getClientRects().length && !part.closest("[hidden]"))
  .flatMap((part) => {
    const lines = (text, from, to) => {
      const range = document.createRange();
      range.setStart(text, from);
      range.setEnd(text, to);
      return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
    };
    const found = [];
    for (const text of part.childNodes) {
      if (text.nodeType !== Node.TEXT_NODE) continue;
      for (const word of text.data.matchAll(/[^\\s-]+/g)) {
        const end = word.index + word[0].length;
        if (lines(text, word.index, end) > 1) found.push(word[0]);
      }
    }
    if (part.scrollWidth > part.clientWidth + 1 && part.clientWidth) found.push(part.textContent);
    return found;
  })"""
# Commands that stand on more than one line.
SPLIT = """[...document.querySelectorAll(".care code, .reasons p code")]
  .filter((part) => part.innerText.startsWith("dhp-gateway ") && part.getClientRects().length > 1)
  .map((part) => part.innerText)"""
WIDER = """[document.documentElement, ...document.querySelectorAll(".wide")]
  .filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.id)"""
SMALLER = """[...document.querySelectorAll("body *")]
  .filter((part) => part.getClientRects().length)
  .filter((part) => parseFloat(getComputedStyle(part).fontSize) < 12)
  .map((part) => part.outerHTML)"""
WIDTHS = (320, 360, 390, 641, 768, 1280)
# In these each part of the page has much in it.
FULL = ("every-interaction", "every-reason", "several-tokens", "outbox-person", "many-callers")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_fits_every_screen(user: BrowserUser, language: str) -> None:
    """No heading is broken within a word, nothing wider than the screen, no text below 12 px."""
    for state in (*FULL, "busy", "shutting-down"):
        async with serve_state(state) as url:
            await user.do("open", url=f"{url}/status?lang={language}")
            for width in WIDTHS:
                await user.do("look", width=width, height=800)
                faults = [await user.run(script) for script in (BROKEN, WIDER, SMALLER)]
                assert faults == [[], [], []], f"{state} at {width} px"
                assert width < 360 or await user.run(SPLIT) == [], f"{state} at {width} px"


async def test_the_bar_of_one_minute_has_a_sixtieth_of_the_width(user: BrowserUser) -> None:
    async with serve_state("first-minute") as url:
        await user.do("open", url=f"{url}/status")
        for size in (DESKTOP, PHONE):
            await user.do("look", **size)
            boxes = await user.run(
                "['.chart.requests', '.chart.requests rect'].map((each) => "
                "document.querySelector(each).getBoundingClientRect().toJSON())"
            )
            chart, bar = boxes
            assert 0.5 < bar["width"] / (chart["width"] / 60) < 1
            assert 0 <= chart["right"] - bar["right"] < chart["width"] / 60
            assert bar["height"] < 0.7 * chart["height"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_is_accessible(user: BrowserUser, language: str) -> None:
    """Light and dark, on a phone, and all in one language.

    Words change neither colours nor the order of parts: one run is enough in the other languages.
    """
    looks = [(PHONE, "light"), (PHONE, "dark"), (DESKTOP, "light"), (DESKTOP, "dark")]
    async with status_page() as duty:
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await user.do("open", url=f"{duty.page}?lang={language}")
        seen = await user.do("wait", selector="#care", text=words("fine", language))
        assert Message("The last hour").in_language(language) in seen["text"]
        await user.do("click", selector="summary")
        for size, scheme in looks if language == "en" else looks[:1]:
            await user.do("look", **size, scheme=scheme)
            await assert_accessible(user)
        await no_complaints(user)


async def test_the_open_page_shows_a_failing_sso_and_its_recovery(
    user: BrowserUser, tmp_path: Path
) -> None:
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("look", **DESKTOP)
        await user.do("wait", selector="#care", text="Yes")
        await user.run("void (window.sameDocument = true)")
        settings = duty.gateway.settings
        duty.platform.set_faults(Faults(failures={"sso": 503}))
        # A changed secret is tried at once, and the token stays valid for longer than the test.
        await duty.gateway.gateway.reload(with_secret(settings, "planted-new-secret"))
        await user.do("wait", selector="#care", text=words("renewal-fails"))
        await user.do("wait", selector="#glance", text="not renewed")
        duty.platform.set_faults(Faults(failures={"sso": 503, "platform": 401}))
        while (await duty.gateway.ready())[0] == 200:
            await duty.request("Patient?_count=1")
        await user.do("wait", selector="#care", text=words("sso-unavailable"))
        await user.do("wait", selector="#care strong", text="No")
        assert await duty.request("Patient?_count=1") == 503
        seen = await user.do("wait", selector="#reasons", text="sso-unavailable")
        assert "gives no token" in seen["text"]
        assert (await user.run("document.title")).startswith("✖ No")
        await assert_accessible(user)
        await shoot(user, tmp_path, "sso-down")
        duty.platform.set_faults(Faults())
        await duty.gateway.gateway.reload(settings)
        await duty.request("Patient?_count=1")
        await user.do("wait", selector="#care", text=words("fine"))
        assert (await user.run("document.title")).startswith("✔ Yes")
        assert await user.run("window.sameDocument") is True
        await no_complaints(user)


async def test_the_countdown_runs_between_the_events(user: BrowserUser) -> None:
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("hold", pattern="**/status/events**")
        await user.do("open", url=duty.page)
        await changed(user, "document.querySelector('#glance [data-seconds]').textContent")


async def test_a_reload_of_the_settings_keeps_open_sections_and_focus(user: BrowserUser) -> None:
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("click", selector="summary")
        await user.run("document.querySelector('#tokens-rows').focus()")
        settings = duty.gateway.settings
        limits = settings.limits.model_copy(update={"max_headers": 123})
        await duty.gateway.gateway.reload(settings.model_copy(update={"limits": limits}))
        await user.do("wait", selector="#settings tr", text="limits.max_headers123")
        await changed(user, "document.querySelector('#about').textContent")
        assert await user.run("document.activeElement.id") == "tokens-rows"


async def test_the_page_says_that_the_gateway_does_not_respond(user: BrowserUser) -> None:
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("wait", selector="#care", text="Yes")
    stale = "No response from the gateway: what you see is old."
    seen = await user.do("wait", selector="#stale", text=stale)
    assert seen["text"].index(stale) < seen["text"].index("Yes")
    assert (await user.run("document.title")).startswith("?")


async def test_a_page_without_a_stream_polls(user: BrowserUser) -> None:
    async with status_page() as duty, contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"{duty.page}/events"
        while (await stack.enter_async_context(session.get(url))).status == 200:
            pass
        await user.do("open", url=duty.page)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await user.do("wait", selector="#reasons", text="caller-unknown")


async def test_a_page_whose_stream_is_silent_polls(user: BrowserUser) -> None:
    """A proxy may hold events back."""
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("hold", pattern="**/status/events**")
        await user.do("open", url=duty.page)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await user.do("wait", selector="#reasons", text="caller-unknown")
        await no_complaints(user)


async def test_no_patient_data_and_no_secret_reaches_the_browser(user: BrowserUser) -> None:
    async with status_page() as duty:
        await user.do("open", url=duty.page)
        await user.do("click", selector="summary")
        await duty.request(f"Patient/{PATIENT_ID}", "planted-wrong-key")
        await user.do("wait", selector="#reasons", text="caller-unknown")
        await user.do("open", url=f"{duty.page}.json")
        shown = str(await user.do("seen"))
        assert "caller-unknown" in shown
        for canary in (PATIENT_ID, FAMILY, API_KEY, "planted", CLIENT_SECRET, "eyJ"):
            assert canary not in shown
