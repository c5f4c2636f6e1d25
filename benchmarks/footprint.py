"""The cost of a proxy without load: time to start, and memory while it is idle."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Sequence

from benchmarks.open_loop import is_complete
from benchmarks.rounds import Bench, Entry, Samples
from benchmarks.surroundings import READ
from benchmarks.watching import Figures, Watch

IDLE_CONNECTIONS = 1000


def starts(bench: Bench, entries: Sequence[Entry]) -> Samples:
    """Measure the start to the first forwarded request: seconds, and CPU seconds of them.

    Raises TooBusyError.
    """
    samples: Samples = {entry.label: [] for entry in entries}
    watch = Watch((bench.proxy_core, bench.load_core), bench.own)

    def start(entry: Entry) -> Figures:
        with bench.started(entry) as process:
            assert process is not None
            seconds = process.until_answering(entry.port, READ, headers=entry.fields)
            return {"first_request_s": seconds, "start_cpu_s": process.cpu_seconds()}

    for number in range(bench.options.starts + 1):
        for entry in entries:
            if number == 0:  # Programs and their files are then in the page cache.
                start(entry)
                continue
            figures = bench.undisturbed(watch, None, functools.partial(start, entry))
            samples[entry.label].append(figures)
    return samples


def memory(bench: Bench, entries: Sequence[Entry]) -> Samples:
    """Measure bytes in use after one request, and with open connections that each served one."""
    samples: Samples = {entry.label: [] for entry in entries}
    for _ in range(min(bench.options.rounds, 3)):
        for entry in entries:
            with bench.ready(entry) as process, contextlib.ExitStack() as stack:
                assert process is not None
                time.sleep(bench.options.settle)
                idle = process.memory()
                for _ in range(IDLE_CONNECTIONS):
                    stack.enter_context(_used_once(entry))
                time.sleep(bench.options.settle)
                connected = process.memory()
            samples[entry.label].append(
                {
                    "rss": idle.rss,
                    "pss": idle.pss,
                    "rss_connected": connected.rss,
                    "pss_connected": connected.pss,
                }
            )
    return samples


def _used_once(entry: Entry) -> socket.socket:
    """Return a connection that has served one request.

    Raises SystemExit when the request failed.
    """
    port = entry.port
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    lines = "".join(f"{name}: {value}\r\n" for name, value in entry.fields.items())
    connection.sendall(f"GET {READ} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    received = b""
    while not is_complete(received):
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"port {port} closed a connection instead of answering")
        received += piece
    if received[9:12] != b"200":
        raise SystemExit(f"port {port} answered {received[:100]!r}")
    return connection
