"""How long callers' connections stay idle, and that lost ones leave no objects."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.config.inbound_settings import LimitsSettings
from gateway.config.value_types import ListenAddress
from gateway.errors import GatewayError
from gateway.http.server.caller_connection import CallerConnection, IncomingRequest
from gateway.http.server.listener import CallerServer
from gateway.http.server.request_parser import ConnectionDisposition
from tests.doubles.hurried_loop import HurriedLoop
from tests.doubles.waiting import wait_until
from tests.doubles.wire import Wire, get, post

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
LONG = b"x" * 300_000


class Sink:
    """Responds with 204 once it has read the request's body."""

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Respond with 204, or not at all to a truncated body."""
        try:
            while await request.payload.readany():
                pass
        except ConnectionError:
            return ConnectionDisposition.CLOSE
        request.connection.write(ANSWER)
        return ConnectionDisposition.KEEP_ALIVE

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        request.connection.write(ANSWER)
        return ConnectionDisposition.CLOSE


@pytest.fixture
async def address(request: pytest.FixtureRequest) -> AsyncIterator[ListenAddress]:
    """Yield the address of a listener that keeps idle connections for half a second."""
    keep_alive = getattr(request, "param", 0.5)
    server = CallerServer(Sink(), LimitsSettings(keep_alive=keep_alive))
    listening = await asyncio.get_running_loop().create_server(
        server.make_connection, "127.0.0.1", 0
    )
    yield ListenAddress(host="127.0.0.1", port=listening.sockets[0].getsockname()[1])
    listening.close()
    await server.shutdown(0.1)


async def test_an_idle_connection_is_closed_after_keep_alive(address: ListenAddress) -> None:
    async with await Wire.open(address) as wire:
        assert (await wire.fetch(get("/"))).status == 204
        assert await wire.at_end()


@pytest.mark.parametrize("address", [3.0], indirect=True)
async def test_requests_in_time_keep_a_connection(address: ListenAddress) -> None:
    async with await Wire.open(address) as wire, await Wire.open(address) as resting:
        for each in (wire, resting):
            assert (await each.fetch(get("/"))).status == 204
        end = asyncio.ensure_future(resting.at_end())
        while not end.done():
            assert (await wire.fetch(get("/"))).status == 204
            await asyncio.sleep(0.2)
        assert (await wire.fetch(get("/"))).status == 204


@pytest.mark.parametrize("address", [3.0], indirect=True)
async def test_an_unread_request_is_served_before_the_idle_timeout(address: ListenAddress) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HurriedLoop)
    with socket.create_connection((address.host, address.port)) as caller:
        caller.setblocking(False)
        await loop.sock_sendall(caller, get("/"))
        assert await loop.sock_recv(caller, 1000) == ANSWER
        # Both are due in the loop's next turn, which has looked at the sockets before: this, and
        # the look at what has been idle for too long.
        loop.call_at(loop.time(), caller.send, get("/"))
        loop.leap(4)
        assert await loop.sock_recv(caller, 1000) == ANSWER
        assert await loop.sock_recv(caller, 1000) == b""


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(get("/")[:-2], id="half-a-header"),
        pytest.param(get("/") * 3, id="three-requests"),
        pytest.param(get("/") * 40, id="many-requests"),
        pytest.param(post("/", LONG), id="long-body"),
        pytest.param(post("/", LONG)[:-1], id="most-of-a-long-body"),
        pytest.param(post("/", b"body")[:-1], id="most-of-a-short-body"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
    ],
)
async def test_lost_connections_leave_no_objects(
    address: ListenAddress, sent: bytes, uncollected: None
) -> None:
    for _ in range(3):
        async with await Wire.open(address) as wire:
            await wire.send(sent)
            await asyncio.sleep(0.02)
            wire.writer.transport.abort()
    await wait_until(
        lambda: not any(isinstance(each, CallerConnection) for each in gc.get_objects())
    )
