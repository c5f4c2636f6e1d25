"""The operators' connections over real sockets: broken, silent, too many, and by other names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.admin.admin_listener import OperatorRunner
from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.app.listening_sockets import listen
from gateway.config.value_types import ListenAddress
from gateway.health.health import Component
from tests.doubles.gateway import running_gateway
from tests.doubles.processes import free_port
from tests.doubles.wire import Response, Wire

LOOPBACK = ListenAddress("127.0.0.1", 0)
GOOD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Facts:
    """Metrics and health of no interest, of any size."""

    def __init__(self) -> None:
        self.size = 100

    def render(self, accept: str | None) -> tuple[str, bytes]:
        return "text/plain", b"#" * self.size

    def components(self) -> list[Component]:
        return []


@pytest.fixture
def facts() -> Facts:
    return Facts()


Serve = Callable[..., AbstractAsyncContextManager[ListenAddress]]


@pytest.fixture
def serve(facts: Facts) -> Serve:
    """Return a function that serves on an address and yields the actual one."""

    @contextlib.asynccontextmanager
    async def one(
        address: ListenAddress = LOOPBACK, believed: ListenAddress | None = None, **options: Any
    ) -> AsyncIterator[ListenAddress]:
        (listening,) = await listen({"admin.address": address})
        runner = OperatorRunner(
            build_application(metrics=facts, health=facts, status=facts, operators=Operators(())),
            believed or listening.address,
            **options,
        )
        await runner.setup()
        for each in listening.sockets:
            await web.SockSite(runner, each).start()
        try:
            yield listening.address
        finally:
            async with asyncio.timeout(60):
                await runner.cleanup()
            listening.remove_path()

    return one


def assert_discloses_nothing(reply: Response) -> None:
    """Check that a JSON response discloses neither software nor request."""
    assert reply.header("server") == "dhp-gateway"
    assert reply.header("content-type").startswith("application/json")  # type: ignore[union-attr]
    assert reply.header("cache-control") == "no-store"
    assert reply.header("x-content-type-options") == "nosniff"
    assert b"s3cr3t" not in reply.body
    assert b"iohttp" not in reply.body
    assert set(reply.json()) <= {"error", "hint"}


BROKEN = {
    "no HTTP": b"s3cr3t\r\n\r\n",
    "no method": b"G=T /s3cr3t HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03s3cr3t",
    "a field without a name": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n: s3cr3t\r\n\r\n",
    "a field without a colon": b"GET /livez HTTP/1.1\r\nHost: localhost\r\ns3cr3t\r\n\r\n",
    "two lengths": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\nX: s3cr3t\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: s3cr3t\r\n\r\n",
    "a long target": b"GET /" + b"s3cr3t" * 1000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long field": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"s3cr3t" * 1000 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: s3cr3t\r\n" * 100 + b"\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
async def test_malformed_requests_are_not_quoted(
    serve: Serve, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    async with serve() as address, await Wire.open(address) as wire:
        with caplog.at_level(logging.DEBUG):
            reply = await wire.fetch(data)
        assert reply.status == 400
        assert_discloses_nothing(reply)
        assert await wire.at_end()
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"Expect: s3cr3t", 417), (b"Expect: 100-continue", 200), (b"Upgrade: s3cr3t", 200)],
)
async def test_unsupported_expectations_are_rejected(
    serve: Serve, line: bytes, status: int
) -> None:
    async with serve() as address, await Wire.open(address) as wire:
        reply = await wire.fetch(GOOD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n"))
        assert reply.status == status
        if status != 200:
            assert_discloses_nothing(reply)


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: l", GOOD])
async def test_an_idle_connection_is_closed(serve: Serve, begun: bytes) -> None:
    async with serve(request_timeout=2) as address, await Wire.open(address) as wire:
        if begun == GOOD:
            assert (await wire.fetch(GOOD)).status == 200
        else:
            await wire.send(begun)
        async with asyncio.timeout(60):
            assert await wire.at_end()


async def test_a_slow_header_does_not_extend_the_timeout(serve: Serve) -> None:
    async def drip(wire: Wire) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await wire.send(b"X")
                await asyncio.sleep(0.02)

    async with serve(request_timeout=0.2) as address, await Wire.open(address) as wire:
        await wire.send(b"GET /livez HTTP/1.1\r\nHost: ")
        dripping = asyncio.ensure_future(drip(wire))
        async with asyncio.timeout(60):
            assert await wire.at_end()
        dripping.cancel()


async def test_the_oldest_connections_are_closed_over_the_limit(serve: Serve) -> None:
    async with serve(max_connections=4) as address, contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.open(address)) for _ in range(10)]
        for wire in wires[-4:]:
            assert (await wire.fetch(GOOD)).status == 200
        for wire in wires[:-4]:
            assert await wire.at_end()


async def test_connections_that_read_no_response_are_closed_over_the_limit(
    serve: Serve, facts: Facts
) -> None:
    facts.size = 20_000_000
    scrape = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serve(max_connections=4) as address, contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            wire = await stack.enter_async_context(await Wire.open(address))
            await wire.send(scrape)
        async with await Wire.open(address) as wire:
            assert (await wire.fetch(GOOD)).status == 200


HOSTS = ["localhost", "localhost:9464", "LocalHost.", "127.0.0.1", "127.0.0.1:1", "[::1]:9464",
         "10.1.2.3:9464", "[::1]"]  # fmt: skip
FOREIGN = ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example",
           "", ":9464", "127.1", "2130706433", "localhost@evil.example", "[evil]",
           "127.0.0.1:9464@evil.example", "127.0.0.1:@evil.example", "[::1]:1@evil.example",
           "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:9464:evil.example",
           "127.0.0.1 evil.example",
           "127.0.0.1/.evil.example", "127.0.0.1:9464#evil.example", "[::1", "::1",
           "[::1].evil.example",
           "[127.0.0.1]", "[::1%25evil.example]", "127.0.0.1,evil.example", "localhost..",
           "127.0.0.1\\.evil.example", "http://127.0.0.1"]  # fmt: skip


async def request_with_host(address: ListenAddress, host: str, target: str = "/readyz") -> Response:
    async with await Wire.open(address) as wire:
        return await wire.fetch(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


@pytest.mark.parametrize("host", HOSTS)
async def test_loopback_names_are_accepted(serve: Serve, host: str) -> None:
    async with serve() as address:
        assert (await request_with_host(address, host)).status == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_other_host_names_are_rejected_on_loopback(serve: Serve, host: str) -> None:
    async with serve() as address:
        reply = await request_with_host(address, host)
        assert reply.status == 421
        assert_discloses_nothing(reply)
        async with await Wire.open(address) as wire:
            nowhere = f"GET /nowhere HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            assert (await wire.fetch(nowhere)).status == 421


@pytest.mark.parametrize("host", HOSTS)
async def test_the_host_of_an_absolute_target_counts(serve: Serve, host: str) -> None:
    """Its host counts and the Host field does not (RFC 9112 section 3.2.2)."""
    async with serve() as address:
        for target in (f"http://{host}/readyz", f"HTTP://{host}/readyz?a=http://evil.example/"):
            assert (await request_with_host(address, "evil.example", target)).status == 200


ELSEWHERE = [f"http://{host}/readyz" for host in FOREIGN if host and not {" ", "/"} & set(host)] + [
    "https://evil.example/readyz", "HTTP://evil.example/readyz", "http://evil.example?/readyz",
    "http://evil.example", "ftp://localhost/readyz", "http://evil@localhost/readyz",
    "http:/readyz", "http:///readyz", "http:readyz", "evil.example:80"]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE)
async def test_an_absolute_target_with_another_host_is_rejected(serve: Serve, target: str) -> None:
    async with serve() as address:
        reply = await request_with_host(address, "localhost", target)
        assert reply.status in (400, 421)
        assert_discloses_nothing(reply)


async def test_an_absolute_target_with_another_host_is_rejected_in_http_1_0(serve: Serve) -> None:
    async with serve() as address, await Wire.open(address) as wire:
        reply = await wire.fetch(b"GET http://evil.example/readyz HTTP/1.0\r\n\r\n")
        assert reply.status == 421


async def test_http_1_0_needs_no_host(serve: Serve) -> None:
    async with serve() as address, await Wire.open(address) as wire:
        assert (await wire.fetch(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200


async def test_other_addresses_accept_any_host(serve: Serve, tmp_path: Path) -> None:
    anywhere = ListenAddress("0.0.0.0", 9464)
    async with serve(believed=anywhere) as address:
        assert (await request_with_host(address, "dhp-gateway.monitoring.svc:9464")).status == 200
    async with serve(ListenAddress(path=str(tmp_path / "admin.sock"))) as address:
        assert (await request_with_host(address, "anything")).status == 200


async def test_a_running_gateway_has_this_listener() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with running_gateway(f"{nowhere}/fhir", f"{nowhere}/token") as gateway:
        address = gateway.gateway.admin_address
        async with await Wire.open(address) as wire:
            assert_discloses_nothing(await wire.fetch(BROKEN["no HTTP"]))
        assert (await request_with_host(address, "evil.example")).status == 421
