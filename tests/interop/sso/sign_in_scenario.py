"""The scenario of a user who signs in with a browser, run once for all rows of a module."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.browser.conftest import BrowserUser, new_user
from tests.browser.pages import program, read, sign_out
from tests.doubles.processes import GatewayProcess, free_port
from tests.doubles.waiting import wait_until
from tests.interop.sso.front import TokenRequest
from tests.interop.sso.part import ScenarioPart
from tests.interop.sso.stage import Stage

IDLE = 5
RENEWALS = 2
_ASK = """fetch(%s, {credentials: 'include', ...%s}).then(async (answer) => ({
  status: answer.status, reason: answer.headers.get('X-Gateway-Error'), text: await answer.text()
}))"""
# Reads again and again, until the page is told to end.
_KEEP_READING = """void (window.statuses = [], window.ended = (async () => {
  while (!window.end) {
    statuses.push(await %s);
    await new Promise((done) => setTimeout(done, 50));
  }
})())"""
_STATUSES = "(window.end = true, ended.then(() => statuses))"


@dataclass(slots=True)
class SignInScenario:
    """One user with two tabs of a page that may call the gateway.

    `ended` is set at the end.
    """

    stage: Stage
    browser: int
    part: ScenarioPart = field(default_factory=ScenarioPart)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run_all(self) -> None:
        """Run the scenario in a separate browser context."""
        await self.part.run(self._run())
        self.ended.set()

    async def _run(self) -> None:
        offered = self.stage.server.not_offered
        async with program(free_port()) as page, new_user(self.browser) as person:
            user = _User(self.stage, person, self.part, page)
            try:
                await user.request_without_session()
                await user.sign_in_first()
                await user.use_two_tabs()
                if "refresh" not in offered:
                    await user.keep_reading()
                if "sign_out_at_the_sso" not in offered:
                    await user.sign_out_at_the_sso()
                if "key_rotation" not in offered:
                    await user.sign_in_after_key_rotation()
                await user.sign_out_at_the_gateway()
                await user.let_the_session_idle()
            finally:
                self.part.record("browser", await person.do("seen"))


@dataclass(slots=True)
class _User:
    stage: Stage
    person: BrowserUser
    part: ScenarioPart
    page: str
    _gateway: GatewayProcess | None = None

    async def request_without_session(self) -> None:
        """Ask from a page before any sign-in."""
        stage = self.stage
        login = {
            "enabled": True,
            "redirect_uri": f"{self._base}/auth/callback",
            "cors_origins": [self.page],
            **stage.server.login_settings(),
        }
        sections = {"credentials": {"default": stage.marked("login")}, "login": login}
        self.part.record("doctor", await stage.check_and_doctor("doctor-login", **sections))
        listen = {"address": self._base.removeprefix("http://")}
        self._gateway = stage.gateway("login", **sections, listen=listen)
        await stage.wait_until_ready(self._gateway)
        await self.person.do("open", url=self.page)
        self.part.record("XHR without session", await self._ask("/fhir/Patient/1"))
        self.part.record("no session", await self._ask("/auth/session"))

    async def sign_in_first(self) -> None:
        """Open a page of the gateway, and sign in at the SSO."""
        url = f"{self._base}/fhir/Patient/wanted"
        self.part.record("landed", await self._sign_in(url))
        await wait_until(lambda: bool(self._audits("login")))
        self.part.record("audit", self._audits("login")[-1])
        cookies = (await self.person.do("cookies"))["cookies"]
        self.part.record("cookies", [each for each in cookies if each["name"].startswith("dhp")])

    async def use_two_tabs(self) -> None:
        """Open a second tab, ask for the session, and write as a page of another site would."""
        self.part.record("second tab", await self.person.do("open", tab=1, url=self._url(2)))
        for tab in (0, 1):
            await self.person.do("open", tab=tab, url=self.page)
        self.part.record("session", await self._ask("/auth/session"))
        write = {"method": "POST", "body": "{}"}
        self.part.record("forged POST", await self._ask("/fhir/Patient", **write))
        named = {"X-Requested-With": "page", "Content-Type": "application/fhir+json"}
        self.part.record("POST", await self._ask("/fhir/Patient", **write, headers=named))
        await wait_until(lambda: len(self._audits("exchange")) > 1)
        self.part.record("audit of exchanges", self._audits("exchange"))

    async def keep_reading(self) -> None:
        """Read in both tabs until tokens were refreshed twice."""
        before, known = len(self._refreshes()), set(self._tokens())
        for tab in (0, 1):
            await self.person.run(_KEEP_READING % read(self._base), tab=tab)
        await wait_until(lambda: len(self._refreshes()) >= before + RENEWALS)
        statuses = [await self.person.run(_STATUSES, tab=tab) for tab in (0, 1)]
        statuses.append([await self._status()])
        used = set(self._tokens()) - known
        self.part.record("refresh", (statuses, self._refreshes()[before:], len(used)))

    async def sign_out_at_the_sso(self) -> None:
        """Sign out at the SSO's page in the second tab, and continue reading in the first."""
        await self.stage.server.sign_out(self.person, tab=1)
        begin = time.monotonic()
        async with asyncio.timeout(120):
            while (status := await self._status()) == 200:
                pass
        took = time.monotonic() - begin
        self.part.record("signed out at the SSO", (status, self._audits("logout"), took))

    async def sign_in_after_key_rotation(self) -> None:
        """Sign in once more, after the SSO has another key to sign with."""
        await asyncio.to_thread(self.stage.server.rotate_key)
        self.part.record("another key", await self._sign_in(self._url(3)))
        await self.person.do("open", url=self.page)

    async def sign_out_at_the_gateway(self) -> None:
        """Sign out at the gateway, then at the SSO that it names, and open a page again."""
        if await self._status() != 200:
            await self._sign_in(self._url(4))
            await self.person.do("open", url=self.page)
        signed_out = await self.person.run(sign_out(self._base))
        self.part.record("signed out", (signed_out, await self._status()))
        url = signed_out.get("end_session_url")
        if url is None or "sign_out" in self.stage.server.not_offered:
            return
        await self.person.do("open", url=url)
        await self.stage.server.confirm_sign_out(self.person)
        if (back := self.stage.server.login_settings().get("post_logout_redirect_uri")) is not None:
            await self.person.do("arrive", url=back)
        await self.person.do("open", url=self._url(5))
        await self.person.do("wait", selector=self.stage.server.password_field)
        self.part.record("asked for the password", True)

    async def let_the_session_idle(self) -> None:
        """Sign in with a short idle lifetime, and wait for longer than that."""
        assert self._gateway is not None
        file = self.stage.directory / "login" / "gateway.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["login"]["idle_lifetime"] = IDLE
        file.write_text(yaml.safe_dump(settings))
        before = len(self._audits("reload"))
        self._gateway.process.popen.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(self._audits("reload")) > before)
        # The page of before: LemonLDAP::NG goes on with the first of two requests to sign in.
        await self._sign_in(self._url(5))
        await self.person.do("open", url=self.page)
        status = await self._status()
        await asyncio.sleep(IDLE + 0.5)
        self.part.record("idle", (status, await self._status()))

    @property
    def _base(self) -> str:
        return self.stage.server.gateway

    def _url(self, patient: int) -> str:
        return f"{self._base}/fhir/Patient/{patient}"

    async def _sign_in(self, url: str) -> dict[str, Any]:
        opened = await self.person.do("open", url=url)
        # An SSO whose own session lives on asks nothing.
        if opened["url"] != url:
            await self.stage.server.sign_in(self.person)
        return await self.person.do("arrive", url=url)

    async def _status(self) -> int:
        return int(await self.person.run(read(self._base)))

    async def _ask(self, path: str, **options: Any) -> dict[str, Any]:
        script = _ASK % (json.dumps(self._base + path), json.dumps(options))
        answer: dict[str, Any] = await self.person.run(script)
        return answer

    def _refreshes(self) -> list[TokenRequest]:
        return [e for e in self.stage.front.token_requests if e.grant_type == "refresh_token"]

    def _tokens(self) -> list[str]:
        """Return the tokens with which the platform was read."""
        return self.stage.platform.tokens.get("1", [])

    def _audits(self, event: str) -> list[dict[str, Any]]:
        assert self._gateway is not None
        lines = self._gateway.process.stdout.rpartition("\n")[0].splitlines()
        return [record for each in lines if (record := json.loads(each))["event"] == event]
