"""The duties of an HTTP intermediary (RFC 9110, 9112), one by one, over raw sockets.

The numbers are those of the project's own list of duties. The gateway is a gateway in the sense of
RFC 9110 section 3.7: an origin server for its callers, a user agent for the platform. Where a duty
has many spellings, `test_strictness.py` and `test_platform_strictness.py` go through them.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.doubles.gateway import Running, running
from tests.doubles.platform import (
    PATIENT,
    Line,
    Platform,
    chunked,
    fhir,
    http,
    outcome,
    read_body,
    reading,
    then_close,
    unauthorized,
)
from tests.doubles.sso import Sso
from tests.doubles.wire import Reply, TruncatedResponseError, Wire, ask, get, post
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import tls_platform

READ = get("/fhir/Patient/1")


async def refused(gateway: Running, platform: Platform, message: bytes, status: int = 400) -> Reply:
    """Send a message that must be refused: an outcome, the end, and nothing at the platform."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(message)
        reply = await wire.reply()
        assert reply.status == status
        assert reply.reason is not None
        if status == 400:
            assert reply.header("connection") == "close"
            assert await wire.at_end()
    assert platform.seen == []
    return reply


async def failed(gateway: Running, platform: Platform, answer: bytes) -> None:
    """Let the platform answer so to a write: the caller gets a 502, the connection is dropped."""
    platform.script(answer)
    reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
    assert (reply.status, reply.reason) == (502, "upstream-failed")
    assert (await ask(gateway.address, READ)).status == 200
    assert [seen.connection for seen in platform.seen] == [1, 2]


async def test_duty_01_fields_that_connection_names(gateway: Running, platform: Platform) -> None:
    """Connection and what it names are removed, in requests and in answers."""
    platform.answer(fhir(PATIENT, 200, ("Connection", "X-Hop, X-Other"), ("x-hop", "1")))
    reply = await ask(
        gateway.address,
        get("/fhir/Patient/1", "Connection: x-one", "Connection: X-Two", "X-One: 1", "X-TWO: 2"),
    )
    seen = platform.seen[0]
    for name in ("connection", "x-one", "x-two"):
        assert seen.header(name) is None
    assert reply.header("connection") == "keep-alive"
    assert reply.header("x-hop") is None


async def test_duty_02_hop_by_hop_fields(gateway: Running, platform: Platform) -> None:
    """Fields that are known to be hop-by-hop go no further, in both directions."""
    fields = ("Keep-Alive", "Proxy-Connection", "TE", "Proxy-Authenticate", "Proxy-Authorization")
    platform.answer(fhir(PATIENT, 200, *((name, "x") for name in fields), ("Trailer", "X-Sum")))
    reply = await ask(
        gateway.address, get("/fhir/Patient/1", *(f"{name}: x" for name in fields), "Trailer: X")
    )
    for name in (*fields, "Trailer"):
        assert platform.seen[0].header(name) is None
        # The gateway says itself how long the connection may rest.
        assert reply.header(name) == ("timeout=120" if name == "Keep-Alive" else None)


async def test_duty_03_own_fields_survive(gateway: Running, platform: Platform) -> None:
    """A caller cannot have the gateway's own fields removed by naming them in Connection."""
    named = "Connection: Authorization, Host, Via, X-Request-Id, Content-Length"
    await ask(gateway.address, post("/fhir/Patient", b"{}", named))
    seen = platform.seen[0]
    assert seen.header("authorization") == "Bearer token-1"
    assert seen.header("via") == "1.1 dhp-gateway"
    assert seen.header("x-request-id")
    assert seen.header("host") == f"127.0.0.1:{platform.port}"
    assert seen.body == b"{}"


async def test_duty_04_unknown_fields_in_their_order(gateway: Running, platform: Platform) -> None:
    """Unknown fields pass; lines of one name keep their order and are never joined."""
    platform.answer(fhir(PATIENT, 200, ("X-Odd", "b"), ("X-Other", "1"), ("X-Odd", "a, c")))
    reply = await ask(gateway.address, get("/fhir/Patient/1", "X-Odd: 2", "X-B: x", "X-Odd: 1, 3"))
    assert platform.seen[0].all("x-odd") == ["2", "1, 3"]
    assert reply.all("x-odd") == ["b", "a, c"]


async def test_duty_05_via_is_added(gateway: Running, platform: Platform) -> None:
    """Via is extended with a pseudonym, never a host name; earlier entries stay."""
    await ask(gateway.address, get("/fhir/Patient/1", "Via: 1.0 his"))
    assert platform.seen[0].all("via") == ["1.0 his", "1.1 dhp-gateway"]


@pytest.mark.parametrize("via", ["1.1 dhp-gateway", "1.0 a, HTTP/1.1 DHP-Gateway (x)"])
async def test_duty_06_no_loop(gateway: Running, platform: Platform, via: str) -> None:
    """A request that passed here already is not forwarded."""
    reply = await refused(gateway, platform, get("/fhir/Patient/1", f"Via: {via}"), 508)
    assert reply.reason == "loop"


async def test_duty_07_max_forwards(gateway: Running, platform: Platform) -> None:
    """An OPTIONS with hops left goes on with one less; one without is answered here."""
    last = await ask(gateway.address, get("/fhir/", "Max-Forwards: 0", method="OPTIONS"))
    assert last.status == 204
    assert set((last.header("allow") or "").split(", ")) >= {"GET", "OPTIONS", "POST"}
    assert platform.seen == []
    await ask(gateway.address, get("/fhir/", "Max-Forwards: 10", method="OPTIONS"))
    assert platform.seen[0].header("max-forwards") == "9"
    await ask(gateway.address, get("/fhir/Patient/1", "Max-Forwards: 0"))
    assert platform.seen[1].header("max-forwards") == "0"


async def test_duty_08_trace_and_connect(gateway: Running, platform: Platform) -> None:
    """TRACE and CONNECT are refused and never tunnel."""
    for message in (
        get("/fhir/Patient/1", method="TRACE"),
        b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n",
    ):
        async with await Wire.open(gateway.address) as wire:
            reply = await wire.ask(message)
            assert reply.status in (400, 405)
            assert await wire.at_end()
    assert platform.seen == []


async def test_duty_09_own_version(gateway: Running, platform: Platform) -> None:
    """Each message goes out as HTTP/1.1, whatever came in; an unknown version is refused."""
    platform.answer(fhir().replace(b"HTTP/1.1", b"HTTP/1.0"))
    async with await Wire.open(gateway.address) as wire:
        # The platform's double takes nothing but HTTP/1.1.
        await wire.send(get("/fhir/Patient/1", version="1.0"))
        assert (await wire.reader.readline()).startswith(b"HTTP/1.1 200")
    platform.seen.clear()
    await refused(gateway, platform, get("/fhir/Patient/1", version="2.0"))


@pytest.mark.parametrize("host", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nHost: a\r\n"])
async def test_duty_10_exactly_one_host(gateway: Running, platform: Platform, host: bytes) -> None:
    """A request of HTTP/1.1 without a Host, or with two, is refused."""
    await refused(gateway, platform, b"GET /fhir/Patient HTTP/1.1\r\n" + host + b"\r\n")


async def test_duty_11_absolute_form(gateway: Running, platform: Platform) -> None:
    """A target in absolute-form has to name the gateway, whatever Host says; it is no proxy."""
    for host in ("evil.example", "gateway"):
        reply = await ask(gateway.address, get(f"http://{host}/fhir/Patient/1"))
        assert (reply.status, reply.reason) == (421, "misdirected")
    assert platform.seen == []
    assert (await ask(gateway.address, get(f"{gateway.url}/Patient/1"))).status == 200
    assert platform.seen[0].target == "/r5/Patient/1"


async def test_duty_12_target_unchanged(gateway: Running, platform: Platform) -> None:
    """Path and query pass byte for byte."""
    target = "/Patient/a%7eb;v=1?q=%41%2F+%20&q=|\"'&&x"
    await ask(gateway.address, get("/fhir" + target))
    assert platform.seen[0].target == "/r5" + target


async def test_duty_13_space_before_colon(gateway: Running, platform: Platform) -> None:
    """White space before a colon: a request is refused, an answer too."""
    await refused(gateway, platform, get("/fhir/Patient/1", "X-Name : 1"))
    await failed(gateway, platform, http(200, b"{}", ("X-Name ", "1")))


async def test_duty_14_space_before_first_field(gateway: Running, platform: Platform) -> None:
    """White space before the first field is refused."""
    await refused(gateway, platform, b"GET /fhir/Patient HTTP/1.1\r\n Host: gateway\r\n\r\n")


async def test_duty_15_folded_lines(gateway: Running, platform: Platform) -> None:
    """Obsolete folding: a request is refused, an answer is a 502."""
    await refused(gateway, platform, get("/fhir/Patient/1", "X-Name: 1\r\n 2"))
    await failed(gateway, platform, http(200, b"{}", ("X-Name", "1\r\n 2")))


@pytest.mark.parametrize("byte", ["\r", "\n", "\0"])
async def test_duty_16_control_bytes(gateway: Running, platform: Platform, byte: str) -> None:
    """CR, LF or NUL inside a value are refused in both directions."""
    await refused(gateway, platform, get("/fhir/Patient/1", f"X-Name: a{byte}b"))
    await failed(gateway, platform, http(200, b"{}", ("X-Name", f"a{byte}b")))


async def test_duty_17_octets(gateway: Running, platform: Platform) -> None:
    """Values are bytes: what is not ASCII or not UTF-8 passes unchanged."""
    platform.answer(fhir(PATIENT, 200, ("X-Name", "\xe9\xff")))
    reply = await ask(gateway.address, get("/fhir/Patient/1", "X-Name: Jos\xe9"))
    assert platform.seen[0].header("x-name") == "Jos\xe9"
    assert reply.header("x-name") == "\xe9\xff"


async def test_duty_18_length_and_coding(gateway: Running, platform: Platform) -> None:
    """Content-Length with Transfer-Encoding: refused in both directions."""
    fields = ("Content-Length: 2", "Transfer-Encoding: chunked")
    message = get("/fhir/Patient", *fields, method="POST") + b"2\r\n{}\r\n0\r\n\r\n"
    await refused(gateway, platform, message)
    await failed(gateway, platform, http(200, b"{}", ("Transfer-Encoding", "chunked")))


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "gzip, chunked", "xchunked"])
async def test_duty_19_codings_of_requests(
    gateway: Running, platform: Platform, coding: str
) -> None:
    """A request in any transfer coding but chunked is refused."""
    message = get("/fhir/Patient", f"Transfer-Encoding: {coding}", method="POST")
    await refused(gateway, platform, message + b"2\r\n{}\r\n0\r\n\r\n")


async def test_duty_20_no_coding_in_http_1_0(gateway: Running, platform: Platform) -> None:
    """Transfer-Encoding in HTTP/1.0 is faulty framing, in both directions."""
    message = get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST", version="1.0")
    await refused(gateway, platform, message + b"2\r\n{}\r\n0\r\n\r\n")
    await failed(gateway, platform, chunked(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize("length", ["2, 3", "x", "-1", "2 2", "18446744073709551618"])
async def test_duty_21_invalid_lengths(gateway: Running, platform: Platform, length: str) -> None:
    """An invalid Content-Length: a request is refused, an answer is a 502 and discarded."""
    await refused(
        gateway, platform, get("/fhir/Patient", f"Content-Length: {length}", method="POST")
    )
    await failed(gateway, platform, http(200, b"", ("Content-Length", length), length=False))


async def test_duty_22_right_lengths_only(gateway: Running, platform: Platform) -> None:
    """A length is forwarded only while it is right: a rewritten body has its own."""
    link = f'{{"resourceType":"Bundle","link":[{{"url":"{platform.url}/Patient"}}]}}'.encode()
    platform.answer(fhir(link))
    reply = await ask(gateway.address, get("/fhir/Patient"))
    assert reply.json()["link"][0]["url"] == "http://gateway/fhir/Patient"
    assert int(reply.header("content-length") or "") == len(reply.body) != len(link)


async def test_duty_23_chunk_extensions(gateway: Running, platform: Platform) -> None:
    """The platform's chunk extensions are ignored, within bounds; chunk sizes are strict."""
    head = chunked(end=False)
    platform.script(head + b"%x;a=b\r\n%s\r\n0;c\r\n\r\n" % (len(PATIENT), PATIENT))
    reply = await ask(gateway.address, READ)
    assert reply.body == PATIENT
    platform.seen.clear()
    platform.drop_connections()
    platform.connections = 0
    await failed(gateway, platform, head + b"2;a=" + b"x" * 700_000 + b"\r\n{}\r\n0\r\n\r\n")
    size = get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST") + b"0x2\r\n{}\r\n"
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.ask(size)).status == 400
        assert await wire.at_end()


async def test_duty_24_trailers(gateway: Running, platform: Platform) -> None:
    """Trailers are dropped in both directions, never merged into a header."""
    platform.answer(chunked(b"{}", end=False) + b"0\r\nX-Trailer: 1\r\nETag: x\r\n\r\n")
    body = b"2\r\n{}\r\n0\r\nX-Trailer: 1\r\nAuthorization: x\r\n\r\n"
    reply = await ask(
        gateway.address,
        get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST") + body,
    )
    assert (reply.header("x-trailer"), reply.header("etag")) == (None, None)
    (seen,) = platform.seen
    assert (seen.body, seen.header("x-trailer")) == (b"{}", None)
    assert seen.header("authorization") == "Bearer token-1"


async def test_duty_25_codings_of_answers(gateway: Running, platform: Platform) -> None:
    """An answer in a transfer coding that the gateway does not undo is refused."""
    coded = chunked(b"\x1f\x8b").replace(b"chunked", b"gzip, chunked")
    await failed(gateway, platform, coded)


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_duty_26_incomplete_request(
    gateway: Running, platform: Platform, framing: str
) -> None:
    """A request that breaks off is never complete at the platform."""
    ended = asyncio.Event()
    platform.answer(reading(ended))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Binary", framing, method="POST") + b"5\r\nhello\r\n")
        await platform.until_seen(1)
    await ended.wait()
    (seen,) = platform.seen
    assert not seen.complete
    (record,) = await gateway.audit()
    assert record["outcome"] == "aborted"


async def test_duty_27_incomplete_answer(gateway: Running, platform: Platform) -> None:
    """An incomplete answer is a 502 before its header went out, and an abort after that."""
    platform.answer(then_close(chunked(PATIENT, end=False)))
    assert (await ask(gateway.address, post("/fhir/Patient", b"{}"))).status == 502
    platform.answer(then_close(chunked(b" " * 100_000, end=False)))
    with pytest.raises(TruncatedResponseError):
        await ask(gateway.address, post("/fhir/Patient", b"{}"))


async def test_duty_28_framing_by_version(gateway: Running, platform: Platform) -> None:
    """No chunks for HTTP/1.0, and neither a length nor chunks with 204."""
    platform.script(chunked(PATIENT), http(204, b"", ("Content-Length", "0"), length=False))
    old = await ask(gateway.address, get("/fhir/Patient/1", version="1.0"))
    assert old.header("transfer-encoding") is None
    assert old.header("content-length") == str(len(PATIENT))
    none = await ask(gateway.address, get("/fhir/Patient/1", method="DELETE"))
    assert none.status == 204
    assert (none.header("transfer-encoding"), none.header("content-length")) == (None, None)


async def test_duty_29_no_body(gateway: Running, platform: Platform) -> None:
    """Bytes after the header of a HEAD's answer, a 204 or a 304 go down with their connection."""
    platform.script(fhir(), http(204, PATIENT), http(304, PATIENT))
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.ask(get("/fhir/Patient/1", method="HEAD"), head=True)).status == 200
        assert (await wire.ask(READ)).status == 204
        assert (await wire.ask(READ)).status == 304
        assert (await wire.ask(READ)).body == PATIENT
    assert [seen.connection for seen in platform.seen] == [1, 2, 3, 4]


async def test_duty_30_data_after_an_answer(gateway: Running, platform: Platform) -> None:
    """What follows a complete answer is never another one."""
    platform.script(fhir() + fhir(b'{"resourceType":"Patient","id":"other"}'))
    async with await Wire.open(gateway.address) as wire:
        assert (await wire.ask(READ)).body == PATIENT
        assert (await wire.ask(READ)).body == PATIENT
    assert [seen.connection for seen in platform.seen] == [1, 2]


async def test_duty_31_interim_answers(gateway: Running, platform: Platform) -> None:
    """Several interim answers come before the final one and stop here; 101 is an error."""
    platform.script(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: </x>\r\n\r\n" + fhir())
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", version="1.0"))
        assert await wire.interim() == 200
    platform.seen.clear()
    platform.drop_connections()
    platform.connections = 0
    await failed(gateway, platform, b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


async def test_duty_32_expectation(start_gateway: StartGateway, platform: Platform) -> None:
    """Expect gets a 100 or a final status without the body; HTTP/1.0 gets no 100."""
    async with start_gateway(limits={"max_body_bytes": 1000}) as gateway:
        async with await Wire.open(gateway.address) as wire:
            fields = ("Expect: 100-continue", "Content-Length: 2")
            await wire.send(get("/fhir/Patient", *fields, method="POST"))
            assert await wire.interim() == 100
            await wire.send(b"{}")
            assert (await wire.reply()).status == 200
        async with await Wire.open(gateway.address) as wire:
            fields = ("Expect: 100-continue", "Content-Length: 1001")
            await wire.send(get("/fhir/Patient", *fields, method="POST"))
            assert await wire.interim() == 413
        async with await Wire.open(gateway.address) as wire:
            fields = ("Expect: 100-continue", "Content-Length: 2")
            await wire.send(get("/fhir/Patient", *fields, method="POST", version="1.0") + b"{}")
            assert await wire.interim() == 200
    assert [seen.header("expect") for seen in platform.seen] == [None, None]


async def test_duty_33_upgrade(gateway: Running, platform: Platform) -> None:
    """An upgrade is ignored, with the fields that belong to it, and forwarded never."""
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")
    for version in ("1.0", "1.1"):
        reply = await ask(gateway.address, get("/fhir/Patient/1", *fields, version=version))
        assert (reply.status, reply.header("upgrade")) == (200, None)
    for name in ("upgrade", "connection", "http2-settings"):
        assert [seen.header(name) for seen in platform.seen] == [None, None]


async def test_duty_34_unread_body(start_gateway: StartGateway, platform: Platform) -> None:
    """A connection whose request was not read in full is closed, its rest is no request."""
    async with (
        start_gateway(limits={"max_body_bytes": 1000}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(post("/fhir/Patient", get("/fhir/Patient/smuggled") * 30))
        reply = await wire.reply()
        assert (reply.status, reply.header("connection")) == (413, "close")
        assert await wire.at_end()
    assert platform.seen == []


async def test_duty_35_close(gateway: Running, platform: Platform) -> None:
    """After "close" nothing more of that connection is answered, on either side."""
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1", "Connection: close"))
        reply = await wire.reply()
        assert reply.header("connection") == "close"
        wire.writer.write(get("/fhir/Patient/2"))
        assert await wire.at_end()
    assert len(platform.seen) == 1
    platform.script(fhir(PATIENT, 200, ("Connection", "close")))
    for _ in range(2):
        await ask(gateway.address, READ)
    assert platform.seen[1].connection != platform.seen[2].connection


async def test_duty_36_http_1_0_closes(gateway: Running) -> None:
    """HTTP/1.0 is kept alive only for a caller that asks for it."""
    async with await Wire.open(gateway.address) as wire:
        kept = await wire.ask(get("/fhir/Patient/1", "Connection: keep-alive", version="1.0"))
        assert kept.header("connection") == "keep-alive"
        assert kept.header("keep-alive") == "timeout=120"
        closed = await wire.ask(get("/fhir/Patient/1", version="1.0"))
        assert (closed.header("connection"), closed.header("keep-alive")) == ("close", None)
        assert await wire.at_end()


@pytest.mark.parametrize(("keep_alive", "told"), [(125, "120"), (60.5, "55"), (6, "3"), (0.5, "1")])
async def test_answers_say_how_long_a_connection_may_rest(
    start_gateway: StartGateway, keep_alive: float, told: str
) -> None:
    """Somewhat less than is true, beside the Connection without which Java does not read it."""
    async with (
        start_gateway(limits={"keep_alive": keep_alive}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        for version in ("1.1", "1.0"):
            request = get("/fhir/Patient/1", "Connection: keep-alive", version=version)
            reply = await wire.ask(request)
            assert reply.header("keep-alive") == f"timeout={told}"
            assert reply.header("connection") == "keep-alive"
        if keep_alive < 1:
            async with asyncio.timeout(60):
                assert await wire.at_end()


async def test_duty_37_pipelining(gateway: Running, platform: Platform) -> None:
    """Pipelined requests are answered in their order, also when the first takes longest."""

    async def late(line: Line) -> None:
        await read_body(line.reader, line.seen)
        await asyncio.sleep(0.05)
        line.writer.write(fhir(b'{"resourceType":"Basic","id":"0"}'))

    resource = b'{"resourceType":"Basic","id":"%d"}'
    platform.script(late, *(fhir(resource % n) for n in range(1, 5)))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(b"".join(get(f"/fhir/Patient/{n}") for n in range(5)))
        assert [(await wire.reply()).json()["id"] for _ in range(5)] == list("01234")
    assert [seen.target[-1] for seen in platform.seen] == list("01234")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_duty_38_no_repetition(gateway: Running, platform: Platform, method: str) -> None:
    """A write whose connection broke without an answer is never sent again."""
    await ask(gateway.address, READ)
    platform.script(then_close(b""))
    reply = await ask(gateway.address, post("/fhir/Patient/1", b"{}", method=method))
    assert (reply.status, reply.reason) == (502, "upstream-failed")
    assert [seen.method for seen in platform.seen] == ["GET", method]


async def test_duty_39_too_long(gateway: Running, platform: Platform) -> None:
    """A target over the limit is a 414, fields over it are a 431."""
    await refused(gateway, platform, get("/fhir/Patient?name=" + "x" * 9000), 414)
    await refused(gateway, platform, get("/fhir/Patient/1", "X-Long: " + "x" * 17_000), 431)


async def test_duty_40_challenges(start_gateway: StartGateway, platform: Platform) -> None:
    """A 401 of the gateway's own carries a challenge; the platform's 401 is never passed on."""
    callers = [{"name": "lab", "api_key": "planted-key"}]
    async with start_gateway(callers=callers) as gateway:
        reply = await ask(gateway.address, READ)
        assert (reply.status, reply.reason) == (401, "caller-unauthenticated")
        assert reply.header("www-authenticate")
        platform.answer(unauthorized())
        reply = await ask(gateway.address, get("/fhir/Patient/1", "X-Api-Key: planted-key"))
        assert (reply.status, reply.header("www-authenticate")) == (502, None)


async def test_duty_41_tls_towards_the_platform(sso: Sso, tmp_path: Path) -> None:
    """The platform's certificate is verified, and a connection ends with close_notify."""
    context, authority = tls_platform("localhost")
    stranger = tls_platform("localhost")[1]
    ended = asyncio.Event()

    async def watch(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(fhir(PATIENT, 200, ("Connection", "close")))
        # Without close_notify asyncio would report the end of TLS as an error.
        if await line.reader.read() == b"":
            ended.set()

    for trusted in (authority, stranger):
        ca_file = tmp_path / "ca.pem"
        trusted.cert_pem.write_to_path(str(ca_file))
        async with (
            Platform(tls=context) as platform,
            running(platform.url, sso.token_url, platform={"ca_file": str(ca_file)}) as gateway,
        ):
            platform.answer(watch)
            reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
            assert reply.reason == (None if trusted is authority else "upstream-tls")
            assert len(platform.seen) == (trusted is authority)
    await ended.wait()


async def test_duty_42_no_store(gateway: Running, platform: Platform) -> None:
    """An answer without Cache-Control gets no-store, or caches below would keep patient data."""
    platform.script(fhir(), fhir(PATIENT, 200, ("Cache-Control", "max-age=1")), outcome(404))
    values = [(await ask(gateway.address, READ)).header("cache-control") for _ in range(3)]
    assert values == ["no-store", "max-age=1", "no-store"]


async def test_duty_43_staged_close(start_gateway: StartGateway, platform: Platform) -> None:
    """A refusal reaches a caller that is still sending: half-close first, read on, no reset."""
    async with start_gateway(limits={"max_body_bytes": 1000}) as gateway:
        with socket.create_connection((gateway.address.host, gateway.address.port)) as raw:
            await asyncio.to_thread(_send_on, raw)
            received = await asyncio.to_thread(raw.recv, 65536)
            rest = await asyncio.to_thread(raw.recv, 65536)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"payload-too-large" in received
    assert rest == b""
    assert platform.seen == []


def _send_on(raw: socket.socket) -> None:
    """Send a body long after it was refused."""
    raw.settimeout(10)
    raw.sendall(get("/fhir/Patient", "Content-Length: 300000", method="POST"))
    for _ in range(30):
        raw.sendall(b"x" * 10_000)
