"""What fails between the gateway and the platform later than the table of faults can show."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.doubles.platform import (
    PATIENT,
    Answer,
    Line,
    Platform,
    chunked,
    endless,
    fhir,
    http,
    once,
    outcome,
    read_body,
    silence,
    then_close,
    then_reset,
    unauthorized,
)
from tests.doubles.rest import come_to_rest
from tests.doubles.wire import TruncatedResponseError, Wire, ask, get
from tests.faults.judgement import judge_passed
from tests.faults.table import CHUNK, READ, WRITE
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import Stage

QUICK = {"retries": {"backoff": 0.001}}


async def stalled(line: Line) -> None:
    """Send the beginning of a long body and then nothing."""
    await read_body(line.reader, line.seen)
    line.writer.write(LONG)
    await silence(line)


LONG = chunked(b" " * 100_000, end=False)
LATE: dict[str, tuple[Answer, str]] = {
    "stalls": (stalled, "upstream-timeout"),
    "closed": (then_close(LONG), "upstream-failed"),
    "reset": (then_reset(LONG), "upstream-failed"),
    "shorter than its length": (
        then_close(http(200, b" " * 150_000, ("Content-Length", "200000"), length=False)),
        "upstream-failed",
    ),
}


@pytest.mark.parametrize("name", LATE)
async def test_what_breaks_late_is_cut_for_the_caller_too(
    start_gateway: StartGateway, platform: Platform, name: str
) -> None:
    """Nothing is repeated, and the audit says that the platform had said 200."""
    answer, reason = LATE[name]
    platform.answer(answer)
    async with start_gateway(platform={"idle_timeout": 1.5}, **QUICK) as gateway:
        with pytest.raises(TruncatedResponseError):
            await ask(gateway.address, get("/fhir/Binary/1"))
        (record,) = await gateway.audit()
        assert (record["outcome"], record["reason"]) == ("aborted", reason)
        assert (record["status"], record["upstream_status"]) == (200, 200)
        assert (record["attempts"], len(platform.seen)) == (1, 1)
        assert await gateway.metric("dhp_gateway_requests_total", status="200", reason=reason) == 1
        assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0


async def drip(line: Line) -> None:
    """Send a body slowly but steadily."""
    await read_body(line.reader, line.seen)
    line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PATIENT))
    for byte in PATIENT:
        line.writer.write(bytes((byte,)))
        await asyncio.sleep(0.06)


FHIR = ("Content-Type", "application/fhir+json")
BARE = b'<OperationOutcome xmlns="http://hl7.org/fhir"/>'
CODES = (400, 403, 404, 409, 410, 412, 422, 500)
PASSED: dict[str, tuple[int, Answer, bytes]] = {
    **{f"{code} to a write": (code, outcome(code), WRITE) for code in CODES},
    # Only 502, 503 and 504 are worth a second attempt.
    **{f"{code} to a read": (code, outcome(code), READ) for code in (*CODES, 429, 501)},
    **{
        f"{code} in XML": (code, http(code, BARE, ("Content-Type", "application/fhir+xml")), WRITE)
        for code in CODES
    },
    "429 that says when to come again": (429, outcome(429, ("Retry-After", "7")), READ),
    # A platform that wants a long rest is not asked again; its caller learns when to come.
    **{
        f"503 that wants a rest until {value}": (503, outcome(503, ("Retry-After", value)), READ)
        for value in ("60", "120", "3600", "Fri, 31 Dec 2100 23:59:59 GMT")
    },
    "slow but steady body": (200, drip, READ),
    # What only the end of the connection delimits passes when it is complete JSON.
    "no framing": (200, then_close(http(200, PATIENT, FHIR, length=False)), READ),
}


@pytest.mark.parametrize("name", PASSED)
async def test_what_passes_as_it_is(stage: Stage, name: str) -> None:
    """An answer that is FHIR reaches the caller octet for octet, errors with their Retry-After."""
    status, answer, request = PASSED[name]
    stage.platform.answer(answer)
    evidence = await stage.evidence(await stage.start(platform={"idle_timeout": 3}), request)
    head, body = b"", PATIENT
    if isinstance(answer, bytes):
        head, _, body = answer.partition(b"\r\n\r\n")
    await judge_passed(evidence, status, body)
    retry_after = evidence.reply.header("retry-after")
    assert (retry_after is not None) is (b"Retry-After" in head)
    assert f"Retry-After: {retry_after}".encode() in head or retry_after is None
    await come_to_rest(evidence.gateway)


async def test_a_token_that_is_rejected_once_is_replaced(stage: Stage) -> None:
    """The request is sent once more, a write too."""
    stage.platform.script(unauthorized(), fhir(PATIENT, 201))
    evidence = await stage.evidence(await stage.start(), WRITE)
    assert (evidence.reply.status, evidence.reply.body) == (201, PATIENT)
    assert (len(evidence.seen), evidence.token_requests) == (2, 2)
    tokens = [seen.header("authorization") for seen in evidence.seen]
    assert tokens == ["Bearer token-1", "Bearer token-2"]
    assert {seen.body for seen in evidence.seen} == {b'{"resourceType":"Patient"}'}
    assert (await evidence.record())["attempts"] == 2
    assert await evidence.retries() == {"token": 1}


async def test_a_fresh_token_that_is_rejected_starts_no_storm(stage: Stage) -> None:
    """While forced fetches pause a 401 ends the request at once: no second try, no new token."""
    stage.platform.answer(unauthorized())
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    await wire.ask(READ)
    began, asked = time.monotonic(), 2
    for _ in range(5):
        evidence = await stage.evidence(gateway, WRITE)
        assert (evidence.reply.status, evidence.reply.reason) == (502, "token-rejected")
        # One more only where the pause, of a second and more, is over on a busy machine.
        assert len(evidence.seen) == 1 + evidence.token_requests - asked
        asked = evidence.token_requests
        record = await evidence.record()
        assert (record["attempts"], record["upstream_status"]) == (len(evidence.seen), 401)
    assert asked - 2 <= time.monotonic() - began
    assert await evidence.counted(502, "token-rejected") == 6


async def test_huge_error_page(start_gateway: StartGateway, platform: Platform) -> None:
    """Of a huge error page no more than its beginning is read; its connection is dropped."""
    sent = asyncio.Event()
    kind, length = ("Content-Type", "text/html"), ("Content-Length", str(2**40))
    page = http(404, b"", kind, length, length=False)
    platform.script(endless(page, b"<html>" * 10_000, sent))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert (reply.status, reply.reason) == (404, "upstream-non-fhir")
        (record,) = await gateway.audit()
        assert (record["outcome"], record["attempts"]) == ("client-error", 1)
        await sent.wait()
        assert (await ask(gateway.address, READ)).status == 200


async def test_caller_reads_slowly(start_gateway: StartGateway, platform: Platform) -> None:
    """A caller that takes nothing is given up, and with it the platform's connection."""
    platform.answer(endless(chunked(end=False), CHUNK, asyncio.Event()))
    async with start_gateway(limits={"header_timeout": 1}, **QUICK) as gateway:
        async with await Wire.open(gateway.address) as wire:
            wire.writer.transport.pause_reading()
            await wire.send(READ)
            await gateway.audit()
        await gateway.until_metric(0, "dhp_gateway_upstream_connections", state="active")
        (record,) = await gateway.audit()
        assert (record["status"], record["reason"], record["outcome"]) == (200, "", "aborted")


async def test_the_circuit_closes_again(start_gateway: StartGateway, platform: Platform) -> None:
    """After a storm of failures the gateway asks for itself, and callers are served again."""
    platform.answer(then_close(b""))
    breaker = {"min_requests": 5, "open_for": 0.3}
    async with start_gateway(circuit_breaker=breaker, **QUICK) as gateway:
        for _ in range(5):
            assert (await ask(gateway.address, WRITE)).reason == "upstream-failed"
        await gateway.until_metric(2, "dhp_gateway_circuit_state")
        platform.answer(fhir())
        await gateway.until_metric(0, "dhp_gateway_circuit_state")
        assert (await ask(gateway.address, WRITE)).status == 200


async def test_a_connection_that_becomes_free_serves_again(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A request that found none in time was not delivered; the one that held it has its answer."""
    released = asyncio.Event()
    platform.script(once(released, fhir()))
    limits = {"max_connections": 1, "connect_timeout": 1}
    async with start_gateway(platform=limits) as gateway, await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        await platform.until_seen(1)
        assert (await ask(gateway.address, READ)).reason == "upstream-busy"
        released.set()
        assert (await wire.reply()).status == 200
        assert (await ask(gateway.address, READ)).status == 200
    assert len(platform.seen) == 2
