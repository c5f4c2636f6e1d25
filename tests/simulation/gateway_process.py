"""The gateway as a process of the simulated world: started, reloaded, stopped, killed.

It is the real `Gateway` with all that it opens. What reaches round the event loop is replaced here:
the acceptor and the listening sockets, the thread of the audit. What runs in an executor runs in
threads of the loop.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.app import application, listening_sockets
from gateway.audit import audit_writer
from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from gateway.config.value_types import ListenAddress
from gateway.health import health
from gateway.outbox.store import disk_reserve, sqlite_database
from tests.simulation.plan import SSO_TIMEOUT
from tests.simulation.simulated_disk import SimulatedDisk
from tests.simulation.simulated_loop import SimulatedLoop, current_host
from tests.simulation.simulated_threads import Condition, SimulatedThread, sleep

_PORT = 8080
_KEY = "c2ltdWxhdGlvbnNpbXVsYXRpb25zaW11bGF0aW9uMTI"
_RESERVE_BYTES = 4096
# So small that the log of a short run reaches the length at which it is checkpointed.
_CHECKPOINT = "PRAGMA wal_autocheckpoint = 16"
# A rotation every few dozen records.
_ROTATE_BYTES = 16 * 1024


class _Acceptor:
    """Accepts what connects to the simulated port of its process."""

    pending_handshakes = 0

    def __init__(
        self, sockets: Any, server: Any, *, max_connections: int, tls: Any, clock: Any
    ) -> None:
        self.tls = tls
        self.max_connections = max_connections
        self._server = server
        self._network = asyncio.get_running_loop().network  # type: ignore[attr-defined]
        self._listening: Any = None

    def open(self) -> None:
        self._listening = self._network.listen(
            _PORT, functools.partial(self._server.make_connection, "10.7.0.1")
        )

    def close(self) -> None:
        if self._listening is not None:
            self._listening.close()

    async def abort(self) -> None:
        pass


class _Listening:
    sockets = ()

    def __init__(self, address: ListenAddress) -> None:
        self.address = address

    def open(self) -> None:
        pass

    close = remove_path = stop_accepting = open


async def _listen(
    addresses: Mapping[str, ListenAddress], *, shared_ports: object = ()
) -> list[_Listening]:
    return [_Listening(address) for address in addresses.values()]


def install() -> None:
    """Replace what reaches round the event loop, for all runs of this process."""
    application.Acceptor = _Acceptor  # type: ignore[assignment, misc]
    listening_sockets.listen = _listen  # type: ignore[assignment]
    audit_writer.threading = SimpleNamespace(  # type: ignore[assignment]
        Thread=SimulatedThread, Condition=Condition
    )
    sqlite_database.time = SimpleNamespace(  # type: ignore[assignment]
        monotonic=time.monotonic, time=time.time, sleep=sleep
    )
    audit_writer.GilYielder.yield_if_due = lambda self, since: None  # type: ignore[method-assign]
    disk_reserve._BYTES = _RESERVE_BYTES  # type: ignore[misc]
    sqlite_database._PRAGMAS = (*sqlite_database._PRAGMAS, _CHECKPOINT)  # type: ignore[misc]
    # Processes that are killed leave sessions that nobody closes, and tasks that never began.
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda error: None
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for name in ("sqlalchemy", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _Teller(logging.Handler):
    """Adds what the gateway logs to the story."""

    tell: Callable[[str], None] = staticmethod(lambda text: None)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.INFO:
            self.tell(f"{current_host()} logs {record.levelname.lower()}: {text}")


TELLER = _Teller()
logging.getLogger("gateway").addHandler(TELLER)
logging.getLogger("gateway").setLevel(logging.INFO)
logging.getLogger("gateway").propagate = False


def settings_of(directory: Path, version: int, *, outbox: bool, login: bool) -> Settings:
    """Return settings for the simulated hosts; each `version` differs in what may be reloaded."""
    values: dict[str, Any] = {
        "environment": "custom",
        "listen": {"address": f"0.0.0.0:{_PORT}"},
        "admin": {"address": "127.0.0.1:9464", "probe_interval": 10},
        "platform": {
            "fhir_base_url": "http://platform:8080/fhir",
            "allow_plaintext": True,
            "connect_timeout": 2,
            "response_timeout": 5,
            "idle_timeout": 5,
            "max_connections": 4,
        },
        "sso": {
            "token_url": "http://sso:8080/token",
            "authorize_url": "http://sso:8080/authorize",
            "timeout": SSO_TIMEOUT,
        },
        "credentials": {
            name: {"client_id": f"client-{number}", "client_secret": "a secret"}
            for number, name in enumerate(("default", "second"))
        },
        "callers": [
            {"name": f"caller-{number}", "credential": name, "api_key": f"key-of-caller-{number}"}
            for number, name in enumerate(("default", "second"))
        ],
        "limits": {"max_concurrent_requests": 100 + version},
        "circuit_breaker": {"min_requests": 5, "window": 5, "open_for": 5},
        "audit": {
            "sink": "file",
            "path": str(directory / "audit.jsonl"),
            "rotate_bytes": _ROTATE_BYTES,
            "fsync": True,
        },
        "outbox": {
            "enabled": outbox,
            "url": f"sqlite:///{directory / 'outbox.db'}",
            "encryption_key": _KEY,
        },
        "login": {
            "enabled": login,
            "client_id": "client-login",
            "client_secret": "another secret",
            "redirect_uri": "http://localhost:8080/auth/callback",
            "scope": "fhir",
        },
        "shutdown": {"delay": 0.5, "drain_timeout": 8},
    }
    path = directory / "gateway.yaml"
    # JSON is valid YAML.
    path.write_text(json.dumps(values))
    try:
        return load_settings(path, {})
    finally:
        path.unlink()


class ProcessKilledError(Exception):
    """The process was killed before its work was done."""


class GatewayProcess:
    """One process, on a host of its own: what a dead one still does reaches nobody."""

    def __init__(
        self,
        number: int,
        loop: SimulatedLoop,
        disk: SimulatedDisk,
        *,
        outbox: bool,
        login: bool,
    ) -> None:
        self.host = f"gateway-{number}"
        self.is_ready = False
        self._loop = loop
        self._network = loop.network
        self._network.host(self.host)
        self._directory = disk.directory
        self._outbox = outbox
        self._login = login
        self._version = 0
        self._killed: asyncio.Future[None] = loop.create_future()
        self.gateway = application.Gateway(self._settings())

    def _settings(self) -> Settings:
        self._version += 1
        return settings_of(self._directory, self._version, outbox=self._outbox, login=self._login)

    async def _do(self, work: Any) -> None:
        """Let the process do something. Raises `ProcessKilledError`.

        What was killed may never end: it may wait for a thread.
        """
        task = self._network.spawn(self.host, work)
        await asyncio.wait((task, self._killed), return_when=asyncio.FIRST_COMPLETED)
        if self._killed.done():
            raise ProcessKilledError
        await task

    async def start(self) -> None:
        await self._do(self.gateway.start())
        self.is_ready = True

    async def reload(self) -> None:
        await self._do(self.gateway.reload(self._settings()))

    async def stop(self) -> None:
        self.is_ready = False
        await self._do(self.gateway.stop())

    def kill(self, *, reset: bool, silent: bool) -> None:
        self.is_ready = False
        self._killed.set_result(None)
        self._network.kill(self.host, reset=reset, silent=silent)

    def readiness(self) -> tuple[bool, str]:
        """Return what `/readyz` says."""
        is_ready, why = health.readiness(self.gateway.health.components())
        return is_ready, json.dumps(why, sort_keys=True, default=str)

    def leaks(self) -> list[str]:
        """Return what a stopped process has left."""
        names = sorted(task.get_coro().__qualname__ for task in self._network.tasks_of(self.host))
        found = [f"task {name}" for name in names]
        connections = self._network.connections_of(self.host)
        return found + ([f"{connections} connections"] if connections else [])
