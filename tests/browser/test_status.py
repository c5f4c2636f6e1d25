"""The status page in a real browser, in front of the sandbox: seen, read out, and kept live.

HTML alone does not show its contrast, or what a screen reader makes of it: axe-core is the program
that auditors use.
"""

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
from tests.browser.conftest import Person
from tests.doubles.duty import shown
from tests.doubles.gateway import CLIENT_SECRET, Running, running
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
class Duty:
    """A gateway in front of the sandbox, and the page that the people on duty look at."""

    platform: Sandbox
    gateway: Running

    @property
    def page(self) -> str:
        """The page's address."""
        return f"{self.gateway.admin_url}/status"

    async def request(self, path: str, key: str = API_KEY) -> int:
        """A caller's request; its status."""
        url = f"{self.gateway.url}/{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"X-API-Key": key}) as answer,
        ):
            return answer.status


@contextlib.asynccontextmanager
async def on_duty(**options: Any) -> AsyncIterator[Duty]:
    """All is well, and a few requests of two callers have been served."""
    callers = [
        {"name": "hospital-system", "api_key": API_KEY},
        {"name": "laboratory", "api_key": "planted-other-key"},
    ]
    async with (
        sandbox(**options) as platform,
        running(platform.fhir_base_url, platform.token_url, callers=callers) as gateway,
    ):
        duty = Duty(platform, gateway)
        while (await gateway.ready())[0] != 200:  # noqa: ASYNC110 - asks over a socket
            await asyncio.sleep(0.01)
        for path in ("Patient?_count=5", f"Patient/{PATIENT_ID}", f"Patient?family={FAMILY}"):
            await duty.request(path)
        await duty.request("Observation?_count=2", "planted-other-key")
        yield duty


def busy_hour(duty: Duty) -> None:
    """Record an hour that has passed already: a working day with a short failure."""
    now, wall = time.monotonic(), time.time()
    names = [("search-type", "Patient"), ("read", "Observation"), ("create", "Encounter")]
    for minute in range(59, 0, -1):
        failing = 31 <= minute <= 34
        for number in range(18 + (minute * 7) % 13):
            interaction, resource = names[(number + minute) % 3]
            exchange = Exchange("id", wall - 60 * minute, now - 60 * minute, status=200)
            exchange.caller = "laboratory" if number % 4 == 0 else "hospital-system"
            exchange.interaction, exchange.resource = interaction, resource
            exchange.duration = 0.08 + 0.013 * ((number * minute) % 29)
            if failing and number % 3 == 0:
                exchange.status, exchange.reason = 503, "upstream-unreachable"
            duty.gateway.gateway.health.recent_requests.record_exchange(exchange)


def with_secret(settings: Settings, secret: str) -> Settings:
    """Settings with another client secret."""
    default = settings.credentials["default"]
    changed = default.model_copy(update={"client_secret": Secret(secret)})
    return settings.model_copy(update={"credentials": {"default": changed}})


async def shoot(person: Person, tmp_path: Path, name: str) -> None:
    """A picture, for the documentation only where that was asked for."""
    folder = IMAGES if SHOOTS else tmp_path
    await person.do("shoot", path=str(folder / f"status-{name}.png"))


def words(reason: str, language: str = "en") -> str:
    """Words as they are seen."""
    return advice(Component("platform", "failed", reason), language).replace("`", "")


async def changed(person: Person, script: str) -> None:
    """Wait until a script comes to something else."""
    before = await person.run(script)
    async with asyncio.timeout(PATIENCE):
        while await person.run(script) == before:  # noqa: ASYNC110 - asks a browser
            await asyncio.sleep(0.05)


async def no_complaints(person: Person) -> None:
    """Neither an error of the script nor one of the policy or the network on the console."""
    assert (await person.do("complaints"))["complaints"] == []


async def no_obstacles(person: Person) -> None:
    """Nothing serious for those who cannot see, or not well."""
    violations = (await person.do("axe"))["violations"]
    assert [each for each in violations if each["impact"] in SERIOUS] == []


async def test_people_see_at_a_glance_that_all_is_well(person: Person, tmp_path: Path) -> None:
    """On a desktop, in the dark and on a phone the answer is within the first screen."""
    async with on_duty() as duty:
        busy_hour(duty)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await person.do("open", url=duty.page)
        for name, size, scheme in (
            ("desktop", DESKTOP, "light"),
            ("dark", DESKTOP, "dark"),
            ("phone", PHONE, "light"),
        ):
            await person.do("look", **size, scheme=scheme)
            await person.do("wait", selector="#care", text="Yes")
            bottom = "document.querySelector('#care').getBoundingClientRect().bottom"
            assert await person.run(bottom) < size["height"]
            sideways = "document.documentElement.scrollWidth <= innerWidth"
            assert await person.run(sideways), f"{name}: the page has to be moved sideways"
            await shoot(person, tmp_path, name)
        await no_complaints(person)


# Words of heads, headings and answers that stand on more than one line, and what is cut off.
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
WIDTHS = (320, 360, 390, 641, 768, 1280)
# In these each part of the page has much in it.
FULL = ("every-interaction", "every-reason", "several-tokens", "outbox-person", "many-callers")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_fits_every_screen(person: Person, language: str) -> None:
    """From a small phone to a desk no word of a head is broken, and nothing is wider than it."""
    for state in (*FULL, "busy", "shutting-down"):
        async with shown(state) as url:
            await person.do("open", url=f"{url}/status?lang={language}")
            for width in WIDTHS:
                await person.do("look", width=width, height=800)
                faults = (await person.run(BROKEN), await person.run(WIDER))
                assert faults == ([], []), f"{state} at {width} px"
                assert width < 360 or await person.run(SPLIT) == [], f"{state} at {width} px"


async def test_a_single_minute_looks_like_one(person: Person) -> None:
    """On a desk and on a phone its bar is a sixtieth of the chart's width, at the right end."""
    async with shown("first-minute") as url:
        await person.do("open", url=f"{url}/status")
        for size in (DESKTOP, PHONE):
            await person.do("look", **size)
            boxes = await person.run(
                "['.chart.requests', '.chart.requests rect'].map((each) => "
                "document.querySelector(each).getBoundingClientRect().toJSON())"
            )
            chart, bar = boxes
            assert 0.5 < bar["width"] / (chart["width"] / 60) < 1
            assert 0 <= chart["right"] - bar["right"] < chart["width"] / 60
            assert bar["height"] < 0.7 * chart["height"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_nobody_meets_an_obstacle(person: Person, language: str) -> None:
    """axe-core finds nothing serious, light and dark, on a phone too, and all in one language.

    Words change neither colours nor the order of parts: one look is enough in the other languages.
    """
    looks = [(PHONE, "light"), (PHONE, "dark"), (DESKTOP, "light"), (DESKTOP, "dark")]
    async with on_duty() as duty:
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await person.do("open", url=f"{duty.page}?lang={language}")
        seen = await person.do("wait", selector="#care", text=words("fine", language))
        assert Message("The last hour").in_language(language) in seen["text"]
        await person.do("click", selector="summary")
        for size, scheme in looks if language == "en" else looks[:1]:
            await person.do("look", **size, scheme=scheme)
            await no_obstacles(person)
        await no_complaints(person)


async def test_the_open_page_tells_of_a_failing_sso_and_of_its_recovery(
    person: Person, tmp_path: Path
) -> None:
    """Without a reload: the token is not renewed, then care cannot go on, then it goes on again."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("look", **DESKTOP)
        await person.do("wait", selector="#care", text="Yes")
        await person.run("void (window.sameDocument = true)")
        settings = duty.gateway.settings
        duty.platform.set_faults(Faults(sso_failure=503))
        # A changed secret is tried at once, and the token stays valid for longer than the test.
        await duty.gateway.gateway.reload(with_secret(settings, "planted-new-secret"))
        await person.do("wait", selector="#care", text=words("renewal-fails"))
        await person.do("wait", selector="#glance", text="not renewed")
        duty.platform.set_faults(Faults(sso_failure=503, platform_failure=401))
        while (await duty.gateway.ready())[0] == 200:
            await duty.request("Patient?_count=1")
        await person.do("wait", selector="#care", text=words("sso-unavailable"))
        await person.do("wait", selector="#care strong", text="No")
        assert await duty.request("Patient?_count=1") == 503
        seen = await person.do("wait", selector="#reasons", text="sso-unavailable")
        assert "gives no token" in seen["text"]
        assert (await person.run("document.title")).startswith("✖ No")
        await no_obstacles(person)
        await shoot(person, tmp_path, "sso-down")
        duty.platform.set_faults(Faults())
        await duty.gateway.gateway.reload(settings)
        await duty.request("Patient?_count=1")
        await person.do("wait", selector="#care", text=words("fine"))
        assert (await person.run("document.title")).startswith("✔ Yes")
        assert await person.run("window.sameDocument") is True
        await no_complaints(person)


async def test_the_countdown_runs_between_the_events(person: Person) -> None:
    """The token's time goes down by itself, also while no event comes."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("hold", pattern="**/status/events**")
        await person.do("open", url=duty.page)
        await changed(person, "document.querySelector('#glance [data-seconds]').textContent")


async def test_what_is_open_stays_open(person: Person) -> None:
    """A reload changes the settings on the open page without closing them or moving the focus."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("click", selector="summary")
        await person.run("document.querySelector('#tokens-rows').focus()")
        settings = duty.gateway.settings
        limits = settings.limits.model_copy(update={"max_headers": 123})
        await duty.gateway.gateway.reload(settings.model_copy(update={"limits": limits}))
        await person.do("wait", selector="#settings tr", text="limits.max_headers123")
        await changed(person, "document.querySelector('#about').textContent")
        assert await person.run("document.activeElement.id") == "tokens-rows"


async def test_a_gateway_that_is_gone_is_not_said_to_be_well(person: Person) -> None:
    """When the gateway no longer responds, the page says so at its top and in the tab's title."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("wait", selector="#care", text="Yes")
    stale = "No answer from the gateway: what you see is old."
    seen = await person.do("wait", selector="#stale", text=stale)
    assert seen["text"].index(stale) < seen["text"].index("Yes")
    assert (await person.run("document.title")).startswith("?")


async def test_more_open_pages_than_streams_are_live_too(person: Person) -> None:
    """A page that gets no stream asks for the whole page from time to time."""
    async with on_duty() as duty, contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"{duty.page}/events"
        while (await stack.enter_async_context(session.get(url))).status == 200:
            pass
        await person.do("open", url=duty.page)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await person.do("wait", selector="#reasons", text="caller-unknown")


async def test_a_proxy_that_holds_events_back_does_no_harm(person: Person) -> None:
    """Where a stream stays silent the page asks for the whole page from time to time."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("hold", pattern="**/status/events**")
        await person.do("open", url=duty.page)
        await duty.request("Patient?_count=5", "planted-wrong-key")
        await person.do("wait", selector="#reasons", text="caller-unknown")
        await no_complaints(person)


async def test_nothing_of_a_patient_and_no_secret_reaches_the_browser(person: Person) -> None:
    """Neither the page nor any event holds an id, a name, a key, the client's secret or a token."""
    async with on_duty() as duty:
        await person.do("open", url=duty.page)
        await person.do("click", selector="summary")
        await duty.request(f"Patient/{PATIENT_ID}", "planted-wrong-key")
        await person.do("wait", selector="#reasons", text="caller-unknown")
        await person.do("open", url=f"{duty.page}.json")
        shown = str(await person.do("seen"))
        assert "caller-unknown" in shown
        for canary in (PATIENT_ID, FAMILY, API_KEY, "planted", CLIENT_SECRET, "eyJ"):
            assert canary not in shown
