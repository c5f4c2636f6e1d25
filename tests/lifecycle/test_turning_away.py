"""The time at which listening sockets close: no connection is accepted only to be reset."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.app.listening_sockets import ListeningSockets, listen
from gateway.config.value_types import ListenAddress


@pytest.fixture
def host() -> str:
    """The address to listen on."""
    return "127.0.0.1"


@pytest.fixture
async def listening(host: str) -> AsyncIterator[ListeningSockets]:
    """Yield listening sockets that accept no connection."""
    (made,) = await listen({"listen.address": ListenAddress(host, 0)})
    yield made
    made.close()


def connect(listening: ListeningSockets) -> socket.socket:
    """A caller that has begun to connect; at loopback it has succeeded where it can."""
    caller = socket.socket(listening.sockets[0].family)
    caller.setblocking(False)
    caller.connect_ex((listening.address.host, listening.address.port))
    return caller


def accepted(listening: ListeningSockets) -> list[socket.socket]:
    """The connections in the queue."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listening.sockets[0].accept()[0])
    return found


async def end_of(caller: socket.socket) -> int:
    """What became of a caller that was still connecting."""
    connected = asyncio.Event()
    asyncio.get_running_loop().add_writer(caller, connected.set)
    await connected.wait()
    asyncio.get_running_loop().remove_writer(caller)
    return caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_came_before_is_taken_and_who_comes_later_is_refused(
    listening: ListeningSockets,
) -> None:
    """The one is in the queue and stays; the other does not get there and is told by the close."""
    with connect(listening) as early:
        listening.stop_accepting()
        with connect(listening) as late:
            taken, _ = listening.sockets[0].accept()
            with pytest.raises(BlockingIOError):
                listening.sockets[0].accept()
            listening.close()
            assert await end_of(late) == errno.ECONNREFUSED
        with taken:
            early.send(b"x")
            assert taken.recv(1) == b"x"


async def test_on_a_shared_port_no_connection_is_lost_when_one_closes() -> None:
    """Who came is taken; who comes at that moment reaches the other, at the next SYN."""
    (closing,) = await listen(
        {"listen.address": ListenAddress("127.0.0.1", 0)}, shared_ports={"listen.address"}
    )
    (other,) = await listen({"listen.address": closing.address}, shared_ports={"listen.address"})
    for each in (closing, other):
        each.open()
    early = [connect(closing) for _ in range(20)]
    closing.stop_accepting()
    late = [connect(closing) for _ in range(20)]
    taken = [*accepted(closing), *accepted(other)]
    closing.close()
    assert [await end_of(caller) for caller in (*early, *late)] == [0] * 40
    taken += accepted(other)
    assert len(taken) == 40
    other.close()
    for each in (*early, *late, *taken):
        each.close()


async def test_who_shares_a_port_is_given_nothing_before_it_opens() -> None:
    """A gateway that is only starting, or does not get that far, holds no connection."""
    (running,) = await listen(
        {"listen.address": ListenAddress("127.0.0.1", 0)}, shared_ports={"listen.address"}
    )
    running.open()
    (starting,) = await listen({"listen.address": running.address}, shared_ports={"listen.address"})
    callers = [connect(running) for _ in range(20)]
    taken = accepted(running)
    starting.close()
    running.close()
    assert len(taken) == 20
    for each in (*callers, *taken):
        each.close()


async def test_where_that_cannot_be_done_it_says_so(
    listening: ListeningSockets, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for all sockets, with what it means; who has come is still taken."""
    with socket.socket(socket.AF_UNIX) as without_option, connect(listening):
        both = ListeningSockets(
            listening.address, (*listening.sockets, without_option, without_option)
        )
        with caplog.at_level(logging.WARNING):
            both.stop_accepting()
        with listening.sockets[0].accept()[0]:
            pass
    (line,) = caplog.messages
    assert str(listening.address) in line
    assert "reset instead of refused" in line
