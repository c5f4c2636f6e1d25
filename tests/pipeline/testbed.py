"""The servers around one failure, and the evidence that it leaves, for the table of faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trustme

from gateway.config.value_types import ListenAddress
from gateway.http.server.caller_connection import CallerConnection
from tests.doubles.certificates import server_context
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.metrics import total
from tests.doubles.platform import Platform, PlatformConnection, ReceivedRequest
from tests.doubles.sections import with_sections
from tests.doubles.sso import Sso
from tests.doubles.wire import Response, TruncatedResponseError, Wire, close_by_reset, get, post

# Requests with a local response before any other work; the first unless the test provoked it.
_PROBES = (get("/nowhere"), get("/fhir", "Via: 1.1 dhp-gateway"))


_REQUESTS = "dhp_gateway_requests_total"
_RETRIES = "dhp_gateway_upstream_retries_total"
_CAUSES = ("connect", "reused", "broken", "status", "token", "other")
_TOKEN_REQUESTS = "dhp_gateway_token_requests_total"
_OUTCOMES = ("ok", "transient", "throttled", "refused")


@dataclass
class Counts:
    """Requests with one result, retries by cause, and the outcomes that token requests had."""

    requests: float
    retries: dict[str, float]
    token_outcomes: set[str]


@dataclass
class Evidence:
    """Evidence of one provoked failure, at the caller, the gateway, the platform and the SSO."""

    response: Response
    closed: bool
    gateway: RunningGateway
    requests: list[ReceivedRequest]
    token_requests: int
    audited: bool = True

    async def record(self) -> dict[str, Any]:
        """Return the audit record of the exchange."""
        return await self.gateway.record_of(self.response.header("x-request-id"))

    async def counts(self, status: int, reason: str) -> Counts:
        """Return what the metrics count, once they count a request with this result."""
        labels = {"status": str(status), "reason": reason}
        text = await self.gateway.metrics()
        while not total(text, _REQUESTS, **labels):
            await asyncio.sleep(0.01)
            text = await self.gateway.metrics()
        retries = {cause: total(text, _RETRIES, cause=cause) for cause in _CAUSES}
        return Counts(
            total(text, _REQUESTS, **labels),
            {cause: count for cause, count in retries.items() if count},
            {each for each in _OUTCOMES if total(text, _TOKEN_REQUESTS, outcome=each)},
        )


@dataclass
class Testbed:
    """A platform, an SSO, and the format in which the caller requests its responses."""

    __test__ = False  # for pytest, which collects names that begin with Test

    platform: Platform
    sso: Sso
    headers: tuple[str, ...] = ()
    query: str = ""
    fhir: dict[str, Any] = field(default_factory=dict)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(
        self,
        *,
        platform_url: str | None = None,
        token_url: str | None = None,
        audit_fd: int | None = None,
        **sections: Any,
    ) -> RunningGateway:
        """Start a gateway that runs until the end of the test, with short delays of retries."""
        settings = with_sections({"retries": {"backoff": 0.01}, "fhir": self.fhir}, sections)
        return await self.stack.enter_async_context(
            running_gateway(
                platform_url or self.platform.url,
                token_url or self.sso.token_url,
                audit_fd=audit_fd,
                **settings,
            )
        )

    async def open(self, address: ListenAddress) -> Wire:
        return await self.stack.enter_async_context(await Wire.open(address))

    def get(self, target: str = "/fhir/Patient/1", *headers: str, method: str = "GET") -> bytes:
        return get(self.with_format(target), *self.headers, *headers, method=method)

    def post(self, body: bytes = b"{}", *headers: str, target: str = "/fhir/Patient") -> bytes:
        return post(self.with_format(target), body, *self.headers, *headers)

    def with_format(self, target: str) -> str:
        mark = "&" if "?" in target else "?"
        return f"{target}{mark}{self.query}" if self.query else target

    async def send(
        self, gateway: RunningGateway, request: bytes | None = None, wire: Wire | None = None
    ) -> Evidence:
        """Send the request and return its evidence, including whether the connection was closed."""
        wire = wire or await self.open(gateway.address)
        loop = asyncio.get_running_loop()
        began = loop.time()
        reply = await (wire.read_response() if request is None else wire.fetch(request))
        # Most defaults of the timeouts that a test shortens are longer.
        assert loop.time() - began < 25
        token_requests = len(self.sso.requests)
        request_id = reply.header("x-request-id")
        received = [
            each for each in self.platform.requests if each.header("x-request-id") == request_id
        ]
        return Evidence(reply, await is_closed(wire, reply), gateway, received, token_requests)

    async def occupy(self, gateway: RunningGateway) -> Wire:
        """Keep a request in flight at the platform until the end of the test."""
        released = asyncio.Event()

        async def wait(connection: PlatformConnection) -> None:
            await released.wait()
            connection.writer.close()

        self.platform.script(wait)
        wire = await self.open(gateway.address)
        self.stack.callback(released.set)
        await wire.send(get("/fhir/Patient/occupied"))
        await self.platform.wait_for_requests(len(self.platform.requests) + 1)
        return wire


def latest_connection(gateway: RunningGateway) -> CallerConnection:
    """Return the gateway's object for the caller's connection that was opened last.

    It tells a test what the gateway knows of a caller that sends no more or has disconnected.
    """
    return list(gateway.gateway._server._connections)[-1]


async def is_closed(wire: Wire, reply: Response) -> bool:
    """Return whether the gateway closed the connection after the response, as its header says."""
    if reply.header("connection") == "close":
        assert await wire.at_end()
        return True
    try:
        await wire.fetch(_PROBES[reply.reason == "unknown-path"])
    except TruncatedResponseError:
        return True
    return False


Provoke = Callable[[Testbed], Awaitable[Evidence]]


def page_that_links(platform: Platform, pad: int = 0) -> bytes:
    link = {"relation": "next", "url": f"{platform.url}/Patient?_page=2"}
    bundle = {"resourceType": "Bundle", "type": "searchset", "link": [link], "x": "y" * pad}
    return json.dumps(bundle).encode()


def unresponsive_port(stack: contextlib.AsyncExitStack) -> int:
    """Return a loopback port that neither accepts nor refuses connections: its backlog is full."""
    server = stack.enter_context(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    for _ in range(4):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    return int(server.getsockname()[1])


def tls_platform(host: str, **options: Any) -> tuple[ssl.SSLContext, trustme.CA]:
    """Return a server context with a certificate for `host`, and the CA that issued it."""
    authority = trustme.CA()
    return server_context(authority, host, **options), authority


def reset_connection(wire: Wire) -> None:
    close_by_reset(wire.writer)
