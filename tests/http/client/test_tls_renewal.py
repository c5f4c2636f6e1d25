"""Key updates and renegotiation on a connection, started by OpenSSL's own server."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.client.upstream_connection import UpstreamConnection
from tests.doubles.relay import Relay
from tests.doubles.s_server import ASK_FOR_CERTIFICATE, NEW_KEY, NEW_KEYS, RENEGOTIATE, SServer
from tests.http.client.tls_ends import GatewayEnd, client_side

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[UpstreamConnection]:
    connection = await GatewayEnd(context, port).opened()
    yield connection
    connection.abort()


async def send(connection: UpstreamConnection, server: SServer, number: int) -> None:
    connection.start_exchange(expect_body=True)
    connection.write_request(b"GET /%d HTTP/1.1\r\n\r\n" % number)
    await server.wait_for_output(b"GET /%d HTTP" % number)


async def exchange(connection: UpstreamConnection, server: SServer, number: int) -> None:
    """Send a request, get the response, and leave the connection idle."""
    await send(connection, server, number)
    await answered(connection, server)


async def answered(connection: UpstreamConnection, server: SServer) -> None:
    """Get the complete response."""
    await server.type(ANSWER)
    while connection.head() is None:
        await connection.next_event()
    assert await connection.read() == [b"{}"]
    assert connection.is_reusable


@pytest.mark.parametrize(
    ("command", "version"),
    [(NEW_KEY, "-tls1_3"), (NEW_KEYS, "-tls1_3"), (RENEGOTIATE, "-tls1_2")],
    ids=["new key", "new keys both ways", "renegotiation"],
)
async def test_records_on_an_idle_connection_close_it(
    ca: trustme.CA, command: bytes, version: str
) -> None:
    """Key updates (RFC 8446 section 4.6.3) and renegotiation look like part of a response."""
    async with (
        SServer(ca, version) as server,
        connected(server.port, client_side(ca)) as connection,
    ):
        await exchange(connection, server, 1)
        connection.mark_idle(0.0)
        await server.type(command)
        while connection.is_reusable:  # noqa: ASYNC110 - another process is what is waited for
            await asyncio.sleep(0.01)


async def test_a_certificate_may_be_requested_by_renegotiation(ca: trustme.CA) -> None:
    """As IIS does with TLS 1.2. The request waits for it, and arrives."""
    async with (
        SServer(ca, "-tls1_2", "-msg", "-no_ticket", "-no_cache") as server,
        connected(server.port, client_side(ca, issuer=trustme.CA())) as connection,
    ):
        await send(connection, server, 1)
        await server.type(ASK_FOR_CERTIFICATE)
        await server.wait_for_output(b"CertificateVerify")
        await answered(connection, server)


async def test_certificate_rejected_within_exchange_leaves_outcome_unknown(ca: trustme.CA) -> None:
    async with (
        SServer(ca, "-tls1_2", "-no_ticket", "-no_cache", "-verify_return_error") as server,
        connected(server.port, client_side(ca, issuer=trustme.CA())) as connection,
    ):
        await send(connection, server, 1)
        await server.type(ASK_FOR_CERTIFICATE)
        await connection.wait_for_head()
        with pytest.raises(UpstreamConnectionError, match="closed"):
            connection.head()


async def begin_to_renegotiate(server: SServer, relay: Relay) -> None:
    """Let the gateway receive the start of another handshake only."""
    relay.hold()
    await server.type(RENEGOTIATE)
    await relay.wait_until_held()
    relay.forward_held()
    await relay.wait_until_held()


async def test_an_upload_pauses_during_a_renegotiation(ca: trustme.CA) -> None:
    """It is sent in order afterwards."""
    async with (
        SServer(ca, "-tls1_2") as server,
        Relay(server.port) as relay,
        connected(relay.port, client_side(ca)) as connection,
    ):
        await exchange(connection, server, 1)
        await begin_to_renegotiate(server, relay)
        connection.start_exchange(expect_body=True)
        connection.write(b"POST /2 HTTP/1.1\r\n")
        connection.write(b"Content-Length: 200000\r\n\r\n")
        waiting = asyncio.get_running_loop().create_task(connection.drain())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        connection.write(b"x" * 199_990)
        connection.write(b"the end\r\n\n")
        assert b"POST /2" not in server.said
        relay.release()
        await waiting
        await server.wait_for_output(b"the end\r\n\n")
        found = server.said.partition(b"POST /2 HTTP/1.1\r\nContent-Length: 200000\r\n\r\n")[2]
        assert found.count(b"x") == 199_990
        await answered(connection, server)


async def test_a_connection_that_ends_in_a_renegotiation_sends_nothing_more(ca: trustme.CA) -> None:
    async with (
        SServer(ca, "-tls1_2") as server,
        Relay(server.port) as relay,
        connected(relay.port, client_side(ca)) as connection,
    ):
        await begin_to_renegotiate(server, relay)
        connection.start_exchange(expect_body=True)
        connection.write(b"POST /1 HTTP/1.1\r\n\r\n")
        waiting = asyncio.get_running_loop().create_task(connection.drain())
        relay.close_connections()
        await waiting
        await connection.wait_for_head()
        with pytest.raises(UpstreamConnectionError, match="closed"):
            connection.head()
        assert b"POST" not in server.said
