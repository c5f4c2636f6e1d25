"""`dhp-gateway run`: one gateway in this process, from the signals to the exit code.

It sets up the process: signals, standard descriptors, limits and logs. It notifies systemd of the
service's state (sd_notify(3)), which has no effect without systemd's socket.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from gateway import os_support
from gateway.app import preflight
from gateway.app.application import Gateway, background_task
from gateway.app.reloader import Reloader
from gateway.config import setting_rules
from gateway.config.loader import SettingsSource
from gateway.config.problems import dotted
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.i18n import Message, setting_problem
from gateway.telemetry import logs
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)


class SystemdNotifier:
    """Sends states to the socket of `NOTIFY_SOCKET`.

    `watchdog` is the interval in seconds within which systemd expects a notification, None without
    one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environ) if self._address else None

    def ready(self) -> None:
        """Notify that the service is up, or up again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify that the settings are being read again, until `ready` is called."""
        # systemd compares it with CLOCK_MONOTONIC, which is also Python's monotonic clock on Linux.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the shutdown has begun."""
        self._send("STOPPING=1")

    async def keep_alive(self) -> None:
        """Notify the watchdog until cancelled; return at once where systemd has none."""
        while self.watchdog is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(state.encode(), self._address)
            except OSError:
                # The notification is optional: a missing or full socket must not stop the service.
                return


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        for_process = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 and for_process == os.getpid() else None


# Bytes of freed memory that are not returned to the system: some bodies in transfer, each in chunks
# of 256 KiB.
_KEPT: Final = 4 * 1024 * 1024


def on_signals(skip_drain: Callable[[], None], reload: Callable[[], None]) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; each further one calls `skip_drain`.

    SIGHUP calls `reload`. On Windows, SIGINT and SIGBREAK are Ctrl-C and Ctrl-Break.
    """
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            skip_drain()
        stop.set()

    ends = dict.fromkeys(("SIGTERM", "SIGINT", "SIGBREAK"), signalled)
    os_support.on_signals({**ends, "SIGHUP": reload})
    return stop


def reserve_standard_descriptors(settings: Settings) -> None:
    """Open the null device on closed standard descriptors. Raises `StartError`.

    A process that is started with a closed descriptor 1 gets that number for the next file or
    socket it opens, and the audit would be written there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            if descriptor == 1 and settings.audit.sink == "stdout":
                why = Message("stdout is closed; redirect it, or choose another audit.sink")
                raise StartError(setting_problem("audit.sink", why)) from None
            os.open(os.devnull, os.O_RDWR)


def freeze_garbage_collector() -> None:
    """Exempt all existing objects from garbage collection; called when the set-up is complete.

    Requests consist of many small objects without cycles. Searching for cycles every 700
    allocations, Python's default, would delay the slowest of a hundred requests. The thresholds set
    here are still low enough that bodies which a failure left in a cycle do not accumulate.
    A collection before would delay the first request, and free only 0.3 MiB (1.8 MiB with outbox,
    alerts and 1,000 callers).

    Freed memory of one body is retained for the next.
    """
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    gc.enable()
    os_support.set_heap_trim_threshold(_KEPT)


def warn_of_settings(settings: Settings) -> None:
    """Log settings that are probably unintended, and secrets' files that others can read.

    The gateway serves all the same. Other warnings of `check` are not repeated at each start.
    """
    for caution in setting_rules.find_start_cautions(settings):
        key = dotted(caution.setting)
        _log.warning("%s", setting_problem(key, caution.message, caution.hint), key=key)
    for found in preflight.exposed_secrets(settings):
        _log.warning("%s", setting_problem(found.key, found.detail, found.hint), key=found.key)


def run(settings: Settings, source: SettingsSource) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises `StartError`."""
    reserve_standard_descriptors(settings)
    os_support.raise_open_file_limit()
    logs.configure(settings.log.level, settings.log.format)
    # Every command logs the source of its settings, whatever the log level.
    shown = logging.getLogger().level  # noqa: TID251 - the root logger's level
    _log.log(max(logging.INFO, shown), "settings: %s", source)
    warn_of_settings(settings)
    with asyncio.Runner(loop_factory=os_support.new_event_loop()) as runner:
        return runner.run(_serve(settings, source))


async def _serve(settings: Settings, source: SettingsSource) -> int:
    gateway = Gateway(settings)
    notifier = SystemdNotifier(source.environ)

    async def apply(changed: Settings) -> None:
        notifier.reloading()
        try:
            await gateway.reload(changed)
        finally:
            notifier.ready()
        logs.configure(changed.log.level, changed.log.format)
        await asyncio.to_thread(warn_of_settings, changed)

    reloader = Reloader(source, settings, apply=apply, report=gateway.record_reload)
    stop = on_signals(gateway.skip_drain, reloader.request_reload)
    await gateway.start()
    freeze_garbage_collector()
    async with background_task(notifier.keep_alive()):
        async with background_task(reloader.run()):
            notifier.ready()
            await stop.wait()
        notifier.stopping()
        await gateway.stop()
    return 0
