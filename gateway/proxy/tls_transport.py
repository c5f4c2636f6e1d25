"""TLS towards the platform on top of a TCP transport: OpenSSL between two buffers in memory.

The event loop's own layer asks OpenSSL once more after everything that came, to be told by an
exception that there is nothing, and sets a quarter of a megabyte aside for each connection. This
one knows when all was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from gateway.proxy.connection import UpstreamConnection

# Bytes: the most that one record holds (RFC 8446 section 5.1).
_RECORD: Final = 16 * 1024


class TlsTransport(asyncio.Protocol):
    """A connection's transport over TLS, and the protocol of the TCP transport below.

    The connection is told of `connection_made` once the platform has shown who it is.
    """

    def __init__(
        self, connection: UpstreamConnection, context: ssl.SSLContext, server_hostname: str
    ) -> None:
        self._connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._below: asyncio.Transport | None = None
        # Done when the handshake is; None from then on.
        self._handshake: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        # What could not be encrypted while the platform renegotiates (TLS 1.2).
        self._backlog = b""
        self._closing = False
        # Whether the platform said that it sends no more (RFC 8446 section 6.1); a cut line says no
        # such thing.
        self.ended_cleanly = False

    async def established(self) -> None:
        """Wait until the handshake is done.

        Raises ssl.SSLError, or another OSError when the connection breaks; the transport is closed
        then, as it is when whoever waits is cancelled.
        """
        if self._handshake is None:
            return
        try:
            await self._handshake
        except BaseException:
            self.abort()
            raise

    # What the connection calls.

    def write(self, data: bytes) -> None:
        """Encrypt and send; what is written after the end is dropped."""
        if self._closing:
            return
        if self._backlog:
            self._backlog += data
            return
        self._encrypt(data)
        self._send()

    def pause_reading(self) -> None:
        """Let the platform wait. What is at hand still comes."""
        if self._below is not None:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self._below is not None:
            self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be sent."""
        return 0 if self._below is None else self._below.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closing or self._below is None or self._below.is_closing()

    def close(self) -> None:
        """Say close_notify and close; the platform's own is not waited for."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        """Drop the connection without ceremony."""
        self._closing = True
        if self._below is not None:
            self._below.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._below = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Decrypt and pass on."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._handshake is None:
            self._read()
        else:
            self._shake_hands()

    def eof_received(self) -> None:
        """The line is cut, unless close_notify came before; then this does not matter any more."""
        if self._closing:
            return
        if self._handshake is None:
            self._connection.eof_received()
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._closing = True
        self._below = None
        if self._handshake is None:
            self._connection.connection_lost(exc)
        else:
            self._fail_handshake(ConnectionResetError() if exc is None else exc)

    def pause_writing(self) -> None:
        """Back-pressure from the platform (asyncio.Protocol)."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The TCP transport takes more (asyncio.Protocol)."""
        self._connection.resume_writing()

    def _shake_hands(self) -> None:
        handshake = self._handshake
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return
        except ssl.SSLError as error:
            self._send()  # an alert that tells the platform why
            self._fail_handshake(error.with_traceback(None))
            self.close()
            return
        self._send()
        self._handshake = None
        self._connection.connection_made(self)
        if handshake is not None and not handshake.done():
            handshake.set_result(None)
        self._read()

    def _fail_handshake(self, error: Exception) -> None:
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(error)

    def _read(self) -> None:
        """Pass on all that can be decrypted, in one piece."""
        pieces: list[bytes] = []
        broken = False
        try:
            while piece := self._tls.read(_RECORD):
                pieces.append(piece)
                if not self._incoming.pending and not self._tls.pending():
                    break
            else:
                self.ended_cleanly = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            broken = True
        if self._backlog:
            backlog, self._backlog = self._backlog, b""
            self._encrypt(backlog)
        self._send()
        if pieces:
            self._connection.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if broken:
            self.abort()
        elif self.ended_cleanly and not self._closing:
            self._connection.eof_received()
            self.close()

    def _encrypt(self, data: bytes) -> None:
        """A record takes so much; a memoryview, or the rest would be copied for each."""
        done = 0
        try:
            done = self._tls.write(data)
            if done < len(data):
                rest = memoryview(data)
                while done < len(data):
                    done += self._tls.write(rest[done:])
        except ssl.SSLWantReadError:
            self._backlog = data[done:]
        except ssl.SSLError:
            self.abort()

    def _send(self) -> None:
        """Send what OpenSSL made: records, and its own messages."""
        if self._outgoing.pending and self._below is not None:
            self._below.write(self._outgoing.read())
