"""Failures of callers beyond the table of faults."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.doubles.gateway import RunningGateway
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
from tests.doubles.waiting import wait_until
from tests.doubles.wire import Wire, fetch, get, post
from tests.faults.table import CHUNK, READ
from tests.pipeline.conftest import StartGateway
from tests.pipeline.testbed import Testbed, latest_connection, reset_connection


async def check_aborted(
    gateway: RunningGateway, platform: Platform, status: int = 0, upstream_status: int | None = None
) -> None:
    """Check that the only exchange was aborted after one attempt; status 0: nothing was sent."""
    (record,) = await gateway.audit()
    assert (record["status"], record["reason"], record["outcome"]) == (status, "", "aborted")
    assert (record["upstream_status"], record["attempts"]) == (upstream_status, 1)
    assert len(platform.requests) == 1
    assert await gateway.metric("dhp_gateway_requests_total", status=str(status), reason="") == 1
    assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_disconnecting_while_sending_aborts_the_request(
    gateway: RunningGateway, platform: Platform, framing: str, leave: str
) -> None:
    """The platform receives no complete request."""
    ended = asyncio.Event()
    platform.respond(reading(ended))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Binary", framing, method="POST") + b"5\r\nhello\r\n")
        await platform.wait_for_requests(1)
        if leave == "rst":
            reset_connection(wire)
    await ended.wait()
    assert not platform.requests[0].complete
    await check_aborted(gateway, platform)


async def test_a_read_is_cancelled_when_its_caller_disconnects(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The platform's connection is closed."""
    ended = asyncio.Event()
    platform.respond(silent_until(ended))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        await platform.wait_for_requests(1)
        reset_connection(wire)
    await ended.wait()
    await check_aborted(gateway, platform)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_is_not_cancelled_when_its_caller_disconnects(
    gateway: RunningGateway, platform: Platform, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The audit has the platform's status."""
    proceed = asyncio.Event()
    platform.respond(once(proceed, fhir(PATIENT, 201)))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(post("/fhir/Patient/1", b"{}", method=method))
        await platform.wait_for_requests(1)
        ours = latest_connection(gateway)
        reset_connection(wire)
    await wait_until(lambda: ours.transport is None)
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
async def test_a_complete_request_of_a_half_closed_caller_gets_its_response(
    gateway: RunningGateway, platform: Platform, name: str, late: bool
) -> None:
    """Then the connection ends."""
    platform.respond(after(0.1, fhir()))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(WHOLE[name])
        if late:
            await platform.wait_for_requests(1)
        wire.writer.write_eof()
        response = await wire.read_response()
        assert (response.status, response.body, response.header("connection")) == (
            200,
            PATIENT,
            "close",
        )
        assert await wire.at_end()
    (record,) = await gateway.audit()
    assert record["outcome"] == "success"


async def test_complete_pipelined_requests_of_a_half_closed_caller_get_responses(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The incomplete last one gets none, and does not reach the platform."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ * 20 + post("/fhir/Patient", b"{}")[:-1])
        wire.writer.write_eof()
        responses = [await wire.read_response() for _ in range(20)]
        assert await wire.at_end()
    assert [response.status for response in responses] == [200] * 20
    assert {request.method for request in platform.requests} == {"GET"}


@pytest.mark.parametrize("part", [b"", b"GET /fhir", READ[:-2], post("/fhir/Basic", b"{}")[:-1]])
async def test_an_incomplete_request_of_a_half_closed_caller_ends_the_connection(
    gateway: RunningGateway, platform: Platform, part: bytes
) -> None:
    """No request reaches the platform complete."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(part)
        wire.writer.write_eof()
        assert await wire.at_end()
    assert not any(request.complete for request in platform.requests)


async def test_a_response_is_not_read_further_when_its_caller_disconnects(
    gateway: RunningGateway, platform: Platform
) -> None:
    stopped = asyncio.Event()
    platform.respond(endless(chunked(end=False), CHUNK, stopped))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        assert await wire.read_interim_status() == 200
    await stopped.wait()
    await check_aborted(gateway, platform, 200, 200)


async def test_spoofed_identity_fields_are_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    """However they are spelled."""
    spoofed = [
        *("Authorization: Bearer theirs", "authorization: Bearer theirs"),
        *("X-Forwarded-For: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4"),
        *("X-Forwarded-Host: evil", "Cookie: a=b", "Proxy-Authorization: x", "X-Api-Key: k"),
    ]
    response = await fetch(gateway.address, get("/fhir/Patient/1", *spoofed))
    assert response.status == 200
    (record,) = await gateway.audit()
    assert record["remote"] == "127.0.0.1"
    names = {name.lower() for name, _ in platform.requests[0].headers}
    assert names == {"host", "authorization", "accept-encoding", "via", "x-request-id"}
    assert platform.requests[0].header("authorization") == "Bearer token-1"


async def test_a_compressed_upload_is_forwarded_undecoded(
    gateway: RunningGateway, platform: Platform
) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    response = await fetch(gateway.address, post("/fhir/Binary", bomb, "Content-Encoding: gzip"))
    assert response.status == 200
    assert platform.requests[0].body == bomb
    assert platform.requests[0].header("content-encoding") == "gzip"


async def test_a_waiting_request_over_the_limit_gets_the_slot_of_one_that_ends(
    start_gateway: StartGateway, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pipeline.admission._MAX_WAIT", 60.0)
    release = asyncio.Event()
    platform.respond(once(release, fhir()))
    async with start_gateway(limits={"max_concurrent_requests": 1}) as gateway:
        requests = [asyncio.ensure_future(fetch(gateway.address, READ)) for _ in range(2)]
        await gateway.wait_for_metric(2, "dhp_gateway_inflight_requests")
        await platform.wait_for_requests(1)
        release.set()
        assert [response.status for response in await asyncio.gather(*requests)] == [200, 200]


async def test_requests_over_the_limit_in_flight_get_a_503(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Those in flight are served."""
    release = asyncio.Event()
    platform.respond(once(release, fhir()))
    async with start_gateway(limits={"max_concurrent_requests": 4}) as gateway:
        waiting = [asyncio.ensure_future(fetch(gateway.address, READ)) for _ in range(4)]
        await platform.wait_for_requests(4)
        refused = [asyncio.ensure_future(fetch(gateway.address, READ)) for _ in range(4)]
        responses = await asyncio.gather(*refused)
        assert {(response.status, response.reason) for response in responses} == {
            (503, "overloaded")
        }
        assert all(int(response.header("retry-after") or 0) > 0 for response in responses)
        release.set()
        assert {response.status for response in await asyncio.gather(*waiting)} == {200}
        assert len(platform.requests) == 4
        await gateway.wait_for_metric(0, "dhp_gateway_inflight_requests")
        assert await gateway.metric("dhp_gateway_requests_total", reason="overloaded") == 4
        assert (await fetch(gateway.address, READ)).status == 200


async def test_a_reset_during_an_error_is_not_logged_as_an_error(
    gateway: RunningGateway, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    count = 40
    for _ in range(count):
        async with await Wire.open(gateway.address) as wire:
            await wire.send(get("http://evil.example/fhir/Patient/1"))
            reset_connection(wire)
    await gateway.audit(count)
    await gateway.wait_for_metric(0, "dhp_gateway_inflight_requests")
    assert errors_in(caplog) == []
    assert platform.requests == []


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("target", ["/nowhere", "/fhir/%2e%2e/x", "/fhir/Patient/1"])
async def test_a_failed_head_gets_the_fields_of_the_outcome(testbed: Testbed, target: str) -> None:
    testbed.platform.respond(unauthorized().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    gateway = await testbed.start()
    wire = await testbed.open(gateway.address)
    response = await wire.fetch(get(target, method="HEAD"), head=True)
    assert response.header("x-gateway-error") in ("unknown-path", "bad-request", "token-rejected")
    assert int(response.header("content-length") or "") > 100
    if response.header("connection") == "close":
        assert await wire.at_end()
    else:
        testbed.platform.respond(fhir())
        assert (await wire.fetch(get("/fhir/Patient/1"))).status == 200


async def test_a_body_of_the_limits_size_passes(testbed: Testbed) -> None:
    """With a length or chunked."""
    gateway = await testbed.start(limits={"max_body_bytes": 1000})
    wire = await testbed.open(gateway.address)
    assert (await wire.fetch(post("/fhir/Binary", b"x" * 1000))).status == 200
    chunked = get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST")
    assert (await wire.fetch(chunked + b"3e8\r\n%s\r\n0\r\n\r\n" % (b"x" * 1000))).status == 200
