"""A gateway with the browser sign-in, an SSO, a platform, and browsers that keep cookies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
from yarl import URL

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.processes import free_port

CLIENT_ID = "hospital-web"


@dataclass
class Page:
    """A response as a browser receives it."""

    status: int
    headers: Mapping[str, str]
    set_cookies: list[str]
    text: str
    url: str

    @property
    def location(self) -> str:
        return self.headers["Location"]

    @property
    def query(self) -> dict[str, str]:
        """Return the query of the Location; a repeated name fails the test."""
        found = parse_qs(urlsplit(self.location).query, strict_parsing=True)
        assert all(len(values) == 1 for values in found.values())
        return {name: values[0] for name, values in found.items()}


@dataclass
class Browser:
    """Keeps cookies, follows no redirect, and records all responses."""

    base: str
    session: aiohttp.ClientSession
    pages: list[Page] = field(default_factory=list)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> Page:
        """Send one request; `url` is absolute or a path of the gateway."""
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
        return await self.request("GET", url, _fields(headers))

    async def open(self, url: str, **headers: str) -> Page:
        fields = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", **_fields(headers)}
        return await self.request("GET", url, fields)

    async def post(self, url: str, **kwargs: Any) -> Page:
        """Send a POST as a script of the gateway's own origin."""
        fields = {"X-Requested-With": "XMLHttpRequest", "Origin": self.base}
        return await self.request("POST", url, {**fields, **kwargs.pop("headers", {})}, **kwargs)

    async def begin(self, return_to: str = "/fhir/Patient") -> Page:
        page = await self.open(f"/auth/login?return_to={quote(return_to)}")
        assert page.status == 302, page.text
        return page

    async def agree(self, begun: Page, user: str = "dr.karimova", decision: str = "allow") -> str:
        """Sign in at the sandbox's SSO. Return the URL that it redirects to."""
        form = {"username": user, "decision": decision}
        page = await self.request("POST", begun.location, data=form)
        return page.location

    async def sign_in(self, return_to: str = "/fhir/Patient", user: str = "dr.karimova") -> Page:
        return await self.open(await self.agree(await self.begin(return_to), user))

    def cookies(self) -> dict[str, str]:
        """Return the cookies that the browser would send to the gateway, by name."""
        found = self.session.cookie_jar.filter_cookies(URL(self.base))
        return {name: morsel.value for name, morsel in found.items()}

    def set_cookie(self, name: str, value: str) -> None:
        """Put a cookie into the browser, as an attacker could."""
        self.session.cookie_jar.update_cookies({name: value}, URL(self.base))


def _fields(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


@dataclass
class Stage:
    """A gateway with its base URL; it opens browsers."""

    gateway: RunningGateway
    base: str
    _stack: contextlib.AsyncExitStack

    async def browser(self) -> Browser:
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        await self._stack.enter_async_context(session)
        return Browser(self.base, session)

    async def audit(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        return await self.gateway.audit(count, event)


@contextlib.asynccontextmanager
async def stage(
    fhir_base_url: str, token_url: str, authorize_url: str, /, **sections: Any
) -> AsyncIterator[Stage]:
    """Yield a gateway whose login is enabled; `login` in `sections` changes its settings.

    `port` is the port that it listens on; without it any free one.
    """
    # Chosen before the start, because the redirect URI contains it.
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
        running_gateway(fhir_base_url, token_url, **settings) as gateway,
    ):
        yield Stage(gateway, base, stack)


class LoggedSandbox(Sandbox):
    """A sandbox that keeps its log lines."""

    def __init__(self, options: SandboxOptions) -> None:
        self.lines: list[str] = []
        super().__init__(options, log=self.lines.append)

    def count(self, part: str) -> int:
        """Return the number of lines with this part."""
        return sum(part in line for line in self.lines)


@contextlib.asynccontextmanager
async def sandbox(**options: Any) -> AsyncIterator[LoggedSandbox]:
    chosen = {"port": 0, "client_id": "hospital-17", "client_secret": "planted-client-secret"}
    platform = LoggedSandbox(SandboxOptions(**{**chosen, **options}))
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()
