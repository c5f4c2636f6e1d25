"""A real browser stays signed in at a certified SSO for as long as it should, and no longer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from gateway.sandbox.options import Faults
from tests.browser.conftest import BrowserUser, Sso
from tests.browser.pages import malicious_page, program, read, sign_out
from tests.doubles.platform import Platform, http
from tests.doubles.sections import CLIENT_SECRET
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, token
from tests.login.provider import Provider
from tests.login.stage import Stage, free_port, sandbox, stage
from tests.store.redis_server import RedisServer, redis_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Yield a running, empty redis-server."""
    yield from redis_server(tmp_path)


@dataclass
class SignInSetup:
    """A certified SSO, a platform, a store; and the gateway, which may be started again."""

    issuer: str
    platform: Platform
    store: RedisServer
    program: str
    port: int

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gateway(self, **store: str) -> contextlib.AbstractAsyncContextManager[Stage]:
        """Run the gateway; with a store, a later one has the sessions of an earlier one."""
        return stage(
            self.platform.url,
            f"{self.issuer}/token",
            self.issuer,
            login={
                "scope": "openid",
                "post_logout_redirect_uri": f"{self.base}/auth/session",
                "cors_origins": [self.program],
            },
            port=self.port,
            store=store,
        )


@pytest.fixture
async def setup(certified_sso: Sso, server: RedisServer) -> AsyncIterator[SignInSetup]:
    """Yield everything except the gateway."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with (
        certified_sso(
            redirectUri=f"{base}/auth/callback",
            client={"id": "hospital-17", "secret": CLIENT_SECRET},
            lifetime=2,
            web={
                "backchannel_logout_uri": f"{base}/auth/backchannel-logout",
                "backchannel_logout_session_required": True,
                "post_logout_redirect_uris": [f"{base}/auth/session"],
            },
        ) as issuer,
        Platform() as platform,
        program(free_port()) as page,
    ):
        yield SignInSetup(issuer, platform, server, page, port)


async def agree(user: BrowserUser, tab: int = 0, *, known: bool = False) -> None:
    """Sign in at the SSO's own pages; a `known` user has consented already."""
    await user.do("fill", tab=tab, selector="input[name=login]", value="dr.karimova")
    await user.do("fill", tab=tab, selector="input[name=password]", value="any")
    await user.do("click", tab=tab, selector="button[type=submit]")
    if not known:
        await user.do("wait", tab=tab, selector="button", text="Continue")
        await user.do("click", tab=tab, selector="button[type=submit]")


async def reads(user: BrowserUser, setup: SignInSetup) -> list[int]:
    """Return what the application gets in both tabs."""
    return [await user.run(read(setup.base), tab=tab) for tab in (0, 1)]


async def renewed(user: BrowserUser, setup: SignInSetup, count: int) -> None:
    """Read until so many more tokens were used."""
    before = {request.header("authorization") for request in setup.platform.requests}
    found: set[str | None] = set()
    while len(found) < count:
        assert await reads(user, setup) == [200, 200]
        found = {request.header("authorization") for request in setup.platform.requests} - before


async def test_session_outlives_renewals_and_restart(user: BrowserUser, setup: SignInSetup) -> None:
    """In two tabs.

    The sign-out is that of the SSO too: afterwards it asks for the password.
    """
    async with setup.gateway(url=setup.store.url):
        wanted = [f"{setup.base}/fhir/Patient/{number}" for number in (1, 2)]
        for tab, url in enumerate(wanted):
            await user.do("open", tab=tab, url=url)
        for tab in (1, 0):
            await agree(user, tab, known=tab == 0)
            await user.do("arrive", tab=tab, url=wanted[tab])
        for tab in (0, 1):
            await user.do("open", tab=tab, url=setup.program)
        await renewed(user, setup, 2)
    async with setup.gateway(url=setup.store.url) as scene:
        assert await reads(user, setup) == [200, 200]
        await renewed(user, setup, 2)
        await user.do("back")
        assert '"Patient"' in (await user.do("arrive", url=wanted[0]))["text"]
        await user.do("open", url=setup.program)
        assert await reads(user, setup) == [200, 200]
        leave = (await user.run(sign_out(setup.base)))["end_session_url"]
        assert leave.startswith(f"{setup.issuer}/session/end?")
        assert await reads(user, setup) == [401, 401]
        await user.do("open", url=leave)
        await user.do("click", selector="button[value=yes]")
        await user.do("arrive", url=f"{setup.base}/auth/session")
        await user.do("open", url=wanted[0])
        await user.do("wait", selector="input[name=login]")
        (logout, *_) = await scene.audit("logout")
        assert (logout["user"], logout["outcome"]) == ("dr.karimova", "success")


async def test_sign_out_at_the_sso_ends_the_session(user: BrowserUser, setup: SignInSetup) -> None:
    async with setup.gateway() as scene:
        await user.do("open", url=f"{setup.base}/fhir/Patient/1")
        await agree(user)
        await user.do("arrive", url=f"{setup.base}/fhir/Patient/1")
        await user.do("open", url=setup.program)
        await user.do("open", tab=1, url=f"{setup.issuer}/session/end")
        assert await user.run(read(setup.base)) == 200
        await user.do("click", tab=1, selector="button[value=yes]")
        (logout,) = await scene.audit("logout")
        assert (logout["outcome"], logout["sessions"]) == ("sso", 1)
        assert await user.run(read(setup.base)) == 401


async def test_a_session_at_the_sandbox_outlives_renewals_and_a_restart(
    user: BrowserUser, server: RedisServer
) -> None:
    """Its refresh token is in a cookie of the SSO, as at the national one."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    faults = Faults(token_lifetime=1)
    async with sandbox(faults=faults) as platform, program(free_port()) as page:

        def gateway() -> contextlib.AbstractAsyncContextManager[Stage]:
            return stage(
                platform.fhir_base_url,
                platform.token_url,
                platform.authorize_url,
                login={"cors_origins": [page]},
                port=port,
                store={"url": server.url},
            )

        async def outlives_a_token() -> None:
            issued = platform.count("POST /oauth/token 200")
            # The gateway's own token is renewed as well, and lives for as short a time.
            while platform.count("POST /oauth/token 200") < issued + 3:
                for tab in (0, 1):
                    assert await user.run(read(base, "/fhir/Patient?_count=1"), tab=tab) == 200

        async with gateway():
            for tab in (0, 1):
                await user.do("open", tab=tab, url=f"{base}/fhir/Patient?_count={tab + 1}")
            for tab in (1, 0):
                await user.do("fill", tab=tab, selector="#username", value="dr.karimova")
                await user.do("click", tab=tab, selector="button[value=allow]")
                landed = await user.do("arrive", tab=tab, url=f"{base}/fhir/Patient?")
                assert '"searchset"' in landed["text"]
            for tab in (0, 1):
                await user.do("open", tab=tab, url=page)
            await outlives_a_token()
        async with gateway():
            await outlives_a_token()
            assert (await user.run(sign_out(base), tab=1))["signed_in"] is False
            assert await user.run(read(base)) == 401


# All that a page may keep, in the words of the browser.
KEPT = """(async () => {
  const databases = [];
  for (const { name } of await indexedDB.databases()) {
    databases.push(await new Promise((done) => {
      const opening = indexedDB.open(name);
      opening.onsuccess = () => {
        const names = [...opening.result.objectStoreNames];
        if (!names.length) return done([name]);
        const reading = opening.result.transaction(names);
        Promise.all(names.map((each) => new Promise((read) => {
          const asked = reading.objectStore(each).getAll();
          asked.onsuccess = () => read(asked.result);
        }))).then((found) => done([name, found]));
      };
    }));
  }
  return JSON.stringify({
    local: { ...localStorage },
    session: { ...sessionStorage },
    cookie: document.cookie,
    page: document.documentElement.outerHTML,
    address: location.href,
    name: window.name,
    state: history.state,
    entries: performance.getEntries(),
    databases,
    caches: 'caches' in window ? await caches.keys() : [],
    workers: (await navigator.serviceWorker?.getRegistrations() ?? []).length,
  });
})()"""


class ShortLivedSso(Provider):
    """An SSO whose tokens are recognisable and live for a second; records what it issued."""

    def __init__(self) -> None:
        super().__init__(openid=True)
        self.gave: list[str] = []
        self._nonce: str | None = None

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        """Issue tokens of all kinds for users."""
        asked = dict(parse_qsl(urlsplit(request.target).query))
        self._nonce = asked.get("nonce", self._nonce)
        if request.form.get("grant_type") in ("authorization_code", "refresh_token"):
            number = len(self.gave)
            made = {
                "access_token": f"planted-access-{number}",
                "refresh_token": f"planted-refresh-{number}",
                "id_token": self.id_token(self._nonce),
            }
            self.gave += made.values()
            self.user_tokens(token(made.pop("access_token"), expires_in=1, **made))
        return super().response_to(request)


@dataclass
class PlantedSetup:
    """The SSO, the platform, and the gateway in front of them."""

    sso: ShortLivedSso
    platform: Platform
    scene: Stage
    program: str

    async def sign_in(self, user: BrowserUser) -> None:
        """Sign in in the first tab."""
        url = f"{self.scene.base}/fhir/Patient/1"
        await user.do("open", url=url)
        await user.do("arrive", url=url)


@pytest.fixture
async def planted() -> AsyncIterator[PlantedSetup]:
    """Yield a running gateway, SSO and platform, before any sign-in."""
    async with (
        ShortLivedSso() as sso,
        Platform() as platform,
        program(free_port()) as page,
        stage(
            platform.url,
            sso.token_url,
            sso.issuer,
            login={"scope": "openid", "cors_origins": [page]},
        ) as scene,
    ):
        yield PlantedSetup(sso, platform, scene, page)


async def test_no_token_is_in_the_browser(user: BrowserUser, planted: PlantedSetup) -> None:
    """Storage, cookies, DOM and network log have no token, verifier or secret.

    Only the code passes, once, in the URL of the redirect.
    """
    sso = planted.sso
    await planted.sign_in(user)
    base = planted.scene.base
    await user.do("open", tab=1, url=planted.program)
    while len(sso.user_requests) < 3:
        assert await user.run(read(base), tab=1) == 200
    assert await user.run(read(base, "/auth/session"), tab=1) == 200
    await user.do("open", tab=2, url=f"{base}/auth/session")
    kept = [json.loads(await user.run(KEPT, tab=tab)) for tab in (0, 1, 2)]
    cookies = (await user.do("cookies"))["cookies"]
    assert [cookie["name"] for cookie in cookies] == ["dhp-session"]
    assert (await user.run(sign_out(base), tab=1))["signed_in"] is False
    seen = await user.do("seen")
    verifier = sso.user_requests[0].form["code_verifier"]
    assert len(sso.gave) >= 9
    for place in (kept, cookies, seen):
        text = json.dumps(place)
        found = [each for each in (*sso.gave, verifier, CLIENT_SECRET) if each in text]
        assert found == []
    for page in kept:
        assert (page["local"], page["session"], page["cookie"]) == ({}, {}, "")
        assert (page["databases"], page["caches"], page["workers"]) == ([], [], 0)
        assert "planted-code" not in json.dumps(page)
    shown = [each for each in seen["traffic"] if "planted-code" in json.dumps(each)]
    assert [urlsplit(each["url"]).path for each in shown] == ["/found/authorize", "/auth/callback"]
    assert [each for each in seen["traffic"] if "planted-code" in each.get("sent", "")] == []


PAGE = b"""<!doctype html><title>stored</title><body onload="document.title='ran'">
<script>document.title = 'ran'; fetch('/fhir/Patient', {method: 'POST', body: '{}',
headers: {'X-Requested-With': 'x'}})</script>
<img src="x" onerror="document.title='ran'"></body>"""


async def test_scripts_of_stored_page_do_not_run(user: BrowserUser, planted: PlantedSetup) -> None:
    planted.platform.script(http(200, PAGE, ("Content-Type", "text/html")))
    url = f"{planted.scene.base}/fhir/Binary/1"
    await user.do("open", url=url)
    await user.do("arrive", url=url)
    assert await user.run("document.title") == "stored"
    assert [request.method for request in planted.platform.requests] == ["GET"]


FRAME = """new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.onload = () => done(true);
  frame.src = '%s';
  document.body.append(frame);
})"""


async def test_pages_cannot_be_framed(user: BrowserUser, planted: PlantedSetup) -> None:
    await planted.sign_in(user)
    paths = ("/auth/session", "/auth/callback?state=a", "/auth/login?return_to=//a")
    async with malicious_page() as evil:
        await user.do("open", tab=1, url=evil)
        for path in paths:
            assert await user.run(FRAME % (planted.scene.base + path), tab=1)
        seen = await user.do("seen")
    told = [each["body"] for each in seen["traffic"] if "frame-ancestors" in each.get("body", "")]
    assert len(told) == len(paths)
    # Not even the gateway's own pages frame them.
    assert await user.run(FRAME % "/auth/session")
    assert await user.run("document.querySelector('iframe').contentDocument") is None
