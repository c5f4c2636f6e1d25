"""Shutdown, as callers see it: nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from tests.doubles.certificates import Pki
from tests.doubles.load import Load
from tests.doubles.platform import PATIENT, Platform, PlatformConnection, after, fhir, http
from tests.doubles.wire import TruncatedResponseError, Wire, get, post
from tests.lifecycle.conftest import PATIENCE, Service, StartService

SLOW = {"shutdown": {"delay": PATIENCE}}
BRISK = {"shutdown": {"delay": 0}}


class Gate:
    """A platform's response that waits until `open`."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        await self._open.wait()

    async def __call__(self, connection: PlatformConnection) -> None:
        await self._open.wait()
        connection.writer.write(fhir())
        await connection.writer.drain()


async def listening(service: Service) -> bool:
    try:
        _, writer = await asyncio.open_connection(service.address.host, service.address.port)
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    writer.transport.abort()
    return True


async def wait_until_closed(service: Service) -> None:
    while True:
        if not await listening(service):
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["plain", "tls", "unix"])
async def test_sigterm_under_load_loses_nothing(
    start_service: StartService, platform: Platform, pki: Pki, tmp_path: Path, way: str
) -> None:
    platform.respond(after(0.2, fhir()))
    listen = {"tls": pki.settings(), "unix": {"address": f"unix:{tmp_path}/gateway.sock"}}
    service = await start_service.ready(listen=listen.get(way, {}))
    load = Load(service.address, 200, tls=pki.client() if way == "tls" else None)
    load.start()
    await load.wait_until_inflight(200)
    await load.wait_until_served(200)
    service.send(signal.SIGTERM)
    await load.wait_until_refused()
    assert await service.ended() == 0
    assert (load.failures, load.max_inflight) == ({}, 200)
    assert len(service.audit("exchange")) == load.served
    assert [record["event"] for record in service.audit()][-1] == "stop"


async def test_new_requests_are_served_during_the_delay(start_service: StartService) -> None:
    service = await start_service.ready(**SLOW)
    async with await Wire.open(service.address) as persistent:
        assert (await persistent.fetch(get("/fhir/Patient/1"))).header("connection") == "keep-alive"
        service.send(signal.SIGTERM)
        await service.wait_until_ready(503)
        responses = [await persistent.fetch(get("/fhir/Patient/1"))]
        assert await persistent.at_end()
    async with await Wire.open(service.address) as new:
        responses.append(await new.fetch(get("/fhir/Patient/1")))
    assert [(r.status, r.header("connection")) for r in responses] == [(200, "close")] * 2
    await service.end()


async def test_only_the_last_pipelined_response_says_close(
    start_service: StartService,
) -> None:
    service = await start_service.ready(**SLOW)
    service.send(signal.SIGTERM)
    await service.wait_until_ready(503)
    async with await Wire.open(service.address) as wire:
        await wire.send(get("/fhir/Patient/1") * 3)
        responses = [await wire.read_response() for _ in range(3)]
        assert await wire.at_end()
    assert [r.header("connection") for r in responses] == ["keep-alive", "keep-alive", "close"]
    await service.end()


async def test_after_the_delay_an_idle_connection_gets_a_503(
    start_service: StartService, platform: Platform
) -> None:
    gate = Gate()
    service = await start_service.ready(**BRISK)
    async with (
        await Wire.open(service.address) as persistent,
        await Wire.open(service.address) as busy,
    ):
        await persistent.fetch(get("/fhir/Patient/1"))
        platform.respond(gate)
        await busy.send(get("/fhir/Patient/2"))
        await platform.wait_for_requests(2)
        service.send(signal.SIGTERM)
        await wait_until_closed(service)
        refused = await persistent.fetch(get("/fhir/Patient/3"))
        assert (refused.status, refused.reason) == (503, "shutting-down")
        assert refused.header("connection") == "close"
        assert await persistent.at_end()
        gate.open()
        served = await busy.read_response()
    assert (served.status, served.body) == (200, PATIENT)
    assert await service.ended() == 0
    assert [r["status"] for r in service.audit("exchange")] == [200, 503, 200]


async def test_the_first_request_of_an_accepted_connection_is_served(
    start_service: StartService, platform: Platform
) -> None:
    is_young = False
    while not is_young:
        service = await start_service.ready(**BRISK)
        async with await Wire.open(service.address) as wire:
            opened_at = time.monotonic()
            await service.wait_for_metric(0, "dhp_gateway_inflight_requests")
            service.send(signal.SIGTERM)
            await wait_until_closed(service)
            # The gateway waits for a second. A busy machine may have used it up: another gateway.
            is_young = time.monotonic() - opened_at < 0.7
            if is_young:
                assert (await wire.fetch(get("/fhir/Patient/1"))).status == 200
        assert await service.ended() == 0


async def test_a_slow_reader_gets_its_complete_response(
    start_service: StartService, platform: Platform
) -> None:
    body = b"\x89PNG" + b"A" * 8_000_000
    platform.respond(http(200, body, ("Content-Type", "image/png")))
    service = await start_service.ready(**BRISK)
    async with await Wire.open(service.address) as wire:
        await wire.send(get("/fhir/Binary/1"))
        await platform.wait_for_requests(1)
        received = await wire.reader.read(1000)
        service.send(signal.SIGTERM)
        await wait_until_closed(service)
        while piece := await wire.reader.read(1 << 20):
            received += piece
            await asyncio.sleep(0.01)
    assert received.endswith(body[-100:])
    assert len(received) > len(body)
    assert await service.ended() == 0
    assert [r["outcome"] for r in service.audit("exchange")] == ["success"]


async def test_requests_beyond_drain_timeout_are_aborted_and_audited(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(Gate())
    service = await start_service.ready(shutdown={"delay": 0, "drain_timeout": 0.3})
    wires = [await Wire.open(service.address) for _ in range(5)]
    for wire in wires:
        await wire.send(get("/fhir/Patient/1"))
    await platform.wait_for_requests(5)
    service.send(signal.SIGTERM)
    for wire in wires:
        with pytest.raises(TruncatedResponseError):
            await wire.read_response()
        wire.writer.transport.abort()
    assert await service.ended() == 0
    assert [r["outcome"] for r in service.audit("exchange")] == ["aborted"] * 5
    assert service.audit()[-1]["event"] == "stop"
    assert service.logged("5 requests cut off at shutdown")


async def test_an_aborted_write_of_a_disconnected_caller_is_audited(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(Gate())
    service = await start_service.ready(shutdown={"delay": 0, "drain_timeout": 0.3})
    async with await Wire.open(service.address) as wire:
        await wire.send(post("/fhir/Basic", b"{}"))
        await platform.wait_for_requests(1)
    await service.end()
    assert [r["outcome"] for r in service.audit("exchange")] == ["aborted"]
    assert service.audit()[-1]["event"] == "stop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_skips_the_drain(
    start_service: StartService, platform: Platform, number: signal.Signals
) -> None:
    platform.respond(Gate())
    service = await start_service.ready(**SLOW)
    async with await Wire.open(service.address) as wire:
        await wire.send(get("/fhir/Patient/1"))
        await platform.wait_for_requests(1)
        service.send(number)
        await service.wait_until_ready(503)
        service.send(number)
        assert await service.ended() == 0
        with pytest.raises(TruncatedResponseError):
            await wire.read_response()
    assert [r["outcome"] for r in service.audit("exchange")] == ["aborted"]


async def test_sigterm_before_the_first_token_ends_the_gateway(
    start_service: StartService, platform: Platform
) -> None:
    service = start_service(sso={"token_url": "http://127.0.0.1:1/token"}, **BRISK)
    await service.wait_until_ready(503)
    await service.end()


async def test_a_caller_may_finish_sending_its_body(
    start_service: StartService, platform: Platform
) -> None:
    service = await start_service.ready(**BRISK)
    request = post("/fhir/Binary", bytes(2**20), "Content-Type: image/png")
    async with await Wire.open(service.address) as wire:
        await wire.send(request[: 2**19])
        await platform.wait_for_requests(1)
        service.send(signal.SIGTERM)
        await wait_until_closed(service)
        await wire.send(request[2**19 :])
        response = await wire.read_response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert await wire.at_end()
    assert await service.ended() == 0
    assert [len(request.body) for request in platform.requests] == [2**20]


async def test_sigterm_ends_the_stream_of_a_status_page(start_service: StartService) -> None:
    service = await start_service.ready()
    connector = aiohttp.UnixConnector(service.admin.path)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://localhost/status/events") as stream,
    ):
        assert (await stream.content.readline()).startswith(b"data: ")
        service.send(signal.SIGTERM)
        while await stream.content.read(2**16):
            pass
    assert await service.ended() == 0
