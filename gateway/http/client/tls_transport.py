"""TLS to the platform on top of a TCP transport: OpenSSL between two memory buffers.

The event loop's own TLS layer calls OpenSSL once more after all received data, only for the
exception that there is no more, and allocates a quarter of a megabyte for each connection. This
layer knows when all data was read. What it saves is in docs/decisions.md, "TLS towards the
platform".

How much is read from a connection at a time is limited, with and without TLS. The event loop's own
reads of up to 256 KB would be retained for each caller that reads its response slowly; with
hundreds of such callers they would fill the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

# Shared by all connections of the process: received data is copied out before the next read.
_BUFFER: Final = bytearray(64 * 1024)
_VIEW: Final = memoryview(_BUFFER)


class BoundedReadProtocol(asyncio.BufferedProtocol):
    """A protocol whose `data_received` gets at most 64 KiB."""

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer into which the event loop reads (asyncio.BufferedProtocol)."""
        del sizehint
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Copy out the bytes that have arrived (asyncio.BufferedProtocol)."""
        self.data_received(_VIEW[:nbytes].tobytes())

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """Begin to use the transport; implemented by subclasses."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Process data that has arrived; implemented by subclasses."""
        raise NotImplementedError

    def on_ciphertext_received(self) -> None:
        """React to TLS records that have arrived and hold no data yet."""


# The maximum content of one record (RFC 8446 section 5.1).
_MAX_RECORD_BYTES: Final = 16 * 1024
# The minimum that is requested: more of a record may be available than arrived last.
_MIN_READ_BYTES: Final = 2 * 1024
# Bytes that are encrypted at a time: OpenSSL's buffers never shrink.
_SLICE_BYTES: Final = 64 * 1024
# Seconds for which a platform that reads nothing can delay a close, as in the event loop's own
# layer.
_CLOSE_TIMEOUT: Final = 30.0
# Alerts by which a server rejects a client's certificate, or the lack of one (RFC 8446 section
# 6.2), as OpenSSL names them.
_CERTIFICATE_ALERTS: Final = frozenset(
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
    """The platform rejected the gateway's certificate after the gateway's part of the handshake."""


def is_certificate_alert(error: ssl.SSLError) -> bool:
    """Return whether the peer sent an alert about the gateway's certificate."""
    # `reason` is None where Python does not know OpenSSL's reason. The declared type is `str`,
    # which compiled code would enforce without `getattr`.
    reason: str | None = getattr(error, "reason", None)
    return reason in _CERTIFICATE_ALERTS


class TlsTransport(BoundedReadProtocol):
    """A connection's transport over TLS, and the protocol of the TCP transport below.

    `connection_made` of the connection is called once the platform is authenticated. `close` takes
    at most `close_timeout` seconds, even if the platform reads nothing of the buffered data.
    """

    def __init__(
        self,
        connection: BoundedReadProtocol,
        context: ssl.SSLContext,
        server_hostname: str,
        *,
        close_timeout: float = _CLOSE_TIMEOUT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._tcp_transport: asyncio.Transport | None = None
        # Completes when the handshake has succeeded or failed. It never carries the error, which
        # would create a reference cycle.
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._is_handshake_done = False
        # Whether the platform may still be checking the gateway's certificate: in TLS 1.3 it does
        # so after the gateway's part of the handshake, and before it reads anything that the
        # gateway has sent. In TLS 1.2 an alert about the certificate would end a renegotiation,
        # which can happen at any time.
        self._may_reject_certificate = False
        self._error: Exception | None = None
        # Data that cannot be encrypted while the platform renegotiates (TLS 1.2).
        self._backlog = b""
        self._is_tcp_paused = False
        self._closing = False
        self._close_timeout = close_timeout
        self._close_timer: asyncio.TimerHandle | None = None
        # Whether the platform announced the end of its data (RFC 8446 section 6.1), which a broken
        # connection does not do.
        self.received_close_notify = False

    async def wait_established(self) -> None:
        """Wait until the handshake is done.

        Raises ssl.SSLError, or another OSError when the connection breaks; the transport is closed
        then, as it is when the waiting task is cancelled.
        """
        try:
            await self._handshake
        except BaseException:
            self.abort()
            raise
        if not self._is_handshake_done:
            raise self._pop_error() or ConnectionResetError()

    # Called by the connection.

    def write(self, data: bytes) -> None:
        """Encrypt and send the data; it is dropped after `close` or the end of the connection."""
        if self._closing or not data:
            return
        if self._backlog:
            self._backlog += data
            return
        self._encrypt(data)
        self._send()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the system has not accepted yet."""
        below = 0 if self._tcp_transport is None else self._tcp_transport.get_write_buffer_size()
        return len(self._backlog) + below

    def get_extra_info(self, name: str) -> Any:
        """Return the TCP transport's value, None without a connection."""
        return None if self._tcp_transport is None else self._tcp_transport.get_extra_info(name)

    def pause_reading(self) -> None:
        """Pause reading from the platform. Data that was received already is still delivered."""
        if self._tcp_transport is not None:
            self._tcp_transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading from the platform."""
        if self._tcp_transport is not None:
            self._tcp_transport.resume_reading()

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._closing or self._tcp_transport is None or self._tcp_transport.is_closing()

    def close(self) -> None:
        """Send close_notify and close, without waiting for the platform's close_notify."""
        if self._closing:
            return
        if self._is_handshake_done:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._finish()

    def abort(self) -> None:
        """Close at once, without close_notify and without sending buffered data."""
        self._closing = True
        if self._tcp_transport is not None:
            self._tcp_transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """Begin the handshake (asyncio.Protocol)."""
        self._tcp_transport = cast(asyncio.Transport, transport)
        self._advance_handshake()

    def data_received(self, data: bytes) -> None:
        """Decrypt the data and pass it on, or continue the handshake (asyncio.Protocol)."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._is_handshake_done:
            self._read()
        else:
            self._advance_handshake()

    def eof_received(self) -> None:
        """Pass on the end of the platform's data, clean or not, and close (asyncio.Protocol)."""
        if self._closing:
            return
        if self._is_handshake_done:
            self._protocol.eof_received()
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss to the handshake's waiter, or else to the protocol (asyncio.Protocol)."""
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
        """Pass on that the TCP transport's buffer is full (asyncio.Protocol)."""
        self._is_tcp_paused = True
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the TCP transport accepts more, if no backlog waits (asyncio.Protocol)."""
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
        self._may_reject_certificate = self._tls.version() == "TLSv1.3"
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
        """Decrypt all that has arrived and pass it on with one call."""
        # OpenSSL's `read` allocates the requested size before it is known how much data there is.
        read_size = min(max(self._incoming.pending, _MIN_READ_BYTES), _MAX_RECORD_BYTES)
        chunks: list[bytes] = []
        broken = False
        try:
            while chunk := self._tls.read(read_size):
                chunks.append(chunk)
                # There was less than requested: nothing of this record is left.
                if len(chunk) < read_size and not self._incoming.pending:
                    break
            else:
                self.received_close_notify = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            broken = True
            if self._may_reject_certificate and not chunks and is_certificate_alert(error):
                self._error = ClientCertificateRejectedError()
        if self._backlog and not broken:
            self._write_backlog()
        self._send()
        if chunks:
            self._may_reject_certificate = False
            self._protocol.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        self._conclude(broken=broken, has_data=bool(chunks))

    def _conclude(self, *, broken: bool, has_data: bool) -> None:
        """React to received bytes that are no data: errors, close_notify, incomplete records."""
        if broken:
            self._finish()
        elif self.received_close_notify:
            self.eof_received()
        elif not has_data:
            self._protocol.on_ciphertext_received()

    def _encrypt(self, data: bytes) -> None:
        done = 0
        try:
            if len(data) <= _SLICE_BYTES:
                done = self._tls.write(data)
            if done < len(data):
                # Without a memoryview the rest would be copied for each slice.
                rest = memoryview(data)
                while done < len(data):
                    done += self._tls.write(rest[done : done + _SLICE_BYTES])
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
        """Send what OpenSSL produced: records, and messages of the TLS protocol itself."""
        if self._outgoing.pending and self._tcp_transport is not None:
            self._tcp_transport.write(self._outgoing.read())

    def _finish(self) -> None:
        """Send what OpenSSL produced, perhaps an alert with the reason, and close."""
        self._closing = True
        self._send()
        if self._tcp_transport is None:
            return
        self._tcp_transport.close()
        if self._tcp_transport.get_write_buffer_size() and self._close_timer is None:
            self._close_timer = self._loop.call_later(
                self._close_timeout, self._tcp_transport.abort
            )
