"""Ten times more callers than the gateway serves at once, for a minute.

    .venv/bin/python -m benchmarks.overload --seconds 60

A platform that takes 50 ms for each response stands behind a gateway that serves 32 requests at
once. First 32 callers send requests without pause, then 320, then 32 again. It prints the responses
by status, the p99 of the served ones beside that of the quiet time before, the memory of the
gateway, the response times of its admin listener, and how soon after the end everything is served
again.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import free_port

ANSWER = b'{"resourceType":"Patient","id":"example"}'
SERVED_AT_ONCE = 32
DELAY = 0.05


@dataclass
class Seen:
    """The responses that the callers received."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    without_retry_after: int = 0
    served: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """Return the p99 of the served requests, in milliseconds."""
        return statistics.quantiles(self.served, n=100)[98] * 1000


async def platform(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond with tokens at once and with a Patient after `DELAY`."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = ANSWER
            if head.startswith(b"POST /oauth/token"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                body = b'{"access_token":"t","token_type":"Bearer","expires_in":3600}'
            else:
                await asyncio.sleep(DELAY)
            kind = b"application/fhir+json" if body is ANSWER else b"application/json"
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (kind, len(body), body)
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def caller(port: int, until: float, seen: Seen) -> None:
    """Send requests without pause, but wait 0.1 s after a refusal.

    The Retry-After of the refusals asks for a second.
    """
    request = b"GET /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while time.monotonic() < until:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while time.monotonic() < until:
                started = time.monotonic()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                status = int(head[9:12])
                seen.statuses[status] += 1
                if status == 200:
                    seen.served.append(time.monotonic() - started)
                else:
                    seen.without_retry_after += b"\r\nretry-after:" not in head.lower()
                    await asyncio.sleep(0.1)
        except (ConnectionError, asyncio.IncompleteReadError):
            seen.statuses[0] += 1
            await asyncio.sleep(0.1)
        finally:
            if writer is not None:
                writer.close()


async def phase(port: int, callers: int, seconds: float) -> Seen:
    """Run `callers` for `seconds`."""
    seen = Seen()
    until = time.monotonic() + seconds
    await asyncio.gather(*(caller(port, until, seen) for _ in range(callers)))
    return seen


def memory(pid: int) -> float:
    """Return the resident memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def watch_admin(url: str, until: float) -> list[float]:
    """Request `/readyz` once a second. Return the durations in milliseconds."""
    taken = []
    while time.monotonic() < until:
        started = time.monotonic()
        await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())  # noqa: S310 - local
        taken.append((time.monotonic() - started) * 1000)
        await asyncio.sleep(1)
    return taken


async def until_served(port: int) -> float:
    """Return the seconds until a request is served again."""
    started = time.monotonic()
    while not (await phase(port, 1, 0.01)).statuses[200]:
        pass
    return time.monotonic() - started


async def measure(seconds: float) -> None:
    """Run all phases and print the figures."""
    server = await asyncio.start_server(platform, "127.0.0.1", 0, backlog=1024)
    upstream = server.sockets[0].getsockname()[1]
    listen, admin = free_port(), free_port()
    settings = {
        "environment": "custom",
        "listen": {"address": f"127.0.0.1:{listen}"},
        "admin": {"address": f"127.0.0.1:{admin}"},
        "platform": {"fhir_base_url": f"http://127.0.0.1:{upstream}/fhir"},
        "sso": {"token_url": f"http://127.0.0.1:{upstream}/oauth/token"},
        "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
        "limits": {"max_concurrent_requests": SERVED_AT_ONCE},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(settings, file)
        file.flush()
        gateway = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run", "--config", file.name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until_served(listen)
            quiet = await phase(listen, SERVED_AT_ONCE, min(10.0, seconds))
            before = memory(gateway.pid)
            ready = f"http://127.0.0.1:{admin}/readyz"
            watch = asyncio.ensure_future(watch_admin(ready, time.monotonic() + seconds))
            loud = await phase(listen, 10 * SERVED_AT_ONCE, seconds)
            recovered = await until_served(listen)
            report(quiet, loud, (before, memory(gateway.pid)), await watch, recovered)
        finally:
            gateway.terminate()
            await gateway.wait()
            server.close()


def report(
    quiet: Seen,
    loud: Seen,
    megabytes: tuple[float, float],
    admin: list[float],
    recovered: float,
) -> None:
    """Print the figures."""
    print(f"quiet:    {dict(quiet.statuses)}, p99 {quiet.p99:.0f} ms")
    print(f"overload: {dict(loud.statuses)}, p99 of the served {loud.p99:.0f} ms")
    print(f"p99 of the served, as a multiple of the quiet one: {loud.p99 / quiet.p99:.2f}")
    print(f"refusals without Retry-After: {loud.without_retry_after}")
    print(f"memory before and after: {megabytes[0]:.0f} and {megabytes[1]:.0f} MiB")
    print(f"/readyz: {len(admin)} answers, the slowest {max(admin):.0f} ms")
    print(f"served again after the end: {recovered:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    asyncio.run(measure(parser.parse_args().seconds))
