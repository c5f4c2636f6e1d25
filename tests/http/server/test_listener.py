"""What the system has let in is served, also when the listener closes at that moment."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from gateway import os_support
from gateway.config.inbound_settings import LimitsSettings
from gateway.errors import GatewayError
from gateway.http.server.caller_connection import CallerConnection, IncomingRequest
from gateway.http.server.listener import Acceptor, CallerServer
from gateway.http.server.request_parser import ConnectionDisposition
from tests.doubles.wire import get

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LONG_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
# Seconds.
STALL = 0.5


class Sink:
    """Answers every request, and knows from where each came."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self._answer = answer
        self.remotes: list[str] = []
        self.connections: list[CallerConnection] = []
        self.asked = asyncio.Event()

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """200."""
        self.remotes.append(request.remote)
        self.connections.append(request.connection)
        self.asked.set()
        transport = request.connection.transport
        assert transport is not None
        transport.write(self._answer)
        return (
            ConnectionDisposition.CLOSE
            if request.message.should_close
            else ConnectionDisposition.KEEP_ALIVE
        )

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """As if it were right."""
        return await self.handle(request)


class Limits(LimitsSettings):
    """Limits by which a caller may stall for less time than a header may take."""

    stall: float

    @property
    def write_stall_timeout(self) -> float:
        """As given."""
        return self.stall


@asynccontextmanager
async def accepting(
    connections: int = 1000,
    sink: Sink | None = None,
    tls: ssl.SSLContext | None = None,
    stall: float = STALL,
) -> AsyncIterator[tuple[Acceptor, socket.socket]]:
    """An acceptor that is open, and the socket it takes connections from."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    listening.setblocking(False)
    # Of each connection that is taken: little waits in the kernel.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = CallerServer(sink or Sink(), Limits(stall=stall))
    acceptor = Acceptor(
        [listening],
        server,
        max_connections=connections,
        tls=tls,
        clock=time.monotonic,
    )
    acceptor.open()
    yield acceptor, listening
    acceptor.close()
    await acceptor.abort()
    await server.shutdown(0.1)


def waiting_callers(
    listening: socket.socket, count: int, request: bytes = get("/")
) -> list[socket.socket]:
    """Return connected callers that the gateway has not accepted, because the loop is blocked."""
    callers = [socket.create_connection(listening.getsockname()) for _ in range(count)]
    for caller in callers:
        caller.sendall(request)
        caller.setblocking(False)
    return callers


async def answered(caller: socket.socket) -> bytes:
    """What a caller gets."""
    try:
        return await asyncio.get_running_loop().sock_recv(caller, 4096)
    finally:
        caller.close()


async def test_who_waits_when_the_listener_closes_is_served() -> None:
    """Closing takes the whole queue along."""
    async with accepting() as (acceptor, listening):
        callers = waiting_callers(listening, 100)
        acceptor.close()
        assert [await answered(caller) for caller in callers] == [ANSWER] * 100


async def test_who_comes_in_while_the_listener_closes_is_heard_to_the_end() -> None:
    """Dropping the packets of later callers drops none of a connection that is still accepted."""
    async with accepting() as (acceptor, listening):
        # The system makes the connection with the first data, not before.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
        (caller,) = waiting_callers(listening, 1, request=b"")
        os_support.drop_new_connections(listening)
        caller.sendall(get("/")[:5])
        acceptor.close()
        caller.sendall(get("/")[5:])
        assert await answered(caller) == ANSWER


async def test_more_callers_than_there_is_room_for_wait() -> None:
    """Above the capacity callers stay in the queue until others leave; none is turned away."""
    async with accepting(connections=5) as (_, listening):
        callers = waiting_callers(listening, 50)
        assert [await answered(caller) for caller in callers] == [ANSWER] * 50


async def test_who_resets_the_connection_at_once_is_known_by_address() -> None:
    """A request is never recorded without its sender's address, however soon that one leaves."""
    sink = Sink()
    async with accepting(sink=sink) as (_, listening):
        (caller,) = waiting_callers(listening, 1)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        await sink.asked.wait()
    assert sink.remotes == ["127.0.0.1"]


def slow_caller(listening: socket.socket, request: bytes) -> socket.socket:
    """A caller for which little waits in its own kernel."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(listening.getsockname())
    caller.sendall(request)
    caller.setblocking(False)
    return caller


@pytest.mark.parametrize("request_", [get("/"), get("/", "Connection: close"), b"nonsense\r\n\r\n"])
async def test_who_does_not_read_holds_no_place(request_: bytes) -> None:
    """A closed connection whose caller takes nothing of its answer makes room for others."""
    sink = Sink(LONG_ANSWER)
    async with accepting(connections=1, sink=sink) as (_, listening):
        with slow_caller(listening, request_):
            await sink.asked.wait()
            (waiting,) = waiting_callers(listening, 1)
            assert (await answered(waiting)).startswith(b"HTTP/1.1 200 OK")


async def test_who_half_closes_and_does_not_read_holds_no_place() -> None:
    """Nor does one that said it sends no more, with which the event loop itself closes."""
    sink = Sink(LONG_ANSWER)
    async with accepting(connections=1, sink=sink) as (_, listening):
        with slow_caller(listening, get("/")) as caller:
            caller.shutdown(socket.SHUT_WR)
            await sink.asked.wait()
            (waiting,) = waiting_callers(listening, 1)
            assert (await answered(waiting)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("request_", [get("/"), get("/", "Connection: close")])
async def test_who_reads_slowly_gets_the_rest(request_: bytes) -> None:
    """A closed connection stays for a caller that takes its answer little by little."""
    async with accepting(connections=1, sink=Sink(LONG_ANSWER)) as (_, listening):
        with slow_caller(listening, request_) as caller:
            # Who waits for its place has it closed.
            (waiting,) = waiting_callers(listening, 1)
            received = b""
            while piece := await asyncio.get_running_loop().sock_recv(caller, 40_000):
                received += piece
                await asyncio.sleep(STALL / 10)
            waiting.close()
    assert received == LONG_ANSWER


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who issued the certificate of the listener."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What the listener speaks."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def secured(caller: socket.socket, authority: trustme.CA) -> ssl.SSLSocket:
    """The caller's connection over TLS, which it reads blocking."""
    caller.settimeout(60)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context.wrap_socket(caller, server_hostname="localhost")


async def test_who_reads_slowly_over_tls_gets_the_whole_last_answer(
    authority: trustme.CA, tls: ssl.SSLContext
) -> None:
    """A connection that closes after its answer sends it to the end, however long that takes."""
    # Of what the TLS layer has passed on, only the part in the kernel is seen. It stays the same
    # while the kernel takes as much as the caller reads, so that it need not show progress here.
    stall = 60.0

    def read_slowly(caller: socket.socket) -> int:
        with secured(caller, authority) as wire:
            wire.sendall(get("/", "Connection: close"))
            length = 0
            while piece := wire.recv(16384):
                length += len(piece)
                time.sleep(0.25)
        return length

    async with accepting(sink=Sink(LONG_ANSWER), tls=tls, stall=stall) as (_, listening):
        received = await asyncio.to_thread(read_slowly, slow_caller(listening, b""))
    assert received == len(LONG_ANSWER)


@pytest.mark.parametrize("reads", [True, False])
async def test_who_does_not_close_over_tls_holds_no_place(
    reads: bool, authority: trustme.CA, tls: ssl.SSLContext
) -> None:
    """A caller that leaves its answer or the end of the connection unread makes room for others."""

    def ask(caller: socket.socket) -> ssl.SSLSocket:
        wire = secured(caller, authority)
        wire.sendall(get("/", "Connection: close"))
        while reads and len(wire.recv(16384)) > 1000:
            pass
        return wire

    async with accepting(connections=1, sink=Sink(LONG_ANSWER), tls=tls) as (_, listening):
        with await asyncio.to_thread(ask, slow_caller(listening, b"")):
            waiting = socket.create_connection(listening.getsockname())
            with await asyncio.to_thread(secured, waiting, authority) as wire:
                assert wire.version() is not None


async def test_the_end_over_tls_may_come_twice(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    """A gateway that stops at the moment at which a connection is lost closes it once more."""

    def ask(caller: socket.socket) -> ssl.SSLSocket:
        wire = secured(caller, authority)
        wire.sendall(get("/"))
        return wire

    sink = Sink()
    async with accepting(sink=sink, tls=tls) as (_, listening):
        caller = socket.create_connection(listening.getsockname())
        with await asyncio.to_thread(ask, caller):
            await sink.asked.wait()
            sink.connections[0].abort()
            sink.connections[0].force_close()
