"""An attacker in a separate process: `python -m tests.doubles.attack PORT CONNECTIONS SECONDS`.

On every connection it sends the whole of standard input at once, reads the responses, and repeats
this for the given seconds, at least once. At the end it prints the number of responses by status
as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.processes import REPOSITORY
from tests.doubles.wire import Wire, get

PIPELINED = 3700
KEY = "planted-callers-key"
LAB = {"name": "lab", "api_key": KEY}
KINDS = {
    "unknown-path": get("/x"),
    "broken": b"GET / HTTP/9.9\r\n\r\n",
    "no-key": get("/fhir/Patient/1"),
    "wrong-key": get("/fhir/Patient/1", "X-Api-Key: x"),
    "foreign-network": get("/fhir/Patient/1", "X-Api-Key: far"),
}
# The caller that the key of `foreign-network` belongs to, in a network that is not the test's.
FAR = {"name": "far", "api_key": "far", "networks": ["10.20.0.0/16"]}


@dataclass
class SequentialCaller:
    """A caller that sends requests in sequence."""

    address: Any
    request: bytes = get("/fhir/Patient/1", f"X-Api-Key: {KEY}")
    statuses: Counter[int] = field(default_factory=Counter)

    async def send_one(self) -> None:
        async with await Wire.open(self.address) as wire:
            self.statuses[(await wire.fetch(self.request)).status] += 1

    async def send_continuously(self) -> None:
        """Send requests until cancelled, ten on each connection."""
        while True:
            async with await Wire.open(self.address) as wire:
                for _ in range(10):
                    self.statuses[(await wire.fetch(self.request)).status] += 1
                    await asyncio.sleep(0.02)


async def attack(port: int, data: bytes, *, connections: int, seconds: float) -> Counter[str]:
    """Have another process attack a port of this machine. Return its responses by status."""
    command = (sys.executable, "-m", "tests.doubles.attack")
    process = await asyncio.create_subprocess_exec(
        *(*command, str(port), str(connections), str(seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    output, _ = await process.communicate(data)
    return Counter(json.loads(output))


async def _attack(port: int, data: bytes, until: float, responses: Counter[str]) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            await _send(port, data, responses)
        if time.monotonic() > until:
            return


async def _send(port: int, data: bytes, responses: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.ensure_future(_all_of(writer, data))
    try:
        for _ in range(data.count(b"\r\n\r\n")):
            await reader.readuntil(b"HTTP/1.1 ")
            responses[(await reader.readexactly(3)).decode()] += 1
    finally:
        sending.cancel()
        writer.transport.abort()


async def _all_of(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    with contextlib.suppress(OSError):
        await writer.drain()


async def _main(port: int, connections: int, seconds: float) -> None:
    data = sys.stdin.buffer.read()
    responses: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_attack(port, data, until, responses) for _ in range(connections)))
    sys.stdout.write(json.dumps(responses))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
