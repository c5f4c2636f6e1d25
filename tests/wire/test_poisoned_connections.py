"""Octets beside the messages of a platform's connection never become another caller's response."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.client.upstream_connect import UpstreamOrigin
from gateway.http.client.upstream_pool import UpstreamPool
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import PATIENT, Platform, PlatformConnection, fhir, outcome, read_body
from tests.doubles.sections import platform_settings
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get, post
from tests.http.client.tls_ends import read

OTHERS = b'{"resourceType":"Patient","id":"of-somebody-else"}'
READ = get("/fhir/Patient/1")
SMUGGLED = b"GET /r5/Patient/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
METHODS = ("GET", "HEAD", "OPTIONS", "DELETE")
FIELDS = (
    *("Content-Type: application/fhir+json", "Content_Type: text/plain", "Content-MD5: abcd"),
    *("Content-Encoding: gzip", "Digest: sha-256=abcd", "Repr-Digest: sha-256=:abcd:"),
)
ABOUT_BODIES = ("content-", "content_", "digest", "repr-digest", "transfer-encoding", "expect")


def with_body(method: str, body: bytes, framing: str, *fields: str) -> bytes:
    """Return a request with a body without meaning; the connection ends after it."""
    if framing == "chunked":
        fields = (*fields, "Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        fields = (*fields, f"Content-Length: {len(body)}")
    return get("/fhir/Patient/1", *fields, method=method) + body


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [len(SMUGGLED), 100_000, 2_000_000])
@pytest.mark.parametrize("method", METHODS)
async def test_bodies_without_meaning_are_not_forwarded(
    gateway: RunningGateway, platform: Platform, method: str, size: int, framing: str
) -> None:
    """They are read and counted; nothing that describes them is forwarded either."""
    body = SMUGGLED.ljust(size, b"x")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(with_body(method, body, framing, *FIELDS, "Date: 7"))
        response = await wire.read_response(head=method == "HEAD")
        assert response.status == 200
        assert (await wire.fetch(READ)).body == PATIENT
    first, second = platform.requests
    assert (first.method, second.target) == (method, "/r5/Patient/1")
    assert [name for name, _ in first.headers if name.lower().startswith(ABOUT_BODIES)] == []
    assert first.header("date") == "7"
    records = await gateway.audit(2)
    assert [record["request_bytes"] for record in records] == [size, 0]


async def test_a_body_without_meaning_gets_a_100_continue(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The request is sent once the body was received."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", "Content-Length: 3", "Expect: 100-continue"))
        assert await wire.read_interim_status() == 100
        assert platform.requests == []
        assert (await wire.fetch(b"{ }")).status == 200


async def test_a_body_without_meaning_has_the_usual_limits(start_gateway) -> None:
    """Of size and time."""
    limits = {"max_body_bytes": 1000, "header_timeout": 1.5}
    async with start_gateway(limits=limits) as gateway:
        large = await fetch(gateway.address, with_body("GET", bytes(2000), "chunked"))
        assert (large.status, large.reason) == (413, "payload-too-large")
        stalled = await fetch(gateway.address, with_body("DELETE", b"body", "length")[:-1])
        assert (stalled.status, stalled.reason) == (408, "body-timeout")


class BodyIgnoringServer(http.server.BaseHTTPRequestHandler):
    """Responds with the target, and takes a request's body for the next request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond with 200, or the status in the target."""
        status = int(self.path.rpartition("/")[2]) if self.path[-3:].isdigit() else 200
        body = b'{"resourceType":"Basic","id":"%s"}' % self.path.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


for _method in ("HEAD", "OPTIONS", "DELETE", "POST", "PUT"):
    setattr(BodyIgnoringServer, f"do_{_method}", BodyIgnoringServer.do_GET)


@pytest.fixture(scope="module")
def body_ignoring_server() -> Iterator[str]:
    """Yield the address of such a platform, Python's own server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BodyIgnoringServer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/r5"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def gateway_before_it(body_ignoring_server: str, sso: Sso) -> AsyncIterator[RunningGateway]:
    async with running_gateway(body_ignoring_server, sso.token_url) as gateway:
        yield gateway


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_request_inside_an_ignored_body_gets_no_response(
    gateway_before_it: RunningGateway, method: str, framing: str
) -> None:
    for number in range(3):
        response = await fetch(
            gateway_before_it.address,
            with_body(method, SMUGGLED * 3, framing),
            head=method == "HEAD",
        )
        assert response.status == 200
        mine = await fetch(gateway_before_it.address, get(f"/fhir/Patient/{number}"))
        assert mine.json()["id"] == f"/r5/Patient/{number}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 429, 500, 503])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_connection_with_an_unread_body_is_not_reused(
    gateway_before_it: RunningGateway, method: str, status: int
) -> None:
    for number in range(3):
        write = post(f"/fhir/Patient/{status}", SMUGGLED * 3, method=method)
        assert (await fetch(gateway_before_it.address, write)).status in (status, 502)
        mine = await fetch(gateway_before_it.address, get(f"/fhir/Patient/{number}"))
        assert mine.json()["id"] == f"/r5/Patient/{number}"


@pytest.mark.parametrize("late", [0, 0.001, 0.02, 0.2])
@pytest.mark.parametrize("head", ["HEAD 200", "GET 204", "DELETE 204", "GET 304"])
async def test_a_late_body_of_a_response_without_one_is_no_response(
    gateway: RunningGateway, platform: Platform, head: str, late: float
) -> None:
    method, _, status = head.partition(" ")

    async def late_body(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(b'HTTP/1.1 %s X\r\nETag: W/"1"\r\n\r\n' % status.encode())
        await asyncio.sleep(late)
        connection.writer.write(fhir(OTHERS))
        with contextlib.suppress(ConnectionError):
            await connection.writer.drain()

    platform.script(late_body)
    async with await Wire.open(gateway.address) as wire:
        response = await wire.fetch(get("/fhir/Patient/1", method=method), head=True)
        assert response.status == int(status)
        for _ in range(5):
            assert (await wire.fetch(READ)).body == PATIENT
            await asyncio.sleep(late / 3)
    assert platform.requests[1].connection == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_response_that_crosses_the_end_of_the_request_ends_the_connection(
    gateway: RunningGateway, platform: Platform, framing: str
) -> None:
    async def early(connection: PlatformConnection) -> None:
        connection.writer.write(outcome(200))
        await read_body(connection.reader, connection.request)

    platform.script(early)
    size = 3_000_000
    kind = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    head = get("/fhir/Binary", kind, "Content-Type: x/y", method="POST")
    body = bytes(size)
    coded = body if framing == "length" else b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head)
        wire.writer.write(coded)
        assert (await wire.read_response()).status == 200
    assert (await fetch(gateway.address, READ)).body == PATIENT
    assert [request.connection for request in platform.requests] == [1, 2]


@contextlib.contextmanager
def raw_platform() -> Iterator[socket.socket]:
    """Yield a listening socket on whose connections the test itself sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("moment", ["before-it-is-taken", "before-it-goes-out"])
async def test_unread_octets_in_the_socket_end_an_idle_connection(whole: bool, moment: str) -> None:
    with raw_platform() as listening:
        pool = UpstreamPool(
            UpstreamOrigin("127.0.0.1", listening.getsockname()[1], None),
            settings=platform_settings(max_connections=1),
            clock=asyncio.get_running_loop().time,
        )
        connection = await pool.acquire()
        peer, _ = listening.accept()
        with peer:
            connection.start_exchange(expect_body=True)
            connection.write(READ)
            peer.recv(1000)
            peer.send(fhir())
            await read(connection)
            pool.release(connection)
            if moment == "before-it-is-taken":
                peer.send(fhir(OTHERS))
            again = pool.try_acquire_idle()
            assert again is connection
            if moment == "before-it-goes-out":
                peer.send(fhir(OTHERS))
            again.start_exchange(expect_body=True)
            (again.write_request if whole else again.write)(READ)
            with pytest.raises(UpstreamConnectionError) as caught:
                await read(again)
            assert caught.value.kind == "unsent"
            pool.release(again)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(peer.recv, 1000) == b""
        pool.close()


async def test_a_write_that_was_not_sent_is_retried(sso: Sso) -> None:
    """Its connection had unexpected octets before it was sent."""
    with raw_platform() as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/r5"
        async with running_gateway(url, sso.token_url) as gateway:
            first = await serve(gateway, listening, READ)
            poisoned = asyncio.create_task(poison(gateway, first))
            second = await serve(gateway, listening, post("/fhir/Patient", PATIENT))
            assert await poisoned
            first.close()
            second.close()


async def test_the_error_says_that_a_write_was_not_sent(sso: Sso) -> None:
    """Where it may not be retried."""
    with raw_platform() as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/r5"
        async with running_gateway(url, sso.token_url, retries={"max_attempts": 1}) as gateway:
            with await serve(gateway, listening, READ) as peer:
                poisoned = asyncio.create_task(poison(gateway, peer))
                response = await fetch(gateway.address, post("/fhir/Patient", PATIENT))
                assert await poisoned
    assert response.header("x-gateway-error") == "upstream-unreachable"


async def serve(gateway: RunningGateway, listening: socket.socket, request: bytes) -> socket.socket:
    """Respond to a request on a new connection, which stays open."""
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(fetch(gateway.address, request))
    peer, _ = await loop.sock_accept(listening)
    peer.setblocking(False)
    received = await loop.sock_recv(peer, 10_000)
    assert received.startswith(request.split(b" ")[0])
    await loop.sock_sendall(peer, fhir())
    assert (await asking).body == PATIENT
    return peer


async def poison(gateway: RunningGateway, peer: socket.socket) -> bool:
    """Send a response in the loop iteration in which the connection is taken."""
    in_use = gateway.gateway._cores.connections
    while not in_use()["active"]:  # noqa: ASYNC110 - each turn of the loop is looked at
        await asyncio.sleep(0)
    peer.send(fhir(OTHERS))
    return True
