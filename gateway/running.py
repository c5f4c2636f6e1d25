"""The process around a gateway: its signals, standard files and limits."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TextIO

from gateway.app import Gateway, new_event_loop
from gateway.config import Settings
from gateway.reloading import Reloader, Result, SettingsSource
from gateway.systemd import Notifier
from gateway.telemetry import logs
from gateway.wiring import StartError


def run(settings: Settings, source: SettingsSource) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code. Raises `StartError`."""
    guard_standard_files(settings)
    raise_file_limit()
    configure_logs(settings)
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        return runner.run(_serve(settings, source))


async def _serve(settings: Settings, source: SettingsSource) -> int:
    gateway, notifier = Gateway(settings), Notifier(source.environ)

    async def apply(changed: Settings) -> None:
        notifier.reloading()
        try:
            await gateway.reload(changed)
        finally:
            notifier.ready()
        configure_logs(changed)

    def report(result: Result) -> None:
        gateway.note_reload(result.outcome, len(result.problems))

    reloader = Reloader(source, settings, apply=apply, report=report)
    stop = on_signals(gateway.hurry, reloader.ask)
    await gateway.start()
    async with background(notifier.keep_alive()):
        async with background(reloader.run()):
            notifier.ready()
            await stop.wait()
        notifier.stopping()
        await gateway.stop()
    return 0


def on_signals(hurry: Any, reload: Any) -> asyncio.Event:
    """Set the event at the first SIGTERM or SIGINT, call `hurry` at each further one.

    SIGHUP calls `reload`.
    """
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine beside the block; cancel it at the block's end."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def guard_standard_files(settings: Settings) -> None:
    """Keep a socket from becoming standard output. Raises `StartError`.

    A process that is started with a closed descriptor 1 gets that number for the next file it
    opens, and the audit would go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            if descriptor == 1 and settings.audit.sink == "stdout":
                raise StartError(
                    "audit.sink: stdout is closed; give it a destination, or choose another sink"
                ) from None
            os.open(os.devnull, os.O_RDWR)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each exchange takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        """Keep nothing."""
        return len(text)


def configure_logs(settings: Settings) -> None:
    """Send the logs to standard error, if the process was started with one."""
    stream: TextIO | None = sys.stderr
    logs.configure(settings.log.level, settings.log.format, stream or _Nowhere())
