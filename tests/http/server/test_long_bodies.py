"""Bodies that are longer than what comes with their header: all of them goes on, and only they.

Those of known length do not pass the parser, so that what follows them is looked at closely.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Line, Platform, fhir, outcome, read_body
from tests.doubles.wire import TruncatedResponseError, Wire, get, post

Start = Callable[..., AbstractAsyncContextManager[Running]]

KIB: Final = 1024
BINARY: Final = "/fhir/Binary"
CONTENT: Final = "Content-Type: image/png"
READ: Final = get("/fhir/Patient/1")


def numbered(size: int) -> bytes:
    """So many bytes, in which every eight are others."""
    return b"".join(b"%08x" % number for number in range(size // 8 + 1))[:size]


LONG: Final = numbered(700 * KIB + 3)
REQUEST: Final = post(BINARY, LONG, CONTENT)
HEADER: Final = len(REQUEST) - len(LONG)


def bodies(platform: Platform) -> list[bytes]:
    """What the platform got, in order."""
    assert all(seen.complete for seen in platform.seen)
    return [seen.body for seen in platform.seen]


async def send_in_pieces(wire: Wire, data: bytes, ends: Sequence[int]) -> None:
    """Send it so that the gateway reads it in pieces that end there."""
    for begin, end in zip((0, *ends), (*ends, len(data)), strict=True):
        await wire.send(data[begin:end])
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param((), id="at-once"),
        pytest.param((HEADER,), id="header-alone"),
        pytest.param((HEADER - 2,), id="header-cut"),
        pytest.param((HEADER + 1,), id="one-byte-with-the-header"),
        pytest.param((HEADER + 64 * KIB, HEADER + 300 * KIB), id="three-pieces"),
        pytest.param((len(REQUEST) - 1,), id="last-byte-alone"),
        pytest.param((HEADER, len(REQUEST) - 64 * KIB), id="little-left"),
    ],
)
async def test_what_goes_on_is_what_came(
    gateway: Running, platform: Platform, ends: Sequence[int]
) -> None:
    """However the network cuts a long body, the platform gets it byte for byte, and once."""
    async with await Wire.open(gateway.address) as wire:
        await send_in_pieces(wire, REQUEST, ends)
        assert (await wire.reply()).status == 200
        assert (await wire.ask(READ)).status == 200
    assert bodies(platform) == [LONG, b""]
    assert (await gateway.audit(2))[0]["request_bytes"] == len(LONG)


async def test_requests_behind_a_long_body(gateway: Running, platform: Platform) -> None:
    """Requests that were sent ahead behind a long body are requests, in their order."""
    small = post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST + READ + small + REQUEST + READ)
        assert [(await wire.reply()).status for _ in range(5)] == [200] * 5
    assert [seen.method for seen in platform.seen] == ["POST", "GET", "POST", "POST", "GET"]
    assert bodies(platform) == [LONG, b"", b"{}", LONG, b""]


async def test_many_requests_some_time_after_a_long_body(gateway: Running) -> None:
    """All that is sent ahead is answered, also behind a body that came later than its header."""
    small = post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.ask(REQUEST)).status == 200
        await send_in_pieces(wire, small, (len(small) - 2,))
        assert (await wire.reply()).status == 200
        await wire.send(READ * 9)
        assert [(await wire.reply()).status for _ in range(9)] == [200] * 9


async def test_a_surplus_cut_anywhere(gateway: Running, platform: Platform) -> None:
    """A header that begins in the bytes in which a long body ends is read on from there."""
    async with await Wire.open(gateway.address) as wire:
        for cut in (1, 10, len(READ) - 1):
            await send_in_pieces(wire, REQUEST + READ, (HEADER, len(REQUEST) + cut))
            assert [(await wire.reply()).status for _ in range(2)] == [200, 200]
    assert bodies(platform) == [LONG, b""] * 3


@pytest.mark.parametrize(
    ("behind", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "bad-request"),
        (get("/fhir/Patient/" + "1" * 9000), 414, "url-too-long"),
        (get("/fhir/Patient/1", "X-Long: " + "1" * 17000), 431, "header-too-large"),
        (get("/fhir/Basic", "Content-Length: 2", "Transfer-Encoding: chunked"), 400, "bad-request"),
    ],
)
async def test_what_is_refused_behind_a_long_body(
    gateway: Running, platform: Platform, behind: bytes, status: int, reason: str
) -> None:
    """The request behind a long body has the same limits as a first one; the body is not harmed."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST + behind)
        assert (await wire.reply()).status == 200
        refused = await wire.reply()
        assert (refused.status, refused.reason) == (status, reason)
        assert await wire.at_end()
    assert bodies(platform) == [LONG]


@pytest.mark.parametrize("end", ["closed", "reset"])
@pytest.mark.parametrize("sent", [HEADER + 1, HEADER + 300 * KIB, len(REQUEST) - 1])
async def test_a_body_that_ends_early(
    gateway: Running, platform: Platform, sent: int, end: str
) -> None:
    """A caller that leaves within a long body: the platform never gets a whole request."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST[:sent])
        await asyncio.sleep(0.05)
        if end == "closed":
            wire.writer.close()
        else:
            wire.writer.transport.abort()
        assert (await gateway.audit(1))[0]["outcome"] == "aborted"
    assert not any(seen.complete for seen in platform.seen)


async def test_a_long_body_is_invited(gateway: Running, platform: Platform) -> None:
    """A caller that waits for it gets 100 (RFC 9110 section 10.1.1), then sends a long body."""
    head, body = post(BINARY, LONG, CONTENT, "Expect: 100-continue")[: -len(LONG)], LONG
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head)
        assert await wire.interim() == 100
        await wire.send(body + READ)
        assert [(await wire.reply()).status for _ in range(2)] == [200, 200]
    assert bodies(platform) == [LONG, b""]


async def test_a_refused_long_body(start_gateway: Start, platform: Platform) -> None:
    """A long body that is refused is not taken for requests, whatever is in it."""
    inside = READ * (200 * KIB // len(READ))
    async with (
        start_gateway(limits={"max_body_bytes": 100 * KIB}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(post("/fhir/Basic", inside)[: 90 * KIB])
        refused = await wire.reply()
        assert (refused.status, refused.reason) == (413, "payload-too-large")
        with pytest.raises(TruncatedResponseError):
            await wire.reply()
    assert platform.seen == []


async def test_an_answer_before_the_body_ended(gateway: Running, platform: Platform) -> None:
    """What the platform answers early is passed on, and what still comes is no request."""

    async def refuse(line: Line) -> None:
        line.writer.write(outcome(422))
        await line.reader.read()

    platform.answer(refuse)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST[: HEADER + 200 * KIB])
        refused = await wire.reply()
        assert (refused.status, refused.header("Connection")) == (422, "close")
        with contextlib.suppress(ConnectionError):
            await wire.send(READ * 100)
        with pytest.raises(TruncatedResponseError):
            await wire.reply()
    assert len(platform.seen) == 1


async def until_it_stops(wire: Wire) -> int:
    """Wait until the gateway takes no more of what was sent; how much of it is left."""
    buffered = wire.writer.transport.get_write_buffer_size
    left, before = buffered(), -1
    while left != before:
        await asyncio.sleep(0.2)
        left, before = buffered(), left
    return left


async def test_a_long_body_waits_behind_others(gateway: Running, platform: Platform) -> None:
    """While requests before a long body are under way, no more of it comes than buffers hold."""
    size = 32 * KIB * KIB
    answers = [asyncio.Event(), asyncio.Event()]

    async def wait(line: Line) -> None:
        await read_body(line.reader, line.seen)
        await answers[len(platform.seen) - 1].wait()
        line.writer.write(fhir())

    platform.script(wait, wait)
    ahead = READ + post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        sending = asyncio.create_task(wire.send(ahead + post(BINARY, bytes(size), CONTENT)))
        for count, answer in enumerate(answers, 1):
            await platform.until_seen(count)
            assert await until_it_stops(wire) > size // 4
            answer.set()
        await sending
        assert [(await wire.reply()).status for _ in range(3)] == [200] * 3


async def test_a_slow_platform_holds_back_the_caller(gateway: Running, platform: Platform) -> None:
    """While the platform takes nothing, a caller can send no more than buffers hold; then all."""
    size = 32 * KIB * KIB
    proceed = asyncio.Event()

    async def wait(line: Line) -> None:
        await proceed.wait()
        await read_body(line.reader, line.seen)
        line.writer.write(fhir())

    platform.answer(wait)
    async with await Wire.open(gateway.address) as wire:
        sending = asyncio.create_task(wire.send(post(BINARY, bytes(size), CONTENT)))
        await platform.until_seen(1)
        held_back = await until_it_stops(wire)
        proceed.set()
        await sending
        assert (await wire.reply()).status == 200
    assert held_back > size // 4
    assert [len(body) for body in bodies(platform)] == [size]
