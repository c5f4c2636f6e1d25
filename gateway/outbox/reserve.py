"""Room on the disk that is kept back for deliveries: each of their steps needs some."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_MOST: Final = 8 * 1024 * 1024
_SHARE: Final = 4
_PRIVATE: Final = 0o600
_PAGE: Final = 4096
_USUAL_LOG: Final = 1000


class Reserve:
    """A file beside the database that takes the room until it is needed.

    At most 8 MiB, and a quarter of a small volume.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.stem}-reserve")

    def keep(self) -> bool:
        """Whether the room is kept back; False also where there is too little to begin with."""
        try:
            size = self._size()
            return self._held() >= size or self._take(size)
        except OSError:
            return False

    def release(self) -> None:
        """Let deliveries have it; new writes are refused until there is room for it again."""
        with contextlib.suppress(OSError):
            if self._held():
                os.truncate(self._path, 0)
                _log.warning("the outbox's disk is full: the room kept back goes to deliveries")

    def pages_of_log(self) -> int:
        """After so many pages the log is put into the database, so that both have room in here."""
        try:
            return max(16, min(_USUAL_LOG, self._size() // 3 // _PAGE))
        except OSError:
            return _USUAL_LOG

    def _size(self) -> int:
        volume = os.statvfs(self._path.parent)
        return min(_MOST, volume.f_blocks * volume.f_frsize // _SHARE)

    def _held(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _take(self, size: int) -> bool:
        volume = os.statvfs(self._path.parent)
        if volume.f_bavail * volume.f_frsize < size + size // 2:
            return False
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY, _PRIVATE)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            os.truncate(self._path, 0)
            raise
        finally:
            os.close(file)
        return True
