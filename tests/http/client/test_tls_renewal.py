"""New keys and renegotiation in the midst of a connection, as OpenSSL's own server starts them."""

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
from tests.doubles.held_line import HeldLine
from tests.doubles.s_server import ASK_FOR_CERTIFICATE, NEW_KEY, NEW_KEYS, RENEGOTIATE, SServer
from tests.http.client.tls_stage import Ours, client_side

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[UpstreamConnection]:
    """A connection to this port."""
    connection = await Ours(context, port).opened()
    yield connection
    connection.abort()


async def ask(connection: UpstreamConnection, server: SServer, number: int) -> None:
    """Send a request, which arrives."""
    connection.start_exchange(expect_body=True)
    connection.write_request(b"GET /%d HTTP/1.1\r\n\r\n" % number)
    await server.until(b"GET /%d HTTP" % number)


async def exchange(connection: UpstreamConnection, server: SServer, number: int) -> None:
    """Ask, be answered, and leave the connection as it was."""
    await ask(connection, server, number)
    await answered(connection, server)


async def answered(connection: UpstreamConnection, server: SServer) -> None:
    """Be answered in full."""
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
async def test_between_exchanges(ca: trustme.CA, command: bytes, version: str) -> None:
    """What comes between two could be half an answer: nothing more is asked on that connection.

    New keys (RFC 8446 section 4.6.3) and renegotiation cannot be told from it before it is whole.
    """
    async with (
        SServer(ca, version) as server,
        connected(server.port, client_side(ca)) as connection,
    ):
        await exchange(connection, server, 1)
        connection.mark_idle(0.0)
        await server.type(command)
        while connection.is_reusable:  # noqa: ASYNC110 - another process is what is waited for
            await asyncio.sleep(0.01)


async def test_certificate_asked_for_later(ca: trustme.CA) -> None:
    """A platform that asks for our certificate only by renegotiating gets it, as IIS may (TLS 1.2).

    The request that it was about waits for that, and arrives.
    """
    async with (
        SServer(ca, "-tls1_2", "-msg", "-no_ticket", "-no_cache") as server,
        connected(server.port, client_side(ca, issuer=trustme.CA())) as connection,
    ):
        await ask(connection, server, 1)
        await server.type(ASK_FOR_CERTIFICATE)
        await server.until(b"CertificateVerify")
        await answered(connection, server)


async def test_certificate_refused_later(ca: trustme.CA) -> None:
    """When the platform asks within an exchange, it is unknown what it did before."""
    async with (
        SServer(ca, "-tls1_2", "-no_ticket", "-no_cache", "-verify_return_error") as server,
        connected(server.port, client_side(ca, issuer=trustme.CA())) as connection,
    ):
        await ask(connection, server, 1)
        await server.type(ASK_FOR_CERTIFICATE)
        await connection.wait_for_head()
        with pytest.raises(UpstreamConnectionError, match="closed"):
            connection.head()


async def begin_to_renegotiate(server: SServer, line: HeldLine) -> None:
    """We learn that there shall be another handshake, and not how that goes on."""
    line.hold()
    await server.type(RENEGOTIATE)
    await line.until_held()
    line.let_through()
    await line.until_held()


async def test_upload_during_a_renegotiation(ca: trustme.CA) -> None:
    """What cannot be encrypted now holds its writer up, and is sent in order afterwards."""
    async with (
        SServer(ca, "-tls1_2") as server,
        HeldLine(server.port) as line,
        connected(line.port, client_side(ca)) as connection,
    ):
        await exchange(connection, server, 1)
        await begin_to_renegotiate(server, line)
        connection.start_exchange(expect_body=True)
        connection.write(b"POST /2 HTTP/1.1\r\n")
        connection.write(b"Content-Length: 200000\r\n\r\n")
        waiting = asyncio.get_running_loop().create_task(connection.drain())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        connection.write(b"x" * 199_990)
        connection.write(b"the end\r\n\n")
        assert b"POST /2" not in server.said
        line.release()
        await waiting
        await server.until(b"the end\r\n\n")
        found = server.said.partition(b"POST /2 HTTP/1.1\r\nContent-Length: 200000\r\n\r\n")[2]
        assert found.count(b"x") == 199_990
        await answered(connection, server)


async def test_platform_that_does_not_go_on(ca: trustme.CA) -> None:
    """A connection that ends in a renegotiation fails what waits, and sends none of it."""
    async with (
        SServer(ca, "-tls1_2") as server,
        HeldLine(server.port) as line,
        connected(line.port, client_side(ca)) as connection,
    ):
        await begin_to_renegotiate(server, line)
        connection.start_exchange(expect_body=True)
        connection.write(b"POST /1 HTTP/1.1\r\n\r\n")
        waiting = asyncio.get_running_loop().create_task(connection.drain())
        line.end()
        await waiting
        await connection.wait_for_head()
        with pytest.raises(UpstreamConnectionError, match="closed"):
            connection.head()
        assert b"POST" not in server.said
