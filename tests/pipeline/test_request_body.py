"""A caller's body whose prefix is inspected before it is forwarded."""

from __future__ import annotations

import asyncio
import itertools

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline.request_body import RequestBody


async def read_after(
    looks: list[int], sizes: list[int], *, replay_bytes: int
) -> tuple[bytes, bytes]:
    """Return a body that is received in chunks of these sizes, after some looks at its prefix."""
    loop = asyncio.get_running_loop()
    connection = BaseProtocol(loop)
    connection.connection_made(asyncio.Transport())
    payload = StreamReader(connection, 2**16, loop=loop)
    numbers = itertools.cycle(range(256))
    pieces = [bytes(itertools.islice(numbers, size)) for size in sizes]
    body = RequestBody(
        payload,
        None,
        max_bytes=10**6,
        replay_bytes=replay_bytes,
        stall_timeout=1,
        min_rate=1,
        clock=lambda: 0.0,
    )

    async def feed() -> None:
        for piece in pieces:
            payload.feed_data(piece)
            await asyncio.sleep(0)
        payload.feed_eof()

    feeding = loop.create_task(feed())
    sent = b"".join(pieces)
    for size in looks:
        prefix = await body.peek(size)
        assert sent.startswith(prefix)
        assert len(prefix) >= min(size, len(sent))
    received = b""
    while data := await body.read_chunk():
        received += data
    await feeding
    return received, sent


@given(
    st.lists(st.integers(0, 60), max_size=3),
    st.lists(st.integers(1, 30), max_size=8),
    st.integers(0, 100),
)
def test_inspecting_a_prefix_consumes_nothing(
    looks: list[int], sizes: list[int], replay_bytes: int
) -> None:
    """However often and far; the body is complete and in order."""
    received, sent = asyncio.run(read_after(looks, sizes, replay_bytes=replay_bytes))
    assert received == sent
