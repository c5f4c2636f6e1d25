"""A TCP relay between two programs that a test can cut, restore and hold.

async with Relay(platform.port) as relay:
    ... let the gateway use relay.port ...
    relay.cut()            # resets connections and refuses new ones
    await relay.restore()
    relay.hold()           # holds octets of the target from now on
    await relay.wait_until_held()
    relay.forward_held()   # sends those held so far
    relay.release()        # sends them and all later ones
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self


class Relay:
    """Relays octets in both directions to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._server: asyncio.Server | None = None
        # Bound without listening: the server of another test on this port would respond instead.
        self._reserved: socket.socket | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._is_holding = False
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._take_socket().close()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def restore(self) -> None:
        """Accept connections again, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, sock=self._take_socket())
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._reserved = self._bound()
        for writer in list(self._open.values()):
            writer.transport.abort()

    def close_connections(self) -> None:
        """Close all connections, as if the target had. Held octets are lost."""
        for writer in list(self._open.values()):
            writer.close()

    def hold(self) -> None:
        """Hold the octets that the target sends from now on."""
        self._is_holding = True
        self._arrived.clear()

    async def wait_until_held(self) -> None:
        await self._arrived.wait()

    def forward_held(self) -> None:
        """Send the octets held so far; later ones are still held."""
        self._arrived.clear()
        held, self._held = self._held, []
        for writer, data in held:
            writer.write(data)

    def release(self) -> None:
        """Send the octets held so far, and later ones as they arrive."""
        self._is_holding = False
        self.forward_held()

    def _take_socket(self) -> socket.socket:
        """Return the bound socket, which the relay owns no longer."""
        reserved, self._reserved = self._reserved or self._bound(), None
        return reserved

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
                there = await asyncio.open_connection("127.0.0.1", self.target)
                await self._relay((reader, writer), there)
        finally:
            writer.transport.abort()
            del self._open[task]

    async def _relay(self, here: Stream, there: Stream) -> None:
        """Relay until either end closes."""
        directions = [
            asyncio.ensure_future(_forward(here[0], there[1])),
            asyncio.ensure_future(self._forward_or_hold(there[0], here[1])),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before the first await: `__aexit__` may cancel this task once more.
            there[1].transport.abort()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _forward_or_hold(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self._is_holding:
                self._held.append((writer, data))
                self._arrived.set()
            else:
                writer.write(data)
                await writer.drain()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
