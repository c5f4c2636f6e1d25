"""Ambiguous requests, octet for octet as an attacker sends them.

Each is rejected once, the connection ends, and the platform receives nothing of it or of what
follows it (RFC 9112 sections 2, 3, 5, 6, 7; RFC 9110 sections 5.5, 7.7).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from gateway import errors
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform
from tests.doubles.wire import Response, Wire, get
from tests.pipeline import shared

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

SMUGGLED = get("/fhir/Patient/smuggled")


def message(
    *lines: bytes, body: bytes = b"", first: bytes = b"POST /fhir/Patient HTTP/1.1"
) -> bytes:
    return b"\r\n".join((first, b"Host: gateway", *lines, b"", b"")) + body


def request_with_line(first: bytes) -> bytes:
    return message(first=first)


CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"

FRAMING = {
    "length and chunks": message(b"Content-Length: 2", CHUNKED, body=CHUNKS),
    "chunks and length": message(CHUNKED, b"Content-Length: 12", body=CHUNKS),
    "chunks and length 0": message(CHUNKED, b"Content-Length: 0", body=CHUNKS),
    "two lengths": message(b"Content-Length: 2", b"Content-Length: 3", body=b"{}"),
    "the same length twice": message(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"),
    "a list of lengths": message(b"Content-Length: 2, 2", body=b"{}"),
    "length with a plus": message(b"Content-Length: +2", body=b"{}"),
    "negative length": message(b"Content-Length: -2", body=b"{}"),
    "length in hexadecimals": message(b"Content-Length: 0x2", body=b"{}"),
    "length with an underscore": message(b"Content-Length: 1_0", body=b"{}        "),
    "length with a point": message(b"Content-Length: 2.0", body=b"{}"),
    "length with a space inside": message(b"Content-Length: 1 0", body=b"{}        "),
    "length over 64 bits": message(b"Content-Length: 18446744073709551618", body=b"{}"),
    "length in other digits": message("Content-Length: ２".encode(), body=b"{}"),
    "empty length": message(b"Content-Length:", body=b"{}"),
    "length in quotes": message(b'Content-Length: "2"', body=b"{}"),
    "coding that is not chunked": message(b"Transfer-Encoding: gzip", body=b"{}"),
    "chunked inside gzip": message(b"Transfer-Encoding: chunked, gzip", body=CHUNKS),
    "gzip inside chunked": message(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "chunked twice": message(b"Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "chunked in two fields": message(CHUNKED, CHUNKED, body=CHUNKS),
    "identity, chunked": message(b"Transfer-Encoding: identity, chunked", body=CHUNKS),
    "two codings in two fields": message(CHUNKED, b"Transfer-Encoding: identity", body=CHUNKS),
    "xchunked": message(b"Transfer-Encoding: xchunked", body=CHUNKS),
    "chunked in quotes": message(b'Transfer-Encoding: "chunked"', body=CHUNKS),
    "chunked with a parameter": message(b"Transfer-Encoding: chunked;q=1", body=CHUNKS),
    "chunked behind a comma": message(b"Transfer-Encoding: ,chunked", body=CHUNKS),
    "chunked before a comma": message(b"Transfer-Encoding: chunked,", body=CHUNKS),
    "chunked behind a vertical tab": message(b"Transfer-Encoding: \x0bchunked", body=CHUNKS),
    "chunked before a form feed": message(b"Transfer-Encoding: chunked\x0c", body=CHUNKS),
    "empty coding": message(b"Transfer-Encoding:", body=CHUNKS),
    "chunks in HTTP/1.0": message(CHUNKED, body=CHUNKS, first=b"POST /fhir/Patient HTTP/1.0"),
}
CHUNK_FAULTS = {
    "size 0x2": b"0x2\r\n{}\r\n0\r\n\r\n",
    "size +2": b"+2\r\n{}\r\n0\r\n\r\n",
    "size -2": b"-2\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "size of words": b"two\r\n{}\r\n0\r\n\r\n",
    "size over 64 bits": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "space before the size": b" 2\r\n{}\r\n0\r\n\r\n",
    "space behind the size": b"2 \r\n{}\r\n0\r\n\r\n",
    "size ended by LF": b"2\n{}\r\n0\r\n\r\n",
    "size ended by CR": b"2\r{}\r\n0\r\n\r\n",
    "data too long": b"2\r\n{}xx\r\n0\r\n\r\n",
    "data ended by LF": b"2\r\n{}\n0\r\n\r\n",
    "data ended by nothing": b"2\r\n{}0\r\n\r\n",
    "LF in an extension": b"2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "CR in an extension": b"2;a=\rb\r\n{}\r\n0\r\n\r\n",
    "NUL in an extension": b"2;a=\0\r\n{}\r\n0\r\n\r\n",
    "last chunk ended by LF": b"2\r\n{}\r\n0\n\r\n",
    "trailer ended by LF": b"2\r\n{}\r\n0\r\nX: 1\n\r\n",
    "trailer without a name": b"2\r\n{}\r\n0\r\n: 1\r\n\r\n",
    "trailer without a colon": b"2\r\n{}\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
}
FIELDS = {
    "space before the colon": message(b"X-Name : 1"),
    "tab before the colon": message(b"X-Name\t: 1"),
    "length with a space before the colon": message(b"Content-Length : 2", body=b"{}"),
    "coding with a space before the colon": message(b"Transfer-Encoding : chunked", body=CHUNKS),
    "folded": message(b"X-Name: 1", b" 2"),
    "folded with a tab": message(b"X-Name: 1", b"\t2"),
    "folded coding": message(b"Transfer-Encoding:", b" chunked", body=CHUNKS),
    "space before the first field": b"GET /fhir/Patient HTTP/1.1\r\n X: 1\r\nHost: g\r\n\r\n",
    "no name": message(b": 1"),
    "no colon": message(b"X-Name"),
    "NUL in a value": message(b"X-Name: a\0b"),
    "NUL in a name": message(b"X-\0Name: 1"),
    "CR in a value": message(b"X-Name: a\rb"),
    "CR before a field": message(b"X-Name: a\rContent-Length: 2", body=b"{}"),
    "LF in a value": message(b"X-Name: a\nContent-Length: 2", body=b"{}"),
    "CR CR LF": message(b"X-Name: a\r", b"X-Other: 1"),
    "bell in a value": message(b"X-Name: \x07"),
    "DEL in a value": message(b"X-Name: \x7f"),
    "parenthesis in a name": message(b"X(Name): 1"),
    "byte over 127 in a name": message("X-Näme: 1".encode()),
    "LF alone throughout": b"GET /fhir/Patient HTTP/1.1\nHost: gateway\n\n",
    "LF alone at the end": b"GET /fhir/Patient HTTP/1.1\r\nHost: gateway\r\n\n",
    "CR alone throughout": b"GET /fhir/Patient HTTP/1.1\rHost: gateway\r\r",
    "CR LF CR X": b"GET /fhir/Patient HTTP/1.1\r\nHost: gateway\r\n\rX",
    "no Host": b"GET /fhir/Patient HTTP/1.1\r\n\r\n",
    "two Hosts": message(b"Host: other"),
    "the same Host twice": message(b"Host: gateway"),
}
LINES = {
    "HTTP/0.9": b"GET /fhir/Patient\r\n\r\n",
    "HTTP/0.9 in words": request_with_line(b"GET /fhir/Patient HTTP/0.9"),
    "HTTP/2.0": request_with_line(b"GET /fhir/Patient HTTP/2.0"),
    "HTTP/1.2": request_with_line(b"GET /fhir/Patient HTTP/1.2"),
    "HTTP/3": request_with_line(b"GET /fhir/Patient HTTP/3"),
    "HTTP/1.10": request_with_line(b"GET /fhir/Patient HTTP/1.10"),
    "HTTP/01.1": request_with_line(b"GET /fhir/Patient HTTP/01.1"),
    "http/1.1": request_with_line(b"GET /fhir/Patient http/1.1"),
    "HTTP 1.1": request_with_line(b"GET /fhir/Patient HTTP 1.1"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0",
    "TLS hello": bytes.fromhex("16030100c4010000c00303") + bytes(190),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "garbage behind a good request": get("/fhir/Patient/1") + b"garbage\r\n\r\n",
    "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + message(),
    "space before the method": request_with_line(b" GET /fhir/Patient HTTP/1.1"),
    "a space in the target": request_with_line(b"GET /fhir/Patient x HTTP/1.1"),
    "a tab in the target": request_with_line(b"GET /fhir/Pati\tent HTTP/1.1"),
    "a tab for a space": request_with_line(b"GET\t/fhir/Patient\tHTTP/1.1"),
    "a space behind the version": request_with_line(b"GET /fhir/Patient HTTP/1.1 "),
    "NUL in the target": request_with_line(b"GET /fhir/Pati\0ent HTTP/1.1"),
    "CR in the target": request_with_line(b"GET /fhir/Pati\rent HTTP/1.1"),
    "byte over 127 in the target": request_with_line(
        "GET /fhir/Patient?name=Ошибка HTTP/1.1".encode()
    ),
    "byte over 127 in the path": request_with_line(b"GET /fhir/\xff HTTP/1.1"),
    "control byte in the target": request_with_line(b"GET /fhir/\x01 HTTP/1.1"),
    "no target": request_with_line(b"GET  HTTP/1.1"),
    "asterisk-form": request_with_line(b"OPTIONS * HTTP/1.1"),
    "asterisk-form of a read": request_with_line(b"GET * HTTP/1.1"),
    "authority-form": request_with_line(b"GET gateway:80 HTTP/1.1"),
    "target without a slash": request_with_line(b"GET fhir/Patient HTTP/1.1"),
    "absolute-form with a bad Host": b"GET http://gateway/fhir HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "absolute-form without Host": b"GET http://gateway/fhir/Patient HTTP/1.1\r\n\r\n",
    "absolute-form without an authority": request_with_line(b"GET http:///fhir/Patient HTTP/1.1"),
    "absolute-form with a backslash": request_with_line(
        b"GET http://gateway\\@other/fhir/Patient HTTP/1.1"
    ),
    "absolute-form with a port out of range": request_with_line(
        b"GET http://gateway:99999/fhir HTTP/1.1"
    ),
    "absolute-form with one slash": request_with_line(b"GET http:/gateway/fhir/Patient HTTP/1.1"),
    "absolute-form with a fragment": request_with_line(
        b"GET http://gateway#/fhir/Patient HTTP/1.1"
    ),
    "absolute-form with a password": request_with_line(
        b"GET http://u:p@gateway/fhir/Patient HTTP/1.1"
    ),
    "absolute-form of another scheme": request_with_line(
        b"GET ftp://gateway/fhir/Patient HTTP/1.1"
    ),
    "two slashes and a host": request_with_line(b"GET //other.invalid/fhir/Patient HTTP/1.1"),
    "three slashes": request_with_line(b"GET ///fhir/Patient HTTP/1.1"),
    "a fragment": request_with_line(b"GET /fhir/Patient#x HTTP/1.1"),
    "a fragment in the query": request_with_line(b"GET /fhir/Patient?a=b#x HTTP/1.1"),
}
PATHS = {
    "/fhir/../admin",
    "/fhir/..",
    "/fhir/.",
    "/fhir/./Patient",
    "/fhir/Patient/..",
    "/fhir/Patient/../../admin",
    "/fhir/%2e%2e/admin",
    "/fhir/%2E%2E/admin",
    "/fhir/.%2e/admin",
    "/fhir/%2e./admin",
    "/fhir/%2e/Patient",
    "/fhir/%252e%252e/admin",
    "/fhir/%25252e%25252e/admin",
    "/fhir/..%2fadmin",
    "/fhir/..%252fadmin",
    "/fhir/..%5cadmin",
    "/fhir/..\\admin",
    "/fhir\\..\\admin",
    "/fhir/Patient%2f..%2f..%2fadmin",
    "/fhir/%2f%2e%2e%2fadmin",
    "/fhir/..;/admin",
    "/fhir/..;a=b/admin",
    "/fhir/%2e%2e;/admin",
    "/fhir/..%3b/admin",
    "/fhir/Patient%2f1",
    "/fhir/Patient%252f1",
    "/fhir/Patient%5c1",
    "/fhir/Patient\\1",
    "/fhir/Patient//1",
    "/fhir//Patient//1",
    "//fhir/Patient",
    "//fhir//Patient",
    "/fhir//../x",
    "/fhir//..",
    "/fhir///./Patient",
    "/fhir//%2e%2e/x",
    "/fhir//..;/x",
    "/fhir//%2f../x",
    "/fhir/%2f/x",
    "/fhir//\\..\\x",
    "/fhir/Patient/%d8",
    "/fhir/Patient?name=%d8",
    "/fhir/Patient?name=%c0%ae",
    "/fhir/Patient?name=%ed%a0%80",
    "/fhir/%2fPatient",
    "/fhir/Patient/%00",
    "/fhir/Patient%00.json",
    "/fhir/Patient/%2500",
    "/fhir/Patient/%",
    "/fhir/Patient/%1",
    "/fhir/Patient/%u002e",
    "/fhir/Patient/%zz",
    "/fhir/Patient/%0d%0aX-Injected:%201",
    "/fhir/Patient/%0a",
    "/fhir/%c0%ae%c0%ae/admin",
    "/fhir/%e0%80%ae%e0%80%ae/admin",
    "/fhir/%uff0e%uff0e/admin",
}
# Links in responses are built from it.
HOSTS = (
    *("", "a b", "a/b", "a@b", "[::1", "h" * 300, "a:b", "gateway:80@evil.example", "a:65536"),
    *("[::::]", "[1]", "[127.0.0.1]", "::1", "a:1:2", "a,b", "a#b", "a?b", "a\\b", "http://a"),
)
CASES: dict[str, bytes] = {
    **FRAMING,
    **{f"chunk: {name}": message(CHUNKED, body=body) for name, body in CHUNK_FAULTS.items()},
    **{f"field: {name}": raw for name, raw in FIELDS.items()},
    **{
        f"host: {host}": f"GET /fhir/Patient/1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        for host in HOSTS
    },
    **{f"line: {name}": raw for name, raw in LINES.items()},
    **{
        f"path: {path}": request_with_line(f"GET {path} HTTP/1.1".encode())
        for path in sorted(PATHS)
    },
}


async def assert_rejected(wire: Wire, platform: Platform, reason: str = "bad-request") -> Response:
    """Check for one error, the end of the connection, and nothing at the platform."""
    response = await wire.read_response()
    assert (response.status, response.reason) == (errors.REASONS[reason].status, reason)
    assert response.header("connection") == "close"
    assert await wire.at_end()
    assert not any(
        request.complete or "smuggled" in request.target for request in platform.requests
    )
    return response


@pytest.mark.parametrize("followed_by", ["nothing", "a request"])
@pytest.mark.parametrize("name", CASES)
async def test_an_ambiguous_request_is_rejected(
    gateway: RunningGateway, platform: Platform, name: str, followed_by: str
) -> None:
    """A request after it is not read."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(CASES[name] + (SMUGGLED if followed_by == "a request" else b""))
        response = await assert_rejected(wire, platform)
    assert platform.requests == []
    record = await gateway.record_of(response.header("x-request-id"))
    assert (record["status"], record["reason"]) == (400, "bad-request")
    assert record["outcome"] == "client-error"
    assert "other.invalid" not in str(record)


async def in_segments(wire: Wire, raw: bytes) -> None:
    for at in range(0, len(raw), 7):
        await wire.send(raw[at : at + 7])
        await asyncio.sleep(0)


async def half_closed(wire: Wire, raw: bytes) -> None:
    await wire.send(raw)
    wire.writer.write_eof()


async def after_a_valid_one(wire: Wire, raw: bytes) -> None:
    assert (await wire.fetch(get("/fhir/Patient/1"))).status == 200
    await wire.send(raw)


async def with_an_upgrade(wire: Wire, raw: bytes) -> None:
    first, rest = raw.split(b"\r\n", 1)
    await wire.send(b"\r\n".join((first, *H2C, rest)))


@pytest.mark.parametrize("way", [in_segments, half_closed, after_a_valid_one, with_an_upgrade])
@pytest.mark.parametrize("name", FRAMING)
async def test_ambiguous_framing_is_rejected_in_every_way_to_send_it(
    gateway: RunningGateway,
    platform: Platform,
    name: str,
    way: Callable[[Wire, bytes], Awaitable[None]],
) -> None:
    async with await Wire.open(gateway.address) as wire:
        await way(wire, FRAMING[name] + SMUGGLED)
        # The valid one has its response.
        del platform.requests[: way is after_a_valid_one]
        await assert_rejected(wire, platform)
    assert platform.requests == []


@pytest.mark.parametrize("name", CHUNK_FAULTS)
async def test_an_invalid_chunk_leaves_the_platform_an_incomplete_message(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    first = b"POST /fhir/Binary HTTP/1.1"
    async with await Wire.open(gateway.address) as wire:
        await wire.send(message(CHUNKED, first=first) + b"5\r\nhello\r\n")
        await platform.wait_for_requests(1)
        await wire.send(CHUNK_FAULTS[name] + SMUGGLED)
        await assert_rejected(wire, platform)
    assert len(platform.requests) == 1
    assert not platform.requests[0].complete


async def test_nothing_is_read_after_a_connection_close(
    gateway: RunningGateway, platform: Platform
) -> None:
    """RFC 9112 section 9.6."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", "Connection: close"))
        response = await wire.read_response()
        assert (response.status, response.header("connection")) == (200, "close")
        wire.writer.write(get("/fhir/Patient/2"))
        assert await wire.at_end()
    assert len(platform.requests) == 1


@pytest.mark.parametrize("followed_by", [get("/fhir/Patient/2"), b"xx", FRAMING["two lengths"]])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_comes_together_with_a_connection_close_is_not_read(
    gateway: RunningGateway, platform: Platform, version: str, followed_by: bytes
) -> None:
    """The request before it is served, whatever it is."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", "Connection: close", version=version) + followed_by)
        response = await wire.read_response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert await wire.at_end()
    assert [request.target for request in platform.requests] == ["/r5/Patient/1"]


async def test_what_may_be_a_body_without_a_length_is_not_left_out(
    gateway: RunningGateway, platform: Platform
) -> None:
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient", method="POST", version="1.0") + b"{}")
        await assert_rejected(wire, platform)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO"])
async def test_nothing_is_read_after_a_rejected_method(
    gateway: RunningGateway, platform: Platform, method: str
) -> None:
    async with await Wire.open(gateway.address) as wire:
        length = f"Content-Length: {len(SMUGGLED)}"
        await wire.send(get("/fhir/Patient/1", length, method=method) + SMUGGLED)
        await assert_rejected(wire, platform, "method-not-allowed")


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ")
UPGRADES = {
    "h2c": H2C,
    "h2c, not named by Connection": (b"Upgrade: h2c",),
    "h2c twice": (b"Upgrade: h2c", *H2C),
    "h2c and websocket": (b"Connection: upgrade", b"Upgrade: h2c, websocket"),
    "websocket": (
        *(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"),
        *(b"Sec-WebSocket-Key: dGhlIHNhbXBsZQ==", b"Sec-WebSocket-Version: 13"),
    ),
    "TLS": (b"Connection: Upgrade", b"Upgrade: TLS/1.2"),
    "nothing": (b"Connection: Upgrade", b"Upgrade:"),
    "nothing, not named by Connection": (b"Upgrade:",),
}
UPGRADED = {
    "without a body": b"GET /fhir/Patient/1 HTTP/1.1\r\n%s\r\n\r\n",
    "with a length": b"POST /fhir/Basic HTTP/1.1\r\n%%s\r\nContent-Length: %d\r\n\r\n%s"
    % (len(SMUGGLED), SMUGGLED),
    "with a long body": b"POST /fhir/Basic HTTP/1.1\r\n%%s\r\nContent-Length: 90000\r\n\r\n%s"
    % (b"x" * 90_000),
    "in chunks": b"POST /fhir/Basic HTTP/1.1\r\n%%s\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    "with a trailer": b"POST /fhir/Basic HTTP/1.1\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"4\r\n\r\n\r\n\r\n0\r\nX-Sum: 1\r\n\r\n",
}
CUTS = {"in one piece": 1_000_000, "byte by byte": 1, "in pieces of 37": 37}


async def send_in_segments(wire: Wire, raw: bytes, size: int) -> None:
    """Send it so that the gateway reads about this much at a time; the middle in one."""
    pieces = [*range(0, 1000, size), *range(max(len(raw) - 500, 1000), len(raw), size), len(raw)]
    for at, end in itertools.pairwise(pieces):
        await wire.send(raw[at:end])
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", UPGRADED)
@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES)
async def test_an_upgrade_does_not_change_where_a_request_ends(
    gateway: RunningGateway, platform: Platform, fields: tuple[bytes, ...], kind: str, size: int
) -> None:
    """The request after it is received complete, and once."""
    raw = UPGRADED[kind] % b"\r\n".join((b"Host: gateway", *fields))
    async with await Wire.open(gateway.address) as wire:
        await send_in_segments(wire, raw + raw + get("/fhir/Patient/2") + get("/admin"), size)
        responses = [await wire.read_response() for _ in range(4)]
    assert [response.status for response in responses] == [200, 200, 200, 404]
    first = "/r5/Patient/1" if raw.startswith(b"GET") else "/r5/Basic"
    assert [request.target for request in platform.requests] == [first, first, "/r5/Patient/2"]
    for request in platform.requests:
        for name, _ in request.headers:
            assert not name.lower().startswith(("upgrade", "connection", "http2", "sec-websocket"))


@pytest.mark.parametrize("size", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", UPGRADED)
async def test_http_2_after_an_upgrade_is_rejected(
    gateway: RunningGateway, platform: Platform, kind: str, size: int
) -> None:
    """No frame of it reaches the platform."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    raw = UPGRADED[kind] % b"\r\n".join((b"Host: gateway", *H2C))
    async with await Wire.open(gateway.address) as wire:
        await send_in_segments(wire, raw + preface + SMUGGLED, size)
        assert (await wire.read_response()).status == 200
        response = await wire.read_response()
        assert (response.status, response.reason) == (400, "bad-request")
        assert await wire.at_end()
    assert len(platform.requests) == 1


@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_rejected_methods_stay_so_with_an_upgrade(
    gateway: RunningGateway, platform: Platform, method: str, fields: tuple[bytes, ...]
) -> None:
    async with await Wire.open(gateway.address) as wire:
        target = b"gateway:80" if method == "CONNECT" else b"/fhir/Patient"
        first = b"%s %s HTTP/1.1" % (method.encode(), target)
        await wire.send(message(*fields, first=first) + SMUGGLED)
        await assert_rejected(wire, platform, "method-not-allowed")
    assert platform.requests == []


ODD = {
    "an empty line before": b"\r\n" + message(first=b"GET /fhir/Patient HTTP/1.1"),
    "fields in small letters": b"GET /fhir/Patient HTTP/1.1\r\nhost: gateway\r\n\r\n",
    "spaces around a value": message(b"X-Name: \t 1 \t ", first=b"GET /fhir/Patient HTTP/1.1"),
    "no space before a value": message(b"X-Name:1", first=b"GET /fhir/Patient HTTP/1.1"),
    "an empty value": message(b"X-Empty:", first=b"GET /fhir/Patient HTTP/1.1"),
    "a body in a GET": message(
        b"Content-Length: 2", body=b"{}", first=b"GET /fhir/Patient HTTP/1.1"
    ),
    "CHUNKED": message(b"Transfer-Encoding: CHUNKED", body=CHUNKS),
    "an upper-case size": message(CHUNKED, body=b"A\r\n{        }\r\n0\r\n\r\n"),
    "zeros before a size": message(CHUNKED, body=b"0002\r\n{}\r\n000\r\n\r\n"),
    "extensions": message(CHUNKED, body=b'2;a=b;c="d"\r\n{}\r\n0;e\r\n\r\n'),
    "trailers": message(
        CHUNKED, body=b"2\r\n{}\r\n0\r\nAuthorization: Basic x\r\nX-Sum: 1\r\n\r\n"
    ),
    "zeros before a length": message(b"Content-Length: 0002", body=b"{}"),
    "length 0": message(b"Content-Length: 0"),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_unusual_unambiguous_request_is_forwarded(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    """In its simplest form."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(ODD[name] + get("/fhir/Patient/2"))
        assert [(await wire.read_response()).body for _ in range(2)] == [PATIENT] * 2
    first, second = platform.requests
    assert (first.target, second.target) == ("/r5/Patient", "/r5/Patient/2")
    assert first.body.replace(b" ", b"") in (b"", b"{}")
    assert first.all("transfer-encoding") in ([], ["chunked"])
    assert len(first.all("content-length")) + len(first.all("transfer-encoding")) <= 1
    assert first.header("authorization") == "Bearer token-1"
    assert first.header("x-sum") is None
