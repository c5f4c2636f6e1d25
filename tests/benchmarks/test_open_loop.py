"""The load at fixed moments: it counts from when a request was due, and sees what was lost."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from benchmarks.open_loop import OpenLoop, Request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Platform:
    """Answers all connections one request after the other; pauses once, before request `pause_at`.

    What it does instead of answering request `refuse_at` or `cut_at` is a 503, or the end of the
    connection.
    """

    def __init__(self, *, pause_at: int = -1, refuse_at: int = -1, cut_at: int = -1) -> None:
        self.pause, self.pause_at = 0.4, pause_at
        self.refuse_at, self.cut_at = refuse_at, cut_at
        self.seen = 0
        self._turn = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Runs until the block ends; connections end with their callers."""
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            accepting.join()

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threads.append(threading.Thread(target=self._serve, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                with self._turn:
                    number, self.seen = self.seen, self.seen + 1
                    if number == self.pause_at:
                        time.sleep(self.pause)
                    if number == self.cut_at:
                        return
                    connection.sendall(REFUSAL if number == self.refuse_at else ANSWER)


def test_requests_that_were_due_during_a_pause_count_as_slow() -> None:
    """A pause of 0.4 s in a second is seen by the 40 requests that were due, not by one."""
    platform = Platform(pause_at=30)
    with platform.serving():
        figures = OpenLoop([Request("/")], 100).run(platform.port, 1)
    assert (figures["count"], figures["failed"]) == (100, 0)
    # Of 100 requests the slowest waited the whole pause; one in ten more than half of it.
    assert figures["p999_us"] >= 0.39e6
    assert figures["p90_us"] >= 0.2e6


def test_refusals_and_lost_connections_are_failures() -> None:
    """A 503 and a connection that ends without an answer are both counted, the rest goes on."""
    platform = Platform(refuse_at=10, cut_at=20)
    with platform.serving():
        figures = OpenLoop([Request("/")], 100).run(platform.port, 0.5)
    assert (figures["count"], figures["failed"], platform.seen) == (49, 2, 50)
