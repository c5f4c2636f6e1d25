"""A line between a program and the gateway that notes which requests came on which connection.

async with Line(gateway.address.port) as line:
    ... let the program use line.port ...
    line.requests    # (connection, method, target), in order
"""

from __future__ import annotations

import asyncio
import re
from typing import Self, cast

# Nobody here writes a request before the last one is answered: each head begins what is read.
_HEAD = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")


class Line:
    """Passes on both ways, and lets each side see how the other one ends."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.requests: list[tuple[int, str, str]] = []
        self.open: set[_Side] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Caller(self), "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for side in list(self.open):
            side.transport.abort()
        await self.until_closed()

    async def until_closed(self) -> None:
        """Return when no connection is open."""
        while True:
            if not self.open:
                return
            await asyncio.sleep(0.02)


class _Side(asyncio.Protocol):
    """One end of a connection; what it reads goes to the other."""

    def __init__(self, line: Line, other: _Side | None = None) -> None:
        self.line, self.other = line, other
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self.transport = cast(asyncio.Transport, transport)
        self.line.open.add(self)

    def data_received(self, data: bytes) -> None:
        """To the other."""
        assert self.other is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Too much waits here."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end ends, too."""
        self.line.open.discard(self)
        if self.other is not None:
            self.other.transport.close()


class _Caller(_Side):
    """The program's end, which waits until there is another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The gateway is asked for one."""
        super().connection_made(transport)
        self.line.connections += 1
        self.number = self.line.connections
        self.transport.pause_reading()
        self.task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        port = self.line.target
        _, self.other = await loop.create_connection(
            lambda: _Side(self.line, self), "127.0.0.1", port
        )
        if self.transport.is_closing():
            self.other.transport.close()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Note a request's head."""
        if found := _HEAD.match(data):
            method, target = found.groups()
            self.line.requests.append((self.number, method.decode(), target.decode()))
        super().data_received(data)
