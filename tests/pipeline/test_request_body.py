"""A request body: its prefix is inspected before it is forwarded, and its waits are limited."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.http.server.request_payload import FixedLengthBody
from gateway.pipeline.request_body import RequestBody


async def read_after(
    peeks: list[int], sizes: list[int], *, replay_bytes: int
) -> tuple[bytes, bytes]:
    """Return what is read of a body after peeks of these sizes, and what was sent, in chunks."""
    loop = asyncio.get_running_loop()
    connection = BaseProtocol(loop)
    connection.connection_made(asyncio.Transport())
    payload = StreamReader(connection, 2**16, loop=loop)
    numbers = itertools.cycle(range(256))
    chunks = [bytes(itertools.islice(numbers, size)) for size in sizes]
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
        for chunk in chunks:
            payload.feed_data(chunk)
            await asyncio.sleep(0)
        payload.feed_eof()

    feeding = loop.create_task(feed())
    sent = b"".join(chunks)
    for size in peeks:
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
    peeks: list[int], sizes: list[int], replay_bytes: int
) -> None:
    """After any peeks the body is complete and in order."""
    received, sent = asyncio.run(read_after(peeks, sizes, replay_bytes=replay_bytes))
    assert received == sent


class ManualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time a test sets, in seconds."""

    now = 0.0

    def time(self) -> float:
        return self.now


async def reason_of_waits(*waits: float) -> str:
    """Return the code of the failure of a body whose bytes arrive after these waits, or ""."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ManualClockLoop)
    payload = FixedLengthBody(len(waits), pause=lambda: None, resume=lambda: None)
    body = RequestBody(
        payload,
        len(waits),
        max_bytes=100,
        replay_bytes=100,
        stall_timeout=10,
        min_rate=0,
        clock=loop.time,
    )
    reading = loop.create_task(body.discard())
    for wait in waits:
        await asyncio.sleep(0)
        loop.now += wait
        # Timers that are due run before the byte arrives.
        for _ in range(3):
            await asyncio.sleep(0)
        payload.feed(b"x")
        await asyncio.sleep(0)
    try:
        await reading
    except GatewayError as error:
        return error.reason.code
    return ""


@pytest.mark.parametrize(
    ("waits", "reason"),
    [((6, 6, 9), ""), ((11,), "body-timeout"), ((6, 9, 11), "body-timeout")],
    ids=["short", "long", "long after short ones"],
)
def test_each_wait_for_a_body_counts_by_itself(waits: tuple[float, ...], reason: str) -> None:
    """Only a wait longer than `stall_timeout` ends the body, not the sum of several."""
    with asyncio.Runner(loop_factory=ManualClockLoop) as runner:
        assert runner.run(reason_of_waits(*waits)) == reason
