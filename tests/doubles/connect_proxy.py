"""An outgoing HTTP proxy: it tunnels, forwards absolute-form requests and records both."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass
class ConnectProxy:
    """An async context manager that listens on a free port.

    `response`, if set, is sent in place of a tunnel. `silent`: no response is sent at all. `hosts`
    maps names that DNS does not know to addresses. `heads` are the request heads as they were
    received, `relayed` all octets that passed after them.
    """

    response: bytes | None = None
    silent: bool = False
    hosts: dict[str, str] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    relayed: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """Return the request lines without the version, e.g. `CONNECT host:443`."""
        lines = [head.split(b"\r\n", 1)[0].decode() for head in self.heads]
        return [line.rsplit(" ", 1)[0] for line in lines]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.silent:
            await reader.read()
        if self.response is not None:
            writer.write(self.response)
            await writer.drain()
            return
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = self.hosts.get(parts.hostname or "", parts.hostname)
        there = await asyncio.open_connection(host, parts.port or 80)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            there[1].write(head.replace(target.encode(), parts.path.encode(), 1))
        try:
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        finally:
            there[1].close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                self.relayed += data
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof() if sink.can_write_eof() else sink.close()
