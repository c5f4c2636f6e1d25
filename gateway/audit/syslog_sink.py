"""Audit records to a syslog server: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425).

Syslog has no responses. Over TCP and TLS a record counts as written once the kernel of the server
has acknowledged its bytes, and the first ones of a connection once the server has also kept it for
a moment: a server that refuses the gateway acknowledges bytes, too. Until then it is sent again on
the next connection with the same `sequenceId`, by which a receiver detects repetitions and gaps.
Over UDP a loss goes unnoticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from gateway import os_support
from gateway.audit.audit_writer import SinkError
from gateway.clock import backoff

# Facility authpriv (10), severities by outcome as in IHE ATNA: notice, warning, err.
_AUTHPRIV: Final = 10 * 8
_NOTICE: Final = _AUTHPRIV + 5
_WARNING: Final = _AUTHPRIV + 4
_ERROR: Final = _AUTHPRIV + 3
_PRIORITY: Final[Mapping[str, int]] = {
    **dict.fromkeys(("success", "ok"), _NOTICE),
    **dict.fromkeys(("client-error", "aborted", "throttled", "error"), _WARNING),
    **dict.fromkeys(("failure", "failed", "refused", "transient", "fatal"), _ERROR),
}
_APP_NAME: Final = "dhp-gateway"
_MAX_SEQUENCE: Final = 2**31 - 1  # RFC 5424 section 7.3.1
_NOT_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")

_CONNECT_TIMEOUT: Final = 5.0
_ACKNOWLEDGE_TIMEOUT: Final = 10.0
# With TLS 1.3 a server refuses a client certificate, or its absence, after the gateway's handshake
# has ended; a server that expects TLS, or a proxy without its server, refuses what was sent. All
# have closed the connection after a round trip.
_REFUSAL_TIMEOUT: Final = 0.5
_FIRST_RETRY_DELAY: Final = 0.5
_MAX_RETRY_DELAY: Final = 10.0


class SyslogFormatter:
    """Formats records as syslog messages and numbers them."""

    def __init__(self, hostname: str | None = None, process: int | None = None) -> None:
        host = _NOT_PRINTABLE.sub("", hostname or socket.gethostname())[:255] or "-"
        self._source = f"{host} {_APP_NAME} {process or os.getpid()}"
        self._sequence = 0

    def message(self, line: bytes) -> bytes:
        """Return the line of a record as an RFC 5424 message. Its MSG is JSON in ASCII."""
        record = orjson.loads(line)
        self._sequence = self._sequence % _MAX_SEQUENCE + 1
        text = line.rstrip(b"\n")
        if not text.isascii():
            # RFC 5424 section 6.4 requires a BOM before other UTF-8, and JSON parsers fail on a
            # BOM.
            text = json.dumps(record, separators=(",", ":")).encode("ascii")
        event = record["event"]
        head = (
            f"<{priority(record)}>1 {record['timestamp']} {self._source} {event[:32]} "
            f'[meta sequenceId="{self._sequence}"] '
        )
        return head.encode("ascii") + text


def priority(record: Mapping[str, Any]) -> int:
    """Return the PRI (RFC 5424 section 6.2.1) for the outcome of a record.

    A record without an outcome counts as a success.
    """
    outcome = record.get("outcome", "success")
    if record["event"] == "audit-event":
        outcome = record["resource"]["outcome"]["code"]["code"]
    return _PRIORITY.get(outcome, _WARNING)


class SyslogSink:
    """Sends records to the syslog server at `url` (`audit_writer.Sink`). `clock` is monotonic.

    `tls` returns a new verifying context for each connection; None: TLS is not used.
    """

    def __init__(
        self,
        *,
        url: str,
        tls: Callable[[], ssl.SSLContext] | None = None,
        formatter: SyslogFormatter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self._is_datagram = parts.scheme == "udp"
        self._address = parts.hostname or "", parts.port or 0
        self._tls = tls
        self._formatter = formatter
        self._clock = clock
        self._socket: socket.socket | None = None
        self._is_proven = False  # whether the server has kept the connection after the first write
        self._messages: list[bytes] = []
        self._failures = 0
        self._not_before = 0.0

    def write(self, lines: Sequence[bytes]) -> None:
        if not self._messages:
            self._messages = [self._formatter.message(line) for line in lines]
        if self._clock() < self._not_before:
            raise ConnectionError("the syslog server was lost a moment ago")
        try:
            self._send(self._connected())
        except Exception:
            self._disconnect()
            raise
        self._messages = []
        self._failures = 0

    def discard_failed(self) -> int:
        lost, self._messages = len(self._messages), []
        return lost

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def _disconnect(self) -> None:
        """Close the connection, and delay the next attempt with exponential backoff."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._failures += 1
        delay = backoff(self._failures, _FIRST_RETRY_DELAY, _MAX_RETRY_DELAY)
        self._not_before = self._clock() + delay

    def _connected(self) -> socket.socket:
        if self._socket is not None and not self._is_datagram and _is_closed_by_peer(self._socket):
            self._socket.close()
            self._socket = None
        if self._socket is None:
            self._is_proven = False
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        host, port = self._address
        if self._is_datagram:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM
            )[0]
            datagrams = socket.socket(family, kind, protocol)
            datagrams.connect(address)
            return datagrams
        stream = socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT)
        try:
            stream.settimeout(_ACKNOWLEDGE_TIMEOUT)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is None:
                return stream
            return self._tls().wrap_socket(stream, server_hostname=host)
        except BaseException:
            stream.close()
            raise

    def _send(self, connection: socket.socket) -> None:
        if self._is_datagram:
            while self._messages:
                connection.send(self._messages[0])
                del self._messages[0]
            return
        try:
            self._transmit(connection)
        except (ConnectionError, ssl.SSLError) as error:
            if self._is_proven:
                raise
            raise SinkError(
                "the syslog server closed the new connection: is TLS or a client certificate right?"
            ) from error
        self._is_proven = True

    def _transmit(self, connection: socket.socket) -> None:
        # Octet counting (RFC 6587 section 3.4.1, RFC 5425 section 4.3).
        connection.sendall(
            b"".join(b"%d %b" % (len(message), message) for message in self._messages)
        )
        _await_acknowledgement(connection, self._clock)
        if not self._is_proven and _is_closed_by_peer(connection, _REFUSAL_TIMEOUT):
            raise ConnectionResetError


def _is_closed_by_peer(connection: socket.socket, timeout: float = 0.0) -> bool:
    """Return whether the server has closed the connection, or does so in `timeout` seconds.

    Data from the server (e.g. TLS session tickets) are discarded.
    """
    connection.settimeout(timeout)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_ACKNOWLEDGE_TIMEOUT)
    return True


def _await_acknowledgement(connection: socket.socket, clock: Callable[[], float]) -> None:
    """Wait until the peer's kernel has acknowledged all bytes. Raises OSError if it does not."""
    deadline = clock() + _ACKNOWLEDGE_TIMEOUT
    pause = 0.0002
    while os_support.unacknowledged_bytes(connection):
        if clock() > deadline:
            raise TimeoutError("the syslog server does not acknowledge")
        errors = select.poll()
        errors.register(connection, 0)
        if errors.poll(0):
            raise ConnectionResetError("the syslog server hung up")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
