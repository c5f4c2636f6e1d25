"""Responses of a platform (RFC 9112), and that no connection in an unknown state is reused."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    fhir,
    outcome,
    read_body,
    then_close,
)
from tests.doubles.wire import Wire, fetch, get, post

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_LENGTH = b"Content-Length: 2\r\n"


def with_field(field: bytes) -> bytes:
    return _OK + field + b"\r\n" + _LENGTH + b"\r\n{}"


REFUSED = {
    "different lengths": _OK + _LENGTH + b"Content-Length: 3\r\n\r\n{} ",
    "repeated length": _OK + _LENGTH + _LENGTH + b"\r\n{}",
    "list of lengths": _OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "length with a space inside": _OK + b"Content-Length: 2 2\r\n\r\n{}",
    "length no number": _OK + b"Content-Length: x\r\n\r\n{}",
    "signed length": _OK + b"Content-Length: +2\r\n\r\n{}",
    "negative length": _OK + b"Content-Length: -2\r\n\r\n{}",
    "overflowing length": _OK + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "hexadecimal length": _OK + b"Content-Length: 0x2\r\n\r\n{}",
    "length and chunked": _OK + _LENGTH + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked and length": _OK + b"Transfer-Encoding: chunked\r\n" + _LENGTH + b"\r\n{}",
    "gzip, chunked": _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip then chunked": _OK
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": _OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked not last": _OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "xchunked": _OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "quoted chunked": _OK + b'Transfer-Encoding: "chunked"\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
    "identity coding": _OK + b"Transfer-Encoding: identity\r\n\r\n{}",
    "chunked in HTTP/1.0": _CHUNKED.replace(b"1.1", b"1.0") + b"2\r\n{}\r\n0\r\n\r\n",
    "chunked in HTTP/1.0 behind HTTP/1.1": b"HTTP/1.1 103 Early Hints\r\n\r\n"
    + _CHUNKED.replace(b"1.1", b"1.0")
    + b"2\r\n{}\r\n0\r\n\r\n",
    "no chunk size": _CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "chunk size no number": _CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "negative chunk size": _CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "prefixed chunk size": _CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "overflowing chunk size": _CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "chunk longer than its size": _CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunk size with bare LF": _CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "chunk with bare LF": _CHUNKED + b"2\r\n{}\n0\r\n\r\n",
    "control in chunk extension": _CHUNKED + b"2;a=\x01\r\n{}\r\n0\r\n\r\n",
    "bad trailer": _CHUNKED + b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    "length in trailer": _CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n",
    "cut in chunk size": _CHUNKED + b"2",
    "cut in chunk": _CHUNKED + b"2\r\n{",
    "no last chunk": _CHUNKED + b"2\r\n{}\r\n",
    "cut in trailers": _CHUNKED + b"2\r\n{}\r\n0\r\nX-Sum: 1\r\n",
    "cut in header": _OK + b"Content-Le",
    "cut in status line": b"HTTP/1.1 20",
    "short body": _OK + b"Content-Length: 3\r\n\r\n{}",
    "many fields": _OK + b"X-Many: 1\r\n" * 600 + _LENGTH + b"\r\n{}",
    "long field": with_field(b"X-Long: " + b"x" * 300_000),
    "endless header": _OK + b"X-Long: " + b"x" * 400_000,
    "endless trailers": _CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X-Trailer: 1\r\n" * 30_000,
    "endless chunk extension": _CHUNKED + b"2;a=" + b"x" * 400_000,
    "many interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 30 + with_field(b"X: 1"),
    "switching protocols": b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "plain 101": b"HTTP/1.1 101 S\r\n\r\n" + with_field(b"X: 1"),
    "interim answer with a body": b"HTTP/1.1 199 X\r\n" + _LENGTH + b"\r\n[]" + with_field(b"X: 1"),
    "interim answer in chunks": b"HTTP/1.1 199 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + with_field(b"X: 1"),
    "interim only": b"HTTP/1.1 100 Continue\r\n\r\n",
    "status 099": with_field(b"X: 1").replace(b"200", b"099"),
    "status 600": with_field(b"X: 1").replace(b"200", b"600"),
    "status 999": with_field(b"X: 1").replace(b"200", b"999"),
    "status 2000": with_field(b"X: 1").replace(b"200", b"2000"),
    "status 20": with_field(b"X: 1").replace(b"200", b"20"),
    "no status": with_field(b"X: 1").replace(b" 200 OK", b""),
    "HTTP/2.0": with_field(b"X: 1").replace(b"1.1", b"2.0"),
    "HTTP/1.2": with_field(b"X: 1").replace(b"1.1", b"1.2"),
    "HTTP/0.9": b'{"resourceType":"Patient"}',
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "a greeting": b"220 mail.clinic.uz ESMTP\r\n",
    "NUL in value": with_field(b"X: a\0b"),
    "control in value": with_field(b"X: a\x01b"),
    "bare CR in value": with_field(b"X: a\rb"),
    "bare LF in value": with_field(b"X: a\nb"),
    "bare LF after status line": with_field(b"X: 1").replace(b"OK\r\n", b"OK\n"),
    "bare LF everywhere": with_field(b"X: 1").replace(b"\r\n", b"\n"),
    "folded line": with_field(b"X: a\r\n b"),
    "folded length": _OK + b"Content-Length:\r\n 2\r\n\r\n{}",
    "space before colon": with_field(b"X : 1"),
    "space before first field": b"HTTP/1.1 200 OK\r\n X: 1\r\n" + _LENGTH + b"\r\n{}",
    "no colon": with_field(b"nonsense"),
    "empty name": with_field(b": 1"),
    "control in name": with_field(b"X\x01: 1"),
    "letter outside ASCII in name": with_field("Ж: 1".encode()),
    # A caller might use the one that was not checked.
    "two content types": with_field(b"Content-Type: text/html"),
}


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED.keys())
async def test_an_invalid_response_is_a_502(
    gateway: RunningGateway, platform: Platform, stream: bytes
) -> None:
    """It is not retried, and its connection is closed."""
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).status == 200
    platform.script(then_close(stream) if _ends(stream) else stream)
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert (response.status, response.reason) == (502, "upstream-failed")
    assert len(platform.requests) == 2
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).body == PATIENT
    first, broken, after = platform.requests
    assert first.connection == broken.connection != after.connection
    *_, record, _ = await gateway.audit(3)
    assert (record["status"], record["reason"], record["attempts"]) == (502, "upstream-failed", 1)
    assert record["outcome"] == "failure"


def _ends(stream: bytes) -> bool:
    """Return whether only the end of the connection shows that the response is incomplete."""
    names = ("cut", "short", "no last", "interim only", "identity", "HTTP/0.9", "a greeting", "TLS")
    return any(REFUSED[name] is stream for name in REFUSED if name.startswith(names))


ACCEPTED = {
    "no reason phrase": with_field(b"X: 1").replace(b"200 OK", b"200 "),
    "nothing after the status": with_field(b"X: 1").replace(b"200 OK", b"200"),
    "several interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\nX: 1\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + with_field(b"X: 1"),
    "chunk extensions and trailers": _CHUNKED
    + b'1;a=b\r\n{\r\n01;c="d"\r\n}\r\n000\r\nX-Sum: 1\r\n\r\n',
    "chunked in capitals": _CHUNKED.replace(b"chunked", b"Chunked") + b"2\r\n{}\r\n0\r\n\r\n",
    "HTTP/1.0 with a length": with_field(b"X: 1").replace(b"1.1", b"1.0"),
    "bytes outside ASCII in value": with_field("X: Жасур".encode()),
    "empty value": with_field(b"X:"),
    "offered upgrade": with_field(b"Upgrade: h2c\r\nConnection: upgrade"),
}


@pytest.mark.parametrize("stream", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_an_unusual_valid_response_passes(
    gateway: RunningGateway, platform: Platform, stream: bytes
) -> None:
    """Interim responses and trailers are not forwarded."""
    platform.script(stream)
    response = await fetch(gateway.address, get("/fhir/Binary/1"))
    assert (response.status, response.body) == (200, b"{}")
    for name in ("x-sum", "upgrade", "link", "trailer"):
        assert response.header(name) is None
    assert (await fetch(gateway.address, get("/fhir/Binary/1"))).body == PATIENT


LOOKALIKES = (b"Content_Length: 1", b"Content_Length: abc", b"Transfer_Encoding: chunked")


@pytest.mark.parametrize("field", [*LOOKALIKES, b"Content_Type: text/html"])
async def test_field_names_with_an_underscore_have_no_meaning(
    gateway: RunningGateway, platform: Platform, field: bytes
) -> None:
    """They neither frame the response nor are they forwarded."""
    body = b'{"resourceType":"Basic","n":"%s"}' % (b"x" * 1000)
    head = _OK.replace(b"OK\r\n", b"OK\r\n" + field + b"\r\n") + b"Content-Length: %d\r\n\r\n"

    async def in_two_parts(connection: PlatformConnection) -> None:
        connection.writer.write(head % len(body))
        await connection.writer.drain()
        await asyncio.sleep(0.02)
        connection.writer.write(body)

    platform.script(in_two_parts, in_two_parts)
    async with await Wire.open(gateway.address) as wire:
        for _ in range(2):
            response = await wire.fetch(get("/fhir/Basic/1"))
            assert (response.status, response.body) == (200, body)
            assert response.header(field.partition(b":")[0].decode().lower()) is None


async def test_an_echoed_authorization_is_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    platform.respond(
        with_field(b"Authorization: Bearer secret\r\nProxy-Authorization: Bearer secret")
    )
    async with await Wire.open(gateway.address) as wire:
        response = await wire.fetch(get("/fhir/Binary/1"))
    assert response.status == 200
    assert "secret" not in str(response.headers)


_SECOND = fhir(b'{"resourceType":"Patient","id":"of-somebody-else"}')


@pytest.mark.parametrize("surplus", [_SECOND, b"HT", b"{}", b"\0", b"0\r\n\r\n"], ids=repr)
@pytest.mark.parametrize("at_once", [True, False])
async def test_octets_after_a_response_are_never_another_response(
    gateway: RunningGateway, platform: Platform, surplus: bytes, at_once: bool
) -> None:
    async def more(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(fhir() + (surplus if at_once else b""))
        await connection.writer.drain()
        if not at_once:
            await delivered.wait()
            connection.writer.write(surplus)

    delivered = asyncio.Event()
    platform.script(more)
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.fetch(get("/fhir/Patient/1"))).body == PATIENT
        delivered.set()
        await gateway.wait_for_metric(0, "dhp_gateway_upstream_connections", state="idle")
        assert (await wire.fetch(get("/fhir/Patient/2"))).body == PATIENT
    assert [request.connection for request in platform.requests] == [1, 2]


BODIES_TOO_MANY = {
    "HEAD with a length": ("HEAD", _OK + _LENGTH + b"\r\n{}"),
    "HEAD with chunks": ("HEAD", _CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"),
    "HEAD with the last chunk": ("HEAD", _CHUNKED + b"0\r\n\r\n"),
    "HEAD with half a chunk size": ("HEAD", _CHUNKED + b"0"),
    "HEAD without a length": ("HEAD", _OK + b"\r\n{}"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n{}"),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\n" + _LENGTH + b"\r\n{}"),
    "304 with a length": ("GET", b"HTTP/1.1 304 Not Modified\r\n" + _LENGTH + b"\r\n{}"),
    "304 with chunks": (
        "GET",
        b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("method", "stream"), BODIES_TOO_MANY.values(), ids=BODIES_TOO_MANY.keys())
async def test_a_body_of_a_head_204_or_304_never_reaches_a_caller(
    gateway: RunningGateway, platform: Platform, method: str, stream: bytes
) -> None:
    platform.script(stream)
    async with await Wire.open(gateway.address) as wire:
        response = await wire.fetch(get("/fhir/Patient/1", method=method), head=True)
        assert response.status == int(stream[9:12])
        assert (await wire.fetch(get("/fhir/Patient/1"))).body == PATIENT
    assert [request.connection for request in platform.requests] == [1, 2]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("sends_on", [True, False], ids=["sends on", "waits"])
async def test_a_response_before_the_end_of_the_request_is_forwarded(
    gateway: RunningGateway, platform: Platform, framing: str, sends_on: bool
) -> None:
    """At once; neither connection is reused."""
    size = 8_000_000

    async def early(connection: PlatformConnection) -> None:
        connection.writer.write(outcome(413))
        with contextlib.suppress(ConnectionError):  # given up with bytes under way
            await connection.reader.read()
        ended.set()

    ended = asyncio.Event()
    platform.script(early)
    kind = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    piece = b"x" * 100_000
    coded = piece if framing == "length" else b"%x\r\n%s\r\n" % (len(piece), piece)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Binary", kind, method="POST") + coded)
        if sends_on:
            wire.writer.write(coded * 40)
        response = await wire.read_response()
        assert (response.status, response.reason) == (413, None)
        assert response.header("connection") == "close"
        await ended.wait()
        assert await wire.at_end()
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).body == PATIENT
    assert [request.connection for request in platform.requests] == [1, 2]


async def test_a_write_is_not_sent_on_a_closed_idle_connection(
    gateway: RunningGateway, platform: Platform
) -> None:
    """It is sent once, on a new one."""
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).body == PATIENT
    platform.drop_connections()
    await gateway.wait_for_metric(0, "dhp_gateway_upstream_connections", state="idle")
    assert (await fetch(gateway.address, post("/fhir/Patient", b"{}"))).status == 200
    assert [(request.method, request.connection) for request in platform.requests] == [
        ("GET", 1),
        ("POST", 2),
    ]


@pytest.mark.parametrize("field", ["close", "Close", "keep-alive, close"])
async def test_no_request_follows_a_connection_close(
    gateway: RunningGateway, platform: Platform, field: str
) -> None:
    platform.script(fhir(PATIENT, 200, ("Connection", field)))
    for _ in range(2):
        assert (await fetch(gateway.address, get("/fhir/Patient/1"))).body == PATIENT
    assert [request.connection for request in platform.requests] == [1, 2]


async def test_no_request_follows_an_error_in_response_to_a_body(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The platform may take a body that it did not read for the next request."""
    platform.script(outcome(403))
    for status in (403, 200):
        assert (await fetch(gateway.address, post("/fhir/Patient", b"{}"))).status == status
    assert [request.connection for request in platform.requests] == [1, 2]
