"""What callers do to a gateway beyond what the table of faults shows."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import (
    PATIENT,
    Platform,
    after,
    chunked,
    endless,
    fhir,
    once,
    reading,
    silent_until,
    unauthorized,
)
from tests.doubles.rest import until
from tests.doubles.wire import Wire, ask, get, post
from tests.faults.table import CHUNK, READ
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import Stage, latest_connection, reset


async def check_aborted(
    gateway: Running, platform: Platform, status: int = 0, upstream_status: int | None = None
) -> None:
    """Check that the only exchange was given up after one attempt; status 0: nothing was sent."""
    (record,) = await gateway.audit()
    assert (record["status"], record["reason"], record["outcome"]) == (status, "", "aborted")
    assert (record["upstream_status"], record["attempts"]) == (upstream_status, 1)
    assert len(platform.seen) == 1
    assert await gateway.metric("dhp_gateway_requests_total", status=str(status), reason="") == 1
    assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_leaves_while_sending(
    gateway: Running, platform: Platform, framing: str, leave: str
) -> None:
    """The platform's request is given up too: never completed, never padded."""
    ended = asyncio.Event()
    platform.answer(reading(ended))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Binary", framing, method="POST") + b"5\r\nhello\r\n")
        await platform.until_seen(1)
        if leave == "rst":
            reset(wire)
    await ended.wait()
    assert not platform.seen[0].complete
    await check_aborted(gateway, platform)


async def test_leaves_while_a_read_waits(gateway: Running, platform: Platform) -> None:
    """A read ends when its caller has reset the connection: the platform's connection is closed."""
    ended = asyncio.Event()
    platform.answer(silent_until(ended))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        await platform.until_seen(1)
        reset(wire)
    await ended.wait()
    await check_aborted(gateway, platform)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_leaves_while_a_write_waits(
    gateway: Running, platform: Platform, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A write takes its course, and the audit tells what the platform said to it."""
    proceed = asyncio.Event()
    platform.answer(once(proceed, fhir(PATIENT, 201)))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(post("/fhir/Patient/1", b"{}", method=method))
        await platform.until_seen(1)
        ours = latest_connection(gateway)
        reset(wire)
    await until(lambda: ours.transport is None)
    proceed.set()
    # 0: no response was sent.
    await check_aborted(gateway, platform, upstream_status=201)
    assert errors_in(caplog) == []


HALF = 300_000 * b"x"
WHOLE = {
    "read": READ,
    "read in HTTP/1.0": get("/fhir/Patient/1", version="1.0"),
    "read with Upgrade": get("/fhir/Patient/1", "Connection: Upgrade", "Upgrade: h2c"),
    "write": post("/fhir/Patient", b"{}"),
    "long write": post("/fhir/Binary", HALF, "Content-Type: image/png"),
    "chunked write": get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST")
    + b"2\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "while-it-is-served"])
@pytest.mark.parametrize("name", WHOLE)
async def test_half_closes_behind_a_whole_request(
    gateway: Running, platform: Platform, name: str, late: bool
) -> None:
    """Its answer goes out, then the connection ends, as the answer says."""
    platform.answer(after(0.1, fhir()))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(WHOLE[name])
        if late:
            await platform.until_seen(1)
        wire.writer.write_eof()
        reply = await wire.reply()
        assert (reply.status, reply.body, reply.header("connection")) == (200, PATIENT, "close")
        assert await wire.at_end()
    (record,) = await gateway.audit()
    assert record["outcome"] == "success"


async def test_half_closes_behind_many_requests(gateway: Running, platform: Platform) -> None:
    """All that came whole is answered, what is cut is not, and reaches the platform not either."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ * 20 + post("/fhir/Patient", b"{}")[:-1])
        wire.writer.write_eof()
        replies = [await wire.reply() for _ in range(20)]
        assert await wire.at_end()
    assert [reply.status for reply in replies] == [200] * 20
    assert {seen.method for seen in platform.seen} == {"GET"}


@pytest.mark.parametrize("part", [b"", b"GET /fhir", READ[:-2], post("/fhir/Basic", b"{}")[:-1]])
async def test_half_closes_before_a_request_is_whole(
    gateway: Running, platform: Platform, part: bytes
) -> None:
    """There is nothing to answer: the connection ends at once, and no request is completed."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(part)
        wire.writer.write_eof()
        assert await wire.at_end()
    assert not any(seen.complete for seen in platform.seen)


async def test_half_closes_behind_what_is_refused(gateway: Running, platform: Platform) -> None:
    """A refusal reaches it as well."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(b"nonsense\r\n\r\n")
        wire.writer.write_eof()
        reply = await wire.reply()
        assert (reply.status, reply.reason) == (400, "bad-request")
        assert await wire.at_end()
    assert platform.seen == []


async def test_leaves_while_receiving(gateway: Running, platform: Platform) -> None:
    """No more is read from the platform for a caller that is gone."""
    stopped = asyncio.Event()
    platform.answer(endless(chunked(end=False), CHUNK, stopped))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        assert await wire.interim() == 200
    await stopped.wait()
    await check_aborted(gateway, platform, 200, 200)


async def test_spoofed_fields(gateway: Running, platform: Platform) -> None:
    """What claims an identity or an origin ends here, however it is spelled."""
    spoofed = [
        *("Authorization: Bearer theirs", "authorization: Bearer theirs"),
        *("X-Forwarded-For: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4"),
        *("X-Forwarded-Host: evil", "Cookie: a=b", "Proxy-Authorization: x", "X-Api-Key: k"),
    ]
    reply = await ask(gateway.address, get("/fhir/Patient/1", *spoofed))
    assert reply.status == 200
    (record,) = await gateway.audit()
    assert record["remote"] == "127.0.0.1"
    names = {name.lower() for name, _ in platform.seen[0].headers}
    assert names == {"host", "authorization", "accept-encoding", "via", "x-request-id"}
    assert platform.seen[0].header("authorization") == "Bearer token-1"


async def test_compressed_upload(gateway: Running, platform: Platform) -> None:
    """A compressed body is never opened: it passes as it is, whatever it would unpack to."""
    bomb = gzip.compress(bytes(20_000_000))
    reply = await ask(gateway.address, post("/fhir/Binary", bomb, "Content-Encoding: gzip"))
    assert reply.status == 200
    assert platform.seen[0].body == bomb
    assert platform.seen[0].header("content-encoding") == "gzip"


async def test_more_requests_than_may_be_in_flight(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Over the limit a request is refused with Retry-After, and those in flight are served."""
    release = asyncio.Event()
    platform.answer(once(release, fhir()))
    async with start_gateway(limits={"max_concurrent_requests": 4}) as gateway:
        waiting = [asyncio.ensure_future(ask(gateway.address, READ)) for _ in range(4)]
        await platform.until_seen(4)
        refused = [asyncio.ensure_future(ask(gateway.address, READ)) for _ in range(4)]
        replies = await asyncio.gather(*refused)
        assert {(reply.status, reply.reason) for reply in replies} == {(503, "overloaded")}
        assert all(int(reply.header("retry-after") or 0) > 0 for reply in replies)
        release.set()
        assert {reply.status for reply in await asyncio.gather(*waiting)} == {200}
        assert len(platform.seen) == 4
        await gateway.until_metric(0, "dhp_gateway_inflight_requests")
        assert await gateway.metric("dhp_gateway_requests_total", reason="overloaded") == 4
        assert (await ask(gateway.address, READ)).status == 200


async def test_resets_while_it_is_refused(
    gateway: Running, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller that resets its connection at once is nothing to log an error about."""
    count = 40
    for _ in range(count):
        async with await Wire.open(gateway.address) as wire:
            await wire.send(get("http://evil.example/fhir/Patient/1"))
            reset(wire)
    await gateway.audit(count)
    await gateway.until_metric(0, "dhp_gateway_inflight_requests")
    assert errors_in(caplog) == []
    assert platform.seen == []


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error: nothing that a caller does is one."""
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("target", ["/nowhere", "/fhir/%2e%2e/x", "/fhir/Patient/1"])
async def test_failure_of_a_head(stage: Stage, target: str) -> None:
    """A HEAD that fails is answered by the outcome's header alone."""
    stage.platform.answer(unauthorized().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    reply = await wire.ask(get(target, method="HEAD"), head=True)
    assert reply.header("x-gateway-error") in ("unknown-path", "bad-request", "token-rejected")
    assert int(reply.header("content-length") or "") > 100
    if reply.header("connection") == "close":
        assert await wire.at_end()
    else:
        stage.platform.answer(fhir())
        assert (await wire.ask(get("/fhir/Patient/1"))).status == 200


async def test_payload_of_the_limit_passes(stage: Stage) -> None:
    """A body as large as the limit is served, chunked or not."""
    gateway = await stage.start(limits={"max_body_bytes": 1000})
    wire = await stage.open(gateway.address)
    assert (await wire.ask(post("/fhir/Binary", b"x" * 1000))).status == 200
    chunked = get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST")
    assert (await wire.ask(chunked + b"3e8\r\n%s\r\n0\r\n\r\n" % (b"x" * 1000))).status == 200
