"""Callers that connect and say nothing, or not enough: they get little time and leave no trace."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import trustme

from tests.doubles.gateway import Running
from tests.doubles.wire import Wire, ask, get
from tests.proxy.conftest import StartGateway

READ = get("/fhir/Patient/1")
SHORT = {"header_timeout": 0.3}


async def test_a_connection_without_a_byte_is_closed(start_gateway: StartGateway) -> None:
    """After limits.header_timeout, without an answer to a request that there was not."""
    async with start_gateway(limits=SHORT) as gateway, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await Wire.open(gateway.address)) for _ in range(20)
        ]
        async with asyncio.timeout(20):
            for wire in wires:
                assert await wire.at_end()
        assert (await ask(gateway.address, READ)).status == 200
        assert len(await gateway.audit()) == 1


async def test_a_tls_handshake_that_does_not_come(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    """TLS changes nothing: whoever does not begin it is let go as soon."""
    identity = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(identity.cert_chain_pems[0].bytes())
    key.write_bytes(identity.private_key_pem.bytes())
    tls = {"cert_file": str(cert), "key_file": str(key)}
    async with (
        start_gateway(limits=SHORT, listen={"tls": tls}) as gateway,
        await Wire.open(gateway.address) as wire,
        asyncio.timeout(20),
    ):
        assert await wire.at_end()


@pytest.mark.parametrize("begun", [b"\r\n", b"GET /fhir/Pat", READ[:-2]])
async def test_a_header_that_is_begun_and_not_ended(
    start_gateway: StartGateway, begun: bytes
) -> None:
    """Who has said something is told why it ends, be it only an empty line."""
    async with (
        start_gateway(limits=SHORT) as gateway,
        await Wire.open(gateway.address) as wire,
        asyncio.timeout(20),
    ):
        reply = await wire.ask(begun)
        assert (reply.status, reply.reason) == (408, "header-timeout")
        assert await wire.at_end()


async def test_a_kept_connection_may_be_silent(start_gateway: StartGateway) -> None:
    """Between two requests the time for a header does not run."""
    async with start_gateway(limits=SHORT) as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.ask(READ)).status == 200
        # Longer than a silent newcomer gets.
        async with await Wire.open(gateway.address) as other, asyncio.timeout(20):
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
            await asyncio.sleep(0.1)
            await wire.send(b"i")
        assert await wire.reader.read() == b""
