"""One of several workers: a gateway on sockets that the supervisor has opened.

It reads no settings file: the supervisor sends the text of the settings in effect, so that a worker
that is started later has the same settings as the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway import os_support
from gateway.admin.metrics_merge import snapshot
from gateway.config import Settings, SettingsError, load_settings
from gateway.i18n import Message, exception_message
from gateway.process.app import Gateway, WorkerResources
from gateway.process.audit_factory import SharedChain
from gateway.process.factories import StartError
from gateway.process.ipc import CommandHandler, CommandServer
from gateway.process.setup import background_task, configure_logs, freeze_garbage_collector
from gateway.process.sockets import ListeningSockets, adopt_sockets


@dataclass(frozen=True, slots=True)
class WorkerDescriptors:
    """The descriptors that a worker inherits from its supervisor, by purpose.

    `number`, from 0, identifies the worker.
    """

    number: int
    channel: int
    chain_lock_fd: int
    last_writes: int
    listening: tuple[int, ...]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors, for `pass_fds`."""
        return (self.channel, self.chain_lock_fd, self.last_writes, *self.listening)

    def to_text(self) -> str:
        """Return the descriptors as a command line argument."""
        listening = list(self.listening)
        return json.dumps(
            [self.number, self.channel, self.chain_lock_fd, self.last_writes, listening]
        )

    @classmethod
    def from_text(cls, text: str) -> WorkerDescriptors:
        """Parse the result of `to_text`. Raises ValueError."""
        number, channel, chain_lock_fd, last_writes, listening = json.loads(text)
        return cls(number, channel, chain_lock_fd, last_writes, tuple(listening))


def load_text(text: str | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a YAML text, of the environment alone for None.

    Raises `SettingsError`.
    """
    if text is None:
        return load_settings(None, environ)
    # A file without a name in memory, because the settings may hold secrets.
    with open(os.memfd_create("settings"), "w+b") as file:
        file.write(text.encode())
        file.flush()
        return load_settings(Path(f"/proc/self/fd/{file.fileno()}"), environ)


def run(descriptors: WorkerDescriptors, environ: Mapping[str, str]) -> int:
    """Serve until the supervisor or SIGTERM ends it; return the exit code."""
    os_support.raise_open_file_limit()
    with asyncio.Runner(loop_factory=os_support.new_event_loop()) as runner:
        return runner.run(_Worker(descriptors, environ).serve())


class _Worker:
    def __init__(self, descriptors: WorkerDescriptors, environ: Mapping[str, str]) -> None:
        self._descriptors = descriptors
        self._environ = environ
        self._stop = asyncio.Event()
        self._gateway: Gateway | None = None
        self._listening: ListeningSockets | None = None

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # A terminal sends these to the whole process group; only the supervisor reacts to them.
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, _no_operation)
        answers: dict[str, CommandHandler] = {
            "start": self._start,
            "reload": self._reload,
            "ready": self._ready,
            "metrics": self._metrics,
            "status": self._status,
            "outbox": self._outbox,
            "stop": self._stop_command,
            "hurry": self._skip_drain,
        }
        channel = CommandServer(socket.socket(fileno=self._descriptors.channel), answers)
        async with background_task(self._serve_commands(channel)):
            await self._stop.wait()
            if self._gateway is not None:
                await self._gateway.stop()
        return 0

    async def _serve_commands(self, channel: CommandServer) -> None:
        await channel.run()
        # Without a supervisor, no process would stop or monitor this one.
        self._stop.set()

    async def _start(self, text: str | None) -> dict[str, Any]:
        settings = load_text(text, self._environ)
        configure_logs(settings)
        listening = adopt_sockets(settings.listen.address, self._descriptors.listening)
        shared_chain = SharedChain(self._descriptors.chain_lock_fd, is_already_open=True)
        shared = WorkerResources(
            listening, shared_chain, self._descriptors.last_writes, self._descriptors.number
        )
        gateway = Gateway(settings, shared=shared)
        try:
            await gateway.start()
        except StartError as error:
            return {"problem": exception_message(error).as_data()}
        self._gateway, self._listening = gateway, listening
        freeze_garbage_collector()
        return {}

    async def _reload(self, text: str | None) -> dict[str, Any]:
        if self._gateway is None:
            return {"problem": Message("not started").as_data()}
        try:
            settings = load_text(text, self._environ)
            await self._gateway.reload(settings)
        except (SettingsError, StartError) as error:
            return {"problem": exception_message(error).as_data()}
        configure_logs(settings)
        return {}

    async def _ready(self, _: Any) -> dict[str, Any] | None:
        if self._gateway is None:
            return None
        evidence = asdict(self._gateway.platform_monitor.evidence())
        return {**self._gateway.readiness.report()[1], "evidence": evidence}

    async def _metrics(self, _: Any) -> Any:
        return [] if self._gateway is None else snapshot(self._gateway.metrics.registry)

    async def _status(self, _: Any) -> dict[str, Any] | None:
        return None if self._gateway is None else self._gateway.status.report()

    async def _outbox(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the `answer` of the `OutboxAdminApi`, an empty object without an outbox."""
        outbox = None if self._gateway is None else self._gateway.outbox
        return {} if outbox is None else {"answer": await outbox.admin_api.handle(question)}

    async def _stop_command(self, _: Any) -> None:
        if self._listening is not None:
            # All workers end: none is left to accept later connections.
            self._listening.shared = False
        self._stop.set()

    async def _skip_drain(self, _: Any) -> None:
        if self._gateway is not None:
            self._gateway.skip_drain()
        self._stop.set()


def _no_operation() -> None:
    """Do nothing: the supervisor decides when a worker stops."""
