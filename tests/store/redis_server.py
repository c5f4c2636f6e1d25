"""A real redis-server for one test, on a free loopback port; it persists data only on request."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.doubles.processes import Process, free_port, start

MISSING = "redis-server is missing: make test-tools"


def patient(lease: float = 120.0) -> tuple[str, ...]:
    """Return the command line of a gateway that a slow machine does not make go on by itself.

    It waits for Redis, and its lease, in seconds, may be renewed late.
    """
    program = (
        "import sys; sys.argv.pop(1); from gateway.app import shared_stores; "
        "shared_stores._TOKEN_TIMEOUT = 120.0; "
        "from gateway.oauth.redis_token_store import RedisTokenStore; "
        f"RedisTokenStore.__init__.__kwdefaults__.update(lease={lease}); "
        "from gateway.__main__ import main; main()"
    )
    return (sys.executable, "-c", program)


@dataclass
class RedisServer:
    """A server that may be killed, stopped and started again on the same port."""

    directory: Path
    tls: Mapping[str, Path] | None = None
    replica_of: RedisServer | None = None
    port: int = field(default_factory=free_port)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def dump(self) -> Path:
        return self.directory / "dump.rdb"

    def start(self) -> None:
        port = ["--port", str(self.port)] if self.tls is None else ["--port", "0"]
        command = ["redis-server", *port, "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        command += ["--unixsocket", str(self.socket)]
        if self.tls is not None:
            command += ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for kind, option in (("cert", "cert"), ("key", "key"), ("ca", "ca-cert")):
                command += [f"--tls-{option}-file", str(self.tls[kind])]
        if self.replica_of is not None:
            command += ["--replicaof", "127.0.0.1", str(self.replica_of.port)]
        # The tests search the dump for plain values.
        command += ["--rdbcompression", "no", "--enable-debug-command", "yes"]
        self.process = start(command, self.directory, name="redis")
        self.process.wait_until_listening(self.port)

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    async def save(self) -> None:
        await self.command("SAVE")

    async def command(self, *words: str) -> Any:
        async with Redis(unix_socket_path=str(self.socket), protocol=2) as client:
            return await client.execute_command(*words)

    def kill(self) -> None:
        """Kill the server; nothing is saved."""
        self.process.popen.kill()
        self.process.popen.wait()

    def freeze(self) -> None:
        """Stop the process: connections stay open, no response is sent."""
        self.process.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process, with the commands received meanwhile."""
        self.process.popen.send_signal(signal.SIGCONT)


def redis_server(directory: Path, tls: Mapping[str, Path] | None = None) -> Iterator[RedisServer]:
    """Yield a running server and kill it at the end; skips without the program."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    server = RedisServer(directory, tls)
    try:
        yield server
    finally:
        server.thaw()
        server.kill()


@dataclass
class Sentinel:
    """A Redis Sentinel that makes a replica the master a moment after the master is gone."""

    directory: Path
    master: RedisServer
    port: int = field(default_factory=free_port)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        file = self.directory / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor hospital 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds hospital 300\n"
            "sentinel failover-timeout hospital 3000\n"
        )
        command = ["redis-server", str(file), "--sentinel"]
        self.process = start(command, self.directory, name="sentinel")
        self.process.wait_until_listening(self.port)

    @property
    def url(self) -> str:
        """The URL of the store; nobody answers at the first of its sentinels."""
        return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.port}/hospital/0"

    async def wait_for_replica(self) -> None:
        """Return once it knows a replica that it could make the master."""
        async with Redis(host="127.0.0.1", port=self.port, protocol=2) as client:
            while not await client.execute_command("SENTINEL", "REPLICAS", "hospital"):  # noqa: ASYNC110 - another process learns it
                await asyncio.sleep(0.05)


@dataclass
class Failover:
    """A master, a replica of it, and a sentinel, each with a directory of its own."""

    master: RedisServer
    replica: RedisServer
    sentinel: Sentinel


def redis_failover(directory: Path) -> Iterator[Failover]:
    """Yield running servers and end them; skips without the program."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    folders = [directory / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    master = RedisServer(folders[0])
    replica = RedisServer(folders[1], replica_of=master)
    sentinel = Sentinel(folders[2], master)
    try:
        yield Failover(master, replica, sentinel)
    finally:
        for server in (sentinel, replica, master):
            server.process.popen.kill()
            server.process.popen.wait()
