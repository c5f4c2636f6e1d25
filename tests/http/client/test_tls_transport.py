"""Exchanges over TLS with the platform, seen from the platform, on both event loops."""

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
from tests.doubles.tls_peer import TlsInMemory, TlsLine, TlsPeer
from tests.doubles.waiting import wait_until
from tests.http.client.tls_ends import (
    ANSWER,
    BODY,
    REQUEST,
    BothEnds,
    client_side,
    connected,
    read,
    remaining_objects,
    server_side,
)

BY_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY


@pytest.fixture
async def both(ca: trustme.CA, version: ssl.TLSVersion) -> AsyncIterator[BothEnds]:
    async with connected(ca, version) as made:
        yield made


# Answers.


async def test_one_connection_carries_several_exchanges(both: BothEnds) -> None:
    """It closes with close_notify."""
    for _ in range(3):
        await both.send_request()
        await both.line.send(both.line.record(ANSWER))
        assert await both.answered() == BODY
        assert both.connection.is_reusable
    both.connection.mark_idle(0.0)
    both.connection.close()
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_close_notify_ends_a_response_without_a_length(both: BothEnds) -> None:
    """Also in one segment with the last data."""
    await both.send_request()
    await both.line.send(both.line.record(BY_CLOSE) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.is_reusable
    assert await both.line.at_end() == "close_notify"
    await both.lost()


async def test_a_complete_response_with_close_notify_ends_the_connection(both: BothEnds) -> None:
    await both.send_request()
    await both.line.send(both.line.record(ANSWER) + both.line.goodbye())
    assert await both.answered() == BODY
    assert not both.connection.is_reusable
    await both.lost()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_without_close_notify_a_response_without_a_length_is_truncated(
    both: BothEnds, how: str
) -> None:
    await both.send_request()
    await both.line.send(both.line.record(BY_CLOSE))
    await wait_until(lambda: both.connection.response_head is not None)
    if how == "end":
        both.line.raw.shutdown(socket.SHUT_WR)
    else:
        both.line.reset()
    with pytest.raises(UpstreamConnectionError, match="truncated"):
        await both.answered()


@pytest.mark.parametrize("how", ["end", "goodbye", "goodbye and end", "reset"])
async def test_a_close_before_the_response_is_distinguished(both: BothEnds, how: str) -> None:
    await both.send_request()
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
async def test_any_record_ends_an_idle_connection(both: BothEnds, how: str) -> None:
    await both.send_request()
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


def tampered(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


@pytest.mark.parametrize("before", [b"", ANSWER[:-10], ANSWER])
async def test_a_tampered_record_is_never_used(both: BothEnds, before: bytes) -> None:
    """What was complete before it is (bad_record_mac)."""
    await both.send_request()
    good = both.line.record(before) if before else b""
    await both.line.send(good + tampered(both.line.record(BODY)))
    if before == ANSWER:
        assert await both.answered() == BODY
    else:
        with pytest.raises(UpstreamConnectionError, match="truncated" if before else "closed"):
            await both.answered()
    assert not both.connection.is_reusable
    assert await both.line.at_end() == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_a_long_response_is_paused_for_its_reader(both: BothEnds) -> None:
    body = os.urandom(12 * 1024 * 1024)
    await both.send_request()
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


async def test_a_long_request_is_paused_for_the_platform(both: BothEnds) -> None:
    """Then it arrives complete and in order."""
    pieces = [os.urandom(300_000) for _ in range(40)]
    connection, written = both.connection, 0

    async def upload() -> None:
        nonlocal written
        for piece in pieces:
            connection.write(piece)
            await connection.drain()
            written += 1

    connection.start_exchange(expect_body=True)
    uploading = asyncio.get_running_loop().create_task(upload())
    received = -1
    while received != written:
        received = written
        await asyncio.sleep(0.05)
    assert written < len(pieces)
    got = bytearray()
    while len(got) < sum(map(len, pieces)):
        got += await both.line.read()
    assert got == b"".join(pieces)
    await uploading


async def test_a_request_of_any_size_arrives_complete(both: BothEnds) -> None:
    """An empty write makes no record."""
    connection = both.connection
    connection.start_exchange(expect_body=True)
    for size in (0, 1, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 1_000_000):
        sent = bytes(size)
        connection.write(sent + b"END")
        connection.write(b"")
        assert await both.line.read_until(b"END") == sent + b"END"


# Byte by byte, without a line.


class ManualTransport(FakeTransport):
    """A TCP transport whose octets a test transfers."""

    sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def take(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent


def one_connection(on_lost: Callable[[], object] = lambda: None) -> UpstreamConnection:
    """Return a connection that belongs to no pool."""
    return UpstreamConnection(
        lambda: 0.0,
        lambda _: on_lost(),
        response_timeout=9.0,
        idle_timeout=9.0,
        batching=WriteBatcher(),
    )


async def test_handshake_and_responses_may_be_split_at_every_octet(
    ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    connection, loose = one_connection(), ManualTransport()
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


async def test_closing_does_not_wait_forever_for_the_platform(ca: trustme.CA) -> None:
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
        assert not await arrives(line, 32 * 1024 * 1024)


async def arrives(line: TlsLine, size: int) -> bool:
    """Return whether so many octets arrive before the end."""
    got = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await line.read():
            got += len(data)
    return got >= size


async def end(how: str, both: BothEnds) -> None:
    """End a connection within an exchange, or after one."""
    line, connection = both.line, both.connection
    await both.send_request()
    if how == "goodbye":
        await line.send(line.record(ANSWER[:-1]) + line.goodbye())
    elif how == "end":
        line.raw.shutdown(socket.SHUT_WR)
    elif how == "reset":
        line.reset()
    elif how == "changed":
        await line.send(tampered(line.record(ANSWER)))
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
async def test_lost_connections_leave_no_objects(
    ca: trustme.CA, uncollected: None, how: str
) -> None:
    async with connected(ca) as both:
        await end(how, both)
    del both
    await wait_until(lambda: not remaining_objects())
