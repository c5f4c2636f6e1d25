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
from tests.browser.conftest import Person, Sso
from tests.browser.pages import evil_page, program, read, sign_out
from tests.doubles.gateway import CLIENT_SECRET
from tests.doubles.platform import Platform, http
from tests.doubles.sso import Answer, SeenRequest, token
from tests.login.provider import Provider
from tests.login.stage import Stage, free_port, sandbox, stage
from tests.store.redis_server import RedisServer, redis_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running, empty redis-server."""
    yield from redis_server(tmp_path)


@dataclass
class Ward:
    """A certified SSO, a platform, a store; and the gateway, which may be started again."""

    issuer: str
    platform: Platform
    store: RedisServer
    program: str
    port: int

    @property
    def base(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"

    def gateway(self, **store: str) -> contextlib.AbstractAsyncContextManager[Stage]:
        """The gateway; with a store, a later one knows what an earlier one knew."""
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
async def ward(certified_sso: Sso, server: RedisServer) -> AsyncIterator[Ward]:
    """Everything but the gateway."""
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
        yield Ward(issuer, platform, server, page, port)


async def agree(person: Person, tab: int = 0, *, known: bool = False) -> None:
    """Sign in at the SSO's own pages; who is `known` has agreed already."""
    await person.do("fill", tab=tab, selector="input[name=login]", value="dr.karimova")
    await person.do("fill", tab=tab, selector="input[name=password]", value="any")
    await person.do("click", tab=tab, selector="button[type=submit]")
    if not known:
        await person.do("wait", tab=tab, selector="button", text="Continue")
        await person.do("click", tab=tab, selector="button[type=submit]")


async def reads(person: Person, ward: Ward) -> list[int]:
    """What the program gets in both tabs."""
    return [await person.run(read(ward.base), tab=tab) for tab in (0, 1)]


async def renewed(person: Person, ward: Ward, count: int) -> None:
    """Go on reading until so many more tokens have gone out."""
    before = {seen.header("authorization") for seen in ward.platform.seen}
    found: set[str | None] = set()
    while len(found) < count:
        assert await reads(person, ward) == [200, 200]
        found = {seen.header("authorization") for seen in ward.platform.seen} - before


async def test_tabs_renewals_and_a_restart(person: Person, ward: Ward) -> None:
    """Two tabs begin at once, tokens are renewed, the gateway restarts, back: all stay signed in.

    The sign-out is that of the SSO too: afterwards it asks who it is.
    """
    async with ward.gateway(url=ward.store.url):
        wanted = [f"{ward.base}/fhir/Patient/{number}" for number in (1, 2)]
        for tab, url in enumerate(wanted):
            await person.do("open", tab=tab, url=url)
        for tab in (1, 0):
            await agree(person, tab, known=tab == 0)
            await person.do("arrive", tab=tab, url=wanted[tab])
        for tab in (0, 1):
            await person.do("open", tab=tab, url=ward.program)
        await renewed(person, ward, 2)
    async with ward.gateway(url=ward.store.url) as scene:
        assert await reads(person, ward) == [200, 200]
        await renewed(person, ward, 2)
        await person.do("back")
        assert '"Patient"' in (await person.do("arrive", url=wanted[0]))["text"]
        await person.do("open", url=ward.program)
        assert await reads(person, ward) == [200, 200]
        leave = (await person.run(sign_out(ward.base)))["end_session_url"]
        assert leave.startswith(f"{ward.issuer}/session/end?")
        assert await reads(person, ward) == [401, 401]
        await person.do("open", url=leave)
        await person.do("click", selector="button[value=yes]")
        await person.do("arrive", url=f"{ward.base}/auth/session")
        await person.do("open", url=wanted[0])
        await person.do("wait", selector="input[name=login]")
        (logout, *_) = await scene.audit("logout")
        assert (logout["user"], logout["outcome"]) == ("dr.karimova", "success")


async def test_the_ssos_own_sign_out_ends_the_session(person: Person, ward: Ward) -> None:
    """Who signs out at the SSO is signed out here, although nothing happened in this page."""
    async with ward.gateway() as scene:
        await person.do("open", url=f"{ward.base}/fhir/Patient/1")
        await agree(person)
        await person.do("arrive", url=f"{ward.base}/fhir/Patient/1")
        await person.do("open", url=ward.program)
        await person.do("open", tab=1, url=f"{ward.issuer}/session/end")
        assert await person.run(read(ward.base)) == 200
        await person.do("click", tab=1, selector="button[value=yes]")
        (logout,) = await scene.audit("logout")
        assert (logout["outcome"], logout["sessions"]) == ("sso", 1)
        assert await person.run(read(ward.base)) == 401


async def test_at_the_sandbox_it_is_the_same(person: Person, server: RedisServer) -> None:
    """With the refresh token in a cookie of the SSO, as the national one has it: tabs, restart."""
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
                    assert await person.run(read(base, "/fhir/Patient?_count=1"), tab=tab) == 200

        async with gateway():
            for tab in (0, 1):
                await person.do("open", tab=tab, url=f"{base}/fhir/Patient?_count={tab + 1}")
            for tab in (1, 0):
                await person.do("fill", tab=tab, selector="#username", value="dr.karimova")
                await person.do("click", tab=tab, selector="button[value=allow]")
                landed = await person.do("arrive", tab=tab, url=f"{base}/fhir/Patient?")
                assert '"searchset"' in landed["text"]
            for tab in (0, 1):
                await person.do("open", tab=tab, url=page)
            await outlives_a_token()
        async with gateway():
            await outlives_a_token()
            assert (await person.run(sign_out(base), tab=1))["signed_in"] is False
            assert await person.run(read(base)) == 401


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


class Generous(Provider):
    """An SSO whose tokens cannot be overlooked and live for a second; keeps what it gave."""

    def __init__(self) -> None:
        super().__init__(openid=True)
        self.gave: list[str] = []
        self._nonce: str | None = None

    def answer_to(self, request: SeenRequest) -> Answer:
        """Tokens of all kinds for people."""
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
        return super().answer_to(request)


@dataclass
class Planted:
    """The SSO, the platform, and the gateway in front of them."""

    sso: Generous
    platform: Platform
    scene: Stage
    program: str

    async def sign_in(self, person: Person) -> None:
        """In the first tab."""
        url = f"{self.scene.base}/fhir/Patient/1"
        await person.do("open", url=url)
        await person.do("arrive", url=url)


@pytest.fixture
async def planted() -> AsyncIterator[Planted]:
    """Yield a running gateway, SSO and platform, before any sign-in."""
    async with (
        Generous() as sso,
        Platform() as platform,
        program(free_port()) as page,
        stage(
            platform.url,
            sso.token_url,
            sso.issuer,
            login={"scope": "openid", "cors_origins": [page]},
        ) as scene,
    ):
        yield Planted(sso, platform, scene, page)


async def test_no_token_is_in_the_browser(person: Person, planted: Planted) -> None:
    """Storage, cookies, DOM and network log of the pages hold no token, verifier or secret.

    The code alone passes through, once, in the address that takes it.
    """
    sso = planted.sso
    await planted.sign_in(person)
    base = planted.scene.base
    await person.do("open", tab=1, url=planted.program)
    while len(sso.user_requests) < 3:
        assert await person.run(read(base), tab=1) == 200
    assert await person.run(read(base, "/auth/session"), tab=1) == 200
    await person.do("open", tab=2, url=f"{base}/auth/session")
    kept = [json.loads(await person.run(KEPT, tab=tab)) for tab in (0, 1, 2)]
    cookies = (await person.do("cookies"))["cookies"]
    assert [cookie["name"] for cookie in cookies] == ["dhp-session"]
    assert (await person.run(sign_out(base), tab=1))["signed_in"] is False
    seen = await person.do("seen")
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


async def test_a_stored_page_runs_nothing(person: Person, planted: Planted) -> None:
    """A malicious page stored on the platform is shown without its scripts and requests."""
    planted.platform.script(http(200, PAGE, ("Content-Type", "text/html")))
    url = f"{planted.scene.base}/fhir/Binary/1"
    await person.do("open", url=url)
    await person.do("arrive", url=url)
    assert await person.run("document.title") == "stored"
    assert [seen.method for seen in planted.platform.seen] == ["GET"]


FRAME = """new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.onload = () => done(true);
  frame.src = '%s';
  document.body.append(frame);
})"""


async def test_the_sign_in_is_shown_in_no_frame(person: Person, planted: Planted) -> None:
    """No page of the gateway is shown in a frame, which prevents clickjacking."""
    await planted.sign_in(person)
    paths = ("/auth/session", "/auth/callback?state=a", "/auth/login?return_to=//a")
    async with evil_page() as evil:
        await person.do("open", tab=1, url=evil)
        for path in paths:
            assert await person.run(FRAME % (planted.scene.base + path), tab=1)
        seen = await person.do("seen")
    told = [each["body"] for each in seen["traffic"] if "frame-ancestors" in each.get("body", "")]
    assert len(told) == len(paths)
    # Not even the gateway's own pages frame them.
    assert await person.run(FRAME % "/auth/session")
    assert await person.run("document.querySelector('iframe').contentDocument") is None
