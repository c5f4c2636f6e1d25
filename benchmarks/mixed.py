"""One gateway under the mixed load of a large hospital: latency, memory, and its limit.

    .venv/bin/python -m benchmarks.mixed --rate 500 --seconds 600
    .venv/bin/python -m benchmarks.mixed --limit

Of 100 requests 70 are reads of 1.7 kB, 15 pages of 55 kB with 350 links, 10 creates of 3 kB and 5
searches that find 5 kB. Each is sent when it is due, and its latency counts from then. Meanwhile
slow readers take a page of 1 MiB at 24 to 40 kB/s, again and again. Callers and platform speak TLS
with the gateway, which writes its audit into a file, synced to the disk, and has defaults
otherwise.

The gateway has one core; load generator, platform and SSO share another one. `--limit` raises the
rate by a tenth in each step until the p99 exceeds 100 ms or a request fails, and says which of
them had no time left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import contenders
from benchmarks.bench import cpu_model, one_at_a_time, revision
from benchmarks.figures import percentile
from benchmarks.open_loop import OpenLoop, Request, is_complete
from benchmarks.pages import linked, observation, searchset
from benchmarks.prerequisites import provide_compiled, provide_debian_programs
from benchmarks.processes import Memory, Pinned, ahead_of_others, free_port, running
from benchmarks.surroundings import HERE, KIB, MIB, Surroundings, surroundings
from benchmarks.watching import Figures, Watch

SLOW_PAGE = "/fhir/Encounter?_count=1000"
SLOW_BYTES_PER_SECOND = (24_000, 40_000)
# Opened before the first request is due: callers keep connections, which take a handshake each.
CONNECTIONS = 64
HIGHEST_P99_US = 100_000.0
# The share of a core from which on a process has no time left.
USED_UP = 0.9
# The share of a core above which other programs disturb.
MOST_OTHERS = 0.1
_PATIENTS = 100
_SEARCH = "clinical-status=active"
_SAMPLES = 10


def requests() -> list[Request]:
    """Return a mix of 1,000 requests in random order, the same each time."""
    body = observation(3000)
    every = [
        *(Request(f"/fhir/Patient/p-{number % _PATIENTS}") for number in range(700)),
        *(Request(f"/fhir/Observation?_count=90&_page={number}", "page") for number in range(150)),
        *(Request("/fhir/Observation", "create", body) for _ in range(100)),
        *(Request(f"/fhir/Condition?{_SEARCH}&_page={number}", "search") for number in range(50)),
    ]
    random.Random(7).shuffle(every)  # noqa: S311 - no secret
    return every


def write_documents(around: Surroundings) -> None:
    """Write what the platform serves, with links to itself."""
    base = f"{around.upstream('tls').origin}/fhir"
    patient = (HERE / "patient.json").read_bytes()
    for number in range(_PATIENTS):
        around.write(f"/fhir/Patient/p-{number}", patient)
    around.write("/fhir/Observation", linked(67 * KIB, base))
    around.write("/fhir/Condition", searchset(5 * KIB, base, query=f"Condition?{_SEARCH}"))
    around.write(SLOW_PAGE, linked(1275 * KIB, base))


@dataclass(slots=True)
class SlowReaders:
    """Callers that read a large page slowly. `ended` says of each response how it ended."""

    port: int
    tls: ssl.SSLContext
    ended: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def reading(self, count: int) -> Iterator[None]:
        """Read on `count` connections until the block ends."""
        threads = [threading.Thread(target=self._read_pages) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
                time.sleep(0.1)  # Callers do not begin at the same moment.
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                if thread.ident:
                    thread.join()

    def _read_pages(self) -> None:
        while not self._stopped.is_set():
            try:
                with socket.socket() as plain:
                    plain.settimeout(30)
                    # Most of the page is to wait in the gateway, not in this socket.
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
                    plain.connect(("127.0.0.1", self.port))
                    with self.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                        self._read_page(connection)
            except OSError as error:
                self.ended.append(type(error).__name__)
                self._stopped.wait(1)

    def _read_page(self, connection: ssl.SSLSocket) -> None:
        rate = random.uniform(*SLOW_BYTES_PER_SECOND)  # noqa: S311 - no secret
        head = f"GET {SLOW_PAGE} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n"
        connection.sendall(head.encode() + b"\r\n")
        received = bytearray()
        while piece := connection.recv(16 * KIB):
            received += piece
            if self._stopped.wait(len(piece) / rate):
                return
        status = received[9:12].decode()
        self.ended.append(f"{status} {'complete' if is_complete(received) else 'cut off'}")


@dataclass(frozen=True, slots=True)
class Phase:
    """What was measured at one rate; CPU time as shares of a core."""

    load: OpenLoop
    figures: Figures
    gateway: float
    generator: float
    platform: float
    others: float

    @property
    def is_good(self) -> bool:
        """Return whether no request failed and the p99 is low enough."""
        return not self.load.failures.total() and self.figures["p99_us"] <= HIGHEST_P99_US

    @property
    def cpu(self) -> str:
        """Return the shares of a core that were used."""
        return (
            f"gateway {self.gateway:.0%} ({self.figures['cpu_us']:.0f} µs a request), "
            f"load generator {self.generator:.0%}, platform and SSO {self.platform:.0%}, "
            f"other programs {self.others:.0%} of a core"
        )

    @property
    def bottleneck(self) -> str:
        """Return what had no time left, or took it from the others."""
        found = ["the gateway"] if self.gateway >= USED_UP else []
        if self.generator + self.platform >= USED_UP:
            found.append("load generator and platform, which share a core")
        if not found and self.others >= MOST_OTHERS:
            found.append(f"other programs, which used {self.others:.0%} of a core")
        return " and ".join(found) or "neither core, so perhaps the disk"


@dataclass(frozen=True, slots=True)
class Scene:
    """The gateway's process and port, those of the platform and the SSO, and the two cores."""

    process: Pinned
    port: int
    own: Sequence[Pinned]
    cores: Sequence[int]
    tls: ssl.SSLContext

    def measure(self, rate: float, seconds: float) -> Phase:
        """Send the mix at one rate."""
        load = OpenLoop(requests(), rate, self.tls, ready=CONNECTIONS)
        watch = Watch(self.cores, [*self.own, self.process])
        begin = self._seconds()
        sample = watch.sample(self.process, lambda: load.run(self.port, seconds))
        spent = [end - start for start, end in zip(begin, self._seconds(), strict=True)]
        gateway, generator, platform = (used / spent[0] for used in spent[1:])
        return Phase(load, sample.figures, gateway, generator, platform, sample.others)

    def _seconds(self) -> tuple[float, float, float, float]:
        """Return the time, and the CPU time of gateway, load generator and platform."""
        platform = sum(process.cpu_seconds() for process in self.own)
        return time.monotonic(), self.process.cpu_seconds(), time.process_time(), platform


@contextlib.contextmanager
def scene(place: Path | None) -> Iterator[Scene]:
    """Run all programs; the gateway's code is in `place`, or the installed one."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {cores[1]})
    port = free_port()

    def settings(around: Surroundings, port: int) -> dict[str, object]:
        certificate = str(around.directory / "platform.pem")
        return {
            "listen": {
                "address": f"127.0.0.1:{port}",
                "tls": {"cert_file": certificate, "key_file": certificate},
            },
            "audit": {"sink": "file", "path": str(around.directory / "audit.jsonl")},
        }

    with surroundings(cores[1]) as (around, own):
        write_documents(around)
        tls = ssl.create_default_context(cafile=around.directory / "ca.pem")
        prepare = contenders.gateway(place, variant="gateway-mixed", extra=settings)
        command = prepare(around, port, around.upstream("tls"))
        with running(command, cores[0], around.directory / "gateway.err") as process:
            process.until_answering(port, "/fhir/Patient/p-0", tls=tls)
            yield Scene(process, port, own, cores, tls)


@contextlib.contextmanager
def sampled(process: Pinned, interval: float) -> Iterator[list[Memory]]:
    """Yield a list, to which the memory in use is added in each interval until the block ends."""
    samples = [process.memory()]
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(interval):
            samples.append(process.memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()
        samples.append(process.memory())


def lasting(on: Scene, rate: float, seconds: float, slow: int) -> Iterator[str]:
    """Measure at one rate, and return the lines of the report."""
    readers = SlowReaders(on.port, on.tls)
    on.measure(rate, min(5, seconds))  # Fills pools and caches.
    before = on.process.descriptors()
    on.process.forget_peak()
    with sampled(on.process, seconds / _SAMPLES) as memory, readers.reading(slow):
        phase = on.measure(rate, seconds)
        during = on.process.descriptors()
    time.sleep(1)  # Until the gateway has closed the connections of the callers.
    yield from latencies(phase)
    yield f"failed: {dict(phase.load.failures) or 'none'}"
    yield f"slow readers: {slow}; pages: {dict(Counter(readers.ended)) or 'none read to its end'}"
    yield f"CPU: {phase.cpu}"
    yield f"sent late: p99 {phase.figures['late_p99_us'] / 1e3:.2f} ms"
    for name in ("rss", "pss"):
        sizes = [getattr(sample, name) / MIB for sample in memory]
        yield f"{name.upper()} in MiB, at equal intervals: {' '.join(f'{s:.1f}' for s in sizes)}"
    yield f"RSS at most: {on.process.peak() / MIB:.1f} MiB"
    after = on.process.descriptors()
    yield f"descriptors before, under load, after: {before}, {during}, {after}"


def latencies(phase: Phase) -> Iterator[str]:
    """Return a table of latencies, for each kind of request and for all."""
    kinds = {kind: sorted(times) for kind, times in sorted(phase.load.latencies.items())}
    kinds["all"] = sorted(value for times in kinds.values() for value in times)
    yield "| kind | responses | p50 ms | p99 ms | p99.9 ms | slowest ms |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for kind, times in kinds.items():
        values = [percentile(times, share) * 1e3 for share in (0.5, 0.99, 0.999, 1)]
        yield f"| {kind} | {len(times)} | {' | '.join(f'{value:.2f}' for value in values)} |"


def limit(on: Scene, rate: float, seconds: float, slow: int) -> Iterator[str]:
    """Raise the rate until the gateway, or the benchmark itself, does not keep up."""
    reached = 0.0
    with SlowReaders(on.port, on.tls).reading(slow):
        on.measure(rate, min(5, seconds))
        while (phase := on.measure(rate, seconds)).is_good:
            yield step(phase)
            reached, rate = rate, rate * 1.1
    yield step(phase)
    yield f"limit: {reached:.0f} requests/s; above it the bottleneck was {phase.bottleneck}"


def step(phase: Phase) -> str:
    """Return one line for one rate."""
    p99, p999 = (phase.figures[name] / 1e3 for name in ("p99_us", "p999_us"))
    return (
        f"{phase.load.rate:.0f} requests/s: p99 {p99:.1f} ms, p99.9 {p999:.1f} ms, "
        f"failed: {dict(phase.load.failures) or 'none'}; {phase.cpu}"
    )


def main() -> None:
    """Run the measurement and print its report."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--limit", action="store_true", help="raise the rate, from --rate on")
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--seconds", type=float, help="default: 600; with --limit 15 for each step")
    parser.add_argument("--slow-readers", type=int, default=20)
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("The benchmark needs two cores: one for the gateway, one for the load.")
    provide_debian_programs("nginx", "haproxy")
    place = None if options.plain else provide_compiled()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = limit if options.limit else lasting
    seconds = options.seconds or (15 if options.limit else 600)
    with one_at_a_time(), scene(place) as on, ahead_of_others([on.process, *on.own]):
        form = "compiled" if place else "not compiled"
        print(f"gateway of {revision()}, {form}; {cpu_model()}; {options.rate:.0f} requests/s")
        for line in report(on, options.rate, seconds, options.slow_readers):
            print(line, flush=True)


if __name__ == "__main__":
    main()
