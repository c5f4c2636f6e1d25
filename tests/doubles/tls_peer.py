"""The platform's end of a TLS connection of which a test determines every octet and its time.

async with TlsPeer(context) as peer:
    ... let the gateway connect to peer.port ...
    line = await peer.accept()
    await line.shake_hands()
    await line.read_until(b"end of the request")
    await line.send(line.record(b"answer") + line.goodbye())
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Self

_SOME = 256 * 1024


class TlsPeer:
    """A TCP listener on a free port; an async context manager."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._lines: list[TlsLine] = []

    async def __aenter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port = int(self._listening.getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for line in self._lines:
            line.raw.close()

    async def accept(self) -> TlsLine:
        """Return the next connection, before its handshake."""
        raw, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = TlsLine(raw, self._context)
        self._lines.append(line)
        return line


class TlsInMemory:
    """The platform's end of TLS without a socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handle(self, data: bytes) -> bytes:
        """Return the octets to send in the handshake after `data` was received."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def record(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Return the close_notify of this end."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()


class TlsLine(TlsInMemory):
    """One connection. Only `shake_hands` and `send` send on it."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.raw = raw
        self._loop = asyncio.get_running_loop()
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.raw, data)

    async def receive(self) -> bytes:
        """Return octets as they were received, which TLS gets too; b"" at the end."""
        data = await self._loop.sock_recv(self.raw, _SOME)
        self._incoming.write(data)
        return data

    async def shake_hands(self, *, last: bytes | None = None) -> None:
        """Do this end's part of the handshake; `last` is sent, encrypted, with its last flight.

        Raises ssl.SSLError after the alert has been sent.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(self._outgoing.read())
                assert await self.receive(), "cut in the handshake"
            except ssl.SSLError:
                await self.send(self._outgoing.read())
                raise
            else:
                break
        if last is not None:
            self.tls.write(last)
        await self.send(self._outgoing.read())

    async def read(self) -> bytes:
        """Return some of what the gateway sent, decrypted; b"" after close_notify.

        Raises ConnectionError when the connection ends without one, ssl.SSLError for an alert.
        """
        while True:
            try:
                return self.tls.read(_SOME)
            except ssl.SSLWantReadError:
                if not await self.receive():
                    raise ConnectionAbortedError from None

    async def read_until(self, end: bytes = b"\r\n\r\n") -> bytes:
        """Return what the gateway sent up to and including `end`."""
        while end not in self.received:
            data = await self.read()
            assert data, "the gateway said goodbye"
            self.received += data
        before, _, self.received = self.received.partition(end)
        return before + end

    async def at_end(self) -> str:
        """Return how the gateway ends the connection; data before the end is discarded."""
        try:
            while await self.read():
                pass
        except ssl.SSLZeroReturnError:
            # OpenSSL raises this when this end has sent its close_notify already.
            return "close_notify"
        except ssl.SSLError as error:
            return error.reason
        except ConnectionError:
            return "cut"
        return "close_notify"

    async def closed(self) -> bool:
        """Return True when the connection has ended; everything received before is discarded."""
        with contextlib.suppress(ConnectionError):
            while await self.receive():
                pass
        return True

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()
