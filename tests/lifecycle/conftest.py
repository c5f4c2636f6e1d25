"""The gateway as a separate process, between the doubles of a platform and an SSO."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.config.value_types import ListenAddress
from tests.doubles.certificates import Pki
from tests.doubles.metrics import total
from tests.doubles.platform import Platform
from tests.doubles.processes import GATEWAY_COMMAND, Process, start
from tests.doubles.sections import gateway_settings, with_sections
from tests.doubles.sso import Sso

PATIENCE = 120.0


def secret_in(file: Path) -> dict[str, Any]:
    """Return the sections of settings whose client has its secret in this file."""
    credential = {"client_id": "hospital-17", "client_secret_file": str(file)}
    return {"credentials": {"default": credential}}


@dataclass
class Service:
    """`dhp-gateway run` with a settings file that a test may change."""

    directory: Path
    settings: dict[str, Any]
    process: Process = field(init=False)

    @property
    def address(self) -> ListenAddress:
        """Return the callers' address, from the settings or, for port 0, from the log."""
        found = self._logged_address()
        if found is None:
            raise self.process.failure("does not log its address")
        return found

    def _logged_address(self) -> ListenAddress | None:
        configured = address(self.settings["listen"]["address"])
        if configured.path is not None or configured.port:
            return configured
        found = re.search(r'"([^"/]+:\d+)[^"\s]* leads to \S+; serving', self.process.stderr)
        return None if found is None else address(found[1])

    @property
    def admin(self) -> ListenAddress:
        return address(self.settings["admin"]["address"])

    @property
    def file(self) -> Path:
        return self.directory / "gateway.yaml"

    def write(self, settings: dict[str, Any]) -> None:
        """Replace the settings file atomically."""
        draft = self.directory / "draft.yaml"
        draft.write_text(yaml.safe_dump(settings))
        draft.replace(self.file)

    def change(self, **sections: Any) -> None:
        self.write(with_sections(self.settings, sections))

    def send(self, number: signal.Signals) -> None:
        self.process.popen.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end of the process and return its exit code."""
        try:
            return await asyncio.to_thread(self.process.popen.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            raise self.process.failure("does not end") from None

    async def end(self) -> None:
        self.send(signal.SIGTERM)
        assert await self.ended() == 0

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds; `what` names it in the failure."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise self.process.failure(f"timed out waiting for: {what}")
            await asyncio.sleep(0.02)

    async def operators(self, path: str) -> tuple[int, str]:
        """Return status and body of a page of the admin listener; status 0 without a response."""
        connector = aiohttp.UnixConnector(self.admin.path) if self.admin.path else None
        host = "localhost" if self.admin.path else str(self.admin)
        async with aiohttp.ClientSession(connector=connector) as session:
            try:
                async with session.get(f"http://{host}{path}") as response:
                    return response.status, await response.text()
            except aiohttp.ClientError:
                return 0, ""

    async def wait_until_ready(self, status: int = 200) -> None:
        deadline = time.monotonic() + PATIENCE
        while (await self.operators("/readyz"))[0] != status:
            if self.process.ended or time.monotonic() > deadline:
                raise self.process.failure(f"/readyz does not respond with {status}")
            await asyncio.sleep(0.04)
        # Another thread writes the log.
        await self.wait_until(lambda: self._logged_address() is not None, "its address")

    async def metric(self, name: str, **labels: str) -> float:
        _, text = await self.operators("/metrics")
        return total(text, name, **labels)

    async def wait_for_metric(self, value: float, name: str, **labels: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while await self.metric(name, **labels) < value:
            if self.process.ended or time.monotonic() > deadline:
                raise self.process.failure(f"{name} does not reach {value}")
            await asyncio.sleep(0.02)

    def audit(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the audit records so far; every line must be one."""
        whole = self.process.stdout.rpartition("\n")[0]
        records = [json.loads(line) for line in whole.splitlines()]
        return [record for record in records if event is None or record["event"] == event]

    def logged(self, text: str) -> list[str]:
        return [line for line in self.process.stderr.splitlines() if text in line]


@dataclass
class StartService:
    """Starts gateways with some settings changed, each in a folder of its own."""

    directory: Path
    settings: dict[str, Any]
    started: list[Service] = field(default_factory=list)

    async def ready(self, *prefix: str, **sections: Any) -> Service:
        service = self(*prefix, **sections)
        await service.wait_until_ready()
        return service

    def __call__(self, *prefix: str, pass_fds: tuple[int, ...] = (), **sections: Any) -> Service:
        """Start a gateway; `prefix` is the command line of a program that runs it."""
        environment = sections.pop("process_environment", {})
        directory = self.directory / f"service-{len(self.started)}"
        directory.mkdir()
        own = {"admin": {"address": f"unix:{directory / 'admin.sock'}"}}
        service = Service(directory, self.settings | own)
        service.change(**sections)
        service.settings = yaml.safe_load(service.file.read_text())
        service.process = start(
            [*prefix, GATEWAY_COMMAND, "run", "--config", service.file],
            directory,
            environment=environment,
            pass_fds=pass_fds,
            name="gateway",
        )
        self.started.append(service)
        return service


@pytest.fixture
def start_service(tmp_path: Path, platform: Platform, sso: Sso) -> Iterator[StartService]:
    """Yield a function that starts gateways; those that still run at the end are killed."""
    settings = gateway_settings(
        platform.url,
        sso.token_url,
        listen={"address": "127.0.0.1:0"},
        # Hundreds of callers at once may have to wait for a busy machine.
        platform={"connect_timeout": PATIENCE},
        sso={"timeout": PATIENCE},
        shutdown={"delay": 0.3, "drain_timeout": PATIENCE / 2},
    )
    made = StartService(tmp_path, settings)
    yield made
    for service in made.started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(service.process.popen.pid, signal.SIGKILL)
        service.process.popen.wait()


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def address(text: str) -> ListenAddress:
    if text.startswith("unix:"):
        return ListenAddress(path=text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    return ListenAddress(host, int(port))
