"""A reverse proxy in front of a third-party server that records the requests to that server."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

Guard = Callable[[CIMultiDictProxy[str]], str | None]
_OF_ONE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """One request as it was received, and the status and the body of its response."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes
    status: int
    response_body: bytes = b""

    @property
    def call(self) -> str:
        """Return method and path, for comparing sequences."""
        return f"{self.method} {self.target.partition('?')[0]}"


def admit_all(headers: CIMultiDictProxy[str]) -> str | None:
    """Return None: the guard that refuses nothing."""
    return None


@dataclass(slots=True)
class RecordingProxy:
    """Forwards what its guard admits; what the guard refuses gets a 401, as from a platform.

    The gateway's own requests, for the CapabilityStatement, are not recorded. `Host` is passed on,
    so that a server that builds links from it names this proxy. Where the server breaks off, so
    does the proxy.
    """

    upstream: str = ""
    guard: Guard = admit_all
    url: str = ""
    requests: list[RecordedExchange] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.guard(request.headers) is not None:
            response = web.json_response({"resourceType": "OperationOutcome"}, status=401)
        else:
            try:
                response = await self._forward(request, body)
            except aiohttp.ClientError:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=502)
        content = response.body if isinstance(response.body, bytes) else b""
        if response.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        exchange = RecordedExchange(
            request.method, request.raw_path, request.headers, body, response.status, content
        )
        if _is_from_caller(exchange):
            self.requests.append(exchange)
        return response

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        async with self._session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=end_to_end(request.headers),
            data=body or None,
            allow_redirects=False,
        ) as response:
            return web.Response(
                status=response.status,
                body=await response.read(),
                headers=end_to_end(response.headers),
            )

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[RecordingProxy]:
        """Listen on a loopback port, by default a free one; the address is then in `url`."""
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, auto_decompress=False)
        async with aiohttp.ClientSession(
            # Many servers close a connection that was idle for five seconds.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as self._session:
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", port).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                await runner.cleanup()


def _is_from_caller(exchange: RecordedExchange) -> bool:
    """Return whether a caller sent the request: the gateway's own ones have no User-Agent."""
    return "User-Agent" in exchange.headers or not exchange.call.endswith("/metadata")


def end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the fields that are not of one connection, for another message."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _OF_ONE_CONNECTION
    )
