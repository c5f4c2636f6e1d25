"""Servers started by a program of this folder, which reads its settings again with SIGHUP."""

from __future__ import annotations

import json
import signal
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.doubles.processes import start
from tests.interop.sso.server import SsoServer


@dataclass(slots=True)
class ConfiguredServer(SsoServer):
    """The program prints `ready` each time it is. The first method's client may change."""

    secret: str = "secret-of-lab/1+%"
    is_enabled: bool = True

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Return the program; the file of settings is its argument."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the contents of the settings file."""

    def start(self) -> None:
        command = [*self.command(), self._write()]
        self.process = start(command, self.directory)
        self._until_ready(1)

    def change_secret(self) -> str:
        self.secret = f"{self.secret}-{time.time_ns()}"
        self.read_again()
        return self.secret

    def enable_client(self, *, enabled: bool) -> None:
        self.is_enabled = enabled
        self.read_again()

    def read_again(self) -> None:
        """Write the settings, and wait until the program has read them."""
        assert self.process is not None
        self._write()
        times = self._times_ready()
        self.process.popen.send_signal(signal.SIGHUP)
        self._until_ready(times + 1)

    def _write(self) -> Path:
        file = self.directory / "settings.json"
        file.write_text(json.dumps({"port": self.port, **self.settings()}))
        return file

    def _times_ready(self) -> int:
        assert self.process is not None
        return self.process.stdout.splitlines().count("ready")

    def _until_ready(self, times: int) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 120
        while self._times_ready() < times:
            if self.process.ended or time.monotonic() > deadline:
                raise self.process.failure("is not ready")
            time.sleep(0.02)


async def is_active(url: str, token: str, **headers: str) -> bool:
    """Return whether a token is active, as token introspection says (RFC 7662)."""
    async with aiohttp.request("POST", url, data={"token": token}, headers=headers) as response:
        return (await response.json()).get("active") is True


def version_of_package(name: str) -> str:
    package = Path(__file__).parents[1] / "node_modules" / name / "package.json"
    return str(json.loads(package.read_text())["version"])


def version_of_module(folder: Path, name: str) -> str:
    """Return the version of a Go module that the `go.mod` in the folder requires."""
    lines = (folder / "go.mod").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.strip().startswith(f"{name} v"))
    return found.removeprefix("v")
