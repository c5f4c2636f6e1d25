"""Further ways in which a platform fails a request, each held against its row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.doubles.platform import (
    PATIENT,
    Answer,
    Line,
    Platform,
    chunked,
    fhir,
    http,
    outcome,
    page,
    silence,
    then_close,
    then_reset,
)
from tests.doubles.wire import TruncatedResponseError, get, post
from tests.pipeline.error_table import ERROR_TABLE, Row, judge
from tests.pipeline.stage import Evidence, Stage, deaf_port, tls_platform

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"


async def answering(
    stage: Stage, answer: Answer, request: bytes | None = None, **sections: Any
) -> Evidence:
    """What a platform's answer leads to."""
    stage.platform.answer(answer)
    return await stage.evidence(await stage.start(**sections), request or stage.get())


async def test_name_that_does_not_exist(stage: Stage) -> None:
    """A platform whose name cannot be resolved is unreachable."""
    gateway = await stage.start(
        platform_url="http://nope.invalid/r5", platform={"allow_plaintext": True}
    )
    evidence = await stage.evidence(gateway, stage.get())
    await judge(evidence, "upstream-unreachable", ERROR_TABLE["upstream-unreachable"])


async def test_connection_that_is_never_made(stage: Stage) -> None:
    """A platform that does not answer the connection is unreachable, and asked only once."""
    url = f"http://127.0.0.1:{deaf_port(stage.stack)}/r5"
    gateway = await stage.start(platform_url=url, platform={"connect_timeout": 0.3})
    evidence = await stage.evidence(gateway, stage.get())
    row = ERROR_TABLE["upstream-unreachable"].but(attempts=1)
    await judge(evidence, "upstream-unreachable", row)


async def tls_handshake(line: Line) -> None:
    """An answer of TLS to a plain request."""
    line.writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
    line.writer.close()


BROKEN: dict[str, Answer] = {
    "closed": then_close(b""),
    "reset": then_reset(b""),
    "cut in its header": then_close(OK),
    "cut in its body": then_close(OK + b"Content-Length: 100\r\n\r\n" + PATIENT),
    "reset in its body": then_reset(OK + b"Content-Length: 100\r\n\r\n" + PATIENT),
    "cut in its chunks": then_close(chunked(PATIENT, end=False)),
    "cut without framing": then_close(OK + b"\r\n" + PATIENT[:-1]),
    "reset without framing": then_reset(OK + b"\r\n" + PATIENT),
    "garbage": then_close(b"\x00\x01\x02 this is no HTTP\r\n\r\n"),
    "TLS": tls_handshake,
    "HTTP/2.0": then_close(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "two lengths": then_close(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "length and chunks": then_close(
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "bad chunk": then_close(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "unknown coding": then_close(OK + b"Transfer-Encoding: gzip\r\n\r\nxx"),
    "status 999": then_close(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
    "switching protocols": then_close(b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_answer_to_a_write(stage: Stage, name: str) -> None:
    """A write whose answer broke or is not HTTP is sent once, and its outcome called unknown."""
    evidence = await answering(stage, BROKEN[name], stage.post())
    await judge(evidence, "upstream-failed", ERROR_TABLE["upstream-failed"])


READ_FAILED = ERROR_TABLE["upstream-failed"].but(seen=3, attempts=3, write=False)


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_answer_to_a_read(stage: Stage, name: str) -> None:
    """A read whose answer broke or is not HTTP is tried again, and never looks complete."""
    evidence = await answering(stage, BROKEN[name])
    await judge(evidence, "upstream-failed", READ_FAILED)


async def test_answer_that_breaks_late(stage: Stage) -> None:
    """Once its first byte is passed on, a cut answer aborts the connection and is audited so."""
    big = OK + b"Content-Length: 200000\r\n\r\n" + b" " * 150_000
    stage.platform.answer(then_close(big))
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    with pytest.raises(TruncatedResponseError):
        await wire.ask(stage.get("/fhir/Binary/1"))
    (record,) = await gateway.audit()
    assert (record["outcome"], record["reason"]) == ("aborted", "upstream-failed")
    assert (record["attempts"], record["status"]) == (1, 200)
    assert len(stage.platform.seen) == 1


async def test_certificate_of_another_host(stage: Stage) -> None:
    """A trusted certificate for another name is no better than none."""
    context, authority = tls_platform("another.example")
    stage.platform = await stage.stack.enter_async_context(Platform(tls=context))
    with authority.cert_pem.tempfile() as ca_file:
        gateway = await stage.start(platform={"ca_file": ca_file})
    evidence = await stage.evidence(gateway, stage.post())
    await judge(evidence, "upstream-tls", ERROR_TABLE["upstream-tls"])


async def test_certificate_of_a_known_authority(stage: Stage) -> None:
    """With `platform.ca_file` a certificate for the right name is trusted."""
    context, authority = tls_platform("localhost")
    stage.platform = await stage.stack.enter_async_context(Platform(tls=context))
    with authority.cert_pem.tempfile() as ca_file:
        gateway = await stage.start(platform={"ca_file": ca_file})
    assert (await stage.evidence(gateway, stage.get())).reply.status == 200


async def test_plain_server_behind_https(stage: Stage) -> None:
    """A platform that speaks no TLS where https was promised gets no token."""
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.read(4096)
        writer.write(http(400))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    stage.stack.callback(server.close)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/r5"
    evidence = await stage.evidence(await stage.start(platform_url=url), stage.get())
    await judge(evidence, "upstream-tls", ERROR_TABLE["upstream-tls"])
    assert b"token-1" not in heard


async def stall(line: Line, data: bytes) -> None:
    """Send the bytes, then nothing more."""
    line.writer.write(data)
    await silence(line)


STALLED = {
    "in its header": partial(stall, data=OK),
    "in its body": partial(stall, data=OK + b"Content-Length: 100\r\n\r\n{"),
    "in its chunks": partial(stall, data=chunked(PATIENT, end=False)),
    "before a final answer": partial(stall, data=b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", STALLED)
async def test_answer_that_stalls(stage: Stage, name: str) -> None:
    """An answer that stops is a time-out while nothing was passed on, for reads too only once."""
    times = {"response_timeout": 0.3, "idle_timeout": 0.3}
    evidence = await answering(stage, STALLED[name], platform=times)
    await judge(evidence, "upstream-timeout", ERROR_TABLE["upstream-timeout"])


async def test_write_that_times_out(stage: Stage) -> None:
    """A write that gets no answer is sent once."""
    evidence = await answering(stage, silence, stage.post(), platform={"response_timeout": 0.3})
    await judge(evidence, "upstream-timeout", ERROR_TABLE["upstream-timeout"].but(write=True))


@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 306, 307, 308])
async def test_redirect(stage: Stage, code: int) -> None:
    """A redirect is not followed and not passed on, whatever its method, form or place."""
    location = ("Location", f"{stage.platform.url}/Patient/2")
    row = ERROR_TABLE["upstream-redirect"].but(upstream_status=code)
    evidence = await answering(stage, outcome(code, location))
    await judge(evidence, "upstream-redirect", row)
    assert evidence.reply.header("location") is None
    assert len(stage.platform.seen) == 1


NOT_FHIR = {
    400: "processing",
    403: "processing",
    404: "not-found",
    405: "processing",
    408: "timeout",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    415: "processing",
    422: "processing",
    429: "throttled",
    431: "processing",
    500: "exception",
    502: "transient",
    503: "transient",
    504: "timeout",
}
BODIES: dict[str, Callable[[int], bytes]] = {
    "page": page,
    "empty": http,
    "empty FHIR": lambda code: fhir(b"", code),
    "other JSON": lambda code: http(code, b'{"error":"x"}', ("Content-Type", "application/json")),
    "text": lambda code: http(code, b"no", ("Content-Type", "text/plain")),
    "page as FHIR": lambda code: fhir(b"<!DOCTYPE html><html></html>", code),
    "page of no type": lambda code: http(code, b"<html></html>"),
}


def not_fhir(code: int) -> Row:
    """The row of a platform's status."""
    row = ERROR_TABLE["upstream-non-fhir"]
    return row.but(status=code, issue_code=NOT_FHIR[code], upstream_status=code)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("code", NOT_FHIR)
async def test_error_that_is_no_fhir(stage: Stage, code: int, body: str) -> None:
    """An error without an OperationOutcome gets one that keeps the platform's status."""
    evidence = await answering(stage, BODIES[body](code), stage.post())
    await judge(evidence, "upstream-non-fhir", not_fhir(code).but(write=True))


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_page_is_tried_again(stage: Stage, code: int) -> None:
    """A load balancer's page for a read is reported after all attempts."""
    evidence = await answering(stage, page(code))
    await judge(evidence, "upstream-non-fhir", not_fhir(code).but(seen=3, attempts=3))


@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_of_the_platform(stage: Stage, code: int) -> None:
    """The platform's Retry-After is handed on with the outcome that replaces its page."""
    evidence = await answering(stage, page(code, ("Retry-After", "17")))
    assert evidence.reply.header("retry-after") == "17"
    assert evidence.reply.reason == "upstream-non-fhir"


LOGIN_PAGES = {
    "page": page(200),
    "page as FHIR": fhir(b"<!doctype html><html></html>"),
    "page of no type": http(200, b"<html></html>"),
    "page after a comment": http(200, b"<!-- hi -->\n<HTML></HTML>", ("Content-Type", "text/html")),
}


@pytest.mark.parametrize("name", LOGIN_PAGES)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_login_page(stage: Stage, name: str, method: str) -> None:
    """A page with 200 instead of data is a failure, not data."""
    request = stage.get() if method == "GET" else stage.post()
    evidence = await answering(stage, LOGIN_PAGES[name], request)
    row = ERROR_TABLE["upstream-non-fhir"]
    row = row.but(status=502, issue_code="processing", upstream_status=200)
    await judge(evidence, "upstream-non-fhir", row.but(write=method == "POST"))


@pytest.mark.parametrize("code", [200, 404, 500])
async def test_page_of_a_binary(stage: Stage, code: int) -> None:
    """What a Binary holds is never judged."""
    evidence = await answering(stage, page(code), stage.get("/fhir/Binary/1"))
    assert (evidence.reply.status, evidence.reply.reason) == (code, None)
    assert evidence.reply.body == b"<html><body>Oops</body></html>"


async def test_page_that_was_asked_for(stage: Stage) -> None:
    """A page passes where the caller's Accept names it."""
    evidence = await answering(stage, page(200), get("/fhir/Patient/1", "Accept: text/html"))
    assert (evidence.reply.status, evidence.reply.reason) == (200, None)


@pytest.mark.parametrize("code", [400, 404, 409, 422, 500])
async def test_error_that_is_fhir(stage: Stage, code: int) -> None:
    """A FHIR error passes unchanged, in XML too."""
    xml = b'<OperationOutcome xmlns="http://hl7.org/fhir"/>'
    for answer in (outcome(code), http(code, xml, ("Content-Type", "application/fhir+xml"))):
        stage.platform.answer(answer)
        evidence = await stage.evidence(await stage.start(), post("/fhir/Patient", b"{}"))
        assert (evidence.reply.status, evidence.reply.reason) == (code, None)
        assert evidence.reply.body == answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("code", [201, 204])
async def test_write_without_a_body_of_its_own(stage: Stage, code: int) -> None:
    """A success without a body, as `Prefer: return=minimal` asks for, is no failure."""
    answer = http(code, b"", length=code != 204)
    evidence = await answering(stage, answer, post("/fhir/Patient", b"{}"))
    assert (evidence.reply.status, evidence.reply.body) == (code, b"")
