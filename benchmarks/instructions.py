"""The instructions that the gateway executes for each request, as valgrind's callgrind counts them.

    .venv/bin/python -m benchmarks.instructions
    .venv/bin/python -m benchmarks.instructions --compiled build/compiled --level 2

Unlike time, the count does not depend on what else the machine does. One client sends one request
at a time, each when the audit record of the one before has been written: how many records share a
write would depend on time. What the gateway executes by the clock alone, such as its checks of each
second, is counted while it is idle, and subtracted. To keep this part small, the gateway has
priority over other programs where that is permitted. Names are hashed and memory is laid out alike
in each run, and each figure is the median of several batches, so that a full garbage collection in
one of them does not show. It is compared with the one in `results/instructions.json`, and may
differ from it by 3 %, with the outbox by 65 %: some writes enlarge the file, and the platform is
asked meanwhile.
`--record` writes what was counted to that file. What has grown by more needs `--why`; what has
become less must be recorded, too, so that it is not lost again.

The figures depend on the interpreter and on how it was compiled. Where there are none for this one,
that is said; it is an error in CI if there are none for any.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import gateway_settings
from benchmarks.pages import observation
from benchmarks.prerequisites import provide_debian_programs
from benchmarks.processes import Pinned, ahead_of_others, free_port, running
from benchmarks.surroundings import HERE, LINKED, READ, TOKEN, Surroundings, surroundings

FIGURES: Final = HERE / "results" / "instructions.json"
# By which part a count may differ from the recorded one.
ROOM: Final = 0.03
OUTBOX_ROOM: Final = 0.65
QUEUED: Final = "queued"
DELIVERY: Final = "delivery"
# Python specialises its bytecode, and pools and caches fill, before anything is counted.
WARM_UP: Final = 60
# A batch varies by 2 %, the median of nine by less than 1.
BATCHES: Final = 9
REQUESTS: Final = 40
DELIVERIES: Final = 120
PATIENTS: Final = 20
# Seconds. The gateway runs some fifty times slower than usual, and other programs may use the core.
_TIMEOUT: Final = 900.0
_LIMITS: Final = {"header_timeout": _TIMEOUT, "keep_alive": 2 * _TIMEOUT}
_PLATFORM_TIMEOUTS: Final = dict.fromkeys(
    ("connect_timeout", "response_timeout", "idle_timeout"), _TIMEOUT
)
_CLOSED_CIRCUIT: Final = {"min_requests": 1_000_000}
_IDLE_SECONDS: Final = 3.0
# While the platform is down, it is asked every few seconds.
_IDLE_SECONDS_OF_OUTAGE: Final = 20.0
_TOTAL: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)

Figures = Mapping[str, Mapping[str, Any]]
"""The recorded figures of one interpreter by workload: `instructions`, and `why` they grew."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A count beside the recorded one; `recorded` is None where there is none."""

    workload: str
    counted: int
    recorded: int | None

    @property
    def ratio(self) -> float:
        """Return by which part of the recorded count this one is larger, or smaller if negative."""
        return self.counted / self.recorded - 1 if self.recorded else 0.0

    @property
    def is_fault(self) -> bool:
        """Return whether the counts differ by more than is allowed."""
        return abs(self.ratio) > room_of(self.workload)


def room_of(workload: str) -> float:
    """Return by which part a count may differ from the recorded one."""
    return OUTBOX_ROOM if workload in (QUEUED, DELIVERY) else ROOM


def compare(counted: Mapping[str, int], recorded: Figures) -> list[Difference]:
    """Return each count beside the recorded one of its workload."""
    return [
        Difference(name, count, recorded.get(name, {}).get("instructions"))
        for name, count in counted.items()
    ]


def record(counted: Mapping[str, int], recorded: Figures, why: str) -> Figures:
    """Return the recorded figures with those that were counted; `why` is the reason of growth.

    A figure within the allowed difference stays: many small steps would add up unseen. Raises
    SystemExit when a figure has grown without a reason.
    """
    figures = dict(recorded)
    for each in compare(counted, recorded):
        has_grown = each.is_fault and each.ratio > 0
        if has_grown and not why:
            raise SystemExit(f"{each.workload} has grown by {each.ratio:.1%}: say why, with --why")
        if each.recorded is None or each.is_fault:
            reason = {"why": why} if has_grown else {}
            figures[each.workload] = {"instructions": each.counted, **reason}
    return figures


def report(differences: Sequence[Difference]) -> str:
    """Return the lines of the table of counts."""
    lines = []
    for each in differences:
        beside = "not recorded"
        if each.recorded is not None:
            beside = f"{each.ratio:+7.1%} of {each.recorded:,}{'  <- too far' * each.is_fault}"
        lines.append(f"{each.workload:16}{each.counted:14,}  {beside}")
    return "\n".join(lines)


def total_of(dump: str) -> int | None:
    """Return the instructions of a file that callgrind writes, None before they are written."""
    found = _TOTAL.search(dump)
    return int(found[1]) if found else None


class CountedGateway:
    """A gateway under callgrind, and one connection to it. Nothing is counted before `begin`."""

    def __init__(self, process: Pinned, directory: Path, port: int) -> None:
        self._process = process
        self._directory = directory
        self._dumps = 0
        self._taken_at = 0.0
        self._audit = (directory / "output").open("rb")
        self._line = b""  # of the audit
        self._client = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._received = b""

    def begin(self) -> None:
        """Begin to count."""
        self._tell_callgrind("instrumentation", "on")

    def take(self) -> tuple[int, float]:
        """Return the instructions and the seconds since the last call, or since `begin`."""
        self._tell_callgrind("dump")
        began, self._taken_at = self._taken_at, time.monotonic()
        self._dumps += 1
        while time.monotonic() < self._taken_at + _TIMEOUT:
            for file in self._directory.glob(f"count.*.{self._dumps}"):
                total = total_of(file.read_text())
                if total is not None:
                    return total, self._taken_at - began
            time.sleep(0.05)
        raise SystemExit("callgrind wrote no count")

    def take_idle(self, seconds: float) -> float:
        """Wait so long. Return how many instructions a second the clock alone causes."""
        self.take()
        time.sleep(seconds)
        total, taken = self.take()
        return total / taken

    def _tell_callgrind(self, *command: str) -> None:
        target = f"--pid={self._process.popen.pid}", f"--vgdb-prefix={self._directory}/vgdb"
        told = ["vgdb", *target, *command]
        subprocess.run(told, capture_output=True, timeout=_TIMEOUT, check=True)

    def send(self, request: bytes, status: bytes) -> None:
        """Send a request, and wait for its response and audit record.

        Raises SystemExit when the response has another status.
        """
        self._client.sendall(request)
        head = self._read_to(b"\r\n\r\n")
        if head[9:12] != status:
            raise SystemExit(f"answered {head[:400]!r}")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        if length is None:
            self._read_to(b"\r\n0\r\n\r\n")
        else:
            while len(self._received) < int(length[1]):
                self._receive()
            self._received = self._received[int(length[1]) :]
        self._wait_for_record()

    def _wait_for_record(self) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            self._line += self._audit.readline()
            if self._line.endswith(b"\n"):
                line, self._line = self._line, b""
                if b'"exchange"' in line:
                    return
            else:
                time.sleep(0.002)
        raise SystemExit("the gateway wrote no audit record")

    def _read_to(self, end: bytes) -> bytes:
        while end not in self._received:
            self._receive()
        found, _, self._received = self._received.partition(end)
        return found

    def _receive(self) -> None:
        received = self._client.recv(1 << 20)
        if not received:
            raise SystemExit("the gateway has closed the connection")
        self._received += received

    def count_each(
        self, requests: Iterator[bytes], status: bytes, idle_seconds: float = _IDLE_SECONDS
    ) -> int:
        """Send requests in batches, one at a time. Return the median count for each of them."""
        for _ in range(WARM_UP):
            self.send(next(requests), status)
        idle = self.take_idle(idle_seconds)
        counts = []
        for _ in range(BATCHES):
            for _ in range(REQUESTS):
                self.send(next(requests), status)
            total, seconds = self.take()
            counts.append((total - idle * seconds) / REQUESTS)
        return round(statistics.median(counts))

    def wait_until_idle(self) -> None:
        """Wait until the gateway has used next to no processor time for two seconds."""
        used = self._process.cpu_seconds()
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            time.sleep(2)
            before, used = used, self._process.cpu_seconds()
            if used - before < 0.1:
                return
        raise SystemExit("the gateway does not become idle")


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Where gateways are started on one core, with what is around them on another.

    What callgrind writes is below `directory`.
    """

    around: Surroundings
    core: int
    load_core: int
    compiled: Path | None
    directory: Path

    @contextlib.contextmanager
    def gateway(
        self, name: str, platform: Mapping[str, object], **more: object
    ) -> Iterator[CountedGateway]:
        """Run a gateway under callgrind until the block ends, with defaults but for the settings.

        None of its own timeouts passes meanwhile: it would answer 503 or 408.
        """
        directory = self.directory / name
        directory.mkdir(parents=True)
        port = free_port()
        sso = {"token_url": self.around.upstream("python").token_url, "timeout": _TIMEOUT}
        admin = {"address": f"127.0.0.1:{free_port()}", "probe_interval": 0}
        platform = {**platform, **_PLATFORM_TIMEOUTS}
        settings = gateway_settings(
            port, platform=platform, admin=admin, sso=sso, limits=_LIMITS, **more
        )
        file = directory / "gateway.yaml"
        file.write_text(json.dumps(settings))  # JSON is valid YAML
        sources = HERE.parent if self.compiled is None else self.compiled
        command: list[str | Path] = [
            *("env", "--unset=DHP_GATEWAY_OPTIMISATION", f"PYTHONPATH={sources.resolve()}"),
            *("PYTHONHASHSEED=0", "setarch", "--addr-no-randomize", "valgrind", "--quiet"),
            *("--tool=callgrind", "--instr-atstart=no", f"--vgdb-prefix={directory}/vgdb"),
            *(f"--callgrind-out-file={directory}/count.%p", sys.executable, "-P", "-m", "gateway"),
            *("run", "--config", file),
        ]
        with running(command, self.core, directory / "errors", directory / "output") as process:
            process.until_listening(port, patience=_TIMEOUT)
            # What the clock causes is the larger part where a batch takes long.
            with ahead_of_others([process]):
                yield CountedGateway(process, directory, port)

    @contextlib.contextmanager
    def platform(self, port: int) -> Iterator[None]:
        """Run a platform that accepts writes until the block ends."""
        command: list[str | Path] = [sys.executable, HERE / "upstream.py", str(port), TOKEN, ""]
        errors = self.around.directory / f"{port}.err"
        with running(command, self.load_core, errors) as process:
            process.until_answering(port, READ, headers={"Authorization": f"Bearer {TOKEN}"})
            yield


def _request(method: str, path: str, body: bytes = b"", *fields: str) -> bytes:
    lines = ["Host: localhost", *fields]
    if body:
        lines += ["Content-Type: application/fhir+json", f"Content-Length: {len(body)}"]
    return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "", "")).encode() + body


# What is forwarded, by the name of the upstream: requests, each with the status of its response.
FORWARDED: Final = {
    "files": {
        "read": (_request("GET", READ), b"200"),
        "create": (_request("POST", "/fhir/Observation", observation(3000)), b"201"),
        "page-compact": (_request("GET", f"{LINKED}compact"), b"200"),
        "page-indented": (_request("GET", f"{LINKED}indented"), b"200"),
    },
    "tls": {"read-tls": (_request("GET", READ), b"200")},
}
WORKLOADS: Final = (*FORWARDED["files"], *FORWARDED["tls"], QUEUED, DELIVERY)


def count_forwarded(
    laboratory: Laboratory, upstream_name: str, workloads: Collection[str]
) -> Iterator[tuple[str, int]]:
    """Yield the counts of requests that a gateway forwards to one of the platform's forms."""
    requests = {name: sent for name, sent in FORWARDED[upstream_name].items() if name in workloads}
    if not requests:
        return
    upstream = laboratory.around.upstream(upstream_name)
    platform = {"fhir_base_url": f"{upstream.origin}/fhir"}
    if upstream.tls:
        platform["ca_file"] = str(laboratory.around.directory / "ca.pem")
    with laboratory.gateway(upstream_name, platform, circuit_breaker=_CLOSED_CIRCUIT) as gateway:
        gateway.begin()
        for name, (request, status) in requests.items():
            yield name, gateway.count_each(_repeated(request), status)


def _repeated(request: bytes) -> Iterator[bytes]:
    while True:
        yield request


def _writes() -> Iterator[bytes]:
    """Yield updates of 2 kB that may be queued, of several patients."""
    number = 0
    while True:
        body = json.dumps(
            {
                "resourceType": "Observation",
                "id": f"o-{number}",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
                "subject": {"reference": f"Patient/{number % PATIENTS}"},
                "note": [{"text": "x" * 1800}],
            }
        ).encode()
        yield _request("PUT", f"/fhir/Observation/o-{number}", body, "Prefer: respond-async")
        number += 1


def count_queued(laboratory: Laboratory, workloads: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield the counts of a write that is queued, and of its delivery."""
    if not {QUEUED, DELIVERY} & set(workloads):
        return
    port = free_port()
    outbox = {
        "enabled": True,
        "url": f"sqlite:///{laboratory.around.directory}/outbox.db",
        "encryption_key": base64.urlsafe_b64encode(bytes(32)).decode().rstrip("="),
    }
    platform = {"fhir_base_url": f"http://127.0.0.1:{port}/fhir"}
    writes = _writes()
    with laboratory.gateway("outbox", platform, outbox=outbox) as gateway:
        gateway.begin()
        yield QUEUED, gateway.count_each(writes, b"202", _IDLE_SECONDS_OF_OUTAGE)
        if DELIVERY not in workloads:
            return
        # What was queued so far is delivered to warm up.
        _deliver(laboratory, gateway, port, WARM_UP + BATCHES * REQUESTS)
        for _ in range(DELIVERIES):
            gateway.send(next(writes), b"202")
        gateway.take()
        _deliver(laboratory, gateway, port, DELIVERIES)
        total, seconds = gateway.take()
        idle = gateway.take_idle(_IDLE_SECONDS)
        yield DELIVERY, round((total - idle * seconds) / DELIVERIES)


def _deliver(laboratory: Laboratory, gateway: CountedGateway, port: int, writes: int) -> None:
    """Run a platform until all has been delivered to it, and recorded."""
    with laboratory.platform(port):
        deadline = time.monotonic() + _TIMEOUT
        while _writes_received(port) < writes:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {_writes_received(port)} of {writes} were delivered")
            time.sleep(0.2)
        gateway.wait_until_idle()


def _writes_received(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts", timeout=30) as counts:
        return int(json.load(counts)["writes"])


def figures_key(compiled: Path | None, level: str) -> str:
    """Return what the counts depend on beside the sources, as the name of their figures."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    form = "interpreted" if compiled is None else f"compiled with -O{level}"
    return f"{python}, {platform.python_compiler()}, {platform.machine()}, {form}"


def main() -> None:
    """Count, compare or record, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--compiled", type=Path, help="the folder of a compiled gateway")
    parser.add_argument("--level", default="2", help="the C compiler's level it was made with")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--keep", type=Path, help="a new folder for what callgrind writes")
    parser.add_argument("--record", action="store_true", help="write the figures to the file")
    parser.add_argument("--why", default="", help="why a figure has grown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends all, too.
    provide_debian_programs("nginx", "haproxy", "valgrind")
    workloads = options.workloads.split(",")
    key = figures_key(options.compiled, options.level)
    every: dict[str, Figures] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    cores = sorted(os.sched_getaffinity(0))
    with surroundings(cores[-1]) as (around, _):
        kept = options.keep or around.directory / "counted"
        laboratory = Laboratory(around, cores[0], cores[-1], options.compiled, kept.resolve())
        counts = itertools.chain(
            count_forwarded(laboratory, "files", workloads),
            count_forwarded(laboratory, "tls", workloads),
            count_queued(laboratory, workloads),
        )
        print(f"Instructions for each request, {key}:", flush=True)
        differences = []
        for name, count in counts:
            differences += compare({name: count}, every.get(key, {}))
            print(report(differences[-1:]), flush=True)
    counted = {each.workload: each.counted for each in differences}
    if options.record:
        every[key] = record(counted, every.get(key, {}), options.why)
        FIGURES.write_text(json.dumps(every, indent=2) + "\n")
    elif any(each.is_fault for each in differences):
        raise SystemExit("More than is allowed: benchmarks/README.md says what to do.")
    elif key not in every:
        print(f"No figures of this Python are recorded in {FIGURES.name}.")
        if not every and "CI" in os.environ:
            raise SystemExit("Nor of any other.")


if __name__ == "__main__":
    main()
