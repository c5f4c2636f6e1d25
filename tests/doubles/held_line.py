"""A TCP relay between the gateway and the platform that can hold back the platform's responses.

async with HeldLine(platform.port) as line:
    ... let the gateway use line.port ...
    line.hold()
    await line.until_held()
    line.let_through()
    line.release()
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class HeldLine:
    """Relays the octets of one connection in both directions to a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._held: asyncio.Queue[bytes] = asyncio.Queue()
        self._holding = False
        self._came = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._to_us: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        """Hold back what the platform sends from now on."""
        self._holding = True
        self._came.clear()

    async def until_held(self) -> None:
        """Return when octets are held back."""
        await self._came.wait()

    def let_through(self) -> None:
        """Relay the octets held back so far; later ones are still held back."""
        assert self._to_us is not None
        self._came.clear()
        while not self._held.empty():
            self._to_us.write(self._held.get_nowait())

    def release(self) -> None:
        """Relay everything, also later octets."""
        self._holding = False
        self.let_through()

    def end(self) -> None:
        """Close the connection to the gateway, as if the platform had. Held octets are lost."""
        assert self._to_us is not None
        self._to_us.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._to_us = writer
        self._writers += [writer, there_writer]
        loop = asyncio.get_running_loop()
        self._tasks += [
            loop.create_task(self._towards_them(reader, there_writer)),
            loop.create_task(self._towards_us(there_reader, writer)),
        ]

    async def _towards_them(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def _towards_us(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._holding:
                    self._held.put_nowait(data)
                    self._came.set()
                else:
                    writer.write(data)
