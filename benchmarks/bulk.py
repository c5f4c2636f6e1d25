"""Large bodies, one after the other on one connection: bytes a second."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from benchmarks.surroundings import MIB
from benchmarks.watching import Figures

END_OF_CHUNKS = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bulk:
    """A GET whose response has at least `size` bytes, or a POST of `body`."""

    path: str
    size: int
    kind: str = "application/fhir+json"
    body: bytes = b""

    def run(self, port: int, seconds: float) -> Figures:
        """Return MiB a second; the last transfer is finished. Raises SystemExit when one fails."""
        transfers = 0
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            started = time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds or not transfers:
                self._transfer(connection, port)
                transfers += 1
        mib = transfers * (len(self.body) or self.size) / MIB
        return {"count": mib, "rate": mib / elapsed}

    def _transfer(self, connection: socket.socket, port: int) -> None:
        method = "POST" if self.body else "GET"
        head = f"{method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        if self.body:
            head += f"Content-Type: {self.kind}\r\nContent-Length: {len(self.body)}\r\n"
        connection.sendall(head.encode() + b"\r\n")
        connection.sendall(self.body)
        received = _answer(connection)
        if received < (0 if self.body else self.size):
            raise SystemExit(f"{head}: only {received} bytes came")


def _answer(connection: socket.socket) -> int:
    """Read one response and return the length of its body, framing included."""
    space = bytearray(MIB)
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit("the connection was closed before an answer")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    if head[9:10] != b"2":
        raise SystemExit(f"answered {head[:200]!r}")
    fields = head.lower() + b"\r\n"
    if b"\r\ntransfer-encoding: chunked" in fields:
        return _chunked(connection, space, rest)
    length = int(fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    got = len(rest)
    while got < length:
        got += _more(connection, space)
    return got


def _chunked(connection: socket.socket, space: bytearray, rest: bytes) -> int:
    """Read to the last chunk; the bodies here contain no line break that resembles its end."""
    got, tail = len(rest), rest[-len(END_OF_CHUNKS) :]
    while tail != END_OF_CHUNKS:
        count = _more(connection, space)
        got += count
        tail = (tail + space[max(0, count - len(END_OF_CHUNKS)) : count])[-len(END_OF_CHUNKS) :]
    return got


def _more(connection: socket.socket, space: bytearray) -> int:
    count = connection.recv_into(space)
    if not count:
        raise SystemExit("the connection was closed within an answer")
    return count
