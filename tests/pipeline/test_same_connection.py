"""Requests in sequence on one connection: each is checked by its own header.

Old systems send the same header each time, so that the gateway caches what it means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from gateway.config.inbound_settings import CallerSettings
from gateway.pipeline.admission import Admission
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, PlatformConnection, fhir
from tests.doubles.wire import Wire, fetch, get, post

Start = Callable[..., AbstractAsyncContextManager[RunningGateway]]

READ = "/fhir/Patient/1"
LAB = {"name": "lab", "api_key": "key-of-the-laboratory"}
WARD = {"name": "ward", "api_key": "key-of-the-ward"}


async def names(gateway: RunningGateway, count: int) -> list[str]:
    return [record["caller"] for record in await gateway.audit(count)]


async def test_a_key_counts_for_its_own_request_only(start_gateway: Start) -> None:
    """A proxy may share its connections among callers."""
    lab, ward = (f"X-Api-Key: {each['api_key']}" for each in (LAB, WARD))
    async with (
        start_gateway(callers=[LAB, WARD]) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        statuses = [
            (await wire.fetch(get(READ, *key))).status for key in ([lab], [lab], [ward], [])
        ]
        assert statuses == [200, 200, 200, 401]
        assert (await names(gateway, 4))[:3] == ["lab", "lab", "ward"]


async def test_each_request_of_a_trusted_proxy_has_its_own_caller(start_gateway: Start) -> None:
    caller = {"name": "ward", "networks": ["10.30.0.0/16"]}
    trusted = {"trusted_proxies": ["127.0.0.0/8"]}
    peers = ("10.30.0.1", "10.30.0.1", "192.0.2.9", "10.30.0.1")
    async with (
        start_gateway(callers=[caller], listen=trusted) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        asked = [get(READ, f"X-Forwarded-For: {peer}") for peer in peers]
        assert [(await wire.fetch(each)).status for each in asked] == [200, 200, 403, 200]
        assert [record["remote"] for record in await gateway.audit(4)] == list(peers)


async def test_links_name_host_of_their_request(start_gateway: Start, platform: Platform) -> None:
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for host in ("one.local", "one.local", "two.local", "one.local"):
            body = b'{"resourceType":"List","subject":{"reference":"%s/Patient/1"}}'
            platform.respond(fhir(body % gateway.settings.platform.fhir_base_url.encode()))
            request = get("/fhir/List/1").replace(b"Host: gateway", b"Host: " + host.encode())
            assert f'"http://{host}/fhir/Patient/1"'.encode() in (await wire.fetch(request)).body


async def test_reads_that_differ_in_their_target_are_forwarded_and_audited_each(
    start_gateway: Start, platform: Platform
) -> None:
    fields = ("Accept: application/fhir+xml", "X-Correlation-Id: 7")
    targets = [f"/fhir/Patient/{number}?_elements=id" for number in range(3)]
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for target in targets:
            assert (await wire.fetch(get(target, *fields))).status == 200
        assert [
            "/fhir" + request.target.removeprefix("/r5") for request in platform.requests
        ] == targets
        names = ("accept", "x-correlation-id")
        received = {tuple(map(each.header, names)) for each in platform.requests}
        assert received == {("application/fhir+xml", "7")}
        records = await gateway.audit(3)
        assert [record["resource_id"] for record in records] == ["0", "1", "2"]
        assert len({record["request_id"] for record in records}) == 3


@pytest.mark.parametrize(
    "target",
    ["/fhir/../metadata", "/fhir/%2e%2e/x", "/fhir/Patient/%zz", "/elsewhere", "/", "/fhir/x//y"],
)
async def test_a_target_after_the_same_header_is_checked(start_gateway: Start, target: str) -> None:
    """It gets the response that it gets alone."""
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(get(READ))).status == 200
        behind = await wire.fetch(get(target))
        alone = await fetch(gateway.address, get(target))
        assert (behind.status, behind.reason) == (alone.status, alone.reason)


async def test_chunks_are_rejected_in_http_1_0_after_the_same_header(start_gateway: Start) -> None:
    chunks = "Transfer-Encoding: chunked"
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        newer, older = (
            get("/fhir/Basic", chunks, method="POST", version=version) + b"2\r\n{}\r\n0\r\n\r\n"
            for version in ("1.1", "1.0")
        )
        assert (await wire.fetch(newer)).status == 200
        assert (await wire.fetch(older)).status == 400


async def test_a_reload_applies_to_open_connections(start_gateway: Start) -> None:
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert [(await wire.fetch(get(READ))).status for _ in range(2)] == [200, 200]
        limits = gateway.settings.listen.model_copy(update={"base_path": "/elsewhere"})
        await gateway.gateway.reload(gateway.settings.model_copy(update={"listen": limits}))
        assert (await wire.fetch(get(READ))).status == 404
        caller = CallerSettings(name="ward", networks=["192.0.2.0/24"])
        await gateway.gateway.reload(gateway.settings.model_copy(update={"callers": (caller,)}))
        assert (await wire.fetch(get(READ))).status == 403


async def test_pipelined_requests_get_their_responses_in_order(
    start_gateway: Start, platform: Platform
) -> None:
    """Small, long and rejected ones."""
    bodies = [
        b'{"resourceType":"Basic","n":"%d%s"}' % (n, b"x" * (n % 3) * 60_000) for n in range(9)
    ]
    platform.script(*(fhir(body) for body in bodies))
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        requests = [get(READ) for _ in bodies]
        requests.insert(4, get("/elsewhere"))
        await wire.send(b"".join(requests))
        responses = [await wire.read_response() for _ in requests]
    assert responses.pop(4).status == 404
    assert [response.body for response in responses] == bodies


@pytest.mark.parametrize("size", [10, 100_000])
async def test_the_last_response_is_sent_before_the_connection_closes(
    start_gateway: Start, platform: Platform, size: int
) -> None:
    body = b'{"resourceType":"Basic","n":"%s"}' % (b"x" * size)
    platform.respond(fhir(body))
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        response = await wire.fetch(post("/fhir/Basic", b"{}", "Connection: close"))
        assert response.body == body
        assert await wire.at_end()


async def test_the_number_of_pipelined_requests_that_are_read_is_bounded(
    start_gateway: Start, platform: Platform
) -> None:
    asked = asyncio.Event()

    async def hold(connection: PlatformConnection) -> None:
        await asked.wait()
        connection.writer.write(fhir())

    platform.script(hold)
    request = get(READ, f"X-Filler: {'x' * 7000}")
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        wire.writer.write(request * 4000)
        await platform.wait_for_requests(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await wire.writer.drain()
        asked.set()
        assert [(await wire.read_response()).status for _ in range(50)] == [200] * 50


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_ignored_upgrade_keeps_the_connection(start_gateway: Start, version: str) -> None:
    fields = ("Connection: Upgrade, keep-alive", "Upgrade: websocket")
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for _ in range(5):
            assert (await wire.fetch(get(READ, *fields, version=version))).status == 200


async def test_responses_buffered_for_http_1_0_share_a_budget(
    start_gateway: Start, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it they are rejected."""
    admission = partial(Admission, buffer_bytes=300_000)
    monkeypatch.setattr("gateway.app.revision.Admission", admission)
    short, long = (b"x" * size for size in (200_000, 400_000))
    chunked = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answers = [
        chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) for body in (short, long, short)
    ]
    platform.script(*answers)
    async with start_gateway() as gateway:
        responses = [
            await fetch(gateway.address, get("/fhir/Binary/1", version="1.0")) for _ in answers
        ]
    assert [response.status for response in responses] == [200, 503, 200]
    assert responses[1].reason == "overloaded"
    assert responses[2].body == short
