"""Requests one after the other on a connection: each is judged by what it says itself.

Old systems send the same header each time, so that the gateway remembers what it told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from gateway.config.inbound_settings import CallerSettings
from gateway.pipeline.admission import Admission
from tests.doubles.gateway import Running
from tests.doubles.platform import Line, Platform, fhir
from tests.doubles.wire import Wire, ask, get, post

Start = Callable[..., AbstractAsyncContextManager[Running]]

READ = "/fhir/Patient/1"
LAB = {"name": "lab", "api_key": "key-of-the-laboratory"}
WARD = {"name": "ward", "api_key": "key-of-the-ward"}


async def names(gateway: Running, count: int) -> list[str]:
    """Who was recorded as the caller of the requests, in their order."""
    return [record["caller"] for record in await gateway.audit(count)]


async def test_a_key_counts_for_its_own_request_only(start_gateway: Start) -> None:
    """Where a proxy shares its connections, each request is its own caller's."""
    lab, ward = (f"X-Api-Key: {each['api_key']}" for each in (LAB, WARD))
    async with (
        start_gateway(callers=[LAB, WARD]) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        statuses = [(await wire.ask(get(READ, *key))).status for key in ([lab], [lab], [ward], [])]
        assert statuses == [200, 200, 200, 401]
        assert (await names(gateway, 4))[:3] == ["lab", "lab", "ward"]


async def test_the_next_one_behind_a_proxy_is_who_it_is(start_gateway: Start) -> None:
    """The same connection of a trusted proxy brings a caller, a stranger and the caller again."""
    caller = {"name": "ward", "networks": ["10.30.0.0/16"]}
    trusted = {"trusted_proxies": ["127.0.0.0/8"]}
    peers = ("10.30.0.1", "10.30.0.1", "192.0.2.9", "10.30.0.1")
    async with (
        start_gateway(callers=[caller], listen=trusted) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        asked = [get(READ, f"X-Forwarded-For: {peer}") for peer in peers]
        assert [(await wire.ask(each)).status for each in asked] == [200, 200, 403, 200]
        assert [record["remote"] for record in await gateway.audit(4)] == list(peers)


async def test_links_are_of_the_host_that_was_asked(
    start_gateway: Start, platform: Platform
) -> None:
    """Two names of the gateway on one connection: each answer names its own."""
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for host in ("one.local", "one.local", "two.local", "one.local"):
            body = b'{"resourceType":"List","subject":{"reference":"%s/Patient/1"}}'
            platform.answer(fhir(body % gateway.settings.platform.fhir_base_url.encode()))
            request = get("/fhir/List/1").replace(b"Host: gateway", b"Host: " + host.encode())
            assert f'"http://{host}/fhir/Patient/1"'.encode() in (await wire.ask(request)).body


async def test_each_read_is_its_own(start_gateway: Start, platform: Platform) -> None:
    """Reads that differ in their target alone are forwarded, and recorded, each as it is."""
    fields = ("Accept: application/fhir+xml", "X-Correlation-Id: 7")
    targets = [f"/fhir/Patient/{number}?_elements=id" for number in range(3)]
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for target in targets:
            assert (await wire.ask(get(target, *fields))).status == 200
        assert ["/fhir" + seen.target.removeprefix("/r5") for seen in platform.seen] == targets
        names = ("accept", "x-correlation-id")
        seen = {tuple(map(each.header, names)) for each in platform.seen}
        assert seen == {("application/fhir+xml", "7")}
        records = await gateway.audit(3)
        assert [record["resource_id"] for record in records] == ["0", "1", "2"]
        assert len({record["request_id"] for record in records}) == 3


@pytest.mark.parametrize(
    "target",
    ["/fhir/../metadata", "/fhir/%2e%2e/x", "/fhir/Patient/%zz", "/elsewhere", "/", "/fhir/x//y"],
)
async def test_a_target_is_judged_as_the_first_one(start_gateway: Start, target: str) -> None:
    """Behind a read with the same header a target gets the answer that it gets alone."""
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert (await wire.ask(get(READ))).status == 200
        behind = await wire.ask(get(target))
        alone = await ask(gateway.address, get(target))
        assert (behind.status, behind.reason) == (alone.status, alone.reason)


async def test_an_older_version_is_judged_by_itself(start_gateway: Start) -> None:
    """A body in chunks, which HTTP/1.1 allows, is refused in HTTP/1.0 for all the same header."""
    chunks = "Transfer-Encoding: chunked"
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        newer, older = (
            get("/fhir/Basic", chunks, method="POST", version=version) + b"2\r\n{}\r\n0\r\n\r\n"
            for version in ("1.1", "1.0")
        )
        assert (await wire.ask(newer)).status == 200
        assert (await wire.ask(older)).status == 400


async def test_new_rules_hold_on_old_connections(start_gateway: Start) -> None:
    """After a reload the same header on the same connection is judged anew."""
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        assert [(await wire.ask(get(READ))).status for _ in range(2)] == [200, 200]
        limits = gateway.settings.listen.model_copy(update={"base_path": "/elsewhere"})
        await gateway.gateway.reload(gateway.settings.model_copy(update={"listen": limits}))
        assert (await wire.ask(get(READ))).status == 404
        caller = CallerSettings(name="ward", networks=["192.0.2.0/24"])
        await gateway.gateway.reload(gateway.settings.model_copy(update={"callers": (caller,)}))
        assert (await wire.ask(get(READ))).status == 403


async def test_every_request_has_an_id_of_its_own(start_gateway: Start) -> None:
    """However alike they are."""
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        ids = {(await wire.ask(get(READ))).header("x-request-id") for _ in range(600)}
    assert len(ids) == 600


async def test_what_was_sent_ahead_is_answered_in_order(
    start_gateway: Start, platform: Platform
) -> None:
    """Small answers that are held back, long ones and refusals do not overtake each other."""
    bodies = [
        b'{"resourceType":"Basic","n":"%d%s"}' % (n, b"x" * (n % 3) * 60_000) for n in range(9)
    ]
    platform.script(*(fhir(body) for body in bodies))
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        requests = [get(READ) for _ in bodies]
        requests.insert(4, get("/elsewhere"))
        await wire.send(b"".join(requests))
        replies = [await wire.reply() for _ in requests]
    assert replies.pop(4).status == 404
    assert [reply.body for reply in replies] == bodies


@pytest.mark.parametrize("size", [10, 100_000])
async def test_the_last_answer_arrives_whole(
    start_gateway: Start, platform: Platform, size: int
) -> None:
    """An answer after which the gateway closes is sent before that."""
    body = b'{"resourceType":"Basic","n":"%s"}' % (b"x" * size)
    platform.answer(fhir(body))
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        reply = await wire.ask(post("/fhir/Basic", b"{}", "Connection: close"))
        assert reply.body == body
        assert await wire.at_end()


async def test_what_is_sent_ahead_is_bounded(start_gateway: Start, platform: Platform) -> None:
    """While one request is under way, few of the following are read, however many are sent."""
    asked = asyncio.Event()

    async def hold(line: Line) -> None:
        await asked.wait()
        line.writer.write(fhir())

    platform.script(hold)
    request = get(READ, f"X-Filler: {'x' * 7000}")
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        wire.writer.write(request * 4000)
        await platform.until_seen(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await wire.writer.drain()
        asked.set()
        assert [(await wire.reply()).status for _ in range(50)] == [200] * 50


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_upgrade_that_is_ignored_ends_nothing(start_gateway: Start, version: str) -> None:
    """The connection of a caller that offers one with every request is kept."""
    fields = ("Connection: Upgrade, keep-alive", "Upgrade: websocket")
    async with start_gateway() as gateway, await Wire.open(gateway.address) as wire:
        for _ in range(5):
            assert (await wire.ask(get(READ, *fields, version=version))).status == 200


async def test_long_answers_in_an_old_version_share_a_room(
    start_gateway: Start, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP/1.0 knows no chunks: an answer is collected, and beyond a limit of all refused."""
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
        replies = [
            await ask(gateway.address, get("/fhir/Binary/1", version="1.0")) for _ in answers
        ]
    assert [reply.status for reply in replies] == [200, 503, 200]
    assert replies[1].reason == "overloaded"
    assert replies[2].body == short
