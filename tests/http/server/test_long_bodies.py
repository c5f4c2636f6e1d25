"""Bodies longer than what arrives with their header are forwarded exactly.

Those of known length bypass the parser, so that what follows them needs care.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body
from tests.doubles.wire import TruncatedResponseError, Wire, get, post

Start = Callable[..., AbstractAsyncContextManager[RunningGateway]]

KIB: Final = 1024
BINARY: Final = "/fhir/Binary"
CONTENT: Final = "Content-Type: image/png"
READ: Final = get("/fhir/Patient/1")


def numbered(size: int) -> bytes:
    """Return so many octets, each eight of which are different."""
    return b"".join(b"%08x" % number for number in range(size // 8 + 1))[:size]


LONG: Final = numbered(700 * KIB + 3)
REQUEST: Final = post(BINARY, LONG, CONTENT)
HEADER: Final = len(REQUEST) - len(LONG)


def bodies(platform: Platform) -> list[bytes]:
    assert all(request.complete for request in platform.requests)
    return [request.body for request in platform.requests]


async def send_in_segments(wire: Wire, data: bytes, ends: Sequence[int]) -> None:
    """Send it so that the gateway reads it in chunks that end there."""
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
async def test_a_long_body_is_forwarded_octet_for_octet(
    gateway: RunningGateway, platform: Platform, ends: Sequence[int]
) -> None:
    """However the network splits it."""
    async with await Wire.open(gateway.address) as wire:
        await send_in_segments(wire, REQUEST, ends)
        assert (await wire.read_response()).status == 200
        assert (await wire.fetch(READ)).status == 200
    assert bodies(platform) == [LONG, b""]
    assert (await gateway.audit(2))[0]["request_bytes"] == len(LONG)


async def test_requests_pipelined_after_a_long_body_are_served(
    gateway: RunningGateway, platform: Platform
) -> None:
    small = post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST + READ + small + REQUEST + READ)
        assert [(await wire.read_response()).status for _ in range(5)] == [200] * 5
    assert [request.method for request in platform.requests] == [
        "POST",
        "GET",
        "POST",
        "POST",
        "GET",
    ]
    assert bodies(platform) == [LONG, b"", b"{}", LONG, b""]


async def test_requests_pipelined_after_late_long_body_are_served(gateway: RunningGateway) -> None:
    small = post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(REQUEST)).status == 200
        await send_in_segments(wire, small, (len(small) - 2,))
        assert (await wire.read_response()).status == 200
        await wire.send(READ * 9)
        assert [(await wire.read_response()).status for _ in range(9)] == [200] * 9


async def test_a_header_that_follows_a_body_may_be_split_anywhere(
    gateway: RunningGateway, platform: Platform
) -> None:
    async with await Wire.open(gateway.address) as wire:
        for cut in (1, 10, len(READ) - 1):
            await send_in_segments(wire, REQUEST + READ, (HEADER, len(REQUEST) + cut))
            assert [(await wire.read_response()).status for _ in range(2)] == [200, 200]
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
async def test_limits_apply_to_a_request_after_a_long_body(
    gateway: RunningGateway, platform: Platform, behind: bytes, status: int, reason: str
) -> None:
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST + behind)
        assert (await wire.read_response()).status == 200
        refused = await wire.read_response()
        assert (refused.status, refused.reason) == (status, reason)
        assert await wire.at_end()
    assert bodies(platform) == [LONG]


@pytest.mark.parametrize("end", ["closed", "reset"])
@pytest.mark.parametrize("sent", [HEADER + 1, HEADER + 300 * KIB, len(REQUEST) - 1])
async def test_a_truncated_long_body_never_reaches_the_platform_complete(
    gateway: RunningGateway, platform: Platform, sent: int, end: str
) -> None:
    async with await Wire.open(gateway.address) as wire:
        await wire.send(REQUEST[:sent])
        await asyncio.sleep(0.05)
        if end == "closed":
            wire.writer.close()
        else:
            wire.writer.transport.abort()
        assert (await gateway.audit(1))[0]["outcome"] == "aborted"
    assert not any(request.complete for request in platform.requests)


async def test_a_long_body_gets_a_100_continue(gateway: RunningGateway, platform: Platform) -> None:
    """RFC 9110 section 10.1.1."""
    head, body = post(BINARY, LONG, CONTENT, "Expect: 100-continue")[: -len(LONG)], LONG
    async with await Wire.open(gateway.address) as wire:
        await wire.send(head)
        assert await wire.read_interim_status() == 100
        await wire.send(body + READ)
        assert [(await wire.read_response()).status for _ in range(2)] == [200, 200]
    assert bodies(platform) == [LONG, b""]


async def test_a_rejected_long_body_is_not_parsed_as_requests(
    start_gateway: Start, platform: Platform
) -> None:
    inside = READ * (200 * KIB // len(READ))
    async with (
        start_gateway(limits={"max_body_bytes": 100 * KIB}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(post("/fhir/Basic", inside)[: 90 * KIB])
        refused = await wire.read_response()
        assert (refused.status, refused.reason) == (413, "payload-too-large")
        with pytest.raises(TruncatedResponseError):
            await wire.read_response()
    assert platform.requests == []


async def wait_until_paused(wire: Wire) -> int:
    """Wait until the gateway reads no more; return how much is left."""
    buffered = wire.writer.transport.get_write_buffer_size
    left, before = buffered(), -1
    while left != before:
        await asyncio.sleep(0.2)
        left, before = buffered(), left
    return left


async def test_a_pipelined_long_body_is_read_up_to_the_buffers(
    gateway: RunningGateway, platform: Platform
) -> None:
    size = 32 * KIB * KIB
    responses = [asyncio.Event(), asyncio.Event()]

    async def wait(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        await responses[len(platform.requests) - 1].wait()
        connection.writer.write(fhir())

    platform.script(wait, wait)
    ahead = READ + post("/fhir/Basic", b"{}")
    async with await Wire.open(gateway.address) as wire:
        sending = asyncio.create_task(wire.send(ahead + post(BINARY, bytes(size), CONTENT)))
        for count, response in enumerate(responses, 1):
            await platform.wait_for_requests(count)
            assert await wait_until_paused(wire) > size // 4
            response.set()
        await sending
        assert [(await wire.read_response()).status for _ in range(3)] == [200] * 3
