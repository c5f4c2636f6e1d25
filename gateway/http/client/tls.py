"""TLS towards the platform on top of a TCP transport: OpenSSL between two buffers in memory.

The event loop's own layer asks OpenSSL once more after everything that came, to be told by an
exception that there is nothing, and sets a quarter of a megabyte aside for each connection. This
one knows when all was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, Protocol, cast

from gateway.http.client.small_reads import BoundedReadProtocol

# Bytes: the most that one record holds (RFC 8446 section 5.1).
_RECORD: Final = 16 * 1024
# Bytes that are asked for at least: of a record more may be there than came last.
_LEAST: Final = 2 * 1024
# Bytes that are encrypted at a time: OpenSSL's buffers never shrink.
_SLICE: Final = 64 * 1024
# Seconds: as long as the event loop's own layer lets a platform that reads nothing hold up a close.
_LONGEST_CLOSE: Final = 30.0
# Alerts by which a server refuses a client's certificate, or the lack of one (RFC 8446 section
# 6.2), as OpenSSL calls them.
_REFUSALS: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)


class ClientCertificateRejectedError(Exception):
    """The platform ended the handshake, of which our side was done, for our certificate."""


def is_certificate_alert(error: ssl.SSLError) -> bool:
    """Whether the other side sent an alert about our certificate."""
    # None where Python does not know OpenSSL's reason; its type says otherwise, and counts when
    # this is compiled.
    reason: str | None = getattr(error, "reason", None)
    return reason in _REFUSALS


class PlaintextProtocol(Protocol):
    """A connection: one of asyncio's protocols, which get asyncio's transports only, and
    `on_ciphertext_received`.
    """

    def connection_made(self, transport: TlsTransport) -> None:
        """The platform has shown who it is."""
        ...

    def data_received(self, data: bytes) -> None:
        """This was decrypted."""
        ...

    def on_ciphertext_received(self) -> None:
        """Something came of which there is nothing to read yet."""
        ...

    def pause_writing(self) -> None:
        """No more is taken for now."""
        ...

    def resume_writing(self) -> None:
        """More is taken."""
        ...

    def eof_received(self) -> bool | None:
        """The platform sends no more."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """All is over."""
        ...


class TlsTransport(BoundedReadProtocol):
    """A connection's transport over TLS, and the protocol of the TCP transport below.

    The connection is told of `connection_made` once the platform has shown who it is. `close` takes
    `longest_close` seconds at most, even if the platform reads nothing of what is to be sent.
    """

    def __init__(
        self,
        connection: PlaintextProtocol,
        context: ssl.SSLContext,
        server_hostname: str,
        *,
        longest_close: float = _LONGEST_CLOSE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._tcp_transport: asyncio.Transport | None = None
        # Done when the handshake is over, one way or the other. It never carries the error, which
        # would make a cycle.
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._is_handshake_done = False
        # Whether the platform may still be judging our certificate: in TLS 1.3 it does so when our
        # side of the handshake is done, and looks at nothing that we sent before it has. In TLS 1.2
        # an alert about it would end a renegotiation, which can come at any time.
        self._judging = False
        self._error: Exception | None = None
        # What could not be encrypted while the platform renegotiates (TLS 1.2).
        self._backlog = b""
        self._is_tcp_paused = False
        self._closing = False
        self._longest_close = longest_close
        self._close_timer: asyncio.TimerHandle | None = None
        # Whether the platform said that it sends no more (RFC 8446 section 6.1); a cut line says no
        # such thing.
        self.received_close_notify = False

    async def wait_established(self) -> None:
        """Wait until the handshake is done.

        Raises ssl.SSLError, or another OSError when the connection breaks; the transport is closed
        then, as it is when whoever waits is cancelled.
        """
        try:
            await self._handshake
        except BaseException:
            self.abort()
            raise
        if not self._is_handshake_done:
            raise self._pop_error() or ConnectionResetError()

    # What the connection calls.

    def write(self, data: bytes) -> None:
        """Encrypt and send; what is written after the end is dropped."""
        if self._closing or not data:
            return
        if self._backlog:
            self._backlog += data
            return
        self._encrypt(data)
        self._send()

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken yet."""
        below = 0 if self._tcp_transport is None else self._tcp_transport.get_write_buffer_size()
        return len(self._backlog) + below

    def get_extra_info(self, name: str) -> Any:
        """As the TCP transport gives it."""
        return None if self._tcp_transport is None else self._tcp_transport.get_extra_info(name)

    def pause_reading(self) -> None:
        """Let the platform wait. What is at hand still comes."""
        if self._tcp_transport is not None:
            self._tcp_transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self._tcp_transport is not None:
            self._tcp_transport.resume_reading()

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closing or self._tcp_transport is None or self._tcp_transport.is_closing()

    def close(self) -> None:
        """Say close_notify and close; the platform's own is not waited for."""
        if self._closing:
            return
        if self._is_handshake_done:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._finish()

    def abort(self) -> None:
        """Drop the connection without ceremony."""
        self._closing = True
        if self._tcp_transport is not None:
            self._tcp_transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._tcp_transport = cast(asyncio.Transport, transport)
        self._advance_handshake()

    def data_received(self, data: bytes) -> None:
        """Decrypt and pass on."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._is_handshake_done:
            self._read()
        else:
            self._advance_handshake()

    def eof_received(self) -> None:
        """The platform sends no more, cleanly or not; what may follow does not matter."""
        if self._closing:
            return
        if self._is_handshake_done:
            self._protocol.eof_received()
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._closing = True
        self._tcp_transport = None
        self._backlog = b""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        if self._is_handshake_done:
            self._protocol.connection_lost(self._pop_error() or exc)
        else:
            self._fail_handshake(exc)

    def pause_writing(self) -> None:
        """Back-pressure from the platform (asyncio.Protocol)."""
        self._is_tcp_paused = True
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The TCP transport takes more (asyncio.Protocol)."""
        self._is_tcp_paused = False
        if not self._backlog:
            self._protocol.resume_writing()

    def _advance_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return
        except ssl.SSLError as error:
            self._fail_handshake(error.with_traceback(None))
            self._finish()
            return
        self._send()
        self._is_handshake_done = True
        self._judging = self._tls.version() == "TLSv1.3"
        self._protocol.connection_made(self)
        self._complete_handshake()
        self._read()

    def _fail_handshake(self, error: Exception | None) -> None:
        if self._error is None:
            self._error = error
        self._complete_handshake()

    def _complete_handshake(self) -> None:
        if not self._handshake.done():
            self._handshake.set_result(None)

    def _pop_error(self) -> Exception | None:
        error, self._error = self._error, None
        return error

    def _read(self) -> None:
        """Pass on all that can be decrypted, in one piece."""
        # What is asked for at a time is set aside before anybody knows how much there is.
        at_once = min(max(self._incoming.pending, _LEAST), _RECORD)
        pieces: list[bytes] = []
        broken = False
        try:
            while piece := self._tls.read(at_once):
                pieces.append(piece)
                # There was less than was asked for: nothing of this record is left.
                if len(piece) < at_once and not self._incoming.pending:
                    break
            else:
                self.received_close_notify = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            broken = True
            if self._judging and not pieces and is_certificate_alert(error):
                self._error = ClientCertificateRejectedError()
        if self._backlog and not broken:
            self._write_backlog()
        self._send()
        if pieces:
            self._judging = False
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._conclude(broken=broken, brought=bool(pieces))

    def _conclude(self, *, broken: bool, brought: bool) -> None:
        """Do what follows from what came but for what could be decrypted."""
        if broken:
            self._finish()
        elif self.received_close_notify:
            self.eof_received()
        elif not brought:
            self._protocol.on_ciphertext_received()

    def _encrypt(self, data: bytes) -> None:
        done = 0
        try:
            if len(data) <= _SLICE:
                done = self._tls.write(data)
            if done < len(data):
                # A memoryview, or the rest would be copied for each slice.
                rest = memoryview(data)
                while done < len(data):
                    done += self._tls.write(rest[done : done + _SLICE])
                    self._send()
        except ssl.SSLWantReadError:
            self._backlog = data[done:]
            self._protocol.pause_writing()
        except ssl.SSLError:
            self.abort()

    def _write_backlog(self) -> None:
        backlog, self._backlog = self._backlog, b""
        self._encrypt(backlog)
        if not self._backlog and not self._is_tcp_paused:
            self._protocol.resume_writing()

    def _send(self) -> None:
        """Send what OpenSSL made: records, and its own messages."""
        if self._outgoing.pending and self._tcp_transport is not None:
            self._tcp_transport.write(self._outgoing.read())

    def _finish(self) -> None:
        """Send what OpenSSL made, perhaps an alert that says why, and close."""
        self._closing = True
        self._send()
        if self._tcp_transport is None:
            return
        self._tcp_transport.close()
        if self._tcp_transport.get_write_buffer_size() and self._close_timer is None:
            self._close_timer = self._loop.call_later(
                self._longest_close, self._tcp_transport.abort
            )
