"""The fault matrix, part 2: what can go wrong between the gateway and the platform.

One test for a row: what the caller gets, what the platform saw, what metrics and audit tell.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.doubles.gateway import running
from tests.doubles.platform import (
    PATIENT,
    Answer,
    Line,
    Platform,
    chunked,
    fhir,
    http,
    once,
    outcome,
    page,
    read_body,
    silence,
    then_close,
    then_reset,
    unauthorized,
)
from tests.doubles.processes import free_port
from tests.doubles.sso import Sso
from tests.doubles.wire import TruncatedResponseError, Wire, ask, get, post
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import deaf_port, tls_platform
from tests.wire.evidence import Expected, check, until_metric

READ = get("/fhir/Patient/1")
WRITE = post("/fhir/Patient", b'{"resourceType":"Patient"}')
QUICK = {"retries": {"backoff": 0.001}}
UNREACHABLE = Expected(
    503, "upstream-unreachable", seen=0, attempts=3, outcome="failure", retry_after=True
)
FAILED = Expected(502, "upstream-failed", outcome="failure", unknown=True)


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
async def test_refused(sso: Sso, platform: Platform, request_: bytes) -> None:
    """Without a listener every method is retried, since nothing was delivered."""
    async with running(f"http://127.0.0.1:{free_port()}/r5", sso.token_url, **QUICK) as gateway:
        reply = await ask(gateway.address, request_)
        expected = Expected(**{**vars(UNREACHABLE), "retries": {"connect": 2}})
        await check(gateway, platform, reply, expected)


async def test_name_is_not_known(sso: Sso, platform: Platform) -> None:
    """The platform's name cannot be resolved."""
    # A label of 63 characters is valid, and no host has it.
    url = f"http://{'x' * 63}.invalid/r5"
    settings = {"platform": {"allow_plaintext": True}, **QUICK}
    async with running(url, sso.token_url, **settings) as gateway:
        reply = await ask(gateway.address, READ)
        expected = Expected(**{**vars(UNREACHABLE), "retries": {"connect": 2}})
        await check(gateway, platform, reply, expected)


async def test_connect_timeout(sso: Sso, platform: Platform) -> None:
    """Connections are neither taken nor refused: one attempt, for a time-out is not repeated."""
    with contextlib.ExitStack() as stack:
        url = f"http://127.0.0.1:{deaf_port(stack)}/r5"
        async with running(
            url, sso.token_url, platform={"connect_timeout": 0.2}, **QUICK
        ) as gateway:
            reply = await ask(gateway.address, READ)
            expected = Expected(**{**vars(UNREACHABLE), "attempts": 1})
            await check(gateway, platform, reply, expected)


async def test_bad_certificate(sso: Sso) -> None:
    """A certificate of an unknown CA is not retried, because an operator must act."""
    context, _ = tls_platform("localhost")
    async with (
        Platform(tls=context) as platform,
        running(platform.url, sso.token_url, **QUICK) as gateway,
    ):
        reply = await ask(gateway.address, READ)
        expected = Expected(502, "upstream-tls", seen=0, attempts=1, outcome="failure")
        await check(gateway, platform, reply, expected)


async def test_certificate_for_another_host(sso: Sso, tmp_path: Path) -> None:
    """A valid certificate for another host is refused too."""
    context, authority = tls_platform("elsewhere.example")
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        Platform(tls=context) as platform,
        running(platform.url, sso.token_url, platform={"ca_file": str(ca_file)}) as gateway,
    ):
        reply = await ask(gateway.address, READ)
        expected = Expected(502, "upstream-tls", seen=0, attempts=1, outcome="failure")
        await check(gateway, platform, reply, expected)


async def test_pool_full(start_gateway: StartGateway, platform: Platform) -> None:
    """No connection becomes free in time: nothing was delivered, the caller may come again."""
    released = asyncio.Event()
    platform.script(once(released, fhir()))
    limits = {"max_connections": 1, "connect_timeout": 0.2}
    async with start_gateway(platform=limits) as gateway, await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        await platform.until_seen(1)
        reply = await ask(gateway.address, READ)
        expected = Expected(503, "upstream-busy", attempts=1, outcome="failure", retry_after=True)
        await check(gateway, platform, reply, expected)
        released.set()
        assert (await wire.reply()).status == 200


async def on_a_kept_connection(gateway, platform: Platform, request: bytes, answer: Answer):
    """Ask once more on a connection that has served before; only the second exchange counts."""
    await ask(gateway.address, READ)
    platform.script(answer)
    return await ask(gateway.address, request)


@pytest.mark.parametrize("broken", [then_close(b""), then_reset(b"")], ids=["fin", "rst"])
async def test_kept_connection_was_dead_for_a_read(
    start_gateway: StartGateway, platform: Platform, broken: Answer
) -> None:
    """A read that meets a dead connection is sent once more on a new one."""
    async with start_gateway(**QUICK) as gateway:
        reply = await on_a_kept_connection(gateway, platform, READ, broken)
        assert (reply.status, reply.body) == (200, PATIENT)
        assert [seen.connection for seen in platform.seen] == [1, 1, 2]
        assert await gateway.metric("dhp_gateway_upstream_retries_total", cause="reused") == 1
        assert [record["attempts"] for record in await gateway.audit(2)] == [1, 2]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_kept_connection_was_dead_for_a_write(
    start_gateway: StartGateway, platform: Platform, method: str
) -> None:
    """A write that meets a dead connection is not repeated; the caller learns what that means."""
    async with start_gateway(**QUICK) as gateway:
        request = post("/fhir/Patient/1", b"{}", method=method)
        reply = await on_a_kept_connection(gateway, platform, request, then_close(b""))
        assert (reply.status, reply.reason) == (502, "upstream-failed")
        assert "outcome unknown" in reply.json()["issue"][0]["diagnostics"]
        assert [seen.method for seen in platform.seen] == ["GET", method]
        assert await gateway.metric("dhp_gateway_upstream_retries_total") == 0
        _, record = await gateway.audit(2)
        assert (record["attempts"], record["outcome"]) == (1, "failure")


async def test_new_connection_breaks_before_an_answer(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A read is repeated within max_attempts; then it is a 502."""
    platform.answer(then_close(b""))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        expected = Expected(
            502, "upstream-failed", seen=3, outcome="failure", retries={"broken": 2}
        )
        await check(gateway, platform, reply, expected)


async def test_new_connection_breaks_before_an_answer_to_a_write(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A write is not repeated."""
    platform.answer(then_close(b""))
    async with start_gateway(**QUICK) as gateway:
        await check(gateway, platform, await ask(gateway.address, WRITE), FAILED)


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
async def test_header_never_comes(
    start_gateway: StartGateway, platform: Platform, request_: bytes
) -> None:
    """Silence is a 504, and not repeated."""
    platform.answer(silence)
    async with start_gateway(platform={"response_timeout": 0.2}, **QUICK) as gateway:
        reply = await ask(gateway.address, request_)
        expected = Expected(504, "upstream-timeout", outcome="failure", unknown=request_ is WRITE)
        await check(gateway, platform, reply, expected)


def stalled(data: bytes) -> Answer:
    """Send the bytes and then nothing."""

    async def answer(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(data)
        await silence(line)

    return answer


async def test_body_stalls_at_its_beginning(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """A body that stalls before anything was passed on is a 504."""
    platform.answer(stalled(chunked(b"{", end=False)))
    async with start_gateway(platform={"idle_timeout": 0.2}, **QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        await check(gateway, platform, reply, Expected(504, "upstream-timeout", outcome="failure"))


async def test_body_stalls_later(start_gateway: StartGateway, platform: Platform) -> None:
    """A body that stalls later is cut; the audit tells that the platform had said 200."""
    platform.answer(stalled(chunked(b" " * 100_000, end=False)))
    async with start_gateway(platform={"idle_timeout": 0.2}, **QUICK) as gateway:
        with pytest.raises(TruncatedResponseError):
            await ask(gateway.address, READ)
        expected = Expected(200, "upstream-timeout", outcome="aborted", upstream_status=200)
        await check(gateway, platform, None, expected)


async def test_body_drips(start_gateway: StartGateway, platform: Platform) -> None:
    """A body that comes slowly but steadily arrives."""

    async def drip(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PATIENT))
        for byte in PATIENT:
            line.writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)

    platform.answer(drip)
    async with start_gateway(platform={"idle_timeout": 0.6}, **QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.body == PATIENT
        await check(gateway, platform, reply, Expected(200, upstream_status=200))


TRUNCATED = {
    "chunks": chunked(PATIENT, end=False),
    "length": http(200, PATIENT, ("Content-Length", "1000"), length=False),
}


@pytest.mark.parametrize("end", [then_close, then_reset])
@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED.keys())
async def test_truncated_at_its_beginning(
    start_gateway: StartGateway, platform: Platform, data: bytes, end
) -> None:
    """A body cut before anything was passed on is a 502; only a read is repeated."""
    platform.answer(end(data))
    async with start_gateway(**QUICK) as gateway:
        await check(gateway, platform, await ask(gateway.address, WRITE), FAILED)
    platform.seen.clear()
    platform.script(end(data))
    platform.answer(fhir())
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        expected = Expected(200, seen=2, upstream_status=200, retries={"broken": 1})
        await check(gateway, platform, reply, expected)


@pytest.mark.parametrize("end", [then_close, then_reset])
async def test_truncated_later(start_gateway: StartGateway, platform: Platform, end) -> None:
    """A body cut later is cut for the caller too, and nothing is repeated."""
    platform.answer(end(chunked(b" " * 100_000, end=False)))
    async with start_gateway(**QUICK) as gateway:
        with pytest.raises(TruncatedResponseError):
            await ask(gateway.address, READ)
        expected = Expected(200, "upstream-failed", outcome="aborted", upstream_status=200)
        await check(gateway, platform, None, expected)


async def test_close_delimited(start_gateway: StartGateway, platform: Platform) -> None:
    """An answer that only its end delimits passes when it is complete JSON, with a length."""
    kind = ("Content-Type", "application/fhir+json")
    platform.answer(then_close(http(200, PATIENT, kind, length=False)))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.body == PATIENT
        await check(gateway, platform, reply, Expected(200, upstream_status=200))


@pytest.mark.parametrize(
    "data",
    [
        http(200, PATIENT[:-1], ("Content-Type", "application/fhir+json"), length=False),
        http(200, PATIENT, ("Content-Type", "application/octet-stream"), length=False),
        http(200, PATIENT, length=False),
    ],
    ids=["cut", "unknown type", "no type"],
)
async def test_close_delimited_in_doubt(
    start_gateway: StartGateway, platform: Platform, data: bytes
) -> None:
    """One that is cut, or cannot be told to be whole, is a 502."""
    platform.answer(then_close(data))
    async with start_gateway(**QUICK) as gateway:
        await check(gateway, platform, await ask(gateway.address, WRITE), FAILED)


PROTOCOL = {
    "two lengths": http(200, b"{}", ("Content-Length", "3")),
    "length and chunks": http(200, b"{}", ("Transfer-Encoding", "chunked")),
    "gzip, chunked": chunked(b"{}").replace(b"chunked", b"gzip, chunked"),
    "101": b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "garbage": b"\x16\x03\x01garbage",
    "status 999": http(999, b"{}"),
}


@pytest.mark.parametrize("data", PROTOCOL.values(), ids=PROTOCOL.keys())
async def test_not_valid_http(start_gateway: StartGateway, platform: Platform, data: bytes) -> None:
    """What is no valid HTTP is a 502."""
    platform.answer(data)
    async with start_gateway(**QUICK) as gateway:
        await check(gateway, platform, await ask(gateway.address, WRITE), FAILED)


async def test_401_once(start_gateway: StartGateway, platform: Platform, sso: Sso) -> None:
    """A refused token is replaced and the request sent once more, a write too."""
    platform.script(unauthorized(), fhir(PATIENT, 201))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, WRITE)
        expected = Expected(201, seen=2, upstream_status=201, retries={"token": 1})
        await check(gateway, platform, reply, expected)
    assert len(sso.requests) == 2


async def test_401_always(start_gateway: StartGateway, platform: Platform, sso: Sso) -> None:
    """A fresh token that is refused too ends it: no loop, no storm of token requests, no 401."""
    platform.answer(unauthorized())
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, WRITE)
        assert reply.header("www-authenticate") is None
        expected = Expected(
            502,
            "token-rejected",
            seen=2,
            outcome="failure",
            upstream_status=401,
            retries={"token": 1},
        )
        await check(gateway, platform, reply, expected)
        for _ in range(5):
            assert (await ask(gateway.address, WRITE)).reason == "token-rejected"
    assert len(sso.requests) <= 3


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 412, 422, 500])
async def test_error_of_the_platform(
    start_gateway: StartGateway, platform: Platform, status: int
) -> None:
    """An OperationOutcome of the platform passes byte for byte, once."""
    platform.answer(outcome(status))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, WRITE)
        assert outcome(status).endswith(b"\r\n\r\n" + reply.body)
        kind = "failure" if status == 500 else "client-error"
        await check(
            gateway, platform, reply, Expected(status, outcome=kind, upstream_status=status)
        )


async def test_429(start_gateway: StartGateway, platform: Platform) -> None:
    """A 429 passes with its Retry-After and is not repeated; a page becomes an outcome."""
    platform.answer(outcome(429, ("Retry-After", "7")))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.header("retry-after") == "7"
        expected = Expected(429, outcome="client-error", upstream_status=429, retry_after=True)
        await check(gateway, platform, reply, expected)
        platform.answer(page(429, ("Retry-After", "7")))
        reply = await ask(gateway.address, READ)
    assert (reply.status, reply.reason) == (429, "upstream-non-fhir")
    assert (reply.header("retry-after"), reply.json()["issue"][0]["code"]) == ("7", "throttled")


async def test_503_with_a_long_pause(start_gateway: StartGateway, platform: Platform) -> None:
    """A 503 that asks for a long pause is passed on at once, with its Retry-After."""
    platform.answer(outcome(503, ("Retry-After", "120")))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.header("retry-after") == "120"
        expected = Expected(503, outcome="failure", upstream_status=503, retry_after=True)
        await check(gateway, platform, reply, expected)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_load_balancer_errors(
    start_gateway: StartGateway, platform: Platform, status: int
) -> None:
    """A page with 502, 503 or 504: a read is repeated, then it is the same status explained."""
    platform.answer(page(status))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert b"Oops" not in reply.body
        expected = Expected(
            status,
            "upstream-non-fhir",
            seen=3,
            outcome="failure",
            upstream_status=status,
            retries={"status": 2},
        )
        await check(gateway, platform, reply, expected)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_load_balancer_errors_for_a_write(
    start_gateway: StartGateway, platform: Platform, status: int
) -> None:
    """For a write the same, without repetition."""
    platform.answer(page(status))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, WRITE)
        expected = Expected(status, "upstream-non-fhir", outcome="failure", upstream_status=status)
        await check(gateway, platform, reply, expected)


async def test_login_page(start_gateway: StartGateway, platform: Platform) -> None:
    """A page with 200 where FHIR was asked for is a 502."""
    platform.answer(page(200))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        expected = Expected(502, "upstream-non-fhir", outcome="failure", upstream_status=200)
        await check(gateway, platform, reply, expected)


async def test_huge_error_page(start_gateway: StartGateway, platform: Platform) -> None:
    """Of a huge error page no more than its beginning is read; its connection is dropped."""
    sent = asyncio.Event()

    async def huge(line: Line) -> None:
        await read_body(line.reader, line.seen)
        kind = ("Content-Type", "text/html")
        line.writer.write(http(404, b"", kind, ("Content-Length", str(2**40)), length=False))
        with contextlib.suppress(ConnectionError):
            while True:
                line.writer.write(b"<html>" * 10_000)
                await line.writer.drain()
        sent.set()

    platform.script(huge)
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        expected = Expected(404, "upstream-non-fhir", outcome="client-error", upstream_status=404)
        await check(gateway, platform, reply, expected)
        await sent.wait()
        assert (await ask(gateway.address, READ)).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect(start_gateway: StartGateway, platform: Platform, status: int) -> None:
    """A redirect is never followed: that would take the token along."""
    platform.answer(http(status, b"", ("Location", f"{platform.url}/elsewhere")))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.header("location") is None
        expected = Expected(502, "upstream-redirect", outcome="failure", upstream_status=status)
        await check(gateway, platform, reply, expected)


async def test_caller_reads_slowly(start_gateway: StartGateway, platform: Platform) -> None:
    """A caller that takes nothing is given up, and with it the platform's connection."""

    async def endless(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                line.writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await line.writer.drain()

    platform.answer(endless)
    async with start_gateway(limits={"header_timeout": 0.1}, **QUICK) as gateway:
        async with await Wire.open(gateway.address) as wire:
            wire.writer.transport.pause_reading()
            await wire.send(READ)
            await gateway.audit()
        await until_metric(gateway, "dhp_gateway_upstream_connections", 0, state="active")
        expected = Expected(200, outcome="aborted", upstream_status=200)
        await check(gateway, platform, None, expected)


async def test_surplus(start_gateway: StartGateway, platform: Platform) -> None:
    """A second answer after the first is not passed on, and ends the connection."""
    platform.answer(fhir() + fhir(b'{"resourceType":"Patient","id":"other"}'))
    async with start_gateway(**QUICK) as gateway:
        reply = await ask(gateway.address, READ)
        assert reply.body == PATIENT
        await check(gateway, platform, reply, Expected(200, upstream_status=200))
        assert await gateway.metric("dhp_gateway_upstream_connections", state="idle") == 0


async def test_storm_of_failures(start_gateway: StartGateway, platform: Platform) -> None:
    """When most requests fail the gateway stops asking, and begins again with one request."""
    platform.answer(then_close(b""))
    breaker = {"min_requests": 5, "open_for": 0.3}
    async with start_gateway(circuit_breaker=breaker, **QUICK) as gateway:
        for _ in range(5):
            assert (await ask(gateway.address, WRITE)).reason == "upstream-failed"
        asked = len(platform.seen)
        assert await gateway.metric("dhp_gateway_circuit_state") == 2
        for _ in range(5):
            reply = await ask(gateway.address, WRITE)
            assert (reply.status, reply.reason) == (503, "circuit-open")
            assert int(reply.header("retry-after") or 0) > 0
        assert len(platform.seen) == asked
        record = (await gateway.audit(10))[-1]
        assert (record["reason"], record["outcome"]) == ("circuit-open", "failure")
        platform.answer(fhir())
        await until_metric(gateway, "dhp_gateway_circuit_state", 1)
        assert (await ask(gateway.address, WRITE)).status == 200
        assert await gateway.metric("dhp_gateway_circuit_state") == 0


async def test_retry_budget(start_gateway: StartGateway, platform: Platform) -> None:
    """A storm of failing reads does not get the platform three times the load."""
    platform.answer(page(503))
    settings = {
        "retries": {"backoff": 0.001, "budget_ratio": 0.1},
        "circuit_breaker": {"failure_ratio": 1.0, "min_requests": 100_000},
    }
    async with start_gateway(**settings) as gateway:
        await asyncio.gather(*(ask(gateway.address, READ) for _ in range(50)))
        # One repetition in ten, three a second besides.
        assert len(platform.seen) <= 50 + 5 + 3 * 5
