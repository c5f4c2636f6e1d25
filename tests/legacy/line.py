"""A relay between a program and the gateway that records connection and fields of each request.

async with RecordingRelay(gateway.address.port) as relay: let the program use relay.port. Then
relay.requests are (connection, method, target) in order, relay.fields the names of all fields of
the requests, relay.ids the request ids of the responses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Self, cast

# No program here sends a request before the response to the last one, so that each head is at the
# start of a read.
_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")
_FIELD = re.compile(r"\r\n([^:\r\n]+):")
_ID = re.compile(rb"\r\nX-Request-Id: (\S+)\r\n")
# Fields that the gateway writes anew in every request.
_WRITTEN_ANEW = {"host", "content-length", "transfer-encoding"}


def fates_of(fields: Iterable[str], sent: Iterable[str], reported: Iterable[str]) -> dict[str, str]:
    """Return what became of fields, given those that reached the platform and the status page.

    `sent` to the platform, `told` on the status page, or `used`: by HTTP or the gateway itself.
    """
    found = {name.lower(): "sent" for name in sent if name.lower() not in _WRITTEN_ANEW}
    found |= {name.lower(): "told" for name in reported}
    return {name: found.get(name.lower(), "used") for name in sorted(fields)}


class RecordingRelay:
    """Relays in both directions, and closes each end after the other one."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.requests: list[tuple[int, str, str]] = []
        self.fields: set[str] = set()
        self.ids: set[str] = set()
        self.open: set[_RelayEnd] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ProgramEnd(self), "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for side in list(self.open):
            side.transport.abort()
        await self.wait_until_closed()

    async def wait_until_closed(self) -> None:
        while True:
            if not self.open:
                return
            await asyncio.sleep(0.02)


class _RelayEnd(asyncio.Protocol):
    """One end of a connection; what it reads is written to the other."""

    def __init__(self, line: RecordingRelay, other: _RelayEnd | None = None) -> None:
        self.line, self.other = line, other
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection (asyncio.Protocol)."""
        self.transport = cast(asyncio.Transport, transport)
        self.line.open.add(self)

    def data_received(self, data: bytes) -> None:
        """Write the data to the other end (asyncio.Protocol)."""
        assert self.other is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Pause the other end (asyncio.Protocol)."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume the other end (asyncio.Protocol)."""
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end (asyncio.Protocol)."""
        self.line.open.discard(self)
        if self.other is not None:
            self.other.transport.close()


class _GatewayEnd(_RelayEnd):
    """The gateway's end."""

    def data_received(self, data: bytes) -> None:
        """Record a response's request id (asyncio.Protocol)."""
        self.line.ids.update(each.decode() for each in _ID.findall(data))
        super().data_received(data)


class _ProgramEnd(_RelayEnd):
    """The program's end; what it sends before the gateway's end is connected is buffered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the gateway (asyncio.Protocol)."""
        super().connection_made(transport)
        self.line.connections += 1
        self.number = self.line.connections
        self.early = b""
        self.head: bytes | None = None
        self.task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        port = self.line.target
        _, self.other = await loop.create_connection(
            lambda: _GatewayEnd(self.line, self), "127.0.0.1", port
        )
        if self.transport.is_closing():
            self.other.transport.close()
        else:
            self.other.transport.write(self.early)

    def data_received(self, data: bytes) -> None:
        """Record a request's head (asyncio.Protocol)."""
        if found := _HEAD.match(data):
            method, target = found.groups()
            self.line.requests.append((self.number, method.decode(), target.decode()))
            self.head = b""
        if self.head is not None:
            self.head += data
            head, end, _ = self.head.partition(b"\r\n\r\n")
            if end:
                self.line.fields.update(_FIELD.findall(head.decode("latin-1")))
                self.head = None
        if self.other is None:
            self.early += data
        else:
            super().data_received(data)
