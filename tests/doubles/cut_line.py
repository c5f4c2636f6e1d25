"""A TCP relay between the gateway and the platform that a test can cut and mend.

async with CutLine(platform.port) as line:
    ... let the gateway use line.port ...
    line.cut()           # connections break, new ones are refused
    await line.mend()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self


class CutLine:
    """Relays octets in both directions to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._server: asyncio.Server | None = None
        # Bound without listening: the server of another test on this port would respond instead.
        self._kept: socket.socket | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._let_go().close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def mend(self) -> None:
        """Accept connections again, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, sock=self._let_go())
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._kept = self._bound()
        for writer in list(self._open.values()):
            writer.transport.abort()

    def _let_go(self) -> socket.socket:
        """Return the bound socket; the relay holds it no longer."""
        kept, self._kept = self._kept or self._bound(), None
        return kept

    def _bound(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                onward = await asyncio.open_connection("127.0.0.1", self.target)
                await _join((reader, writer), onward)
        finally:
            writer.transport.abort()
            del self._open[task]


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(one: Stream, other: Stream) -> None:
    """Relay until either end closes."""
    ways = [
        asyncio.ensure_future(_pass_on(one[0], other[1])),
        asyncio.ensure_future(_pass_on(other[0], one[1])),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Before the first await: `__aexit__` may cancel this task once more.
        other[1].transport.abort()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
