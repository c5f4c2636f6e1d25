"""A real redis-server of a test's own, on a free loopback port, without persistence until asked."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.doubles.processes import Process, free_port, start

MISSING = "redis-server is missing: apt-get install redis-server"


@dataclass
class RedisServer:
    """May be killed, stopped and started again on the same port."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def url(self) -> str:
        """For `store.url`."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def dump(self) -> Path:
        """Where `SAVE` writes."""
        return self.directory / "dump.rdb"

    def start(self) -> None:
        """Start it, empty but for what was saved."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        # What is in the dump shall be readable as it is.
        command += ["--rdbcompression", "no", "--enable-debug-command", "yes"]
        self.process = start(command, self.directory, name="redis")
        self.process.until_listening(self.port)

    async def save(self) -> None:
        """Write the dump."""
        async with Redis(host="127.0.0.1", port=self.port, protocol=2) as client:
            await client.save()

    def kill(self) -> None:
        """End it at once; nothing is saved."""
        self.process.popen.kill()
        self.process.popen.wait()

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        self.process.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on with what it was sent meanwhile."""
        self.process.popen.send_signal(signal.SIGCONT)


def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A running server, ended at the end; skips without the program."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    server = RedisServer(directory)
    try:
        yield server
    finally:
        server.thaw()
        server.kill()
