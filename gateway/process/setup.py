"""Set-up of a process: signals, standard descriptors, limits, logs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import http_parser

from gateway import os_support
from gateway.config import Settings, cautions
from gateway.config.problems import dotted
from gateway.config.secret_files import permission_problem
from gateway.i18n import Message, setting_problem
from gateway.process.factories import StartError
from gateway.telemetry import logs
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

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


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine concurrently with the block and cancel it at the block's end."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


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
                why = Message("stdout is closed; give it a destination, or choose another sink")
                raise StartError(setting_problem("audit.sink", why)) from None
            os.open(os.devnull, os.O_RDWR)


def require_strict_parser() -> None:
    """Raise `StartError` where aiohttp uses its pure-Python parser.

    It is lenient where the C parser is strict; it must never serve.
    """
    if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise StartError(
            Message("aiohttp is installed without its C parser; install its binary wheel")
        )


def freeze_garbage_collector() -> None:
    """Exempt all existing objects from garbage collection; called when the set-up is complete.

    Requests consist of many small objects without cycles. Searching for cycles every 700
    allocations, Python's default, would delay the slowest of a hundred requests. The thresholds set
    here are still low enough that bodies which a failure left in a cycle do not accumulate.

    Freed memory of one body is retained for the next.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    gc.enable()
    os_support.set_heap_trim_threshold(_KEPT)


def configure_logs(settings: Settings) -> None:
    """Send the logs to standard error, if the process was started with it open."""
    logs.configure(settings.log.level, settings.log.format)


def warn_of_settings(settings: Settings) -> None:
    """Log settings that are probably unintended, and secrets' files that others can read.

    The gateway serves all the same. Other warnings of `check` are not repeated at each start.
    """
    for caution in cautions.find_start_cautions(settings):
        key = dotted(caution.setting)
        _log.warning("%s: %s; %s", key, caution.message, caution.hint, key=key)
    for source in settings.secret_sources():
        with contextlib.suppress(OSError):
            if source.file is not None and (exposed := permission_problem(source.file)) is not None:
                _log.warning(
                    "%s_file: %s %s; run: chmod 0600 %s",
                    *(source.key, source.file, exposed, source.file),
                    key=f"{source.key}_file",
                )
