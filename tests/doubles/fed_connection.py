"""An `UpstreamConnection` that is fed octets without a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.client.upstream_connection import UpstreamConnection
from gateway.http.write_batching import WriteBatcher
from tests.doubles.reference import InvalidResponseError, read_answer

End = Literal["eof", "reset", "open"]


class FakeTransport(asyncio.Transport):
    """Records what the connection does with its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Discard the request."""

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the write buffer is always empty."""

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@dataclass
class Seen:
    """The result of an exchange: status and body, or the kind of its failure."""

    result: tuple[int, bytes] | str
    reusable: bool


async def exchange(
    pieces: list[bytes], end: End, *, head: bool = False, prompt: bool = True
) -> Seen:
    """Feed the chunks. The response is read as they arrive (`prompt`) or after the last one."""
    lost: list[UpstreamConnection] = []
    connection = UpstreamConnection(
        lambda: 0.0,
        lost.append,
        response_timeout=1.0,
        idle_timeout=1.0,
        batching=WriteBatcher(),
    )
    transport = FakeTransport()
    connection.connection_made(transport)
    connection.start_exchange(expect_body=not head)
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    reader = asyncio.get_running_loop().create_task(consume(connection)) if prompt else None
    for piece in pieces:
        if piece and not transport.closing:
            connection.data_received(piece)
            if prompt:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
    if reader is None and end == "open" and not connection.complete:
        connection.abort("timeout")
    elif reader is not None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finished = await consume(connection) if reader is None and connection.complete else None
    reusable = connection.is_reusable
    if end == "eof":
        connection.eof_received()
    if end == "open":
        if not connection.complete:
            connection.abort("timeout")
    else:
        connection.connection_lost(None if end == "eof" else ConnectionResetError())
        assert lost == [connection]
        assert not connection.is_reusable
    result = finished or await (reader or consume(connection))
    assert not (transport.paused and connection.complete and not connection._chunks)
    return Seen(result, reusable)


async def consume(connection: UpstreamConnection) -> tuple[int, bytes] | str:
    """Read a response to its end. Return status and body, or the kind of the failure."""
    body = b""
    try:
        while (response := connection.head()) is None:
            await connection.next_event()
        while pieces := await connection.read():
            body += b"".join(pieces)
    except UpstreamConnectionError as broken:
        return broken.kind
    return response.status, body


async def judge(stream: bytes, pieces: list[bytes], end: End, *, head: bool) -> None:
    """Compare the result of a stream, in chunks and at once, with that of `read_answer`."""
    received = await exchange(pieces, end, head=head)
    unsplit = await exchange([stream], end, head=head)
    assert received.result == unsplit.result
    try:
        expected = read_answer(stream, head=head, ended=end == "eof")
    except InvalidResponseError:
        expected = None
    if expected is None:
        assert isinstance(received.result, str), "accepted what is not valid"
        assert not received.reusable
        return
    if not isinstance(received.result, str):
        assert received.result == (expected.status, expected.body)
    if received.reusable:
        assert expected.bounded
        assert expected.rest.strip(b"\r\n") == b""
    # Stray line ends in the same segment as the response are skipped; later ones make the
    # connection unusable.
    assert received.reusable == unsplit.reusable or expected.rest.strip(b"\r\n") == b""
