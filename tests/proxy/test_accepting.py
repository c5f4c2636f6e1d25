"""What the system has let in is served, also when the listener closes at that moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import GatewayError
from gateway.proxy.accepting import Acceptor, Capacity
from gateway.proxy.incoming import Answered, IncomingRequest
from gateway.proxy.listener import CallerServer
from gateway.proxy.message_queue import ListenLimits
from tests.doubles.wire import get

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink:
    """Answers every request, and knows from where each came."""

    def __init__(self) -> None:
        self.remotes: list[str] = []
        self.asked = asyncio.Event()

    async def handle(self, request: IncomingRequest) -> Answered:
        """200."""
        self.remotes.append(request.remote)
        self.asked.set()
        transport = request.connection.transport
        assert transport is not None
        transport.write(ANSWER)
        return Answered.STAYS

    async def refuse(self, request: IncomingRequest, error: GatewayError) -> Answered:
        """As if it were right."""
        return await self.handle(request)


@asynccontextmanager
async def accepting(
    connections: int = 1000, sink: Sink | None = None
) -> AsyncIterator[tuple[Acceptor, socket.socket]]:
    """An acceptor that is open, and the socket it takes connections from."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    listening.setblocking(False)
    server = CallerServer(sink or Sink(), ListenLimits(8192, 8192, 100, 10.0))
    acceptor = Acceptor(
        [listening], server, Capacity(connections, 64, 10.0), tls=None, clock=time.monotonic
    )
    acceptor.open()
    yield acceptor, listening
    acceptor.close()
    await acceptor.abort()
    await server.shutdown(0.1)


def waiting_callers(listening: socket.socket, count: int) -> list[socket.socket]:
    """Callers that the system has let in and nobody has accepted yet: the loop stands still."""
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
