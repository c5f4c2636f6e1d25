"""A file beside a SQLite outbox whose disk space is given up for deliveries when the disk is full.

Until there is space to make it again, nothing is added to the outbox. Where another program takes
the space first, deliveries wait until there is some. `sqlite_database` uses this module.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_BYTES: Final = 8 * 1024 * 1024
# Bytes that a checkpoint of the log may add to the database: SQLite makes one every 1,000 pages.
_CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class DiskReserve:
    """The reserve of one database. Processes that share the database share the file."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-reserve")

    def exists(self) -> bool:
        """Return whether the file exists, in a few microseconds."""
        try:
            return self._path.stat().st_size >= _BYTES
        except OSError:
            return False

    def make(self) -> bool:
        """Make the file if it is missing and there is space. Return whether it exists.

        Raises OSError, though not for a full disk.
        """
        if self.exists():
            return True
        if self._free_bytes() < _BYTES + _CHECKPOINT_BYTES:
            return False
        try:
            with open(self._path, "wb", opener=_open_private) as file:
                _allocate(file)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in _FULL:
                raise
            return False
        return True

    def admits(self, size: int) -> bool:
        """Return whether there is the file, and space for new data in log and database."""
        return self.make() and self._free_bytes() >= _CHECKPOINT_BYTES + 2 * size

    def give_up(self) -> bool:
        """Remove the file. Return whether there was one."""
        if not self._path.exists():
            return False
        self._path.unlink(missing_ok=True)
        _log.warning("the disk is full: deliveries take their reserve, new writes are refused")
        return True

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._path.parent).free


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _allocate(file: BinaryIO) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, _BYTES)
    except (AttributeError, OSError) as error:
        # Windows, macOS and some file systems cannot.
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        file.write(bytes(_BYTES))
