"""Detects changes of the settings and of the files they name, and applies them: all or nothing.

A change counts once the files were the same in two consecutive checks, so that a file that is being
written is not read. The compared signature also changes with a rename (editors) and with the swap
of a symbolic link (Kubernetes). Unlike file system events, it works on every file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from gateway.config.loader import SettingsError, SettingsSource
from gateway.config.section import named_files
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.i18n import Message, join_messages, setting_problem
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# Seconds between two looks at the files.
_CHECK_INTERVAL: Final = 1.0

# Keys that are read once: the resources that they open cannot be exchanged under running requests.
FIXED_KEYS: Final = (
    "listen.address",
    "listen.reuse_port",
    "admin.address",
    "audit",
    "store",
    "outbox",
    "tracing",
)


def require_reloadable(old: Settings, new: Settings) -> None:
    """Raise `StartError` with a line for every changed key that needs a restart."""
    changed = list(fixed_changes(old, new))
    if changed:
        why = Message("cannot change while the gateway runs; restart it")
        raise StartError(join_messages("\n", (setting_problem(key, why) for key in changed)))


def fixed_changes(old: Settings, new: Settings) -> Iterator[str]:
    """Yield the changed keys that need a restart."""
    for key in FIXED_KEYS:
        yield from _differences(key, *map(attrgetter(key), (old, new)))


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if not isinstance(old, BaseModel):
        yield key
        return
    for name in type(old).model_fields:
        yield from _differences(f"{key}.{name}", getattr(old, name), getattr(new, name))


def watched_files(settings: Settings) -> tuple[Path, ...]:
    """Return every file whose content the gateway reads.

    These are secrets, keys, certificates and trust roots.
    """
    return tuple(dict.fromkeys(path for _, path in named_files(settings)))


class Reloader:
    """Reloads the settings on request, and when a file has changed.

    `apply` brings settings into effect, or raises `StartError` and changes nothing. `report` is
    called after every reload with the number of problems, none if it succeeded.
    """

    def __init__(
        self,
        source: SettingsSource,
        settings: Settings,
        *,
        apply: Callable[[Settings], Awaitable[None]],
        report: Callable[[int], None],
    ) -> None:
        self._source = source
        self._files = self._to_watch(settings)
        self._apply = apply
        self._report = report
        self._requested = asyncio.Event()
        # The signatures of the files of the settings in effect, or of the last failed attempt.
        self._attempted = _file_signatures(self._files)

    def request_reload(self) -> None:
        """Reload soon, whether or not a file has changed."""
        self._requested.set()

    async def run(self) -> None:
        """Check the files and reload until cancelled."""
        before = self._attempted
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL):
                    await self._requested.wait()
            seen = await asyncio.to_thread(_file_signatures, self._files)
            if self._requested.is_set() or (seen == before and seen != self._attempted):
                self._requested.clear()
                await self.reload()
                seen = self._attempted
            before = seen

    async def reload(self) -> None:
        """Read everything again and apply it, or change nothing. Log and report errors."""
        self._attempted = await asyncio.to_thread(_file_signatures, self._files)
        problems: list[str] = []
        try:
            settings = await asyncio.to_thread(self._source.load)
            # Those of new settings, even of ones that cannot be applied yet.
            files = self._to_watch(settings)
            if files != self._files:
                self._files = files
                self._attempted = _file_signatures(files)
            await self._apply(settings)
        except SettingsError as error:
            problems = [str(problem) for problem in error.problems]
        except StartError as error:
            problems = str(error).splitlines()
        except Exception as error:
            _log.error("reload failed", exc_info=error)
            problems = [f"internal error: {type(error).__name__}"]
        self._report_result(problems)

    def _report_result(self, problems: Sequence[str]) -> None:
        if not problems:
            _log.info("settings reloaded", settings=str(self._source))
        for problem in problems:
            _log.error(
                "reload refused, the old settings stay: %s", problem, settings=str(self._source)
            )
        self._report(len(problems))

    def _to_watch(self, settings: Settings) -> tuple[Path, ...]:
        settings_files = () if self._source.path is None else (self._source.path,)
        return settings_files + watched_files(settings)


def _file_signatures(paths: Iterable[Path]) -> tuple[tuple[int, ...] | None, ...]:
    """Return signatures that change with the files' content, without reading it.

    Symbolic links are followed. A file that cannot be examined has the signature None.
    """
    return tuple(_file_signature(path) for path in paths)


def _file_signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
