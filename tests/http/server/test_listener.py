"""Accepted connections are served, also while the listener closes."""

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
from tests.doubles.certificates import client_context, server_context
from tests.doubles.wire import get

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LONG_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
# Seconds.
STALL = 0.5


class Sink:
    """Responds to every request, and records its address."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self._answer = answer
        self.remotes: list[str] = []
        self.connections: list[CallerConnection] = []
        self.asked = asyncio.Event()

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Respond with 200."""
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
        return await self.handle(request)


class Limits(LimitsSettings):
    """Limits with a stall timeout that is shorter than the header timeout."""

    stall: float

    @property
    def write_stall_timeout(self) -> float:
        return self.stall


@asynccontextmanager
async def accepting(
    connections: int = 1000,
    sink: Sink | None = None,
    tls: ssl.SSLContext | None = None,
    stall: float = STALL,
) -> AsyncIterator[tuple[Acceptor, socket.socket]]:
    """Yield an open acceptor, and the socket whose connections it accepts."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    listening.setblocking(False)
    # Of each connection that is taken: little waits in the kernel.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = CallerServer(sink or Sink(), Limits(stall=stall))
    acceptor = Acceptor(
        [listening], server, max_connections=connections, tls=tls, clock=time.monotonic
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


async def response_of(caller: socket.socket) -> bytes:
    """Return what a caller gets."""
    try:
        return await asyncio.get_running_loop().sock_recv(caller, 4096)
    finally:
        caller.close()


async def test_queued_connections_are_served_when_the_listener_closes() -> None:
    async with accepting() as (acceptor, listening):
        callers = waiting_callers(listening, 100)
        acceptor.close()
        assert [await response_of(caller) for caller in callers] == [ANSWER] * 100


async def test_packets_of_accepted_connections_are_not_dropped() -> None:
    """While those of later callers are."""
    async with accepting() as (acceptor, listening):
        # The system makes the connection with the first data, not before.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
        (caller,) = waiting_callers(listening, 1, request=b"")
        os_support.drop_new_connections(listening)
        caller.sendall(get("/")[:5])
        acceptor.close()
        caller.sendall(get("/")[5:])
        assert await response_of(caller) == ANSWER


async def test_callers_above_the_capacity_wait_in_the_queue() -> None:
    async with accepting(connections=5) as (_, listening):
        callers = waiting_callers(listening, 50)
        assert [await response_of(caller) for caller in callers] == [ANSWER] * 50


async def test_a_request_has_its_address_although_the_caller_reset() -> None:
    sink = Sink()
    async with accepting(sink=sink) as (_, listening):
        (caller,) = waiting_callers(listening, 1)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        await sink.asked.wait()
    assert sink.remotes == ["127.0.0.1"]


def slow_caller(listening: socket.socket, request: bytes) -> socket.socket:
    """Return a caller with a small receive buffer."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(listening.getsockname())
    caller.sendall(request)
    caller.setblocking(False)
    return caller


@pytest.mark.parametrize(
    ("request_", "half_closes"),
    [
        (get("/"), False),
        (get("/", "Connection: close"), False),
        (b"nonsense\r\n\r\n", False),
        (get("/"), True),
    ],
)
async def test_a_caller_that_does_not_read_holds_no_slot(
    request_: bytes, half_closes: bool
) -> None:
    """Once its connection is closed."""
    sink = Sink(LONG_ANSWER)
    async with accepting(connections=1, sink=sink) as (_, listening):
        with slow_caller(listening, request_) as caller:
            if half_closes:
                caller.shutdown(socket.SHUT_WR)
            await sink.asked.wait()
            (waiting,) = waiting_callers(listening, 1)
            assert (await response_of(waiting)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("request_", [get("/"), get("/", "Connection: close")])
async def test_a_closed_connection_sends_the_rest_to_a_slow_reader(request_: bytes) -> None:
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
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority)


def secured(caller: socket.socket, authority: trustme.CA) -> ssl.SSLSocket:
    """Return the caller's connection over TLS, which it reads blocking."""
    caller.settimeout(60)
    return client_context(authority).wrap_socket(caller, server_hostname="localhost")


async def test_over_tls_a_slow_reader_gets_the_complete_last_response(
    authority: trustme.CA, tls: ssl.SSLContext
) -> None:
    # Of what the TLS layer has passed on, only the part in the kernel is seen. It stays the same
    # while the kernel takes as much as the caller reads, so that it need not show progress here.
    stall = 60.0

    def read_slowly(caller: socket.socket) -> int:
        with secured(caller, authority) as wire:
            wire.sendall(get("/", "Connection: close"))
            length = 0
            while piece := wire.recv(16384):
                length += len(piece)
                time.sleep(0.15)
        return length

    async with accepting(sink=Sink(LONG_ANSWER), tls=tls, stall=stall) as (_, listening):
        received = await asyncio.to_thread(read_slowly, slow_caller(listening, b""))
    assert received == len(LONG_ANSWER)


@pytest.mark.parametrize("reads", [True, False])
async def test_over_tls_an_unread_close_holds_no_slot(
    reads: bool, authority: trustme.CA, tls: ssl.SSLContext
) -> None:
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


async def test_a_lost_tls_connection_may_be_closed_again(
    authority: trustme.CA, tls: ssl.SSLContext
) -> None:
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
