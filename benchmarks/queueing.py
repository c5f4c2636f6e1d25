"""The speed at which writes are queued, while nothing listens at the platform.

    .venv/bin/python -m benchmarks.queueing --beside ../before --callers 1,64

A gateway whose caller may queue all writes gets updates of 2 kB of 20 patients, from so many
connections at once. It prints the writes a second, the gateway's CPU time for each, and the
durations; an answer other than 202 ends the program. The gateway is compiled unless `--plain`; with
`--beside` that of another checkout is measured too, and neither is compiled. `--directory` selects
the disk: each group of writes is synced to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import Command, gateway_settings, gateways_beside
from benchmarks.deliveries import cpu_seconds
from benchmarks.processes import free_port

PATIENTS = 20
BYTES = 1800
_API_KEY = "k" * 20
_PATIENCE = 60.0


def _settings(directory: Path, port: int) -> dict[str, object]:
    nothing = f"http://127.0.0.1:{free_port()}"
    return gateway_settings(
        port,
        platform={"fhir_base_url": f"{nothing}/fhir"},
        sso={"token_url": f"{nothing}/token"},
        callers=[{"name": "lab", "api_key": _API_KEY, "outbox": "always"}],
        audit={"sink": "off"},
        outbox={
            "enabled": True,
            "url": f"sqlite:///{directory}/outbox.db",
            "encryption_key": "B" * 43,
            "max_entries": 1_000_000,
            "max_bytes": 10**12,
        },
    )


def _update(number: int) -> bytes:
    body = json.dumps(
        {
            "resourceType": "Observation",
            "id": str(number),
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
            "subject": {"reference": f"Patient/{number % PATIENTS}"},
            "note": [{"text": "x" * BYTES}],
        }
    ).encode()
    head = (
        f"PUT /fhir/Observation/{number} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {_API_KEY}\r\n"
        f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _send(port: int, numbers: range) -> list[float]:
    """Send updates one after the other. Return their durations in milliseconds."""
    durations = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        started = time.monotonic()
        writer.write(_update(number))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise SystemExit(f"answered {head[:200]!r}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        durations.append((time.monotonic() - started) * 1000)
    writer.close()
    return durations


async def _wait_until_open(port: int) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def measure(
    name: str, command: Command, directory: Path, writes: int, callers: list[int]
) -> None:
    """Start a gateway, queue so many writes for each number of callers, and print the figures."""
    port = free_port()
    file = directory / "gateway.yaml"
    file.write_text(json.dumps(_settings(directory, port)))
    gateway = await asyncio.create_subprocess_exec(
        *(*command, "run", "--config", file),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _wait_until_open(port)
        await _send(port, range(2 * PATIENTS))
        for count in callers:
            cpu, started = cpu_seconds(gateway.pid), time.monotonic()
            sent = await asyncio.gather(
                *(_send(port, range(first, writes, count)) for first in range(count))
            )
            rate = writes / (time.monotonic() - started)
            each = (cpu_seconds(gateway.pid) - cpu) / writes * 1000
            quantiles = statistics.quantiles(
                [duration for some in sent for duration in some], n=100
            )
            print(
                f"{count:3} callers, {name:10} {rate:5.0f}/s, {each:.2f} ms of CPU each;"
                f" p50 {quantiles[49]:.1f} ms, p99 {quantiles[98]:.1f} ms",
                flush=True,
            )
    finally:
        gateway.terminate()
        await gateway.wait()


async def main(arguments: argparse.Namespace) -> None:
    """Measure all and print the figures."""
    gateways = gateways_beside(arguments.beside, plain=arguments.plain)
    callers = [int(count) for count in arguments.callers.split(",")]
    for checkout, command in gateways.items():
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            await measure(checkout.name, command, Path(directory), arguments.writes, callers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=2000)
    parser.add_argument("--callers", default="1,64")
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    parser.add_argument("--beside", type=Path, help="another checkout, with its own .venv")
    parser.add_argument(
        "--directory", type=Path, help="where the outbox is; default: for all files"
    )
    asyncio.run(main(parser.parse_args()))
