"""Disk space reserved for deliveries, as each of their steps needs some, and its release."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_MAX_RESERVE_BYTES: Final = 8 * 1024 * 1024
_VOLUME_DIVISOR: Final = 4
_PRIVATE: Final = 0o600
PAGE: Final = 4096
_DEFAULT_WAL_PAGES: Final = 1000
# Free pages of the database that are kept for the next entries.
_MIN_FREE_PAGES: Final = 256
# An older version's database is rewritten (VACUUM) to release space if it uses at most so many
# pages.
_MAX_VACUUM_PAGES: Final = 4096
_INCREMENTAL: Final = 2
_BUSY_TIMEOUT: Final = 5.0


class DiskReserve:
    """A file beside the database that occupies disk space until it is needed.

    It has at most 8 MiB, and at most a quarter of a small volume.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.stem}-reserve")

    def allocate(self) -> bool:
        """Return whether the space is reserved; False also where the disk is too full for it."""
        try:
            size = self._size()
            return self._allocated_bytes() >= size or self._grow_to(size)
        except OSError:
            return False

    def release(self) -> None:
        """Release the space to deliveries.

        New writes are refused until the space can be reserved again.
        """
        with contextlib.suppress(OSError):
            if self._allocated_bytes():
                os.truncate(self._path, 0)
                _log.warning("the outbox's disk is full: the room kept back goes to deliveries")

    def wal_checkpoint_pages(self) -> int:
        """Return the number of pages after which the WAL is checkpointed.

        The WAL and the database then both find their space in the reserve.
        """
        try:
            return max(16, min(_DEFAULT_WAL_PAGES, self._size() // 3 // PAGE))
        except OSError:
            return _DEFAULT_WAL_PAGES

    def release_disk_space(self, database: Path) -> bool:
        """Release some unused pages of the database. Return whether any were released."""
        name = f"{database.absolute().as_uri()}?mode=rw"
        try:
            with contextlib.closing(
                sqlite3.connect(name, timeout=_BUSY_TIMEOUT, isolation_level=None, uri=True)
            ) as connection:
                return _shrink(connection, self.wal_checkpoint_pages() // 4)
        except sqlite3.Error:
            # One reason is a full disk: finished entries will free space.
            return False

    def _size(self) -> int:
        volume = os.statvfs(self._path.parent)
        return min(_MAX_RESERVE_BYTES, volume.f_blocks * volume.f_frsize // _VOLUME_DIVISOR)

    def _allocated_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _grow_to(self, size: int) -> bool:
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


def _shrink(connection: sqlite3.Connection, step: int) -> bool:
    free = _pragma_value(connection, "freelist_count")
    if free <= _MIN_FREE_PAGES:
        return False
    if _pragma_value(connection, "auto_vacuum") == _INCREMENTAL:
        # `executescript` steps the statement to its end; `execute` would release one page only.
        connection.executescript(f"PRAGMA incremental_vacuum({min(step, free - _MIN_FREE_PAGES)})")
    elif _pragma_value(connection, "page_count") - free <= _MAX_VACUUM_PAGES:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        connection.execute("VACUUM")
    left = _pragma_value(connection, "freelist_count")
    if left <= _MIN_FREE_PAGES:
        # The file itself shrinks only at a checkpoint of the WAL.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return left < free


def _pragma_value(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
