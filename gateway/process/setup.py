"""What a process needs around its work: signals, standard files, limits, logs."""

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
from gateway.phrases import Phrase, setting_problem
from gateway.process.factories import StartError
from gateway.telemetry import logs

_log = logs.get_logger(__name__)

# Bytes of freed memory that stay at hand: some bodies on their way, each in pieces of 256 KiB.
_KEPT: Final = 4 * 1024 * 1024


def on_signals(skip_drain: Callable[[], None], reload: Callable[[], None]) -> asyncio.Event:
    """Set the event at the first SIGTERM or SIGINT, call `skip_drain` at each further one.

    SIGHUP calls `reload`. On Windows SIGINT and SIGBREAK are Ctrl-C and Ctrl-Break.
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
    """Run a coroutine beside the block; cancel it at the block's end."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def reserve_standard_descriptors(settings: Settings) -> None:
    """Keep a socket from becoming standard output. Raises `StartError`.

    A process that is started with a closed descriptor 1 gets that number for the next file it
    opens, and the audit would go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            if descriptor == 1 and settings.audit.sink == "stdout":
                why = Phrase("stdout is closed; give it a destination, or choose another sink")
                raise StartError(setting_problem("audit.sink", why)) from None
            os.open(os.devnull, os.O_RDWR)


def require_strict_parser() -> None:
    """aiohttp's pure-Python parser is lenient where the C one is strict; it must never serve."""
    if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise StartError(
            Phrase("aiohttp is installed without its C parser; install its binary wheel")
        )


def freeze_garbage_collector() -> None:
    """Take what exists now out of the collector's way, for good; to be called when all is set up.

    Requests are many small objects that hold no cycles: looking for those each 700 allocations, as
    Python does by itself, is what the slowest of a hundred requests would wait for. Still often
    enough that bodies which some failure has left in a cycle do not pile up.

    Memory that one body leaves is kept for the next.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)
    gc.enable()
    os_support.set_heap_trim_threshold(_KEPT)


def configure_logs(settings: Settings) -> None:
    """Send the logs to standard error, if the process was started with one."""
    logs.configure(settings.log.level, settings.log.format)


def warn_of_settings(settings: Settings) -> None:
    """Say what is hardly meant so, and which secrets' files others get at; it serves all the same.

    What else `check` warns of is no news at each start.
    """
    for caution in cautions.former_addresses(settings):
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
