"""Processes pinned to a core, and their resource use as the kernel reports it."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

TICK = 1 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a loopback port without a listener.

    It is below the ports that systems use for outgoing connections, one of which could take it.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident and proportional set size in bytes."""

    rss: int
    pss: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """A running program, with its children if it has any."""

    popen: subprocess.Popen[bytes]
    started: float
    errors: Path

    def pids(self) -> list[int]:
        """Return its process id and those of all its descendants."""
        found = [self.popen.pid]
        for pid in found:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """Return the user and system time used so far."""
        return sum(_run_seconds(pid) for pid in self.pids())

    def memory(self) -> Memory:
        """Return the memory in use now."""
        sizes = {"Rss": 0, "Pss": 0}
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in sizes:
                    sizes[name] += int(rest.split()[0]) * 1024
        return Memory(sizes["Rss"], sizes["Pss"])

    def forget_peak(self) -> None:
        """Reset the counter of `peak`."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the most bytes in use at once since `forget_peak`."""
        found = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    found += int(line.split()[1]) * 1024
        return found

    def descriptors(self) -> int:
        """Return how many descriptors are open now."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def until_answering(
        self,
        port: int,
        path: str,
        *,
        patience: float = 60,
        headers: Mapping[str, str] = MappingProxyType({}),
        tls: ssl.SSLContext | None = None,
    ) -> float:
        """Return the seconds from the start to the first 200, polled about every millisecond."""
        deadline = time.monotonic() + patience
        status: int | None = None
        while time.monotonic() < deadline and self.popen.poll() is None:
            status = _status(port, path, headers, tls)
            if status == 200:
                return time.monotonic() - self.started
            time.sleep(0.001)
        raise self._error(f"answered {status}, awaited 200")

    def until_listening(self, port: int, *, patience: float = 60) -> None:
        """Return once a connection to the port is accepted."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.popen.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return
            time.sleep(0.005)
        raise self._error(f"does not listen on port {port}")

    def _error(self, what: str) -> SystemExit:
        said = self.errors.read_text(errors="replace")[-2000:]
        return SystemExit(f"{self.popen.args!r} {what}\n{said}")


@contextlib.contextmanager
def ahead_of_others(processes: Sequence[Pinned]) -> Iterator[bool]:
    """Let these processes and this one run before all normal ones. Yield whether that is permitted.

    With SCHED_RR (sched(7)) each of them runs as soon as it is woken, in turns with others that
    have it, also when another program is in the middle of its time slice. Their new threads inherit
    it.
    """
    pids = [os.getpid(), *(pid for process in processes for pid in process.pids())]
    try:
        _schedule(pids, os.SCHED_RR, 1)
    except PermissionError:
        print("  other programs go first at times: SCHED_RR is not permitted", file=sys.stderr)
        yield False
        return
    try:
        yield True
    finally:
        _schedule(pids, os.SCHED_OTHER, 0)


def _schedule(pids: Sequence[int], policy: int, priority: int) -> None:
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))


def _run_seconds(pid: int) -> float:
    """Return the run time of all threads in seconds.

    `schedstat` has nanoseconds, where `stat` counts ticks of ten milliseconds.
    """
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _status(
    port: int, path: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> int | None:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=tls)
    )
    try:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], core: int, errors: Path, output: Path = Path(os.devnull)
) -> Iterator[Pinned]:
    """Run a program on one core until the block ends; its standard output goes to `output`."""
    with errors.open("wb") as stderr, output.open("ab") as stdout:
        started = time.monotonic()
        popen = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield Pinned(popen, started, errors)
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(30)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
