"""A gateway process that a test kills and starts again with the same settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.doubles.processes import Process, free_port, start

_PATIENCE = 300


@dataclass
class Replica:
    """One of the gateways on an outbox; `program` is what runs its command line."""

    name: str
    directory: Path
    settings: Mapping[str, Any]
    program: Sequence[str | Path]
    process: Process | None = None
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))

    @property
    def config(self) -> Path:
        return self.directory / f"{self.name}.yaml"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}/fhir"

    async def start(self) -> None:
        listen, admin = (f"127.0.0.1:{port}" for port in self.ports)
        complete = {**self.settings, "listen": {"address": listen}, "admin": {"address": admin}}
        self.config.write_text(yaml.safe_dump(complete))
        command = [*self.program, "run", "--config", self.config]
        self.process = start(command, self.directory, name=self.name)
        listening = self.process.wait_until_listening
        # A caller's connection can wait in the kernel before the admin listener is bound.
        for port in self.ports:
            await asyncio.to_thread(listening, port, patience=_PATIENCE)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end, if it was ever started."""
        if self.process is not None:
            self.process.popen.kill()
            self.process.popen.wait()

    async def end(self) -> None:
        assert self.process is not None
        await asyncio.to_thread(self.process.terminate, patience=_PATIENCE)
