"""Exchanges over TLS with the platform, from the other side of the line, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme

from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.client.tls_transport import TlsTransport
from gateway.http.client.upstream_connection import UpstreamConnection
from gateway.http.write_batching import WriteBatcher
from tests.doubles.fed_connection import FakeTransport
from tests.doubles.rest import until
from tests.doubles.tls_peer import TlsInMemory, TlsLine, TlsPeer
from tests.http.client.tls_stage import (
    ANSWER,
    BODY,
    REQUEST,
    Both,
    client_side,
    connected,
    left,
    read,
    server_side,
)

BY_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY


@pytest.fixture
async def both(ca: trustme.CA, version: ssl.TLSVersion) -> AsyncIterator[Both]:
    """A connection whose handshake is done, in each version."""
    async with connected(ca, version) as made:
        yield made


# Answers.


async def test_conversation(both: Both) -> None:
    """One connection carries one exchange after the other, and closes with close_notify."""
    for _ in range(3):
        await both.ask()
        await both.line.send(both.line.record(ANSWER))
        assert await both.answered() == BODY
        assert both.connection.is_reusable
    both.connection.mark_idle(0.0)
    both.connection.close()
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_last_words_in_one_segment(both: Both) -> None:
    """close_notify ends an answer without a length, also where it comes with the last data."""
    await both.ask()
    await both.line.send(both.line.record(BY_CLOSE) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.is_reusable
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_goodbye_after_a_whole_answer(both: Both) -> None:
    """An answer stays whole where close_notify comes with it; the connection is used no more."""
    await both.ask()
    await both.line.send(both.line.record(ANSWER) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.is_reusable
    await both.lost()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_cut_without_a_goodbye(both: Both, how: str) -> None:
    """Without close_notify a response without a length is incomplete, whichever end cut it."""
    await both.ask()
    await both.line.send(both.line.record(BY_CLOSE))
    await until(lambda: both.connection.response_head is not None)
    if how == "end":
        both.line.raw.shutdown(socket.SHUT_WR)
    else:
        both.line.reset()
    with pytest.raises(UpstreamConnectionError, match="truncated"):
        await both.answered()


@pytest.mark.parametrize("how", ["end", "goodbye", "goodbye and end", "reset"])
async def test_end_before_the_answer(both: Both, how: str) -> None:
    """A connection that ends before any byte of an answer is told from one that ends later."""
    await both.ask()
    if "goodbye" in how:
        await both.line.send(both.line.goodbye())
    if "end" in how:
        both.line.raw.shutdown(socket.SHUT_WR)
    if how == "reset":
        both.line.reset()
    with pytest.raises(UpstreamConnectionError, match="closed"):
        await both.answered()
    await both.lost()


@pytest.mark.parametrize("how", ["end", "goodbye", "data", "data and goodbye"])
async def test_end_while_idle(both: Both, how: str) -> None:
    """A kept connection is given up as soon as the platform says anything, or ends it."""
    await both.ask()
    await both.line.send(both.line.record(ANSWER))
    assert await both.answered() == BODY
    both.connection.mark_idle(0.0)
    last = both.line.record(ANSWER) if "data" in how else b""
    last += both.line.goodbye() if "goodbye" in how else b""
    await both.line.send(last)
    if how == "end":
        both.line.raw.shutdown(socket.SHUT_WR)
    await both.lost()
    assert not both.connection.is_reusable
    assert await both.line.closed()


def spoilt(record: bytes) -> bytes:
    """Return a record that was changed on its way."""
    return record[:-1] + bytes([record[-1] ^ 1])


@pytest.mark.parametrize("before", [b"", ANSWER[:-10], ANSWER])
async def test_changed_record(both: Both, before: bytes) -> None:
    """What was changed on the way never counts; what was whole before it does (bad_record_mac)."""
    await both.ask()
    good = both.line.record(before) if before else b""
    await both.line.send(good + spoilt(both.line.record(BODY)))
    if before == ANSWER:
        assert await both.answered() == BODY
    else:
        with pytest.raises(UpstreamConnectionError, match="truncated" if before else "closed"):
            await both.answered()
    assert not both.connection.is_reusable
    assert await both.line.at_end() == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_long_answer_waits_for_its_reader(both: Both) -> None:
    """However long an answer is, only so much of it is here as its caller takes."""
    body = os.urandom(24 * 1024 * 1024)
    await both.ask()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    sending = asyncio.get_running_loop().create_task(
        both.line.send(both.line.record(head) + both.line.record(body))
    )
    while both.connection.head() is None:
        await both.connection.next_event()
    got = b""
    for turn in itertools.count():
        if turn < 3:
            # Nothing is read for a while; the platform sends as much as it can.
            await asyncio.sleep(0.05)
            assert not sending.done()
        pieces = await both.connection.read()
        if not pieces:
            break
        assert sum(map(len, pieces)) <= 1024 * 1024
        got += b"".join(pieces)
    assert got == body
    await sending
    assert both.connection.is_reusable


async def test_long_request_waits_for_its_reader(both: Both) -> None:
    """A platform that takes nothing holds an upload up; then all of it arrives, in order."""
    pieces = [os.urandom(300_000) for _ in range(64)]
    connection, written = both.connection, 0

    async def upload() -> None:
        nonlocal written
        for piece in pieces:
            connection.write(piece)
            await connection.drain()
            written += 1

    connection.start_exchange(expect_body=True)
    uploading = asyncio.get_running_loop().create_task(upload())
    seen = -1
    while seen != written:
        seen = written
        await asyncio.sleep(0.05)
    assert written < len(pieces)
    got = bytearray()
    while len(got) < sum(map(len, pieces)):
        got += await both.line.read()
    assert got == b"".join(pieces)
    await uploading


async def test_whole_request_of_any_size(both: Both) -> None:
    """A request of several records and slices arrives as it is; nothing at all is no record."""
    connection = both.connection
    connection.start_exchange(expect_body=True)
    for size in (0, 1, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 1_000_000):
        sent = bytes(size)
        connection.write(sent + b"END")
        connection.write(b"")
        assert await both.line.read_until(b"END") == sent + b"END"


# Byte by byte, without a line.


class Loose(FakeTransport):
    """A TCP transport whose bytes a test carries over."""

    sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.sent += data

    def take(self) -> bytes:
        """What was written since."""
        sent, self.sent = self.sent, b""
        return sent


def one_connection(on_lost: Callable[[], object] = lambda: None) -> UpstreamConnection:
    """A connection that no pool knows."""
    return UpstreamConnection(
        lambda: 0.0,
        lambda _: on_lost(),
        response_timeout=9.0,
        idle_timeout=9.0,
        batching=WriteBatcher(),
    )


async def test_bytes_one_by_one(ca: trustme.CA, version: ssl.TLSVersion) -> None:
    """Handshake, tickets and answers are understood wherever they are cut."""
    connection, loose = one_connection(), Loose()
    transport = TlsTransport(connection, client_side(ca), "localhost")
    server = TlsInMemory(server_side(ca, version))
    transport.connection_made(loose)
    while sent := loose.take():
        for byte in server.handle(sent):
            transport.data_received(bytes([byte]))
    await transport.wait_established()
    for cut in itertools.count():
        connection.start_exchange(expect_body=True)
        connection.write(REQUEST)
        record = server.record(ANSWER[:9]) + server.record(ANSWER[9:])
        transport.data_received(record[:cut])
        transport.data_received(record[cut:])
        assert await read(connection) == BODY
        assert connection.is_reusable
        if cut == len(record):
            break
    connection.start_exchange(expect_body=True)
    connection.write(REQUEST)
    for byte in server.record(BY_CLOSE) + server.goodbye():
        assert not connection.complete
        transport.data_received(bytes([byte]))
    assert await read(connection) == BODY
    assert not connection.is_reusable


# The end of our side.


async def test_close_towards_a_platform_that_reads_nothing(ca: trustme.CA) -> None:
    """What waits to be sent holds a connection up for a while, not for ever."""
    lost = asyncio.Event()
    connection = one_connection(lost.set)
    async with TlsPeer(server_side(ca)) as peer:
        secure = TlsTransport(connection, client_side(ca), "localhost", close_timeout=0.1)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.create_connection(lambda: secure, "127.0.0.1", peer.port))
        line = await peer.accept()
        await line.shake_hands()
        await opening
        await secure.wait_established()
        connection.start_exchange(expect_body=True)
        connection.write(bytes(32 * 1024 * 1024))
        await asyncio.sleep(0.01)
        connection.close()
        connection.write(b"more")
        assert not lost.is_set()
        await lost.wait()
        assert not await line_is_whole(line, 32 * 1024 * 1024)


async def line_is_whole(line: TlsLine, size: int) -> bool:
    """Whether so many bytes arrive before the end."""
    got = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await line.read():
            got += len(data)
    return got >= size


async def end(how: str, both: Both) -> None:
    """Let a connection in the midst of an exchange, or after one, end so."""
    line, connection = both.line, both.connection
    await both.ask()
    if how == "goodbye":
        await line.send(line.record(ANSWER[:-1]) + line.goodbye())
    elif how == "end":
        line.raw.shutdown(socket.SHUT_WR)
    elif how == "reset":
        line.reset()
    elif how == "changed":
        await line.send(spoilt(line.record(ANSWER)))
    elif how == "nonsense":
        await line.send(line.record(b"nonsense\r\n\r\n"))
    elif how == "abort":
        connection.abort()
    elif how == "close":
        await line.send(line.record(ANSWER))
        await both.answered()
        connection.close()
    with contextlib.suppress(UpstreamConnectionError):
        await both.answered()
    both.pool.release(connection)
    await both.lost()


@pytest.mark.parametrize(
    "how", ["goodbye", "end", "reset", "changed", "nonsense", "abort", "close"]
)
async def test_lost_connections_are_free(ca: trustme.CA, uncollected: None, how: str) -> None:
    """Nothing holds on to a lost connection, so that no memory waits for a collection."""
    async with connected(ca) as both:
        await end(how, both)
    del both
    await until(lambda: not left())
