"""The dimensions in which an installation grows, each measured at sizes in steps of ten.

A measurement is made from outside: settings files, HTTP, the kernel's counters, and the commands
that an operator would use. What a figure is called says its unit; names that end in "each" are for
one request or one entry.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.contenders import gateway_command, gateway_settings
from benchmarks.processes import Pinned, free_port, running
from gateway.audit.hash_chain import (
    ChainPosition,
    ChainStateFile,
    append_to_chain,
    read_chain_state,
)
from gateway.login.redis_session_store import RedisSessionStore
from gateway.login.session_store import Session, SignedInUser, StoreKey, store_key
from gateway.oauth.grants import RenewalGrant
from gateway.oauth.token_response import AccessToken
from gateway.secret import Secret

HERE = Path(__file__).parent
PATIENT = (HERE / "patient.json").read_bytes()
MEGABYTE = 1_000_000
READ = "/fhir/Patient/example"
# Requests of one measurement are under way on so many connections.
CONNECTIONS = 32
# Deliveries that are measured at each size.
DELIVERIES = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """The figures of one size."""

    size: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Dimension:
    """What grows: its sizes, and how it is measured at them."""

    name: str
    title: str
    unit: str
    sizes: tuple[int, ...]
    measure: Callable[[Laboratory, Sequence[int]], Iterator[Step]]


@dataclass(slots=True)
class Gateway:
    """A running gateway with its two ports."""

    process: Pinned
    port: int
    admin: int

    def page(self, path: str) -> tuple[float, float]:
        """Return milliseconds and kB of a page for operators: the median of five requests."""
        taken = []
        size = 0
        for _ in range(5):
            began = time.monotonic()
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=60) as page:
                size = len(page.read())
            taken.append(time.monotonic() - began)
        return statistics.median(taken) * 1e3, size / 1e3

    def memory(self) -> float:
        """Return the resident memory in MB."""
        return self.process.memory().rss / MEGABYTE


@dataclass(slots=True)
class Laboratory:
    """Where gateways are started on one core, with an SSO and a platform on another."""

    directory: Path
    core: int
    load_core: int
    compiled: Path | None
    requests: int
    sso: int = field(default_factory=free_port)
    platform: int = field(default_factory=free_port)

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """Run the SSO until the block ends; the platform runs where `answering` says so."""
        with self._server(self.sso):
            yield

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Run the platform until the block ends."""
        with self._server(self.platform):
            yield

    def tokens_issued(self) -> int:
        """Return how many tokens the SSO has issued."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.sso}/counts", timeout=5) as counts:
            return int(json.load(counts)["tokens"])

    @contextlib.contextmanager
    def _server(self, port: int) -> Iterator[None]:
        command = [sys.executable, HERE / "upstream.py", str(port), "t" * 600, "key"]
        with running(command, self.load_core, self.directory / f"{port}.err") as process:
            fields = {"Authorization": "Bearer t"}
            process.until_answering(port, READ, headers=fields)
            yield

    def write_settings(self, **more: Any) -> tuple[Path, int, int]:
        """Write settings with defaults but for `more`. Return them with both ports."""
        port, admin = free_port(), free_port()
        settings = gateway_settings(
            port,
            **{
                "admin": {"address": f"127.0.0.1:{admin}", "probe_interval": 0},
                "platform": {"fhir_base_url": f"http://127.0.0.1:{self.platform}/fhir"},
                "sso": {"token_url": f"http://127.0.0.1:{self.sso}/oauth/token"},
                **more,
            },
        )
        file = self.directory / f"{port}.yaml"
        file.write_text(json.dumps(settings))  # JSON is valid YAML
        return file, port, admin

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """Return the command line of the gateway."""
        return [*gateway_command(self.compiled), *arguments]

    def seconds_of(self, *arguments: str | Path) -> float:
        """Run a command of the gateway. Return its processor time.

        Raises SystemExit when it fails.
        """
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(self.command(*arguments), capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr[-500:]!r}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    @contextlib.contextmanager
    def gateway(self, path: str = READ, header: str = "", **more: Any) -> Iterator[Gateway]:
        """Run a gateway until the block ends; it has answered `path` with 200 before.

        `header` is the line of a caller's key.
        """
        file, port, admin = self.write_settings(**more)
        with self.started(file, port, admin, path, header) as made:
            yield made

    @contextlib.contextmanager
    def started(
        self, file: Path, port: int, admin: int, path: str = READ, header: str = ""
    ) -> Iterator[Gateway]:
        """Run a gateway with written settings until the block ends.

        Without a path, its first request need not succeed.
        """
        errors, output = file.with_suffix(".err"), file.with_suffix(".out")
        with running(self.command("run", "--config", file), self.core, errors, output) as process:
            name, _, value = header.partition(": ")
            if path:
                fields = {name: value} if name else {}
                process.until_answering(port, path, headers=fields, patience=600)
            else:
                process.until_listening(port)
            yield Gateway(process, port, admin)


def load(port: int, requests: Sequence[bytes], *, statuses: Sequence[int] = (200,)) -> None:
    """Send requests on `CONNECTIONS` connections, each when another has been answered.

    Raises SystemExit when the status of a response is not one of `statuses`.
    """
    asyncio.run(_load(port, requests, frozenset(b"%d" % status for status in statuses)))


async def _load(port: int, requests: Sequence[bytes], statuses: frozenset[bytes]) -> None:
    waiting = iter(requests)

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head[9:12] not in statuses:
                raise SystemExit(f"answered {head[:400]!r}")
            length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
        writer.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))


def read(header: str = "") -> bytes:
    """Return the bytes of a read; `header` is one more line."""
    line = f"{header}\r\n" if header else ""
    return f"GET {READ} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode()


def cpu_each(gateway: Gateway, requests: Sequence[bytes], **more: Any) -> float:
    """Send requests. Return the gateway's processor time for each in microseconds."""
    used = gateway.process.cpu_seconds()
    load(gateway.port, requests, **more)
    return (gateway.process.cpu_seconds() - used) / len(requests) * 1e6


def _key(number: int) -> str:
    return f"key-of-the-clinic-{number:06}"


def callers(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """Callers with an API key each, and as many with a network each."""
    for size in sizes:
        keyed = [{"name": f"clinic-{n}", "api_key": _key(n)} for n in range(size)]
        file, port, admin = laboratory.write_settings(callers=keyed)
        figures = {
            "settings file, kB": file.stat().st_size / 1e3,
            "`check`, CPU s": laboratory.seconds_of("check", "--config", file),
        }
        header = f"X-Api-Key: {_key(0)}"
        with laboratory.answering(), laboratory.started(file, port, admin, READ, header) as gateway:
            figures["start, CPU s"] = gateway.process.cpu_seconds()
            requests = [read(f"X-Api-Key: {_key(n % size)}") for n in range(laboratory.requests)]
            load(port, requests[: min(size, 1000)])
            figures["read by API key, CPU µs each"] = cpu_each(gateway, requests)
            figures["memory, MB"] = gateway.memory()
            _add_pages(figures, gateway)
        networks = [
            {"name": f"clinic-{n}", "networks": [f"10.{n >> 8}.{n & 255}.0/24"]}
            for n in range(size)
        ]
        here = {"name": "here", "networks": ["127.0.0.0/8"]}
        with laboratory.answering(), laboratory.gateway(callers=[*networks, here]) as gateway:
            requests = [read()] * laboratory.requests
            load(gateway.port, requests[:1000])
            figures["read by network, CPU µs each"] = cpu_each(gateway, requests)
        yield Step(size, figures)


def _add_pages(figures: dict[str, float], gateway: Gateway) -> None:
    for path in ("/status", "/metrics", "/readyz"):
        taken, size = gateway.page(path)
        figures[f"`{path}`, ms"], figures[f"`{path}`, kB"] = taken, size


def credentials(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """Credentials, each of one caller, with tokens of an hour."""
    for size in sizes:
        own = {
            f"clinic-{n}": {"client_id": f"id-{n}", "client_secret": f"secret-{n}"}
            for n in range(size)
        }
        keyed = [
            {"name": f"clinic-{n}", "api_key": _key(n), "credential": f"clinic-{n}"}
            for n in range(size)
        ]
        last = f"X-Api-Key: {_key(size - 1)}"
        figures: dict[str, float] = {}
        more = {"credentials": own, "callers": keyed}
        issued = laboratory.tokens_issued()
        with laboratory.answering(), laboratory.gateway(header=last, **more) as gateway:
            while laboratory.tokens_issued() < issued + size:
                time.sleep(0.02)
            figures["until all have a token, s"] = time.monotonic() - gateway.process.started
            figures["CPU s until then"] = gateway.process.cpu_seconds()
            requests = [read(f"X-Api-Key: {_key(n % size)}") for n in range(laboratory.requests)]
            load(gateway.port, requests[: min(size, 1000)])
            figures["read, CPU µs each"] = cpu_each(gateway, requests)
            figures["memory, MB"] = gateway.memory()
            _add_pages(figures, gateway)
        yield Step(size, figures)


def connections(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """Idle connections of callers, each of which has served a request."""
    for size in sizes:
        figures: dict[str, float] = {}
        with (
            laboratory.answering(),
            laboratory.gateway() as gateway,
            contextlib.ExitStack() as idle,
        ):
            for _ in range(size):
                made = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
                idle.enter_context(made)
                made.sendall(read())
                while b"}" not in made.recv(65536)[-4:]:
                    pass
            requests = [read()] * laboratory.requests
            figures["read beside them, CPU µs each"] = cpu_each(gateway, requests)
            figures["memory, MB"] = gateway.memory()
            _add_pages(figures, gateway)
        yield Step(size, figures)


def _queued(number: int) -> bytes:
    """Return an update of one of many patients' observations, of 2 kB, that may be queued."""
    body = json.dumps(
        {
            "resourceType": "Observation",
            "id": f"o-{number}",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient/p-{number % 50_000}"},
            "note": [{"text": "n" * 1800}],
        }
    ).encode()
    head = (
        f"PUT /fhir/Observation/o-{number} HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/fhir+json\r\nPrefer: respond-async\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def entries(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """Queued writes that wait in SQLite for a platform that does not answer."""
    database = laboratory.directory / "outbox.db"
    outbox = {
        "enabled": True,
        "url": f"sqlite:///{database}",
        "encryption_key": base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="),
        "max_entries": 10 * sizes[-1],
        "max_bytes": 10**12,
    }
    file, port, admin = laboratory.write_settings(outbox=outbox, audit={"sink": "off"})
    # The next write's number, and how many writes wait.
    number = waiting = 0
    for size in sizes:
        figures: dict[str, float] = {}
        with laboratory.started(file, port, admin, path="") as gateway:
            # What is measured is the end of this step.
            measured = min(size - waiting, 2000)
            for missing in _portions(size - waiting - measured):
                load(port, _writes(number, missing), statuses=(202,))
                number += missing
            writes = _writes(number, measured)
            began = time.monotonic()
            figures["queued, CPU µs each"] = cpu_each(gateway, writes, statuses=(202,))
            figures["queued, ms each"] = (time.monotonic() - began) / measured * 1e3
            number += measured
            figures["memory, MB"] = gateway.memory()
            figures["file, MB"] = database.stat().st_size / MEGABYTE
            figures["`/outbox`, ms"], figures["`/outbox`, kB"] = gateway.page("/outbox")
            figures["`/status`, ms"] = gateway.page("/status")[0]
            figures["`/metrics`, ms"] = gateway.page("/metrics")[0]
            figures["`outbox list --all`, CPU s"] = laboratory.seconds_of(
                "outbox", "list", "--all", "--config", file
            )
        with laboratory.started(file, port, admin, path="") as gateway:
            figures["start, s"] = time.monotonic() - gateway.process.started
            figures["start, CPU s"] = gateway.process.cpu_seconds()
            with laboratory.answering():
                figures |= _delivered(gateway)
            waiting = _count(gateway, "waiting", "sending")
        yield Step(size, figures)


def _portions(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, 10_000)
        count -= 10_000


def _writes(first: int, count: int) -> list[bytes]:
    return [_queued(number) for number in range(first, first + count)]


def _count(gateway: Gateway, *states: str) -> int:
    """Return how many entries are in these states."""
    url = f"http://127.0.0.1:{gateway.admin}/metrics"
    with urllib.request.urlopen(url, timeout=60) as response:
        lines = response.read().decode().splitlines()
    names = tuple(f'dhp_gateway_outbox_entries{{state="{state}"}} ' for state in states)
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(names))


def _delivered(gateway: Gateway) -> dict[str, float]:
    """Return what the first deliveries took, from the first that the metrics show."""
    first = _count(gateway, "delivered")
    while (before := _count(gateway, "delivered")) == first:
        time.sleep(0.02)
    used, began = gateway.process.cpu_seconds(), time.monotonic()
    # The metrics follow about once a second.
    while (now := _count(gateway, "delivered")) < before + DELIVERIES:
        if not _count(gateway, "waiting", "sending"):
            break
        time.sleep(0.02)
    if now == before:
        return {}
    each = (gateway.process.cpu_seconds() - used) / (now - before) * 1e6
    taken = (time.monotonic() - began) / (now - before) * 1e3
    return {"delivered, CPU µs each": each, "delivered, ms each": taken}


def sessions(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """Sessions of signed-in users in one Redis."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running(command, laboratory.load_core, laboratory.directory / "redis.err") as redis:
        redis.until_listening(port)
        done = 0
        for size in sizes:
            yield Step(size, asyncio.run(_session_figures(port, done, size)))
            done = size


async def _session_figures(port: int, done: int, size: int) -> dict[str, float]:
    async with _session_store(port) as (store, client):
        made = [_session(number) for number in range(done, size)]
        began = time.monotonic()
        for session in made:
            await store.add(session, 28_800, 43_200)
        added = (time.monotonic() - began) / len(made)
        began = time.monotonic()
        for number in range(500):
            assert await store.get(_session_key(number * 7919 % size)) is not None
        found = (time.monotonic() - began) / 500
        used = (await client.info("memory"))["used_memory"]
    return {
        "signed in, µs each": added * 1e6,
        "read, µs each": found * 1e6,
        "memory of Redis, MB": used / MEGABYTE,
    }


@contextlib.asynccontextmanager
async def _session_store(port: int) -> AsyncIterator[tuple[RedisSessionStore, Redis]]:
    async with Redis(host="127.0.0.1", port=port, protocol=2) as client:
        yield RedisSessionStore(client, encryption_key=Secret("k" * 43)), client


def _session_key(number: int) -> StoreKey:
    return store_key(f"session-{number}")


def _session(number: int) -> Session:
    now = time.monotonic()
    token = AccessToken("t" * 1000, received_at=now, lifetime=300, wall_expiry=time.time() + 300)
    return Session(
        _session_key(number),
        "identity",
        SignedInUser(f"user-{number}", "A name", (f"mark-{number}",)),
        now,
        now,
        token,
        RenewalGrant(refresh_token=Secret("r" * 600)),
    )


def audit(laboratory: Laboratory, sizes: Sequence[int]) -> Iterator[Step]:
    """An audit file in MB, which a gateway continues and rotates, and `audit verify` reads."""
    path = laboratory.directory / "audit.jsonl"
    record = json.dumps({"event": "exchange", "filler": "x" * 600}, separators=(",", ":"))
    position = ChainPosition()
    line = record.encode() + b"\n"
    for size in sizes:
        with path.open("ab") as file:
            os.chmod(path, 0o600)
            while file.tell() < size * MEGABYTE:
                chunk = []
                for _ in range(10_000):
                    bound, position = append_to_chain(line, position)
                    chunk.append(bound)
                file.write(b"".join(chunk))
        state = ChainStateFile(path)
        state.lock()
        state.write(position)
        state.close()
        figures = {"`audit verify`, CPU s": laboratory.seconds_of("audit", "verify", path)}
        settings = {"audit": {"sink": "file", "path": str(path), "rotate_bytes": "64GiB"}}
        with laboratory.answering(), laboratory.gateway(**settings) as gateway:
            figures["start, CPU s"] = gateway.process.cpu_seconds()
            requests = [read()] * laboratory.requests
            figures["read, CPU µs each"] = cpu_each(gateway, requests)
            figures["memory, MB"] = gateway.memory()
        position = read_chain_state(path)
        yield Step(size, figures)


DIMENSIONS = (
    Dimension(
        "callers",
        "Callers, by API key and by network",
        "callers",
        (1, 10, 100, 1000, 10_000),
        callers,
    ),
    Dimension(
        "credentials",
        "Credentials, each of one caller",
        "credentials",
        (1, 10, 100, 1000),
        credentials,
    ),
    Dimension(
        "connections",
        "Idle connections of callers",
        "connections",
        (10, 100, 1000, 5000),
        connections,
    ),
    Dimension(
        "entries",
        "Queued writes that wait (SQLite)",
        "entries",
        (1000, 10_000, 100_000, 1_000_000),
        entries,
    ),
    Dimension(
        "sessions", "Sessions in Redis", "sessions", (10, 100, 1000, 10_000, 100_000), sessions
    ),
    Dimension("audit", "The audit file", "MB", (10, 100, 1000, 10_000), audit),
)
