"""Callers that send nothing, or too little, get little time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, fhir, once
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline.conftest import StartGateway

READ = get("/fhir/Patient/1")
OTHER = get("/fhir/Patient/1", "Accept: application/fhir+json")
WRITE = post("/fhir/Patient", b'{"resourceType":"Patient"}')
# Long enough for callers on a busy machine that do say something.
SHORT = {"header_timeout": 1.5}


@pytest.fixture(autouse=True)
async def time_limit() -> AsyncIterator[None]:
    """Fail where what ends a connection is not the short timeout, but `limits.keep_alive`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    yield
    assert loop.time() - began < 100


async def test_a_connection_without_a_request_is_closed(start_gateway: StartGateway) -> None:
    """After limits.header_timeout, without a response."""
    async with start_gateway(limits=SHORT) as gateway, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await Wire.open(gateway.address)) for _ in range(20)
        ]
        for wire in wires:
            assert await wire.at_end()
        assert (await fetch(gateway.address, READ)).status == 200
        assert len(await gateway.audit()) == 1


async def test_a_connection_without_a_tls_handshake_is_closed(
    start_gateway: StartGateway, tls: tuple[dict[str, Any], object]
) -> None:
    async with (
        start_gateway(limits=SHORT, listen=tls[0]) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        assert await wire.at_end()


async def test_a_reload_changes_the_timeout_of_handshakes(
    start_gateway: StartGateway, tls: tuple[dict[str, Any], object]
) -> None:
    async with start_gateway(limits={"header_timeout": 60}, listen=tls[0]) as gateway:
        limits = gateway.settings.limits.model_copy(update=SHORT)
        await gateway.gateway.reload(gateway.settings.model_copy(update={"limits": limits}))
        async with await Wire.open(gateway.address) as wire:
            assert await wire.at_end()


@pytest.mark.parametrize("begun", [b"\r\n", b"GET /fhir/Pat", READ[:-2]])
async def test_an_incomplete_header_gets_a_408(start_gateway: StartGateway, begun: bytes) -> None:
    """Also an empty line alone."""
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        response = await wire.fetch(begun)
        assert (response.status, response.reason) == (408, "header-timeout")
        assert await wire.at_end()


async def test_header_timeout_does_not_run_on_idle_connection(start_gateway: StartGateway) -> None:
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(READ)).status == 200
        # Longer than a silent newcomer gets.
        async with await Wire.open(gateway.address) as other:
            assert await other.at_end()
        assert (await wire.fetch(READ)).status == 200


async def test_connections_of_callers_use_tcp_keep_alive(gateway: RunningGateway) -> None:
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(READ)).status == 200
        assert await asyncio.to_thread(_timers, gateway.address.port) == {"02"}


def _timers(port: int) -> set[str]:
    """Return the kinds of timers on connections to a port (proc(5)); 02 is keep-alive."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, timer, *_ = line.split()
        if local.endswith(f":{port:04X}") and state == "01":
            found.add(timer.partition(":")[0])
    return found


@pytest.mark.parametrize("before", [b"", READ], ids=["first", "second"])
async def test_octets_after_a_408_do_not_reset_the_connection(
    start_gateway: StartGateway, before: bytes
) -> None:
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        if before:
            await wire.fetch(before)
        await wire.send(b"GET /fhir/Pat")
        assert (await wire.read_response()).status == 408
        for _ in range(6):
            await wire.send(b"i")
            await asyncio.sleep(0)
        assert await wire.reader.read() == b""


class HeldResponses:
    """Lets the platform hold its responses until `release`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._released = asyncio.Event()
        platform.respond(once(self._released, fhir()))

    async def send(self, wire: Wire, pieces: list[bytes]) -> None:
        """Send chunks, each in a segment of its own; the first one completes a request."""
        for number, piece in enumerate(pieces):
            await wire.send(piece)
            if not number:
                await self._platform.wait_for_requests(1)
            await asyncio.sleep(0.05)

    def release(self) -> None:
        self._released.set()


async def wait_header_timeout(gateway: RunningGateway) -> None:
    async with await Wire.open(gateway.address) as newcomer:
        assert await newcomer.at_end()


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        pytest.param([READ + OTHER[:-2]], 1, id="in-one-piece"),
        pytest.param([READ, OTHER[:20]], 1, id="while-it-is-answered"),
        pytest.param([READ, OTHER[:20], OTHER[20:-4]], 1, id="in-two-pieces"),
        pytest.param([READ, OTHER + READ[:-4]], 2, id="behind-one-that-waits"),
        pytest.param([READ, OTHER, READ[:-4]], 2, id="apart-from-one-that-waits"),
        pytest.param([READ * 12 + OTHER[:20]], 12, id="behind-many"),
        pytest.param([READ, WRITE, OTHER[:20]], 2, id="behind-a-write"),
    ],
)
async def test_an_incomplete_pipelined_header_gets_a_408(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes], answers: int
) -> None:
    """After the response to the request before it."""
    held = HeldResponses(platform)
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        await held.send(wire, pieces)
        held.release()
        assert [(await wire.read_response()).status for _ in range(answers)] == [200] * answers
        response = await wire.read_response()
        assert (response.status, response.reason) == (408, "header-timeout")
        assert await wire.at_end()


@pytest.mark.parametrize("pieces", [[READ + OTHER[:-2]], [READ, OTHER[:-2]]])
async def test_header_timeout_runs_from_the_end_of_the_last_exchange(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes]
) -> None:
    held = HeldResponses(platform)
    async with (
        start_gateway(limits={"header_timeout": 2}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await held.send(wire, pieces)
        await wait_header_timeout(gateway)
        held.release()
        assert (await wire.read_response()).status == 200
        # Long enough to be noticed, if it were late.
        await asyncio.sleep(0.5)
        assert (await wire.fetch(OTHER[-2:])).status == 200


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        pytest.param([READ + OTHER], 2, id="two-requests"),
        pytest.param([READ + OTHER[:20], OTHER[20:]], 2, id="one-in-two-pieces"),
        pytest.param([READ, OTHER[:-2], b"\r\n"], 2, id="its-last-line-alone"),
        pytest.param([READ, OTHER[:-1], b"\n"], 2, id="its-last-byte-alone"),
        pytest.param([READ, b"\r\n"], 1, id="an-empty-line"),
        pytest.param([READ + b"\r\n"], 1, id="an-empty-line-behind"),
        pytest.param([WRITE, b"\r\n"], 1, id="an-empty-line-apart-from-a-write"),
        pytest.param([READ, WRITE[:-9], WRITE[-9:]], 2, id="a-body-that-waits"),
        pytest.param([READ * 12], 12, id="many"),
        pytest.param([READ + WRITE * 6], 7, id="many-writes"),
    ],
)
async def test_a_complete_request_in_any_segments_leaves_the_connection_idle(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes], answers: int
) -> None:
    """The header timeout does not run then."""
    held = HeldResponses(platform)
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        await held.send(wire, pieces)
        held.release()
        assert [(await wire.read_response()).status for _ in range(answers)] == [200] * answers
        await wait_header_timeout(gateway)
        assert (await wire.fetch(READ)).status == 200
