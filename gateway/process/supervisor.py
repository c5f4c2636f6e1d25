"""`workers` above 1: several processes that share one listening socket, and their supervisor.

The supervisor opens the sockets, starts the workers, replaces workers that have ended, passes
signals on, and serves the admin listener. It serves no caller. All workers inherit one socket,
rather than one for each (SO_REUSEPORT), so that connections in its queue are not lost with a
worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.admin.alerts.messenger import AlertInputSources
from gateway.admin.metrics_merge import MergedMetrics, merge_health, merge_readiness, snapshot
from gateway.admin.outbox.operators import Operators
from gateway.admin.server import OutboxPageConfig
from gateway.admin.server import build_application as build_admin
from gateway.admin.status.state import MergedStatusReporter
from gateway.audit.trail import AuditTrail, NullAuditTrail
from gateway.config import Settings, SettingsError, SettingsSource, read_text
from gateway.i18n import Message
from gateway.outbox import last_writes
from gateway.process import alerting, certificates, factories, sockets
from gateway.process import reload as reloading
from gateway.process.app import serve_admin
from gateway.process.audit_factory import (
    SharedChain,
    open_trail,
    open_trail_when_free,
    start_event_fields,
)
from gateway.process.factories import StartError
from gateway.process.ipc import ChannelClosedError, CommandClient
from gateway.process.sockets import ListeningSockets
from gateway.process.systemd import VARIABLES
from gateway.process.worker import WorkerDescriptors, load_text
from gateway.telemetry.logs import get_logger
from gateway.telemetry.metrics import Metrics

_log = get_logger(__name__)

_RESPONSE_TIMEOUT: Final = 2.0
_START_TIMEOUT: Final = 30.0
_RELOAD_TIMEOUT: Final = 30.0
# The longest command is a retry of all failed entries.
_OUTBOX_TIMEOUT: Final = 30.0
# Seconds beyond delay and drain until a worker is killed; it flushes the audit in that time.
_KILL_TIMEOUT: Final = 10.0
_MIN_RESTART_DELAY: Final = 0.5
_MAX_RESTART_DELAY: Final = 30.0
# A worker that has lived for so many seconds did not fail because of its start.
_STABLE_SECONDS: Final = 30.0
_AUDIT_FLUSH: Final = 5.0


@dataclass(frozen=True, slots=True)
class SharedDescriptors:
    """The descriptors that all workers share: the lock of the audit chain and the last writes."""

    chain_lock_fd: int
    last_writes: int


class Worker:
    """A worker's process and the channel to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: CommandClient) -> None:
        self.process = process
        self._channel = channel

    @classmethod
    async def spawn(
        cls,
        number: int,
        listening: ListeningSockets,
        common: SharedDescriptors,
        environ: Mapping[str, str],
    ) -> Worker:
        """Start a process, which waits for commands.

        `number`, from 1, is unique among living workers.
        """
        supervisor_end, worker_end = socket.socketpair()
        with worker_end:
            descriptors = WorkerDescriptors(
                number - 1,
                worker_end.fileno(),
                common.chain_lock_fd,
                common.last_writes,
                tuple(sock.fileno() for sock in listening.sockets),
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "worker",
                descriptors.to_text(),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors.descriptors,
                env={key: value for key, value in environ.items() if key not in VARIABLES},
            )
        supervisor_end.setblocking(False)
        return cls(process, await CommandClient.from_socket(supervisor_end))

    async def request(
        self, command: str, detail: Any = None, *, timeout: float = _RESPONSE_TIMEOUT
    ) -> Any:
        """Return the worker's response, None where it is too late or the worker has ended."""
        try:
            return await self._channel.request(command, detail, timeout=timeout)
        except (ChannelClosedError, TimeoutError):
            return None

    async def execute(self, what: str, text: str | None, *, timeout: float) -> None:
        """Have the worker start or reload with the settings of `text`. Raises `StartError`."""
        answer = await self.request(what, text, timeout=timeout)
        if answer is None:
            raise StartError(Message("a worker did not {what}", what=Message(what)))
        if answer:
            raise StartError(Message.from_data(answer["problem"]))

    async def kill(self) -> None:
        """Kill the process and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class Supervisor:
    """Several workers in place of one `Gateway`.

    Call `start`, `reload` at any time, then `stop`.
    """

    def __init__(self, settings: Settings, source: SettingsSource) -> None:
        self._settings = settings
        self._source = source
        self._text = _read(source.path)
        self._stack = contextlib.AsyncExitStack()
        self._workers: dict[int, Worker] = {}
        self._reports: dict[int, Mapping[str, Any] | None] = {}
        self._restart_tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._changing = asyncio.Lock()
        self._metrics = Metrics()
        self._alerts = alerting.AlertService(self._metrics)
        self._merged = MergedMetrics()
        self._audit: AuditTrail = NullAuditTrail()
        self._operators = Operators(())
        self._expiries: dict[str, float] = {}

    async def start(self) -> None:
        """Open the sockets and start all workers.

        Raises `StartError` and then leaves nothing open.
        """
        try:
            await self._open()
        except BaseException:
            await self._stop_workers(0)
            await self._stack.aclose()
            raise
        self._audit.record_event("start", **start_event_fields(), workers=self._settings.workers)
        listen, platform = self._settings.listen, self._settings.platform.fhir_base_url
        address = self._listening.address
        _log.info("%s%s leads to %s; serving", address, listen.base_path, platform)

    async def reload(self, settings: Settings) -> None:
        """Have all workers serve with other settings. Raises `StartError`; then no worker does."""
        async with self._changing:
            if self._stopping:
                raise StartError(Message("the gateway is shutting down"))
            reloading.require_reloadable(self._settings, settings)
            await asyncio.to_thread(reloading.preflight, settings)
            operators = await asyncio.to_thread(factories.operators, settings)
            addresses = await self._alerts.resolve_addresses(settings)
            expiries = await asyncio.to_thread(certificates.certificate_expiries, settings)
            text = await asyncio.to_thread(self._unchanged_text, settings)
            before, done = self._text, []
            try:
                for worker in tuple(self._workers.values()):
                    done.append(worker)
                    await worker.execute("reload", text, timeout=_RELOAD_TIMEOUT)
            except StartError:
                for worker in done:
                    await worker.request("reload", before, timeout=_RELOAD_TIMEOUT)
                raise
            self._text, self._settings, self._expiries = text, settings, expiries
            self._operators.replace(operators)
            self._alerts.configure(settings, addresses)

    def record_reload(self, outcome: str, problems: int) -> None:
        """Count and record a reload; `outcome` is `ok` or `failed`."""
        self._metrics.count_reload(outcome)
        self._alerts.on_reload(outcome)
        self._audit.record_event("reload", outcome=outcome, problems=problems)

    async def stop(self) -> None:
        """Drain and end all workers, within `shutdown.delay` and `shutdown.drain_timeout`."""
        self._stopping = True
        # The workers have the socket too; they accept the remaining connections.
        self._listening.close()
        shutdown = self._settings.shutdown
        await self._stop_workers(shutdown.delay + shutdown.drain_timeout + _KILL_TIMEOUT)
        self._audit.record_event("stop", version=__version__)
        await self._stack.aclose()

    def skip_drain(self) -> None:
        """Stop waiting for requests in flight."""
        for worker in self._workers.values():
            skipped = worker.request("hurry")
            self._restart_tasks.append(asyncio.get_running_loop().create_task(skipped))

    async def _open(self) -> None:
        settings = self._settings
        lanes = last_writes.shared_memory(settings.workers)
        self._common = SharedDescriptors(os.memfd_create("turns"), lanes)
        for descriptor in (self._common.chain_lock_fd, self._common.last_writes):
            self._stack.callback(os.close, descriptor)
        self._operators.replace(factories.operators(settings))
        addresses = await self._alerts.resolve_addresses(settings)
        self._expiries = await asyncio.to_thread(certificates.certificate_expiries, settings)
        self._audit = await self._open_audit()
        self._listening, admin = await sockets.listen(
            {"listen.address": settings.listen.address, "admin.address": settings.admin.address}
        )
        self._stack.callback(self._listening.remove_path)
        self._stack.callback(self._listening.close)
        status = MergedStatusReporter(
            lambda: self._settings, self._request_status, draining=lambda: self._stopping
        )
        application = build_admin(
            metrics=self._merged,
            readiness=self,
            refresh=self._refresh,
            public_keys=lambda: factories.public_keys(self._settings),
            status=status,
            outbox=OutboxPageConfig(
                self._query_outbox if settings.outbox.enabled else None,
                self._operators,
                settings.outbox.reveal,
            ),
        )
        self._metrics.observe_platform(self._usable)
        await serve_admin(self._stack, application, admin)
        numbers = range(1, settings.workers + 1)
        started = await asyncio.gather(
            *(self._start_worker(number) for number in numbers), return_exceptions=True
        )
        for failure in started:
            if isinstance(failure, BaseException):
                raise failure
        loop = asyncio.get_running_loop()
        self._restart_tasks = [
            loop.create_task(self._restart_when_ended(number)) for number in numbers
        ]
        sources = AlertInputSources(
            status=status,
            readiness=self,
            refresh=self._request_readiness,
            certificates=lambda: self._expiries,
        )
        await self._alerts.start(settings, addresses, sources, self._stack)

    async def _open_audit(self) -> AuditTrail:
        chain = SharedChain(self._common.chain_lock_fd)
        count = self._metrics.count_audit_records
        audit = await open_trail_when_free(
            lambda: open_trail(self._settings, count, shared_chain=chain)
        )
        self._stack.push_async_callback(audit.close, _AUDIT_FLUSH)
        return audit

    async def _start_worker(self, number: int) -> None:
        environ = self._source.environ
        worker = await Worker.spawn(number, self._listening, self._common, environ)
        self._workers[number] = worker
        await worker.execute("start", self._text, timeout=_START_TIMEOUT)

    async def _restart_when_ended(self, number: int) -> None:
        """Wait for a worker's end and start its successor, until the gateway stops."""
        delay = _MIN_RESTART_DELAY
        while True:
            started_at = time.monotonic()
            worker = self._workers.get(number)
            if worker is not None:
                code = await worker.process.wait()
                await self._remove_worker(number)
                if self._stopping:
                    return
                _log.error(
                    "worker %d has ended (%s); another is started", number, _exit_description(code)
                )
            if time.monotonic() - started_at >= _STABLE_SECONDS:
                delay = _MIN_RESTART_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_RESTART_DELAY)
            await self._replace(number)

    async def _replace(self, number: int) -> None:
        async with self._changing:
            if self._stopping:
                return
            try:
                await self._start_worker(number)
            except (StartError, OSError) as error:
                _log.error("worker %d did not start: %s", number, error)
                if number in self._workers:
                    await self._workers[number].kill()

    async def _remove_worker(self, number: int) -> None:
        worker = self._workers.pop(number)
        self._merged.remove_process(number)
        await worker.close()

    async def _stop_workers(self, timeout: float) -> None:
        workers = tuple(self._workers.values())
        ask = "stop" if timeout else "hurry"
        for worker in workers:
            await worker.request(ask, timeout=0.5)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout or _KILL_TIMEOUT):
                await asyncio.gather(*(worker.process.wait() for worker in workers))
        for worker in workers:
            if worker.process.returncode is None:
                _log.error("a worker did not end and is killed")
            await worker.kill()
        for keeper in self._restart_tasks:
            keeper.cancel()
        await asyncio.gather(*self._restart_tasks, return_exceptions=True)
        for number in tuple(self._workers):
            await self._remove_worker(number)

    async def _refresh(self) -> None:
        """Request readiness and metrics of every worker."""
        counting = (self._request_metrics(*item) for item in tuple(self._workers.items()))
        await asyncio.gather(self._request_readiness(), *counting)
        self._merged.update("supervisor", snapshot(self._metrics.registry))

    async def _request_metrics(self, number: int, worker: Worker) -> None:
        families = await worker.request("metrics")
        if families is not None and self._workers.get(number) is worker:
            self._merged.update(number, families)

    async def _request_readiness(self) -> None:
        # Assigned in one step: a concurrent reader must never miss a worker that is running.
        self._reports = dict(enumerate(await self._request_all("ready"), 1))

    async def _request_status(self) -> list[dict[str, Any] | None]:
        return await self._request_all("status")

    async def _request_all(self, what: str) -> list[dict[str, Any] | None]:
        workers = [self._workers.get(number) for number in range(1, self._settings.workers + 1)]
        # asyncio.sleep returns None, the response of a worker that is not running.
        requests = [
            asyncio.sleep(0) if worker is None else worker.request(what) for worker in workers
        ]
        return list(await asyncio.gather(*requests))

    async def _query_outbox(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the response of the first worker that responds: all have the same outbox."""
        for number in sorted(self._workers):
            worker = self._workers.get(number)
            response = worker and await worker.request("outbox", question, timeout=_OUTBOX_TIMEOUT)
            if response:
                answer: dict[str, Any] | None = response["answer"]
                return answer
        return {"away": True}

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all workers are ready, by their last responses."""
        return merge_readiness(self._reports, draining=self._stopping)

    def _usable(self) -> tuple[bool, str]:
        health = merge_health(self._reports)
        return health.is_usable, health.reason

    def _unchanged_text(self, settings: Settings) -> str | None:
        """Return the text that these settings were read from.

        Raises `StartError` if it has changed.
        """
        text = _read(self._source.path)
        try:
            if load_text(text, self._source.environ) == settings:
                return text
        except SettingsError:
            pass
        raise StartError(Message("the settings file has changed while it was being read"))


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise StartError(
            Message("{path}: cannot be read again: {name}", path=path, name=type(error).__name__)
        ) from None


def _exit_description(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
