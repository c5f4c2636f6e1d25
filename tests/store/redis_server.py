"""A real redis-server for one test, on a free loopback port; it persists data only on request."""

from __future__ import annotations

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
        # The tests search the dump for plain values.
        command += ["--rdbcompression", "no", "--enable-debug-command", "yes"]
        self.process = start(command, self.directory, name="redis")
        self.process.wait_until_listening(self.port)

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    async def save(self) -> None:
        """Write the dump."""
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
