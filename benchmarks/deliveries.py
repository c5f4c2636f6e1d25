"""The speed of delivery from an outbox, in front of a platform without delay.

    .venv/bin/python -m benchmarks.deliveries --beside ../before --entries 2000,5000,20000

A gateway is started on a SQLite outbox that holds a number of updates of 200 patients. 100 times a
second it is asked for a Patient, until all is delivered and for some seconds more. It prints the
deliveries a second, the gateway's CPU time for each, and the p99 of the reads beside the quiet one;
a write delivered out of order, twice or never ends the program. The gateway is compiled unless
`--plain`; with `--beside` that of another checkout is measured too, and neither is compiled.
`--directory` selects the disk: each claim and each result is synced to it.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import Command, gateways_beside
from benchmarks.processes import free_port

PATIENTS = 200
# So many that the p99 is not decided by one or two reads.
READS_A_SECOND = 100
QUIET_SECONDS = 20.0
_PATIENCE = 600.0
_TICKS = os.sysconf("SC_CLK_TCK")
_KEY = "B" * 43
# Run by each checkout's own Python, because each version may store entries differently.
_FILL = """
import asyncio, base64, json, sys
from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import NewEntry, RecoveryMode, QueuedRequest
from gateway.outbox.open_outbox import open_outbox_store

async def fill(url, key, entries, patients):
    settings = OutboxSettings.model_validate({"enabled": True, "url": url, "encryption_key": key,
                                              "max_entries": 10**6, "max_bytes": 10**12})
    async with open_outbox_store(settings, base64.urlsafe_b64decode(key + "=")) as store:
        for n in range(entries):
            patient = f"Patient/{n % patients}"
            body = {"resourceType": "Observation", "id": str(n), "status": "final",
                    "subject": {"reference": patient}, "note": [{"text": "x" * 1500}]}
            write = QueuedRequest("PUT", f"/Observation/{n}",
                            ((b"content-type", b"application/fhir+json"),),
                            json.dumps(body).encode(), "default", "update", "Observation", str(n),
                            f"r-{n}", "http://gateway.test/fhir")
            orders = frozenset({patient, f"Observation/{n}"})
            await store.enqueue(NewEntry("anonymous", write, orders, RecoveryMode.RESEND))

asyncio.run(fill(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


@dataclass
class Platform:
    """Responds at once, and records the time of each write by its number."""

    arrived: dict[int, float] = field(default_factory=dict)
    twice: int = 0
    disordered: int = 0
    newest: collections.Counter[int] = field(default_factory=collections.Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, length = head.lower().partition(b"content-length:")
                body = await reader.readexactly(int(length.split(b"\r\n")[0])) if length else b""
                writer.write(self._answer(head, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"POST /oauth/token"):
            token = b'{"access_token":"t","token_type":"Bearer","expires_in":3600}'
            return _message(b"application/json", token)
        if head.startswith(b"PUT"):
            self._note(int(head.split(b" ")[1].rpartition(b"/")[2]))
            return _message(b"application/fhir+json", body)
        return _message(b"application/fhir+json", b'{"resourceType":"Patient","id":"example"}')

    async def until(self, count: int) -> None:
        """Wait until `count` writes have arrived."""
        while len(self.arrived) < count:  # noqa: ASYNC110 - a signal for each would cost time
            await asyncio.sleep(0.01)

    def _note(self, number: int) -> None:
        self.twice += number in self.arrived
        self.arrived[number] = time.monotonic()
        patient = number % PATIENTS
        self.disordered += self.newest[patient] > number
        self.newest[patient] = number


@dataclass(frozen=True)
class Measured:
    """The figures of one gateway; CPU time and p99s in milliseconds."""

    rate: float
    cpu: float
    busy: float
    quiet: float


def _message(kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def read(port: int) -> float:
    """Send one read and return its duration in seconds."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(answer[:40])
    return time.monotonic() - started


async def reading(port: int, over: asyncio.Event) -> float:
    """Send reads at fixed times until `over` is set. Return their p99 in milliseconds."""
    tasks: list[asyncio.Task[float]] = []
    while not over.is_set():
        tasks.append(asyncio.create_task(read(port)))
        await asyncio.sleep(1 / READS_A_SECOND)
    return statistics.quantiles(await asyncio.gather(*tasks), n=100)[98] * 1000


async def fill(checkout: Path, url: str, entries: int) -> None:
    """Insert entries into the outbox at `url`."""
    process = await asyncio.create_subprocess_exec(
        *(checkout / ".venv/bin/python", "-c", _FILL, url, _KEY, str(entries), str(PATIENTS)),
        cwd=checkout,
    )
    if await process.wait():
        raise SystemExit(f"the outbox of {checkout} could not be filled")


async def measure(command: Command, checkout: Path, directory: Path, entries: int) -> Measured:
    """Fill an outbox in memory, and have it delivered from the disk to be measured."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as quick:
        await fill(checkout, f"sqlite:///{quick}/outbox.db", entries)
        shutil.copy(f"{quick}/outbox.db", directory / "outbox.db")
    platform = Platform()
    server = await asyncio.start_server(platform.serve, "127.0.0.1", 0)
    upstream, port = server.sockets[0].getsockname()[1], free_port()
    settings = {
        "environment": "custom",
        "listen": {"address": f"127.0.0.1:{port}"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "platform": {"fhir_base_url": f"http://127.0.0.1:{upstream}/fhir"},
        "sso": {"token_url": f"http://127.0.0.1:{upstream}/oauth/token"},
        "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
        "outbox": {
            "enabled": True,
            "url": f"sqlite:///{directory}/outbox.db",
            "encryption_key": _KEY,
        },
    }
    file = directory / "gateway.yaml"
    file.write_text(json.dumps(settings))
    gateway = await asyncio.create_subprocess_exec(
        *(*command, "run", "--config", file),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await _measured(platform, gateway.pid, port, entries)
    finally:
        gateway.terminate()
        await gateway.wait()
        server.close()


async def _measured(platform: Platform, pid: int, port: int, entries: int) -> Measured:
    async with asyncio.timeout(_PATIENCE):
        await platform.until(entries // 20)
        begun, before, cpu = time.monotonic(), len(platform.arrived), cpu_seconds(pid)
        over = asyncio.Event()
        reads = asyncio.create_task(reading(port, over))
        await platform.until(entries * 19 // 20)
        delivered = len(platform.arrived) - before
        rate = delivered / (time.monotonic() - begun)
        each = (cpu_seconds(pid) - cpu) / delivered * 1000
        over.set()
        await platform.until(entries)
    await asyncio.sleep(2)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(QUIET_SECONDS, over.set)
    quiet = await reading(port, over)
    if platform.twice or platform.disordered or len(platform.arrived) != entries:
        raise SystemExit(f"twice: {platform.twice}, out of order: {platform.disordered}")
    return Measured(rate, each, await reads, quiet)


async def main(arguments: argparse.Namespace) -> None:
    """Measure all and print the figures."""
    gateways = gateways_beside(arguments.beside, plain=arguments.plain)
    for entries in map(int, arguments.entries.split(",")):
        for checkout, command in gateways.items():
            with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
                found = await measure(command, checkout, Path(directory), entries)
            print(
                f"{entries:6} entries, {checkout.name:10} {found.rate:5.0f}/s,"
                f" {found.cpu:.2f} ms of CPU each;"
                f" reads: p99 {found.busy:.1f} ms, quiet {found.quiet:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", default="2000,5000,20000")
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    parser.add_argument("--beside", type=Path, help="another checkout, with its own .venv")
    parser.add_argument(
        "--directory", type=Path, help="where the outbox is; default: for all files"
    )
    asyncio.run(main(parser.parse_args()))
