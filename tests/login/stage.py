"""A gateway with the browser sign-in, an SSO, a platform, and browsers that keep cookies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
from yarl import URL

from gateway.sandbox import Sandbox, SandboxOptions
from tests.doubles.gateway import Running, running
from tests.doubles.processes import free_port

CLIENT_ID = "hospital-web"


@dataclass
class Page:
    """An answer as a browser gets it."""

    status: int
    headers: Mapping[str, str]
    set_cookies: list[str]
    text: str
    url: str

    @property
    def location(self) -> str:
        """Where it leads."""
        return self.headers["Location"]

    @property
    def query(self) -> dict[str, str]:
        """The query of where it leads; a repeated name is an error."""
        found = parse_qs(urlsplit(self.location).query, strict_parsing=True)
        assert all(len(values) == 1 for values in found.values())
        return {name: values[0] for name, values in found.items()}


@dataclass
class Browser:
    """Keeps cookies, follows nothing by itself, and remembers all that it saw."""

    base: str
    session: aiohttp.ClientSession
    pages: list[Page] = field(default_factory=list)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> Page:
        """One request; a path is one of the gateway's."""
        absolute = url if "://" in url else self.base + url
        async with self.session.request(
            method,
            URL(absolute, encoded=True),
            headers=headers,
            allow_redirects=False,
            **kwargs,
        ) as response:
            page = Page(
                response.status,
                response.headers.copy(),
                response.headers.getall("Set-Cookie", []),
                await response.text(),
                absolute,
            )
        self.pages.append(page)
        return page

    async def get(self, url: str, **headers: str) -> Page:
        """A script's request."""
        return await self.request("GET", url, _fields(headers))

    async def open(self, url: str, **headers: str) -> Page:
        """What happens when a person opens an address."""
        fields = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", **_fields(headers)}
        return await self.request("GET", url, fields)

    async def post(self, url: str, **kwargs: Any) -> Page:
        """A script of the gateway's own origin changes something."""
        fields = {"X-Requested-With": "XMLHttpRequest", "Origin": self.base}
        return await self.request("POST", url, {**fields, **kwargs.pop("headers", {})}, **kwargs)

    async def begin(self, return_to: str = "/fhir/Patient") -> Page:
        """The redirect to the SSO."""
        page = await self.open(f"/auth/login?return_to={quote(return_to)}")
        assert page.status == 302, page.text
        return page

    async def agree(self, begun: Page, user: str = "dr.karimova", decision: str = "allow") -> str:
        """Sign in at the sandbox's SSO; where that leads back to."""
        form = {"username": user, "decision": decision}
        page = await self.request("POST", begun.location, data=form)
        return page.location

    async def sign_in(self, return_to: str = "/fhir/Patient", user: str = "dr.karimova") -> Page:
        """All of it; the last redirect."""
        return await self.open(await self.agree(await self.begin(return_to), user))

    def cookies(self) -> dict[str, str]:
        """What the browser would send to the gateway."""
        found = self.session.cookie_jar.filter_cookies(URL(self.base))
        return {name: morsel.value for name, morsel in found.items()}

    def set_cookie(self, name: str, value: str) -> None:
        """Somebody puts a cookie there."""
        self.session.cookie_jar.update_cookies({name: value}, URL(self.base))


def _fields(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


@dataclass
class Stage:
    """What a test plays on."""

    gateway: Running
    base: str
    _stack: contextlib.AsyncExitStack

    async def browser(self) -> Browser:
        """Another browser, which knows nothing yet."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        await self._stack.enter_async_context(session)
        return Browser(self.base, session)

    async def audit(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """The audit's records of an event."""
        async with asyncio.timeout(10):
            return await self.gateway.audit(count, event)


@contextlib.asynccontextmanager
async def stage(
    fhir_base_url: str, token_url: str, authorize_url: str, /, **sections: Any
) -> AsyncIterator[Stage]:
    """A gateway whose login is enabled; `login` in `sections` changes its settings.

    `port` is where it listens, any free one without it.
    """
    # The redirect URI has to name it beforehand.
    port = sections.pop("port", None) or free_port()
    base = f"http://127.0.0.1:{port}"
    login = {
        "enabled": True,
        "client_id": CLIENT_ID,
        "redirect_uri": f"{base}/auth/callback",
        **sections.pop("login", {}),
    }
    settings: dict[str, Any] = {
        "listen": {"address": f"127.0.0.1:{port}"},
        "sso": {"token_url": token_url, "authorize_url": authorize_url},
        **sections,
        "login": login,
    }
    async with (
        contextlib.AsyncExitStack() as stack,
        running(fhir_base_url, token_url, **settings) as gateway,
    ):
        yield Stage(gateway, base, stack)


@contextlib.asynccontextmanager
async def sandbox(**options: Any) -> AsyncIterator[Sandbox]:
    """The embedded platform, whose SSO offers the sign-in."""
    chosen = {"port": 0, "client_id": "hospital-17", "client_secret": "planted-client-secret"}
    platform = Sandbox(SandboxOptions(**{**chosen, **options}))
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()
