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
        """As metrics."""
        return "text/plain", b"#" * self.size

    def components(self) -> list[Component]:
        """As health."""
        return []


@pytest.fixture
def facts() -> Facts:
    """What the pages show."""
    return Facts()


Serve = Callable[..., AbstractAsyncContextManager[ListenAddress]]


@pytest.fixture
def serve(facts: Facts) -> Serve:
    """Serves on an address; gives the one that it really has."""

    @contextlib.asynccontextmanager
    async def one(
        address: ListenAddress = LOOPBACK, believed: ListenAddress | None = None, **options: Any
    ) -> AsyncIterator[ListenAddress]:
        (listening,) = await listen({"admin.address": address})
        runner = OperatorRunner(
            build_application(metrics=facts, health=facts, status=facts),
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


def check_guarded(reply: Response) -> None:
    """An answer in JSON that tells nothing of the software and nothing of the request."""
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
async def test_broken_http_is_answered_without_quoting_it(
    serve: Serve, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """What cannot be parsed is a 400 in JSON, closes the connection, and reaches no log."""
    async with serve() as address, await Wire.open(address) as wire:
        with caplog.at_level(logging.DEBUG):
            reply = await wire.fetch(data)
        assert reply.status == 400
        check_guarded(reply)
        assert await wire.at_end()
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"Expect: s3cr3t", 417), (b"Expect: 100-continue", 200), (b"Upgrade: s3cr3t", 200)],
)
async def test_wishes_of_http(serve: Serve, line: bytes, status: int) -> None:
    """What a client expects and is not to be had is refused without quoting it."""
    async with serve() as address, await Wire.open(address) as wire:
        reply = await wire.fetch(GOOD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n"))
        assert reply.status == status
        if status != 200:
            check_guarded(reply)


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: l", GOOD])
async def test_a_connection_that_says_no_more_is_closed(serve: Serve, begun: bytes) -> None:
    """Silent from its start, amidst a header, or after an answer: its time is short."""
    async with serve(request_timeout=2) as address, await Wire.open(address) as wire:
        if begun == GOOD:
            assert (await wire.fetch(GOOD)).status == 200
        else:
            await wire.send(begun)
        async with asyncio.timeout(60):
            assert await wire.at_end()


async def test_a_header_in_drops_gets_no_more_time(serve: Serve) -> None:
    """Bytes that come one by one do not prolong it."""

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


async def test_idlers_do_not_shut_operators_out(serve: Serve) -> None:
    """Of more connections than allowed the oldest give way, whatever they are doing."""
    async with serve(max_connections=4) as address, contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.open(address)) for _ in range(10)]
        for wire in wires[-4:]:
            assert (await wire.fetch(GOOD)).status == 200
        for wire in wires[:-4]:
            assert await wire.at_end()


async def test_who_takes_no_answer_does_not_either(serve: Serve, facts: Facts) -> None:
    """Connections that ask for much and read nothing are given up like idle ones."""
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


async def asked(address: ListenAddress, host: str, target: str = "/readyz") -> Response:
    """The answer to a request that names the listener so."""
    async with await Wire.open(address) as wire:
        return await wire.fetch(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


@pytest.mark.parametrize("host", HOSTS)
async def test_names_of_this_machine(serve: Serve, host: str) -> None:
    """On loopback an IP address or localhost is a good name."""
    async with serve() as address:
        assert (await asked(address, host)).status == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_other_names_are_those_of_other_sites(serve: Serve, host: str) -> None:
    """A web site whose name leads to 127.0.0.1 gets nothing to read, not even of a 404."""
    async with serve() as address:
        reply = await asked(address, host)
        assert reply.status == 421
        check_guarded(reply)
        async with await Wire.open(address) as wire:
            nowhere = f"GET /nowhere HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            assert (await wire.fetch(nowhere)).status == 421


@pytest.mark.parametrize("host", HOSTS)
async def test_a_target_in_absolute_form_names_the_listener(serve: Serve, host: str) -> None:
    """Its host counts and the Host field does not (RFC 9112 section 3.2.2)."""
    async with serve() as address:
        for target in (f"http://{host}/readyz", f"HTTP://{host}/readyz?a=http://evil.example/"):
            assert (await asked(address, "evil.example", target)).status == 200


ELSEWHERE = [f"http://{host}/readyz" for host in FOREIGN if host and not {" ", "/"} & set(host)] + [
    "https://evil.example/readyz", "HTTP://evil.example/readyz", "http://evil.example?/readyz",
    "http://evil.example", "ftp://localhost/readyz", "http://evil@localhost/readyz",
    "http:/readyz", "http:///readyz", "http:readyz", "evil.example:80"]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE)
async def test_a_target_in_absolute_form_of_another_site(serve: Serve, target: str) -> None:
    """Whatever Host says, which does not count there, nothing is served and nothing is shown."""
    async with serve() as address:
        reply = await asked(address, "localhost", target)
        assert reply.status in (400, 421)
        check_guarded(reply)


async def test_a_target_of_another_site_without_a_host(serve: Serve) -> None:
    """HTTP/1.0 may leave Host out; the target names the site all the same."""
    async with serve() as address, await Wire.open(address) as wire:
        reply = await wire.fetch(b"GET http://evil.example/readyz HTTP/1.0\r\n\r\n")
        assert reply.status == 421


async def test_a_request_of_http_1_0_names_nobody(serve: Serve) -> None:
    """Without a Host field no browser asks."""
    async with serve() as address, await Wire.open(address) as wire:
        assert (await wire.fetch(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200


async def test_elsewhere_any_name_will_do(serve: Serve, tmp_path: Path) -> None:
    """Where others scrape, they do so by the name of a service; a socket file has no name."""
    anywhere = ListenAddress("0.0.0.0", 9464)
    async with serve(believed=anywhere) as address:
        assert (await asked(address, "dhp-gateway.monitoring.svc:9464")).status == 200
    async with serve(ListenAddress(path=str(tmp_path / "admin.sock"))) as address:
        assert (await asked(address, "anything")).status == 200


async def test_the_gateway_itself_listens_so() -> None:
    """What is shown here of the listener holds for that of a running gateway."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with running_gateway(f"{nowhere}/fhir", f"{nowhere}/token") as gateway:
        address = gateway.gateway.admin_address
        async with await Wire.open(address) as wire:
            check_guarded(await wire.fetch(BROKEN["no HTTP"]))
        assert (await asked(address, "evil.example")).status == 421
