"""A platform that responds octet for octet as a test specifies, and records the requests.

    async with Platform() as platform:
        platform.script(fhir(), status(503, ("Retry-After", "1")))
        ...
        assert platform.requests[0].header("authorization") == "Bearer token-1"

Without a script every request gets a Patient. A response can also be a coroutine function that
gets the open connection, for faults that octets alone do not show. Probes of the gateway take
nothing from the script, and are recorded apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from tests.doubles.wire import close_by_reset

PATIENT = b'{"resourceType":"Patient","id":"1","multipleBirthInteger":1.10}'


@dataclass
class ReceivedRequest:
    """A request as it was received; header names as they were sent."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    connection: int = 0
    complete: bool = False

    def header(self, name: str) -> str | None:
        """Return the only value of a field, None without one; a repeated field fails the test."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None

    @property
    def is_from_gateway(self) -> bool:
        """Return whether the gateway itself sent it: its probes accept two codings."""
        return self.target.endswith("/metadata") and len(self.all("accept-encoding")) == 2

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class PlatformConnection:
    """An open connection, for a response that is more than octets."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: ReceivedRequest

    def reset(self) -> None:
        close_by_reset(self.writer)


ScriptedResponse = bytes | Callable[[PlatformConnection], Awaitable[None]]


def http(code: int, body: bytes = b"", *headers: tuple[str, str], length: bool = True) -> bytes:
    """Return a response with its Content-Length, or one that the end of the connection delimits."""
    lines = [f"HTTP/1.1 {code} X", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def fhir(body: bytes = PATIENT, code: int = 200, *headers: tuple[str, str]) -> bytes:
    return http(code, body, ("Content-Type", "application/fhir+json"), *headers)


def outcome(code: int, *headers: tuple[str, str]) -> bytes:
    body = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid"}]}'
    return fhir(body, code, *headers)


def page(code: int, *headers: tuple[str, str]) -> bytes:
    """Return an HTML page, as a load balancer sends it."""
    return http(code, b"<html><body>Oops</body></html>", ("Content-Type", "text/html"), *headers)


def unauthorized() -> bytes:
    """Return the response of a platform that rejects the token."""
    return outcome(401, ("WWW-Authenticate", 'Bearer error="invalid_token"'))


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    """Return a FHIR response in chunks; without `end` the last chunk is missing."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


def then_close(data: bytes) -> ScriptedResponse:

    async def respond(connection: PlatformConnection) -> None:
        connection.writer.write(data)
        await connection.writer.drain()
        connection.writer.close()

    return respond


def then_reset(data: bytes) -> ScriptedResponse:

    async def respond(connection: PlatformConnection) -> None:
        connection.writer.write(data)
        await connection.writer.drain()
        # The octets must leave the machine's buffers before the reset discards them.
        await asyncio.sleep(0.05)
        connection.reset()

    return respond


def after(seconds: float, data: bytes) -> ScriptedResponse:

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        await asyncio.sleep(seconds)
        connection.writer.write(data)
        await connection.writer.drain()

    return respond


def once(released: asyncio.Event, data: bytes) -> ScriptedResponse:

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        await released.wait()
        connection.writer.write(data)

    return respond


def reading(ended: asyncio.Event) -> ScriptedResponse:
    """Send no response, and set `ended` when the request was read or broke off."""

    async def respond(connection: PlatformConnection) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await read_body(connection.reader, connection.request)
        ended.set()

    return respond


async def silence(connection: PlatformConnection) -> None:
    """Send no response until the gateway closes its end."""
    await connection.reader.read()


def silent_until(ended: asyncio.Event) -> ScriptedResponse:
    """Send no response, and set `ended` when the gateway has closed its end."""

    async def respond(connection: PlatformConnection) -> None:
        await silence(connection)
        ended.set()

    return respond


def endless(head: bytes, chunk: bytes, ended: asyncio.Event) -> ScriptedResponse:
    """Send the chunk without end, and set `ended` when the gateway has closed its end."""

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(head)
        with contextlib.suppress(ConnectionError):
            while True:
                connection.writer.write(chunk)
                await connection.writer.drain()
        ended.set()

    return respond


def declaring(statement: bytes, other: bytes) -> ScriptedResponse:
    """Send one response to a read of the CapabilityStatement, and another to everything else."""

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(
            statement if connection.request.target.endswith("/metadata") else other
        )

    return respond


@dataclass
class Platform:
    """The server; an async context manager that listens on a free port."""

    tls: ssl.SSLContext | None = None
    base_path: str = "/r5"
    requests: list[ReceivedRequest] = field(default_factory=list)
    gateway_requests: list[ReceivedRequest] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._script: list[ScriptedResponse] = []
        self._default: ScriptedResponse = fhir()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self.tls, limit=2**20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self.tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}{self.base_path}"

    def respond(self, response: ScriptedResponse) -> None:
        """Set the response for every request after the script."""
        self._default = response

    def script(self, *responses: ScriptedResponse) -> None:
        """Give each of the next requests one of these responses."""
        self._script += responses

    def reset(self) -> None:
        """Forget the requests, and respond again with a Patient."""
        self.requests.clear()
        self.gateway_requests.clear()
        self._script.clear()
        self._default = fhir()

    async def wait_for_requests(self, count: int) -> None:
        """Return when the heads of `count` requests have been received in total."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def drop_connections(self) -> None:
        """Close every open connection, as a restarting server does."""
        for writer in list(self._writers):
            writer.close()

    def stop_listening(self) -> None:
        """Refuse further connections; those that are open go on."""
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        request = await read_head(reader)
        request.connection = number
        async with self._arrived:
            (self.gateway_requests if request.is_from_gateway else self.requests).append(request)
            self._arrived.notify_all()
        is_scripted = self._script and not request.is_from_gateway
        response = self._script.pop(0) if is_scripted else self._default
        if isinstance(response, bytes):
            await read_body(reader, request)
            writer.write(response)
            await writer.drain()
        else:
            await response(PlatformConnection(reader, writer, request))
        return not writer.is_closing() and request.complete


async def read_head(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head[:-4].decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    assert version == "HTTP/1.1"
    pairs = [tuple(each.split(": ", 1)) for each in fields]
    return ReceivedRequest(method, target, pairs)  # type: ignore[arg-type]


async def read_body(reader: asyncio.StreamReader, request: ReceivedRequest) -> None:
    if request.header("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")), 16):
            request.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        length = int(request.header("content-length") or 0)
        request.body += await reader.readexactly(length)
    request.complete = True
