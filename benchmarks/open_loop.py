"""Requests at fixed times, whether or not earlier ones have a response.

A load generator that waits for a response before its next request does not see how many callers
would have waited behind a slow one (coordinated omission). Here request number n is due at n/rate
in any case, uses another connection when all are busy, and its latency counts from the time at
which it was due. wrk2 does the same; Debian has no package of it.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import select
import socket
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.figures import percentile
from benchmarks.watching import Figures

_PR_SET_TIMERSLACK = 29
_MOST_CONNECTIONS = 512
_PATIENCE = 10.0
# Seconds. A gateway closes a connection that has had no request for `limits.header_timeout` (10 s).
_MOST_IDLE = 8.0


@dataclass(frozen=True, slots=True)
class Request:
    """A GET, or a POST of `body`; `kind` names the requests that are reported together."""

    path: str
    kind: str = "read"
    body: bytes = b""

    def encoded(self, port: int) -> bytes:
        """Return the message to the server on `port`."""
        head = (
            f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Accept: application/fhir+json\r\nAuthorization: Bearer none\r\n"
        )
        if self.body:
            head += f"Content-Type: application/fhir+json\r\nContent-Length: {len(self.body)}\r\n"
        return head.encode() + b"\r\n" + self.body


@dataclass(slots=True)
class _Exchange:
    """A connection with a request in flight; `unsent` is the request until it is sent."""

    due: float
    kind: str
    unsent: bytes
    received: bytes = b""


@dataclass(slots=True)
class OpenLoop:
    """`rate` requests a second, which are `requests` in turn, over TLS where `tls` is given.

    `ready` connections are opened before the first request is due, others when they are needed.
    `latencies` holds the seconds that each response took, by kind; `failures` how many requests
    failed, by kind and reason.
    """

    requests: Sequence[Request]
    rate: float
    tls: ssl.SSLContext | None = None
    ready: int = 0
    idle: list[tuple[socket.socket, float]] = field(default_factory=list)
    busy: dict[socket.socket, _Exchange] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def run(self, port: int, seconds: float) -> Figures:
        """Return latencies in microseconds. `failed`: non-2xx responses and lost connections."""
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
        self.latencies, self.failures = defaultdict(list), Counter()
        messages = [(request.kind, request.encoded(port)) for request in self.requests]
        gc.collect()
        gc.disable()
        try:
            for _ in range(self.ready):
                connection = self._connect(port)
                self.idle.append((connection, time.perf_counter()))
                _shake_hands(connection)
            late = self._send_all(port, messages, round(self.rate * seconds))
            self._wait_for_rest()
        finally:
            gc.enable()
            for connection in (*(one for one, _ in self.idle), *self.busy):
                connection.close()
            self.idle.clear()
            self.busy.clear()
        return self._figures(late)

    def _send_all(
        self, port: int, messages: Sequence[tuple[str, bytes]], count: int
    ) -> list[float]:
        """Send each request when it is due. Return by how many seconds each was late."""
        late = []
        start = time.perf_counter() + 0.01
        for number in range(count):
            due = start + number / self.rate
            while (wait := due - time.perf_counter()) > 0:
                self._receive(wait)
            kind, message = messages[number % len(messages)]
            connection = self._idle_connection() or self._connect(port)
            late.append(time.perf_counter() - due)
            self.busy[connection] = _Exchange(due, kind, message)
            self._advance(connection, due)
        return late

    def _idle_connection(self) -> socket.socket | None:
        """Return a connection to use again, or None where one may be made."""
        while not self.idle and len(self.busy) >= _MOST_CONNECTIONS:
            self._receive(0.001)
        while self.idle:
            connection, since = self.idle.pop()
            if time.perf_counter() - since < _MOST_IDLE:
                return connection
            connection.close()
        return None

    def _connect(self, port: int) -> socket.socket:
        """Return a new connection; with TLS its handshake is still to be made."""
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        if self.tls is None:
            return connection
        return self.tls.wrap_socket(
            connection, server_hostname="127.0.0.1", do_handshake_on_connect=False
        )

    def _receive(self, wait: float) -> None:
        """Read what arrives within `wait` seconds."""
        readable, _, _ = select.select(self.busy, (), (), wait)
        now = time.perf_counter()
        for connection in readable:
            self._advance(connection, now)

    def _advance(self, connection: socket.socket, now: float) -> None:
        """Continue with the handshake, the request or the response, as far as is possible `now`."""
        exchange = self.busy[connection]
        try:
            if exchange.unsent:
                if isinstance(connection, ssl.SSLSocket):
                    connection.do_handshake()
                connection.send(exchange.unsent)
                exchange.unsent = b""
                return
            while piece := connection.recv(65536):
                exchange.received += piece
                if is_complete(exchange.received):
                    self._done(connection, now)
                    return
            self._lost(connection, "closed")
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._lost(connection, type(error).__name__)

    def _done(self, connection: socket.socket, now: float) -> None:
        exchange = self.busy.pop(connection)
        self.latencies[exchange.kind].append(now - exchange.due)
        if exchange.received[9:10] != b"2":
            self.failures[f"{exchange.kind} {exchange.received[9:12].decode()}"] += 1
        self.idle.append((connection, now))

    def _lost(self, connection: socket.socket, why: str) -> None:
        exchange = self.busy.pop(connection)
        connection.close()
        self.failures[f"{exchange.kind} {why}"] += 1

    def _wait_for_rest(self) -> None:
        deadline = time.perf_counter() + _PATIENCE
        while self.busy and time.perf_counter() < deadline:
            self._receive(0.01)
        for exchange in self.busy.values():
            self.failures[f"{exchange.kind} unanswered"] += 1

    def _figures(self, late: list[float]) -> Figures:
        times = sorted(itertools.chain.from_iterable(self.latencies.values()))
        shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}
        return {
            "count": float(len(times)),
            "failed": float(self.failures.total()),
            "late_p99_us": percentile(sorted(late), 0.99) * 1e6,
            **{name: percentile(times, share) * 1e6 for name, share in shares.items()},
        }


def _shake_hands(connection: socket.socket) -> None:
    if isinstance(connection, ssl.SSLSocket):
        connection.setblocking(True)
        connection.do_handshake()
        connection.setblocking(False)


def is_complete(received: bytes | bytearray) -> bool:
    """Return whether these octets hold a complete response that says how long it is."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)
