"""What the system has let in is served, also when the listener closes at that moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import GatewayError
from gateway.http.server.acceptor import AcceptLimits, Acceptor
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.messages import ConnectionDisposition
from gateway.http.server.reader import ListenLimits
from gateway.http.server.server import CallerServer
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
        self.asked = asyncio.Event()

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """200."""
        self.remotes.append(request.remote)
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


@asynccontextmanager
async def accepting(
    connections: int = 1000, sink: Sink | None = None
) -> AsyncIterator[tuple[Acceptor, socket.socket]]:
    """An acceptor that is open, and the socket it takes connections from."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    listening.setblocking(False)
    # Of each connection that is taken: little waits in the kernel.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    limits = ListenLimits(8192, 8192, 100, 10.0, write_stall_timeout=STALL)
    server = CallerServer(sink or Sink(), limits)
    acceptor = Acceptor(
        [listening], server, AcceptLimits(connections, 10.0), tls=None, clock=time.monotonic
    )
    acceptor.open()
    yield acceptor, listening
    acceptor.close()
    await acceptor.abort()
    await server.shutdown(0.1)


def waiting_callers(listening: socket.socket, count: int) -> list[socket.socket]:
    """Return connected callers that the gateway has not accepted, because the loop is blocked."""
    callers = [socket.create_connection(listening.getsockname()) for _ in range(count)]
    for caller in callers:
        caller.sendall(get("/"))
        caller.setblocking(False)
    return callers


async def answered(caller: socket.socket) -> bytes:
    """What a caller gets."""
    async with asyncio.timeout(5):
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
        async with asyncio.timeout(5):
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
