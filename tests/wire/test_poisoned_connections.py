"""What a platform reads or sends beside the messages never becomes the next caller's answer."""

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
from tests.doubles.gateway import Running, running
from tests.doubles.platform import PATIENT, Line, Platform, fhir, outcome, read_body
from tests.doubles.sections import platform_settings
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get, post
from tests.http.client.tls_stage import read

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
    """A request whose body has no meaning, for the next connection to close behind."""
    if framing == "chunked":
        fields = (*fields, "Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        fields = (*fields, f"Content-Length: {len(body)}")
    return get("/fhir/Patient/1", *fields, method=method) + body


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [len(SMUGGLED), 100_000, 2_000_000])
@pytest.mark.parametrize("method", METHODS)
async def test_bodies_without_a_meaning_end_here(
    gateway: Running, platform: Platform, method: str, size: int, framing: str
) -> None:
    """They are read, counted and not forwarded, and nothing that is said about them is."""
    body = SMUGGLED.ljust(size, b"x")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(with_body(method, body, framing, *FIELDS, "Date: 7"))
        reply = await wire.reply(head=method == "HEAD")
        assert reply.status == 200
        assert (await wire.ask(READ)).body == PATIENT
    first, second = platform.seen
    assert (first.method, second.target) == (method, "/r5/Patient/1")
    assert [name for name, _ in first.headers if name.lower().startswith(ABOUT_BODIES)] == []
    assert first.header("date") == "7"
    records = await gateway.audit(2)
    assert [record["request_bytes"] for record in records] == [size, 0]


async def test_a_body_without_a_meaning_that_is_waited_for(
    gateway: Running, platform: Platform
) -> None:
    """It is invited, as its caller waits for that, and the platform is asked once it has come."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", "Content-Length: 3", "Expect: 100-continue"))
        assert await wire.interim() == 100
        assert platform.seen == []
        assert (await wire.ask(b"{ }")).status == 200


async def test_a_body_without_a_meaning_has_the_limits_of_any(start_gateway) -> None:
    """One that is too large or does not come is refused, whatever the method."""
    limits = {"max_body_bytes": 1000, "header_timeout": 1.5}
    async with start_gateway(limits=limits) as gateway:
        large = await ask(gateway.address, with_body("GET", bytes(2000), "chunked"))
        assert (large.status, large.reason) == (413, "payload-too-large")
        stalled = await ask(gateway.address, with_body("DELETE", b"body", "length")[:-1])
        assert (stalled.status, stalled.reason) == (408, "body-timeout")


class Careless(http.server.BaseHTTPRequestHandler):
    """Answers with its target, and never looks at a body: it takes it for the next request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """200, or what the target's last word says."""
        status = int(self.path.rpartition("/")[2]) if self.path[-3:].isdigit() else 200
        body = b'{"resourceType":"Basic","id":"%s"}' % self.path.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


for _method in ("HEAD", "OPTIONS", "DELETE", "POST", "PUT"):
    setattr(Careless, f"do_{_method}", Careless.do_GET)


@pytest.fixture
def careless() -> Iterator[str]:
    """Where Python's own server is a platform."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/r5"
    server.shutdown()
    server.server_close()


@pytest.fixture
async def before_careless(careless: str, sso: Sso) -> AsyncIterator[Running]:
    """A gateway in front of it."""
    async with running(careless, sso.token_url) as gateway:
        yield gateway


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", METHODS)
async def test_behind_a_body_that_the_platform_ignores(
    before_careless: Running, method: str, framing: str
) -> None:
    """The next caller gets its own answer, not that of a request in the body before."""
    for number in range(3):
        reply = await ask(
            before_careless.address,
            with_body(method, SMUGGLED * 3, framing),
            head=method == "HEAD",
        )
        assert reply.status == 200
        mine = await ask(before_careless.address, get(f"/fhir/Patient/{number}"))
        assert mine.json()["id"] == f"/r5/Patient/{number}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 429, 500, 503])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_behind_a_write_that_is_refused_unread(
    before_careless: Running, method: str, status: int
) -> None:
    """A write refused early may have an unread body: the connection is not reused."""
    for number in range(3):
        write = post(f"/fhir/Patient/{status}", SMUGGLED * 3, method=method)
        assert (await ask(before_careless.address, write)).status in (status, 502)
        mine = await ask(before_careless.address, get(f"/fhir/Patient/{number}"))
        assert mine.json()["id"] == f"/r5/Patient/{number}"


@pytest.mark.parametrize("late", [0, 0.001, 0.02, 0.2])
@pytest.mark.parametrize("head", ["HEAD 200", "GET 204", "DELETE 204", "GET 304"])
async def test_late_body_where_none_may_be(
    gateway: Running, platform: Platform, head: str, late: float
) -> None:
    """Octets behind a response without a body, however late, are no response to any request."""
    method, _, status = head.partition(" ")

    async def late_body(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(b'HTTP/1.1 %s X\r\nETag: W/"1"\r\n\r\n' % status.encode())
        await asyncio.sleep(late)
        line.writer.write(fhir(OTHERS))
        with contextlib.suppress(ConnectionError):
            await line.writer.drain()

    platform.script(late_body)
    async with await Wire.open(gateway.address) as wire:
        reply = await wire.ask(get("/fhir/Patient/1", method=method), head=True)
        assert reply.status == int(status)
        for _ in range(5):
            assert (await wire.ask(READ)).body == PATIENT
            await asyncio.sleep(late / 3)
    assert platform.seen[1].connection == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_answer_that_comes_with_the_last_of_the_request(
    gateway: Running, platform: Platform, framing: str
) -> None:
    """One that was on its way before the body had ended: its connection is not used again."""

    async def early(line: Line) -> None:
        line.writer.write(outcome(200))
        await read_body(line.reader, line.seen)

    platform.script(early)
    size = 3_000_000
    kind = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    head = get("/fhir/Binary", kind, "Content-Type: x/y", method="POST")
    body = bytes(size)
    coded = body if framing == "length" else b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head)
        wire.writer.write(coded)
        assert (await wire.reply()).status == 200
    assert (await ask(gateway.address, READ)).body == PATIENT
    assert [seen.connection for seen in platform.seen] == [1, 2]


@contextlib.contextmanager
def raw_platform() -> Iterator[socket.socket]:
    """A listening socket whose connections the test itself speaks on, when it wants to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("moment", ["before-it-is-taken", "before-it-goes-out"])
async def test_bytes_that_wait_in_the_system(whole: bool, moment: str) -> None:
    """What has come when the next request is about to go out ends the connection, unseen so far."""
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


async def test_a_write_that_was_not_sent_is_sent_again(sso: Sso) -> None:
    """A write whose connection got unrequested octets before it was sent reaches the platform."""
    with raw_platform() as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/r5"
        async with running(url, sso.token_url) as gateway:
            first = await serve(gateway, listening, READ)
            poisoned = asyncio.create_task(poison(gateway, first))
            second = await serve(gateway, listening, post("/fhir/Patient", PATIENT))
            assert await poisoned
            first.close()
            second.close()


async def test_a_write_that_was_not_sent_is_told_so(sso: Sso) -> None:
    """Where it may not be sent again, its caller learns that it did not reach the platform."""
    with raw_platform() as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/r5"
        async with running(url, sso.token_url, retries={"max_attempts": 1}) as gateway:
            with await serve(gateway, listening, READ) as peer:
                poisoned = asyncio.create_task(poison(gateway, peer))
                reply = await ask(gateway.address, post("/fhir/Patient", PATIENT))
                assert await poisoned
    assert reply.header("x-gateway-error") == "upstream-unreachable"


async def serve(gateway: Running, listening: socket.socket, request: bytes) -> socket.socket:
    """Answer a request on a new connection to the platform, which stays."""
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(ask(gateway.address, request))
    peer, _ = await loop.sock_accept(listening)
    peer.setblocking(False)
    received = await loop.sock_recv(peer, 10_000)
    assert received.startswith(request.split(b" ")[0])
    await loop.sock_sendall(peer, fhir())
    assert (await asking).body == PATIENT
    return peer


async def poison(gateway: Running, peer: socket.socket) -> bool:
    """Send an answer in the turn of the loop in which the connection is taken."""
    in_use = gateway.gateway._cores.connections
    while not in_use()["active"]:  # noqa: ASYNC110 - each turn of the loop is looked at
        await asyncio.sleep(0)
    peer.send(fhir(OTHERS))
    return True
