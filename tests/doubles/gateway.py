"""A gateway in the test's own process, between the doubles of a platform and an SSO."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp

from gateway.app.application import Gateway
from gateway.clock import TimeSource
from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from gateway.config.value_types import ListenAddress
from tests.doubles.hurried_loop import HurriedLoop
from tests.doubles.metrics import total
from tests.doubles.sections import gateway_settings, with_sections


@dataclass
class RunningGateway:
    """A started gateway with its settings and its audit file."""

    gateway: Gateway
    settings: Settings
    audit_file: IO[bytes]
    # Where the records begin that `audit` returns.
    audit_start: int = 0

    @property
    def address(self) -> ListenAddress:
        return self.gateway.address

    @property
    def url(self) -> str:
        return f"http://{self.address}/fhir"

    @property
    def admin_url(self) -> str:
        return f"http://{self.gateway.admin_address}"

    async def audit(self, count: int = 1, event: str = "exchange") -> list[dict[str, Any]]:
        """Return the audit records of an event once there are `count`.

        Another thread writes them.
        """
        while True:
            self.audit_file.seek(self.audit_start)
            # The last record may be written in part.
            whole, _, _ = self.audit_file.read().rpartition(b"\n")
            records = [json.loads(line) for line in whole.splitlines()]
            found = [record for record in records if record["event"] == event]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)

    def skip_audit(self) -> None:
        """Let `audit` return only what is written from now on."""
        self.audit_start = self.audit_file.seek(0, os.SEEK_END)

    async def record_of(self, request_id: str | None) -> dict[str, Any]:
        """Return the one audit record of an exchange, once it is there."""
        count = 1
        while True:
            records = await self.audit(count)
            if found := [record for record in records if record["request_id"] == request_id]:
                assert len(found) == 1, "audited twice"
                return found[0]
            count = len(records) + 1

    async def metric(self, name: str, **labels: str) -> float:
        return total(await self.metrics(), name, **labels)

    async def wait_for_metric(self, value: float, name: str, **labels: str) -> None:
        while await self.metric(name, **labels) != value:  # noqa: ASYNC110 - a scrape tells
            await asyncio.sleep(0.01)

    async def admin_page(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and text of a page of the admin listener."""
        async with aiohttp.request("GET", f"{self.admin_url}{path}", headers=headers) as response:
            return response.status, await response.text()

    async def metrics(self) -> str:
        return (await self.admin_page("/metrics"))[1]

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of `/readyz`."""
        status, body = await self.admin_page("/readyz")
        return status, json.loads(body)

    async def wait_until_ready(self) -> None:
        while (await self.ready())[0] != 200:  # noqa: ASYNC110 - asks over a socket
            await asyncio.sleep(0.01)

    async def facts(self, query: str = "") -> dict[str, Any]:
        """Return what the status page shows, from `/status.json`."""
        status, body = await self.admin_page(f"/status.json{query}")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found


@contextlib.asynccontextmanager
async def running_gateway(
    platform_url: str, token_url: str, /, audit_fd: int | None = None, **sections: Any
) -> AsyncIterator[RunningGateway]:
    """Start a gateway with some sections of the settings changed, and stop it at the end.

    With an `audit_fd`, which the caller closes, `RunningGateway.audit` has no file to read.
    """
    settings = gateway_settings(
        platform_url,
        token_url,
        listen={"address": "127.0.0.1:0"},
        admin={"address": "127.0.0.1:0"},
        # A busy machine may keep an SSO of the same process for long.
        platform={"connect_timeout": 60},
        sso={"timeout": 60},
        shutdown={"drain_timeout": 1},
    )
    with tempfile.NamedTemporaryFile(suffix=".yaml", mode="w") as file:
        # JSON is valid YAML, and faster to write.
        json.dump(with_sections(settings, sections), file)
        file.flush()
        loaded = load_settings(Path(file.name), {})
    with tempfile.NamedTemporaryFile("rb", buffering=0) as audit_file:
        # A separate file description: reading must not move the offset at which records are
        # appended.
        fd = os.open(audit_file.name, os.O_WRONLY | os.O_APPEND)
        loop = asyncio.get_running_loop()
        times = TimeSource(clock=loop.time) if isinstance(loop, HurriedLoop) else None
        gateway = Gateway(loaded, audit_fd=fd if audit_fd is None else audit_fd, times=times)
        await gateway.start()
        try:
            yield RunningGateway(gateway, loaded, audit_file)
        finally:
            await gateway.stop()
            os.close(fd)
