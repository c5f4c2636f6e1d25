"""A platform's side of TLS of which a test decides every byte: what is sent, when, in what pieces.

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
    """Listens on a port of its own; an async context manager."""

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
        """The next connection, on which nothing was said yet."""
        raw, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = TlsLine(raw, self._context)
        self._lines.append(line)
        return line


class TlsInMemory:
    """The platform's TLS without a line."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handle(self, data: bytes) -> bytes:
        """What is to be sent in the handshake after this came."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def record(self, data: bytes) -> bytes:
        """The data encrypted."""
        self.tls.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Our close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()


class TlsLine(TlsInMemory):
    """One connection. Nothing is sent but by `shake_hands` and `send`."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.raw = raw
        self._loop = asyncio.get_running_loop()
        self.received = b""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._loop.sock_sendall(self.raw, data)

    async def receive(self) -> bytes:
        """Bytes as they came, also given to TLS; none at the end."""
        data = await self._loop.sock_recv(self.raw, _SOME)
        self._incoming.write(data)
        return data

    async def shake_hands(self, *, last: bytes | None = None) -> None:
        """Do our part of the handshake; with `last`, that is encrypted into its last flight.

        Raises ssl.SSLError, when what there was to say of that has been sent.
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
        """Some of what the gateway sent, decrypted; none after close_notify.

        Raises ConnectionError where the line ends without one, ssl.SSLError for an alert.
        """
        while True:
            try:
                return self.tls.read(_SOME)
            except ssl.SSLWantReadError:
                if not await self.receive():
                    raise ConnectionAbortedError from None

    async def read_until(self, end: bytes = b"\r\n\r\n") -> bytes:
        """What the gateway sent up to this."""
        while end not in self.received:
            data = await self.read()
            assert data, "the gateway said goodbye"
            self.received += data
        before, _, self.received = self.received.partition(end)
        return before + end

    async def at_end(self) -> str:
        """How the gateway ends the connection; what else it sends is left out of account."""
        try:
            while await self.read():
                pass
        except ssl.SSLZeroReturnError:
            # So it is called when we have said ours.
            return "close_notify"
        except ssl.SSLError as error:
            return error.reason
        except ConnectionError:
            return "cut"
        return "close_notify"

    async def closed(self) -> bool:
        """Whether the connection ends at last, whatever still comes before."""
        with contextlib.suppress(ConnectionError):
            while await self.receive():
                pass
        return True

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()
