"""Requests at fixed times, whether or not earlier ones have a response.

A load generator that waits for a response before its next request does not see how many callers
would have waited behind a slow one (coordinated omission). Here request number n is due at n/rate
in any case, uses another connection when all are busy, and its latency counts from the time at
which it was due. wrk2 does the same; Debian has no package of it.
"""

from __future__ import annotations

import ctypes
import gc
import select
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.figures import percentile
from benchmarks.watching import Figures

_PR_SET_TIMERSLACK = 29
_MOST_CONNECTIONS = 512
_PATIENCE = 10.0


@dataclass(slots=True)
class _Exchange:
    """A connection with a request in flight."""

    due: float
    received: bytes = b""


@dataclass(slots=True)
class OpenLoop:
    """`rate` requests a second for a small response."""

    path: str
    rate: float
    idle: list[socket.socket] = field(default_factory=list)
    busy: dict[socket.socket, _Exchange] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def run(self, port: int, seconds: float) -> Figures:
        """Return latencies in microseconds. `failed`: non-200 responses and lost connections."""
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
        self.latencies, self.failures = [], Counter()
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Accept: application/fhir+json\r\nAuthorization: Bearer none\r\n\r\n"
        ).encode()
        gc.collect()
        gc.disable()
        try:
            late = self._send_all(port, request, round(self.rate * seconds))
            self._wait_for_rest()
        finally:
            gc.enable()
            for connection in (*self.idle, *self.busy):
                connection.close()
            self.idle.clear()
            self.busy.clear()
        return self._figures(late)

    def _send_all(self, port: int, request: bytes, count: int) -> list[float]:
        """Send each request when it is due. Return by how many seconds each was late."""
        late = []
        start = time.perf_counter() + 0.01
        for number in range(count):
            due = start + number / self.rate
            while (wait := due - time.perf_counter()) > 0:
                self._receive(wait)
            connection = self._connection(port)
            late.append(time.perf_counter() - due)
            self.busy[connection] = _Exchange(due)
            try:
                connection.send(request)
            except OSError as error:
                self._lost(connection, type(error).__name__)
        return late

    def _connection(self, port: int) -> socket.socket:
        while not self.idle and len(self.busy) >= _MOST_CONNECTIONS:
            self._receive(0.001)
        if self.idle:
            return self.idle.pop()
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection

    def _receive(self, wait: float) -> None:
        """Read what arrives within `wait` seconds, at most once from each connection."""
        readable, _, _ = select.select(self.busy, (), (), wait)
        now = time.perf_counter()
        for connection in readable:
            exchange = self.busy[connection]
            try:
                piece = connection.recv(65536)
            except OSError as error:
                self._lost(connection, type(error).__name__)
                continue
            exchange.received += piece
            if not piece:
                self._lost(connection, "closed")
            elif is_complete(exchange.received):
                self._done(connection, now)

    def _done(self, connection: socket.socket, now: float) -> None:
        exchange = self.busy.pop(connection)
        self.latencies.append(now - exchange.due)
        if exchange.received[9:12] != b"200":
            self.failures[exchange.received[9:12].decode()] += 1
        self.idle.append(connection)

    def _lost(self, connection: socket.socket, why: str) -> None:
        del self.busy[connection]
        connection.close()
        self.failures[why] += 1

    def _wait_for_rest(self) -> None:
        deadline = time.perf_counter() + _PATIENCE
        while self.busy and time.perf_counter() < deadline:
            self._receive(0.01)
        self.failures["unanswered"] += len(self.busy)

    def _figures(self, late: list[float]) -> Figures:
        times = sorted(self.latencies)
        shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}
        return {
            "count": float(len(times)),
            "failed": float(self.failures.total()),
            "late_p99_us": percentile(sorted(late), 0.99) * 1e6,
            **{name: percentile(times, share) * 1e6 for name, share in shares.items()},
        }


def is_complete(received: bytes) -> bool:
    """Return whether these octets hold a complete response that has a Content-Length."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)
