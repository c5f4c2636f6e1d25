"""`dhp-gateway run`: the gateway with its signals, reloads and exit code."""

from __future__ import annotations

import asyncio
import logging

from gateway import os_support
from gateway.config import Settings, SettingsSource
from gateway.process.app import Gateway
from gateway.process.reload import Reloader, ReloadResult
from gateway.process.setup import (
    background_task,
    configure_logs,
    freeze_garbage_collector,
    on_signals,
    reserve_standard_descriptors,
    warn_of_settings,
)
from gateway.process.systemd import SystemdNotifier
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)


def run(settings: Settings, source: SettingsSource) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises `StartError`."""
    reserve_standard_descriptors(settings)
    os_support.raise_open_file_limit()
    configure_logs(settings)
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
        configure_logs(changed)
        await asyncio.to_thread(warn_of_settings, changed)

    def report(result: ReloadResult) -> None:
        gateway.record_reload(result.outcome, len(result.problems))

    reloader = Reloader(source, settings, apply=apply, report=report)
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
