"""The duties of an HTTP intermediary (RFC 9110, 9112), one by one, over raw sockets.

The numbers are those of the project's own list of duties. The gateway is a gateway in the sense of
RFC 9110 section 3.7: an origin server for its callers, a user agent for the platform. Duties 10, 13
to 16, 18 to 21, 23 to 25, 29, 30 and 35, about messages to reject, are the tables of
`test_strictness.py` and `test_platform_strictness.py`, where 31 and 33 are, too; 5 and 11 are in
`test_absolute_form.py`; 6, 8, 26, 27, 38, 39 and 40 are faults; 1, 3 and 4 are in
`tests/pipeline/test_forwarded_fields.py`, `test_listed.py` and `test_handler.py`; 22, 34 and 37 are
in `tests/pipeline/test_link_translation.py`, `tests/http/server/test_long_bodies.py` and
`tests/pipeline/test_same_connection.py`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    chunked,
    fhir,
    http,
    outcome,
    read_body,
)
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline import shared
from tests.pipeline.conftest import StartGateway
from tests.pipeline.testbed import tls_platform

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

READ = get("/fhir/Patient/1")


async def test_duty_02_hop_by_hop_fields(gateway: RunningGateway, platform: Platform) -> None:
    """Hop-by-hop fields are not forwarded, in both directions."""
    fields = ("Keep-Alive", "Proxy-Connection", "TE", "Proxy-Authenticate", "Proxy-Authorization")
    platform.respond(fhir(PATIENT, 200, *((name, "x") for name in fields), ("Trailer", "X-Sum")))
    response = await fetch(
        gateway.address, get("/fhir/Patient/1", *(f"{name}: x" for name in fields), "Trailer: X")
    )
    for name in (*fields, "Trailer"):
        assert platform.requests[0].header(name) is None
        # The gateway says itself how long the connection may rest.
        assert response.header(name) == ("timeout=120" if name == "Keep-Alive" else None)


async def test_duty_07_max_forwards(gateway: RunningGateway, platform: Platform) -> None:
    """An OPTIONS is forwarded with the value less one; with 0 the gateway responds."""
    last = await fetch(gateway.address, get("/fhir/", "Max-Forwards: 0", method="OPTIONS"))
    assert last.status == 204
    assert set((last.header("allow") or "").split(", ")) >= {"GET", "OPTIONS", "POST"}
    assert platform.requests == []
    await fetch(gateway.address, get("/fhir/", "Max-Forwards: 10", method="OPTIONS"))
    assert platform.requests[0].header("max-forwards") == "9"
    await fetch(gateway.address, get("/fhir/Patient/1", "Max-Forwards: 0"))
    assert platform.requests[1].header("max-forwards") == "0"


async def test_duty_09_own_version(gateway: RunningGateway, platform: Platform) -> None:
    """Each message is sent as HTTP/1.1, whatever was received."""
    platform.respond(fhir().replace(b"HTTP/1.1", b"HTTP/1.0"))
    async with await Wire.open(gateway.address) as wire:
        # The platform's double takes nothing but HTTP/1.1.
        await wire.send(get("/fhir/Patient/1", version="1.0"))
        assert (await wire.reader.readline()).startswith(b"HTTP/1.1 200")


async def test_duty_17_octets(gateway: RunningGateway, platform: Platform) -> None:
    """Values are octets: what is not ASCII or not UTF-8 passes unchanged."""
    platform.respond(fhir(PATIENT, 200, ("X-Name", "\xe9\xff")))
    response = await fetch(gateway.address, get("/fhir/Patient/1", "User-Agent: Jos\xe9"))
    assert platform.requests[0].header("user-agent") == "Jos\xe9"
    assert response.header("x-name") == "\xe9\xff"


LONG = b'{"resourceType":"Patient","implicitRules":"%s"}' % (b"x" * 2**17)
UNDATED = {
    "buffered": ("GET", fhir()),
    "translated": ("GET", fhir(LONG)),
    "streamed": ("GET", http(200, b"x" * 2**20, ("Content-Type", "application/octet-stream"))),
    "in chunks": ("GET", chunked(PATIENT)),
    "HEAD": ("HEAD", http(200, b"", ("Content-Length", "9"), length=False)),
    "without content": ("DELETE", http(204, length=False)),
    "not modified": ("GET", http(304, b"", ("ETag", 'W/"1"'), length=False)),
    "an outcome": ("GET", outcome(404)),
    "of the connection": ("GET", fhir(PATIENT, 200, ("Connection", "Date"), ("Date", "7"))),
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("kind", UNDATED)
async def test_a_response_without_date_gets_one(
    gateway: RunningGateway, platform: Platform, kind: str, version: str
) -> None:
    """RFC 9110 section 6.6.1."""
    method, response = UNDATED[kind]
    platform.respond(response)
    began = int(time.time())
    request = get("/fhir/Binary/1", method=method, version=version)
    dated = await fetch(gateway.address, request, head=method == "HEAD")
    assert dated.reason is None
    (date,) = dated.all("date")
    assert began <= parsedate_to_datetime(date).timestamp() <= time.time()


async def test_the_date_of_the_platform_stays(gateway: RunningGateway, platform: Platform) -> None:
    date = "Tue, 01 Dec 2026 08:00:00 GMT"
    platform.respond(fhir(PATIENT, 200, ("dATE", date)))
    assert (await fetch(gateway.address, get("/fhir/Patient/1"))).all("date") == [date]


async def test_a_cache_control_without_a_value_lets_nobody_store(
    gateway: RunningGateway, platform: Platform
) -> None:
    """RFC 9111 section 3.5: caches below see no Authorization."""
    platform.respond(fhir(PATIENT, 200, ("Cache-Control", "")))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert "no-store" in response.all("cache-control")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"])
async def test_a_request_without_a_body_has_a_length_where_one_is_usual(
    gateway: RunningGateway, platform: Platform, method: str
) -> None:
    """RFC 9110 section 8.6: servers may answer 411."""
    request = get("/fhir/Binary/1", method=method)
    assert (await fetch(gateway.address, request, head=method == "HEAD")).status == 200
    length = platform.requests[0].header("content-length")
    assert length == ("0" if method in ("POST", "PUT", "PATCH") else None)


async def test_duty_28_framing_by_version(gateway: RunningGateway, platform: Platform) -> None:
    """HTTP/1.0 gets no chunks, and a 204 neither a length nor chunks."""
    platform.script(chunked(PATIENT), http(204, b"", ("Content-Length", "0"), length=False))
    old = await fetch(gateway.address, get("/fhir/Patient/1", version="1.0"))
    assert old.header("transfer-encoding") is None
    assert old.header("content-length") == str(len(PATIENT))
    assert old.body == PATIENT
    none = await fetch(gateway.address, get("/fhir/Patient/1", method="DELETE"))
    assert none.status == 204
    assert (none.header("transfer-encoding"), none.header("content-length")) == (None, None)


async def test_duty_32_expectation(gateway: RunningGateway, platform: Platform) -> None:
    """Expect gets a 100, except in HTTP/1.0."""
    fields = ("Expect: 100-continue", "Content-Length: 2")
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient", *fields, method="POST"))
        assert await wire.read_interim_status() == 100
        assert (await wire.fetch(b"{}")).status == 200
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient", *fields, method="POST", version="1.0") + b"{}")
        assert await wire.read_interim_status() == 200
    assert [request.header("expect") for request in platform.requests] == [None, None]


async def test_duty_36_http_1_0_closes_unless_the_caller_asks(gateway: RunningGateway) -> None:
    async with await Wire.open(gateway.address) as wire:
        kept = await wire.fetch(get("/fhir/Patient/1", "Connection: keep-alive", version="1.0"))
        assert kept.header("connection") == "keep-alive"
        assert kept.header("keep-alive") == "timeout=120"
        closed = await wire.fetch(get("/fhir/Patient/1", version="1.0"))
        assert (closed.header("connection"), closed.header("keep-alive")) == ("close", None)
        assert await wire.at_end()


@pytest.mark.parametrize(
    ("keep_alive", "timeout"), [(125, "120"), (60.5, "55"), (6, "3"), (0.5, "1")]
)
async def test_keep_alive_names_a_shorter_idle_timeout(
    start_gateway: StartGateway, keep_alive: float, timeout: str
) -> None:
    """Beside `Connection: keep-alive`, without which Java ignores it."""
    async with start_gateway(limits={"keep_alive": keep_alive}) as gateway:
        for version in ("1.1", "1.0"):
            request = get("/fhir/Patient/1", "Connection: keep-alive", version=version)
            response = await fetch(gateway.address, request)
            assert response.header("keep-alive") == f"timeout={timeout}"
            assert response.header("connection") == "keep-alive"


async def test_duty_41_tls_towards_the_platform(sso: Sso, tmp_path: Path) -> None:
    """The certificate is verified, and a connection ends with close_notify."""
    context, authority = tls_platform("localhost")
    stranger = tls_platform("localhost")[1]
    ended = asyncio.Event()

    async def watch(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(fhir(PATIENT, 200, ("Connection", "close")))
        # Without close_notify asyncio would report the end of TLS as an error.
        if await connection.reader.read() == b"":
            ended.set()

    for trusted in (authority, stranger):
        ca_file = tmp_path / "ca.pem"
        trusted.cert_pem.write_to_path(str(ca_file))
        async with (
            Platform(tls=context) as platform,
            running_gateway(
                platform.url, sso.token_url, platform={"ca_file": str(ca_file)}
            ) as gateway,
        ):
            platform.respond(watch)
            response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
            assert response.reason == (None if trusted is authority else "upstream-tls")
            assert len(platform.requests) == (trusted is authority)
    await ended.wait()


async def test_duty_42_a_response_without_cache_control_gets_no_store(
    gateway: RunningGateway, platform: Platform
) -> None:
    platform.script(fhir(), fhir(PATIENT, 200, ("Cache-Control", "max-age=1")), outcome(404))
    values = [(await fetch(gateway.address, READ)).header("cache-control") for _ in range(3)]
    assert values == ["no-store", "max-age=1", "no-store"]


async def test_duty_43_staged_close(start_gateway: StartGateway, platform: Platform) -> None:
    """An error reaches a caller that is still sending: half-close, then drain, no reset."""
    async with start_gateway(limits={"max_body_bytes": 1000}) as gateway:
        with socket.create_connection((gateway.address.host, gateway.address.port)) as raw:
            await asyncio.to_thread(_keep_sending, raw)
            received = await asyncio.to_thread(raw.recv, 65536)
            rest = await asyncio.to_thread(raw.recv, 65536)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"payload-too-large" in received
    assert rest == b""
    assert platform.requests == []


def _keep_sending(raw: socket.socket) -> None:
    """Send a body long after it was rejected."""
    raw.settimeout(60)
    raw.sendall(get("/fhir/Patient", "Content-Length: 300000", method="POST"))
    for _ in range(30):
        raw.sendall(b"x" * 10_000)
