"""Failures between the gateway and the platform beyond the table of faults."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    ScriptedResponse,
    chunked,
    endless,
    fhir,
    http,
    outcome,
    read_body,
    silence,
    then_close,
    then_reset,
)
from tests.doubles.waiting import wait_until_idle
from tests.doubles.wire import TruncatedResponseError, Wire, fetch, get
from tests.faults.judgement import assert_passed
from tests.faults.table import CHUNK, READ, WRITE
from tests.pipeline.conftest import StartGateway
from tests.pipeline.testbed import Testbed

QUICK = {"retries": {"backoff": 0.001}}


async def stalled(connection: PlatformConnection) -> None:
    await read_body(connection.reader, connection.request)
    connection.writer.write(LONG)
    await silence(connection)


LONG = chunked(b" " * 100_000, end=False)
LATE: dict[str, tuple[ScriptedResponse, str]] = {
    "stalls": (stalled, "upstream-timeout"),
    "closed": (then_close(LONG), "upstream-failed"),
    "reset": (then_reset(LONG), "upstream-failed"),
    "shorter than its length": (
        then_close(http(200, b" " * 150_000, ("Content-Length", "200000"), length=False)),
        "upstream-failed",
    ),
}


@pytest.mark.parametrize("name", LATE)
async def test_a_response_that_fails_late_is_truncated_for_the_caller(
    start_gateway: StartGateway, platform: Platform, name: str
) -> None:
    """It is not retried, and is audited with the platform's 200."""
    answer, reason = LATE[name]
    platform.respond(answer)
    async with start_gateway(platform={"idle_timeout": 1.5}, **QUICK) as gateway:
        with pytest.raises(TruncatedResponseError):
            await fetch(gateway.address, get("/fhir/Binary/1"))
        (record,) = await gateway.audit()
        assert (record["outcome"], record["reason"]) == ("aborted", reason)
        assert (record["status"], record["upstream_status"]) == (200, 200)
        assert (record["attempts"], len(platform.requests)) == (1, 1)
        assert await gateway.metric("dhp_gateway_requests_total", status="200", reason=reason) == 1
        assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0


# Noticed after the platform's status, and before anything was sent.
LATE_UNSENT: dict[str, tuple[ScriptedResponse, str]] = {
    "truncated, for HTTP/1.0": (then_close(LONG), "1.0"),
    "not in the coding that it names": (fhir(b"{}", 200, ("Content-Encoding", "gzip")), "1.1"),
}


@pytest.mark.parametrize("name", LATE_UNSENT)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_outcome_of_a_write_is_unknown_after_a_broken_response(
    gateway: RunningGateway, platform: Platform, name: str, method: str
) -> None:
    """The diagnostics say so, and name the status that the platform sent."""
    answer, version = LATE_UNSENT[name]
    platform.respond(answer)
    request = get("/fhir/Binary", "Content-Length: 0", method=method, version=version)
    response = await fetch(gateway.address, request)
    assert (response.status, response.reason) == (502, "upstream-failed")
    diagnostics = response.json()["issue"][0]["diagnostics"]
    assert "platform-status=200" in diagnostics
    assert ("outcome unknown" in diagnostics) is (method == "POST")


async def drip(connection: PlatformConnection) -> None:
    """Send a body slowly but steadily."""
    await read_body(connection.reader, connection.request)
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PATIENT))
    for byte in PATIENT:
        connection.writer.write(bytes((byte,)))
        await asyncio.sleep(0.06)


FHIR = ("Content-Type", "application/fhir+json")
BARE = b'<OperationOutcome xmlns="http://hl7.org/fhir"/>'
CODES = (400, 403, 404, 409, 410, 412, 422, 500)
PASSED: dict[str, tuple[int, ScriptedResponse, bytes]] = {
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
async def test_fhir_responses_pass_unchanged(testbed: Testbed, name: str) -> None:
    """Errors with their Retry-After."""
    status, answer, request = PASSED[name]
    testbed.platform.respond(answer)
    evidence = await testbed.send(await testbed.start(platform={"idle_timeout": 3}), request)
    head, body = b"", PATIENT
    if isinstance(answer, bytes):
        head, _, body = answer.partition(b"\r\n\r\n")
    await assert_passed(evidence, status, body)
    retry_after = evidence.response.header("retry-after")
    assert (retry_after is not None) is (b"Retry-After" in head)
    assert f"Retry-After: {retry_after}".encode() in head or retry_after is None
    await wait_until_idle(evidence.gateway)


async def test_only_the_beginning_of_an_error_page_is_read(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Its connection is closed."""
    sent = asyncio.Event()
    kind, length = ("Content-Type", "text/html"), ("Content-Length", str(2**40))
    page = http(404, b"", kind, length, length=False)
    platform.script(endless(page, b"<html>" * 10_000, sent))
    async with start_gateway(**QUICK) as gateway:
        response = await fetch(gateway.address, READ)
        assert (response.status, response.reason) == (404, "upstream-non-fhir")
        (record,) = await gateway.audit()
        assert (record["outcome"], record["attempts"]) == ("client-error", 1)
        await sent.wait()
        assert (await fetch(gateway.address, READ)).status == 200


async def test_a_caller_that_reads_nothing_is_disconnected(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """And with it the platform's connection."""
    platform.respond(endless(chunked(end=False), CHUNK, asyncio.Event()))
    async with start_gateway(limits={"header_timeout": 1}, **QUICK) as gateway:
        async with await Wire.open(gateway.address) as wire:
            wire.writer.transport.pause_reading()
            await wire.send(READ)
            await gateway.audit()
        await gateway.wait_for_metric(0, "dhp_gateway_upstream_connections", state="active")
        (record,) = await gateway.audit()
        assert (record["status"], record["reason"], record["outcome"]) == (200, "", "aborted")
