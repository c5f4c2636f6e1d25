"""Callers that connect and say nothing, or not enough: they get little time and leave no trace."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, fhir, once
from tests.doubles.wire import Wire, ask, get, post
from tests.pipeline.conftest import StartGateway

READ = get("/fhir/Patient/1")
OTHER = get("/fhir/Patient/1", "Accept: application/fhir+json")
WRITE = post("/fhir/Patient", b'{"resourceType":"Patient"}')
# Long enough for callers on a busy machine that do say something.
SHORT = {"header_timeout": 1.5}


async def test_a_connection_without_a_byte_is_closed(start_gateway: StartGateway) -> None:
    """After limits.header_timeout, without an answer to a request that there was not."""
    async with start_gateway(limits=SHORT) as gateway, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await Wire.open(gateway.address)) for _ in range(20)
        ]
        for wire in wires:
            assert await wire.at_end()
        assert (await ask(gateway.address, READ)).status == 200
        assert len(await gateway.audit()) == 1


async def test_a_tls_handshake_that_does_not_come(
    start_gateway: StartGateway, tls: tuple[dict[str, Any], object]
) -> None:
    """With TLS, too, a caller that does not begin the handshake is disconnected as soon."""
    async with (
        start_gateway(limits=SHORT, listen=tls[0]) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        assert await wire.at_end()


async def test_a_tls_handshake_has_the_time_of_the_settings_of_now(
    start_gateway: StartGateway, tls: tuple[dict[str, Any], object]
) -> None:
    """After a reload the new limit holds for handshakes, as for headers."""
    async with start_gateway(limits={"header_timeout": 60}, listen=tls[0]) as gateway:
        limits = gateway.settings.limits.model_copy(update=SHORT)
        await gateway.gateway.reload(gateway.settings.model_copy(update={"limits": limits}))
        async with await Wire.open(gateway.address) as wire:
            assert await wire.at_end()


@pytest.mark.parametrize("begun", [b"\r\n", b"GET /fhir/Pat", READ[:-2]])
async def test_a_header_that_is_begun_and_not_ended(
    start_gateway: StartGateway, begun: bytes
) -> None:
    """Who has said something is told why it ends, be it only an empty line."""
    async with (
        start_gateway(limits=SHORT) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        reply = await wire.ask(begun)
        assert (reply.status, reply.reason) == (408, "header-timeout")
        assert await wire.at_end()


async def test_a_kept_connection_may_be_silent(start_gateway: StartGateway) -> None:
    """Between two requests the time for a header does not run."""
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.ask(READ)).status == 200
        # Longer than a silent newcomer gets.
        async with await Wire.open(gateway.address) as other:
            assert await other.at_end()
        assert (await wire.ask(READ)).status == 200


async def test_dead_callers_are_noticed(gateway: Running) -> None:
    """The system asks callers that are silent for long whether they are still there."""
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.ask(READ)).status == 200
        assert await asyncio.to_thread(_timers, gateway.address.port) == {"02"}


def _timers(port: int) -> set[str]:
    """The kind of timer that runs on each connection to a port, by proc(5): 02 is keep-alive."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, timer, *_ = line.split()
        if local.endswith(f":{port:04X}") and state == "01":
            found.add(timer.partition(":")[0])
    return found


@pytest.mark.parametrize("before", [b"", READ], ids=["first", "second"])
async def test_who_is_told_of_a_slow_header_may_send_on(
    start_gateway: StartGateway, before: bytes
) -> None:
    """What still comes for a moment behind the refusal does not reset the connection."""
    async with (
        start_gateway(limits=SHORT) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        if before:
            await wire.ask(before)
        await wire.send(b"GET /fhir/Pat")
        assert (await wire.reply()).status == 408
        for _ in range(6):
            await wire.send(b"i")
            await asyncio.sleep(0)
        assert await wire.reader.read() == b""


class Held:
    """Has the platform keep its answers to itself until `release`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._released = asyncio.Event()
        platform.answer(once(self._released, fhir()))

    async def send(self, wire: Wire, pieces: list[bytes]) -> None:
        """Send pieces, each apart from the others; the first one brings a request."""
        for number, piece in enumerate(pieces):
            await wire.send(piece)
            if not number:
                await self._platform.until_seen(1)
            await asyncio.sleep(0.05)

    def release(self) -> None:
        """Answer."""
        self._released.set()


async def time_passes(gateway: Running) -> None:
    """Wait as long as a newcomer may be silent."""
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
async def test_a_header_that_is_begun_behind_a_request(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes], answers: int
) -> None:
    """What is before it is answered; then its time runs as that of any other."""
    held = Held(platform)
    async with (
        start_gateway(limits=SHORT) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await held.send(wire, pieces)
        held.release()
        assert [(await wire.reply()).status for _ in range(answers)] == [200] * answers
        reply = await wire.reply()
        assert (reply.status, reply.reason) == (408, "header-timeout")
        assert await wire.at_end()


@pytest.mark.parametrize("pieces", [[READ + OTHER[:-2]], [READ, OTHER[:-2]]])
async def test_the_time_for_a_header_runs_when_the_one_before_is_answered(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes]
) -> None:
    """However long that took: 408 comes `header_timeout` after the exchange, not the bytes."""
    held = Held(platform)
    async with (
        start_gateway(limits={"header_timeout": 2}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await held.send(wire, pieces)
        await time_passes(gateway)
        held.release()
        assert (await wire.reply()).status == 200
        # Long enough to be noticed, if it were late.
        await asyncio.sleep(0.5)
        assert (await wire.ask(OTHER[-2:])).status == 200


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
async def test_what_ends_with_a_request_leaves_the_connection_idle(
    start_gateway: StartGateway, platform: Platform, pieces: list[bytes], answers: int
) -> None:
    """However it was cut: the time for a header does not run then."""
    held = Held(platform)
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        await held.send(wire, pieces)
        held.release()
        assert [(await wire.reply()).status for _ in range(answers)] == [200] * answers
        await time_passes(gateway)
        assert (await wire.ask(READ)).status == 200
