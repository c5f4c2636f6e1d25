"""A reverse proxy before a third-party SSO, which counts token requests and makes faults.

A token request is a POST with a `grant_type`. A gateway's credential may mark its token requests
with the parameter `MARK`, so that many are told apart and each meets a fault of its own; the SSO
does not get it. Every response sets a load balancer's cookie.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from tests.doubles.recording_proxy import end_to_end
from tests.doubles.waiting import wait_until

MARK = "interop_mark"
RETRY_AFTER = 2
# Seconds for which requests wait for an SSO that is started again, as a load balancer's queue holds
# them.
_RESTART = 20.0
_COOKIE = "SERVERID=sso1; path=/"
_PAGE = "<!DOCTYPE html><html><title>Not now</title><body>Not now</body></html>"
# What a token request gets by the name of its fault.
_FAULTS = {
    "429": (429, {"Retry-After": str(RETRY_AFTER)}),
    "503": (503, {}),
    "HTML 400": (400, {}),
    "HTML 403": (403, {}),
    "redirect": (302, {"Location": "/login"}),
}
FAULTS = (*_FAULTS, "cut", "no answer")
# The members of token responses, and the parameters of token requests, that nobody may see.
_SECRETS = ("access_token", "refresh_token", "id_token", "code", "code_verifier", "client_secret")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token request and its status, 0 without a response. It holds no secret.

    `at`: when it came, on the monotonic clock.
    """

    at: float
    mark: str
    client_id: str
    grant_type: str
    keys: frozenset[str]
    is_basic: bool
    has_cookie: bool
    status: int


@dataclass(slots=True)
class Front:
    """Listens at a port of its own and forwards to `upstream`, both of loopback.

    `faults` has the present fault by mark. `secrets` are what token requests and responses held,
    by value, with its name: compare with it, and print the names alone.
    """

    port: int
    upstream: int
    token_requests: list[TokenRequest] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    _is_open: bool = False
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, mark: str) -> list[TokenRequest]:
        return [each for each in self.token_requests if each.mark == mark]

    async def start(self) -> None:
        self._is_open = True
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        self._session = aiohttp.ClientSession(
            auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Refuse connections, and close those that are open."""
        self._is_open = False
        if self._runner is not None and self._session is not None:
            await self._runner.cleanup()
            await self._session.close()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        form = dict(parse_qsl(body.decode("latin-1"))) if _has_form(request) else {}
        if request.method != "POST" or "grant_type" not in form:
            return await self._forward(request, body)
        at, mark = time.monotonic(), form.pop(MARK, "")
        fault = self.faults.get(mark)
        response = _fault(request, fault) if fault else None
        if response is None and fault != "no answer" and fault != "cut":
            if mark:
                body = urlencode(form).encode()
            response = await self._forward(request, body)
            self._learn(form, response)
        self.token_requests.append(
            _token_request(request, at, mark, form, 0 if response is None else response.status)
        )
        if response is not None:
            return response
        # The gateway gives up first.
        if fault == "no answer":
            await wait_until(lambda: request.transport is None or not self._is_open)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        headers = end_to_end(request.headers)
        headers["X-Forwarded-Host"] = headers["Host"]
        headers["X-Forwarded-Proto"] = "http"
        headers["X-Forwarded-For"] = "127.0.0.1"
        headers["X-Forwarded-Port"] = str(self.port)
        url = URL(f"http://127.0.0.1:{self.upstream}{request.raw_path}", encoded=True)
        until_started = time.monotonic() + _RESTART
        while True:
            try:
                async with self._session.request(
                    request.method, url, headers=headers, data=body or None, allow_redirects=False
                ) as answer:
                    content = await answer.read()
                    response = web.Response(
                        status=answer.status, body=content, headers=end_to_end(answer.headers)
                    )
            except aiohttp.ClientError as error:
                is_down = isinstance(error, aiohttp.ClientConnectorError)
                if is_down and time.monotonic() < until_started:
                    await asyncio.sleep(0.1)
                    continue
                response = web.Response(status=502, text=_PAGE, content_type="text/html")
            break
        response.headers.add("Set-Cookie", _COOKIE)
        return response

    def _learn(self, form: dict[str, str], response: web.Response) -> None:
        answer: object = None
        with contextlib.suppress(ValueError):
            answer = json.loads(response.text or "") if isinstance(response.body, bytes) else None
        for found in (form, answer if isinstance(answer, dict) else {}):
            for name in _SECRETS:
                if isinstance(value := found.get(name), str) and value:
                    self.secrets[value] = name


def _has_form(request: web.Request) -> bool:
    return request.content_type == "application/x-www-form-urlencoded"


def _fault(request: web.Request, name: str) -> web.Response | None:
    if name not in _FAULTS:
        return None
    status, headers = _FAULTS[name]
    return web.Response(
        status=status,
        headers={**headers, "Set-Cookie": _COOKIE},
        text=_PAGE,
        content_type="text/html",
    )


def _token_request(
    request: web.Request, at: float, mark: str, form: dict[str, str], status: int
) -> TokenRequest:
    basic = _basic_user(request.headers.get("Authorization", ""))
    return TokenRequest(
        at,
        mark,
        form.get("client_id") or basic or "",
        form["grant_type"],
        frozenset(form),
        basic is not None,
        "Cookie" in request.headers,
        status,
    )


def _basic_user(field_value: str) -> str | None:
    scheme, _, pair = field_value.partition(" ")
    if scheme.lower() != "basic":
        return None
    return unquote(base64.b64decode(pair).decode("latin-1").partition(":")[0])
