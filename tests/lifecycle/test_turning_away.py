"""Closing of listening sockets: no connection is accepted only to be reset."""

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
from tests.environments import needs_ipv6


@pytest.fixture
def host() -> str:
    return "127.0.0.1"


@pytest.fixture
async def listening(host: str) -> AsyncIterator[ListeningSockets]:
    """Yield listening sockets that accept no connection."""
    (made,) = await listen({"listen.address": ListenAddress(host, 0)})
    yield made
    made.close()


def connect(listening: ListeningSockets) -> socket.socket:
    caller = socket.socket(listening.sockets[0].family)
    caller.setblocking(False)
    caller.connect_ex((listening.address.host, listening.address.port))
    return caller


def accepted(listening: ListeningSockets) -> list[socket.socket]:
    """Accept the connections in the queue, and return them."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listening.sockets[0].accept()[0])
    return found


async def end_of(caller: socket.socket) -> int:
    """Return what became of a caller that was connecting."""
    connected = asyncio.Event()
    asyncio.get_running_loop().add_writer(caller, connected.set)
    await connected.wait()
    asyncio.get_running_loop().remove_writer(caller)
    return caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_queued_connections_stay_and_later_ones_are_refused(
    listening: ListeningSockets,
) -> None:
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


async def test_closing_one_socket_of_a_shared_port_loses_no_connection() -> None:
    """Later SYNs reach the other process."""
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


async def test_a_starting_process_gets_no_connections_of_a_shared_port() -> None:
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


async def test_a_system_without_the_filter_is_logged_once(
    listening: ListeningSockets, caplog: pytest.LogCaptureFixture
) -> None:
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
