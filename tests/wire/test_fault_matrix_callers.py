"""The fault matrix, part 3: what can go wrong between callers and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import gzip

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import PATIENT, Line, Platform, fhir, read_body, reading, silence
from tests.doubles.wire import Wire, ask, get, post
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import reset
from tests.wire.evidence import Expected, check, until_metric

READ = get("/fhir/Patient/1")
ACTIVE = "dhp_gateway_upstream_connections"


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
    await check(gateway, platform, None, Expected(0, outcome="aborted"))


async def test_leaves_while_a_read_waits(gateway: Running, platform: Platform) -> None:
    """A read ends when its caller has reset the connection: the platform's connection is closed."""
    ended = asyncio.Event()

    async def watch(line: Line) -> None:
        await silence(line)
        ended.set()

    platform.answer(watch)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        await platform.until_seen(1)
        reset(wire)
    await ended.wait()
    await check(gateway, platform, None, Expected(0, outcome="aborted"))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_leaves_while_a_write_waits(
    gateway: Running, platform: Platform, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A write takes its course, and the audit tells what the platform said to it."""
    proceed = asyncio.Event()

    async def watch(line: Line) -> None:
        await read_body(line.reader, line.seen)
        await proceed.wait()
        line.writer.write(fhir(PATIENT, 201))

    platform.answer(watch)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(post("/fhir/Patient/1", b"{}", method=method))
        await platform.until_seen(1)
        reset(wire)
        # The audit is to say that it was gone before the answer came.
        await asyncio.sleep(0.05)
    proceed.set()
    # 0: no response was sent.
    await check(gateway, platform, None, Expected(0, outcome="aborted", upstream_status=201))
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

    async def slow(line: Line) -> None:
        await read_body(line.reader, line.seen)
        await asyncio.sleep(0.1)
        line.writer.write(fhir(PATIENT))

    platform.answer(slow)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(WHOLE[name])
        if late:
            await platform.until_seen(1)
        wire.writer.write_eof()
        reply = await asyncio.wait_for(wire.reply(), 30)
        assert (reply.status, reply.body, reply.header("connection")) == (200, PATIENT, "close")
        assert await asyncio.wait_for(wire.at_end(), 30)
    (record,) = await gateway.audit()
    assert record["outcome"] == "success"


async def test_half_closes_behind_many_requests(gateway: Running, platform: Platform) -> None:
    """All that came whole is answered, what is cut is not, and reaches the platform not either."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ * 20 + post("/fhir/Patient", b"{}")[:-1])
        wire.writer.write_eof()
        replies = [await asyncio.wait_for(wire.reply(), 30) for _ in range(20)]
        assert await asyncio.wait_for(wire.at_end(), 30)
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
        assert await asyncio.wait_for(wire.at_end(), 30)
    assert not any(seen.complete for seen in platform.seen)


async def test_half_closes_behind_what_is_refused(gateway: Running, platform: Platform) -> None:
    """A refusal reaches it as well."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(b"nonsense\r\n\r\n")
        wire.writer.write_eof()
        reply = await asyncio.wait_for(wire.reply(), 30)
        assert (reply.status, reply.reason) == (400, "bad-request")
        assert await asyncio.wait_for(wire.at_end(), 30)
    assert platform.seen == []


async def test_leaves_while_receiving(gateway: Running, platform: Platform) -> None:
    """No more is read from the platform for a caller that is gone."""
    stopped = asyncio.Event()

    async def endless(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                line.writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await line.writer.drain()
        stopped.set()

    platform.answer(endless)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(READ)
        assert await wire.interim() == 200
    await stopped.wait()
    await check(gateway, platform, None, Expected(200, outcome="aborted", upstream_status=200))


@pytest.mark.parametrize("part", [b"G", b"GET /fhir", READ[:-2], b"\r\n"])
async def test_slow_header(start_gateway: StartGateway, platform: Platform, part: bytes) -> None:
    """A header that does not come in time is answered 408, and the connection closed."""
    async with (
        start_gateway(limits={"header_timeout": 0.2}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(part)
        reply = await wire.reply()
        assert reply.header("connection") == "close"
        assert await wire.at_end()
        expected = Expected(408, "header-timeout", seen=0, outcome="client-error")
        await check(gateway, platform, reply, expected)


async def test_slow_body(start_gateway: StartGateway, platform: Platform) -> None:
    """A body that stalls is a 408; the platform never sees the request complete."""
    platform.answer(reading(asyncio.Event()))
    async with (
        start_gateway(limits={"header_timeout": 0.2}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(post("/fhir/Binary", b"x" * 100, "Content-Type: image/png")[:-50])
        reply = await wire.reply()
        assert reply.header("connection") == "close"
        assert await wire.at_end()
        assert not platform.seen[0].complete
        expected = Expected(408, "body-timeout", outcome="client-error")
        await check(gateway, platform, reply, expected)


TOO_LARGE = {
    "target": (get("/fhir/Patient?name=" + "x" * 9000), 414, "url-too-long"),
    "field": (get("/fhir/Patient/1", "X-Long: " + "x" * 17_000), 431, "header-too-large"),
    "many fields": (get("/fhir/Patient/1", *["X-Many: 1"] * 300), 431, "header-too-large"),
    "all fields": (
        get("/fhir/Patient/1", *[f"X-{n}: {'x' * 15_000}" for n in range(5)]),
        431,
        "header-too-large",
    ),
}


@pytest.mark.parametrize(("message", "status", "reason"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_header_too_large(
    gateway: Running, platform: Platform, message: bytes, status: int, reason: str
) -> None:
    """What is over a limit of the header is refused with the limit's own reason."""
    reply = await ask(gateway.address, message)
    assert reply.header("connection") == "close"
    await check(gateway, platform, reply, Expected(status, reason, seen=0, outcome="client-error"))


@pytest.mark.parametrize("expects", [(), ("Expect: 100-continue",)], ids=["sent", "announced"])
async def test_body_too_large_by_its_length(
    start_gateway: StartGateway, platform: Platform, expects: tuple[str, ...]
) -> None:
    """A length over the limit is refused before the body is read, or invited."""
    async with (
        start_gateway(limits={"max_body_bytes": 1000}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(get("/fhir/Patient", "Content-Length: 1001", *expects, method="POST"))
        reply = await wire.reply()
        expected = Expected(413, "payload-too-large", seen=0, outcome="client-error")
        await check(gateway, platform, reply, expected)


async def test_body_too_large_in_chunks(start_gateway: StartGateway, platform: Platform) -> None:
    """Chunks are counted: over the limit they are refused, and never complete at the platform."""
    platform.answer(reading(asyncio.Event()))
    async with (
        start_gateway(limits={"max_body_bytes": 1000}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST"))
        for _ in range(3):
            await wire.send(b"190\r\n" + b"x" * 400 + b"\r\n")
        reply = await wire.reply()
        assert (reply.status, reply.reason) == (413, "payload-too-large")
        assert await wire.at_end()
    assert all(not seen.complete for seen in platform.seen)


async def test_pipelining_is_bounded(gateway: Running, platform: Platform) -> None:
    """However much a caller sends ahead, one request after the other is served, all in order."""
    count = 200
    platform.answer(fhir(b'{"resourceType":"Patient"}'))
    async with await Wire.open(gateway.address) as wire:
        sending = asyncio.ensure_future(
            wire.send(b"".join(get(f"/fhir/Patient/{n}") for n in range(count)))
        )
        for _ in range(count):
            assert (await wire.reply()).status == 200
        await sending
    assert [seen.target for seen in platform.seen] == [f"/r5/Patient/{n}" for n in range(count)]


MALFORMED = {
    "length and chunks": get("/fhir/P", "Content-Length: 2", "Transfer-Encoding: chunked"),
    "bad chunk": get("/fhir/P", "Transfer-Encoding: chunked", method="POST") + b"0x2\r\n{}",
    "bare LF": READ.replace(b"\r\n", b"\n"),
    "absolute-form": get("http://u:p@gateway/fhir/Patient/1"),
    "asterisk-form": get("*", method="OPTIONS"),
    "dot segments": get("/fhir/../admin"),
    "encoded dot segments": get("/fhir/%2e%2e/admin"),
    "encoded slash": get("/fhir/Patient%2f1"),
    "backslash": get("/fhir/..\\admin"),
    "host in the path": get("//evil.example/fhir/Patient/1"),
    "NUL": get("/fhir/Patient/1", "X: a\0b"),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
async def test_ambiguous_message(gateway: Running, platform: Platform, message: bytes) -> None:
    """What could be read in two ways is refused and closed; nothing is forwarded."""
    async with await Wire.open(gateway.address) as wire:
        reply = await wire.ask(message)
        assert reply.header("connection") == "close"
        assert await wire.at_end()
    expected = Expected(400, "bad-request", seen=0, outcome="client-error")
    record = await check(gateway, platform, reply, expected)
    assert "evil" not in str(record)
    assert b"evil" not in reply.body


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "get"])
async def test_method(gateway: Running, platform: Platform, method: str) -> None:
    """Methods that FHIR does not use are refused, compared exactly."""
    reply = await ask(gateway.address, get("/fhir/Patient/1", method=method))
    assert reply.header("allow")
    expected = Expected(405, "method-not-allowed", seen=0, outcome="client-error")
    await check(gateway, platform, reply, expected)


async def test_injection_by_request_id(gateway: Running, platform: Platform) -> None:
    """A request id with other characters than ours reaches neither answer, platform nor audit."""
    reply = await ask(gateway.address, get("/fhir/Patient/1", 'X-Request-Id: a"b}<script>'))
    record = await check(gateway, platform, reply, Expected(200, upstream_status=200))
    for value in (reply.header("x-request-id"), platform.seen[0].header("x-request-id")):
        assert value == record["request_id"]
        assert "script" not in (value or "")


async def test_spoofed_fields(gateway: Running, platform: Platform) -> None:
    """What claims an identity or an origin ends here, however it is spelled."""
    spoofed = [
        *("Authorization: Bearer theirs", "authorization: Bearer theirs"),
        *("X-Forwarded-For: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4"),
        *("X-Forwarded-Host: evil", "Cookie: a=b", "Proxy-Authorization: x", "X-Api-Key: k"),
    ]
    reply = await ask(gateway.address, get("/fhir/Patient/1", *spoofed))
    record = await check(gateway, platform, reply, Expected(200, upstream_status=200))
    assert record["remote"] == "127.0.0.1"
    names = {name.lower() for name, _ in platform.seen[0].headers}
    assert names == {"host", "authorization", "accept-encoding", "via", "x-request-id"}
    assert platform.seen[0].header("authorization") == "Bearer token-1"


async def test_compressed_upload(gateway: Running, platform: Platform) -> None:
    """A compressed body is never opened: it passes as it is, whatever it would unpack to."""
    bomb = gzip.compress(bytes(20_000_000))
    reply = await ask(gateway.address, post("/fhir/Binary", bomb, "Content-Encoding: gzip"))
    await check(gateway, platform, reply, Expected(200, upstream_status=200))
    assert platform.seen[0].body == bomb
    assert platform.seen[0].header("content-encoding") == "gzip"


async def test_more_requests_than_may_be_in_flight(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Over the limit a request is refused with Retry-After, and those in flight are served."""
    release = asyncio.Event()

    async def hold(line: Line) -> None:
        await read_body(line.reader, line.seen)
        await release.wait()
        line.writer.write(fhir())

    platform.answer(hold)
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
        await until_metric(gateway, "dhp_gateway_inflight_requests", 0)
        assert await gateway.metric("dhp_gateway_requests_total", reason="overloaded") == 4


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
    await until_metric(gateway, "dhp_gateway_inflight_requests", 0)
    assert errors_in(caplog) == []
    assert platform.seen == []


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error: nothing that a caller does is one."""
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
