"""Both ends of a connection, for the tests of TLS to the platform."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trustme

from gateway.errors import GatewayError
from gateway.http.client.tls_transport import TlsTransport
from gateway.http.client.upstream_connect import UpstreamOrigin
from gateway.http.client.upstream_connection import UpstreamConnection
from gateway.http.client.upstream_pool import UpstreamPool
from tests.doubles.certificates import client_context, server_context
from tests.doubles.sections import platform_settings
from tests.doubles.tls_peer import TlsLine, TlsPeer
from tests.doubles.waiting import wait_until

REQUEST = b"GET /r5/Patient/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"resourceType":"Patient","id":"1"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def server_side(
    ca: trustme.CA, version: ssl.TLSVersion | None = None, clients: trustme.CA | None = None
) -> ssl.SSLContext:
    """Return the platform's context, which requires certificates of `clients` if that is given."""
    context = server_context(ca, clients=clients)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_side(ca: trustme.CA | None, *, issuer: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the gateway's context, which trusts `ca` and has a certificate of `issuer`, if any."""
    return client_context(ca, issuer=issuer, name="hospital-17.test")


@dataclass
class GatewayEnd:
    """The gateway's end: a pool, and the connection that it opens."""

    context: ssl.SSLContext
    port: int
    connect_timeout: float = 5.0

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        origin = UpstreamOrigin("localhost", self.port, self.context)
        settings = platform_settings(connect_timeout=self.connect_timeout, max_connections=4)
        self.pool = UpstreamPool(origin, settings=settings, clock=loop.time)
        self.opening = loop.create_task(self.open())

    async def open(self) -> UpstreamConnection | tuple[str, str, bool]:
        """Return a connection, or reason and detail of the failure and whether it is retryable."""
        try:
            return await self.pool.acquire(force_new=True)
        except GatewayError as error:
            return error.reason.code, error.detail, error.is_retryable

    async def opened(self) -> UpstreamConnection:
        made = await self.opening
        assert isinstance(made, UpstreamConnection)
        return made

    async def failed(self) -> tuple[str, str, bool]:
        outcome = await self.opening
        assert isinstance(outcome, tuple)
        return outcome


@dataclass
class BothEnds:
    """Both ends of one connection."""

    connection: UpstreamConnection
    line: TlsLine
    pool: UpstreamPool

    async def send_request(self, request: bytes = REQUEST) -> None:
        self.connection.start_exchange(expect_body=True)
        self.connection.write_request(request)
        assert await self.line.read_until() == request

    async def answered(self) -> bytes:
        return await read(self.connection)

    async def lost(self) -> None:
        await wait_until(lambda: self.connection.transport is None)


async def read(connection: UpstreamConnection) -> bytes:
    """Return the body of a response. Raises `UpstreamConnectionError`."""
    while connection.head() is None:
        await connection.next_event()
    body = b""
    while pieces := await connection.read():
        body += b"".join(pieces)
    return body


@contextlib.asynccontextmanager
async def connected(
    ca: trustme.CA, version: ssl.TLSVersion | None = None
) -> AsyncIterator[BothEnds]:
    """Yield a connection after its handshake."""
    async with TlsPeer(server_side(ca, version)) as peer:
        ours = GatewayEnd(client_side(ca), peer.port)
        line = await peer.accept()
        await line.shake_hands()
        both = BothEnds(await ours.opened(), line, ours.pool)
        yield both
        both.connection.abort()
        await both.lost()


def remaining_objects() -> list[object]:
    """Return all objects that remain of connections, except the TLS of the doubles."""
    kinds = (UpstreamConnection, TlsTransport, ssl.SSLObject)
    found = [each for each in gc.get_objects() if isinstance(each, kinds)]
    return [each for each in found if not (isinstance(each, ssl.SSLObject) and each.server_side)]
