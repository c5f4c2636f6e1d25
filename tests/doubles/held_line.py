"""A line between the gateway and the platform on which what the platform says can be held up.

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
    """Passes the bytes of one connection on, both ways, to a port of this machine."""

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
        """Keep what the platform says from now on."""
        self._holding = True
        self._came.clear()

    async def until_held(self) -> None:
        """Return when something is held up."""
        await self._came.wait()

    def let_through(self) -> None:
        """Pass on what is held up; what comes later is held up too."""
        assert self._to_us is not None
        self._came.clear()
        while not self._held.empty():
            self._to_us.write(self._held.get_nowait())

    def release(self) -> None:
        """Hold nothing up any more."""
        self._holding = False
        self.let_through()

    def end(self) -> None:
        """Let the platform's side end, as far as we can see; what is held up is lost."""
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
