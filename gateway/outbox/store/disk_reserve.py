"""The disk space that deliveries need beside a SQLite file: allocated beforehand, never returned.

Space that is released for a delivery can be taken by another program first. Therefore all that a
delivery writes goes to blocks that exist already:

* the log (`-wal`) has its full length from the beginning; SQLite finds the end of its content by
  checksums and overwrites it in place after each checkpoint;
* so has the index of the log (`-shm`). SQLite truncates it when the first process opens the
  database, unless another one holds a lock on it: a lock of the open file description (fcntl(2),
  `F_OFD_SETLK`) counts as such;
* the database has free pages, and no page that its file has no blocks for: a checkpoint would fail.

SQLite deletes log and index when the last connection is closed. A second name (a hard link) keeps
their blocks, so that a restart needs none either. On file systems that write each change to new
blocks (btrfs, ZFS, bcachefs) no block can be kept. Without these functions of the system (Windows,
macOS) nothing is reserved. `sqlite_database` uses this module.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from gateway import os_support

PAGE: Final = 4096
_MAX_BYTES: Final = 8 * 1024 * 1024
_VOLUME_DIVISOR: Final = 4
_FULL_DIVISOR: Final = 8
_PRIVATE: Final = 0o600
# The bytes of a log with one frame more than pages, and those of the part of its index that
# describes the first 4062 frames (https://sqlite.org/walformat.html).
_WAL_HEADER_BYTES: Final = 32
_WAL_FRAME_BYTES: Final = PAGE + 24
_INDEX_BYTES: Final = 32768
# The byte of the index that SQLite locks while a process uses it (`UNIX_SHM_DMS` of os_unix.c).
_INDEX_LOCK: Final = 128
_DATABASE_HEADER: Final = b"SQLite format 3\0"
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class DiskFullError(Exception):
    """The disk has no space to allocate."""


class _Descriptors:
    """The open database and index files of this process, each opened once.

    Closing any descriptor of a file releases all locks that this process has on it (fcntl(2)),
    SQLite's included. So they are closed with the last user.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], tuple[int, int]] = {}

    def acquire(self, path: Path) -> int:
        """Return the descriptor of a file that exists."""
        status = os.stat(path)
        key = status.st_dev, status.st_ino
        descriptor, users = self._open.get(key, (-1, 0))
        if not users:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._open[key] = descriptor, users + 1
        return descriptor

    def release(self, descriptor: int) -> None:
        """End one use of a descriptor that `acquire` returned."""
        status = os.fstat(descriptor)
        key = status.st_dev, status.st_ino
        users = self._open[key][1] - 1
        if users:
            self._open[key] = descriptor, users
        else:
            del self._open[key]
            os.close(descriptor)


_descriptors: Final = _Descriptors()


class DiskReserve:
    """The reserve of one database: 8 MiB, or a quarter of a small volume.

    Three quarters are the log's, the rest free pages of the database. No method may be called
    before the database file exists.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._log = database.with_name(f"{database.name}-wal")
        self._index = database.with_name(f"{database.name}-shm")
        self._total = 0
        self._descriptor = -1
        # Those of all indexes that were in place since the start.
        self._held: list[int] = []

    @property
    def free_pages(self) -> int:
        """The number of free pages that every transaction which adds entries leaves."""
        return self._size() // 4 // PAGE

    @property
    def log_bytes(self) -> int:
        """The length of the log."""
        frames = (self._size() * 3 // 4 - _WAL_HEADER_BYTES) // _WAL_FRAME_BYTES
        return _WAL_HEADER_BYTES + frames * _WAL_FRAME_BYTES

    @property
    def checkpoint_frames(self) -> int:
        """The number of frames in the log after which it is checkpointed.

        A transaction that begins before has the rest of the log.
        """
        return max(16, self.log_bytes // _WAL_FRAME_BYTES // 4)

    def hold(self) -> None:
        """Put log and index in their places, with all their blocks.

        Takes a few microseconds where they are in place already. Raises `DiskFullError`, OSError.
        """
        if not os_support.CAN_RESERVE_DISK or self._is_in_place():
            return
        if self._descriptor < 0:
            self._descriptor = _descriptors.acquire(self._database)
        if os.pread(self._descriptor, len(_DATABASE_HEADER), 0) not in (b"", _DATABASE_HEADER):
            return
        self._place_files()
        _keep(self._log)
        _keep(self._index)
        _allocate(self._held[-1], _INDEX_BYTES)
        # SQLite has no locks on the log.
        log = os.open(self._log, os.O_RDWR)
        try:
            _allocate(log, self.log_bytes)
        finally:
            os.close(log)

    def allocate_database(self, pages: int) -> None:
        """Give the database file blocks for so many pages. Raises `DiskFullError`.

        Pages beyond those of the last transaction are cut off by a checkpoint.
        """
        if self._descriptor >= 0:
            _allocate(self._descriptor, pages * PAGE)

    def is_disk_full(self) -> bool:
        """Return whether the disk has so little space that nothing may be added."""
        if not os_support.CAN_RESERVE_DISK:
            return False
        volume = os.statvfs(self._database.parent)
        return volume.f_bavail * volume.f_frsize < self._size() // _FULL_DIVISOR

    def close(self) -> None:
        """Close the files, after all connections to the database."""
        held, self._held = self._held, []
        if self._descriptor >= 0:
            held.append(self._descriptor)
            self._descriptor = -1
        for descriptor in held:
            _descriptors.release(descriptor)

    def _size(self) -> int:
        if not os_support.CAN_RESERVE_DISK:
            return _MAX_BYTES
        if not self._total:
            volume = os.statvfs(self._database.parent)
            blocks = volume.f_blocks * volume.f_frsize
            self._total = min(_MAX_BYTES, blocks // _VOLUME_DIVISOR)
        return self._total

    def _is_in_place(self) -> bool:
        if not self._held:
            return False
        try:
            log, index = os.stat(self._log), os.stat(self._index)
            return (
                log.st_ino == os.stat(_second_name(self._log)).st_ino
                and log.st_size >= self.log_bytes
                and index.st_ino == os.fstat(self._held[-1]).st_ino
                and index.st_nlink > 1
            )
        except FileNotFoundError:
            return False

    def _place_files(self) -> None:
        """Make the files that are missing, from those that were kept, and lock the index."""
        if not self._index.exists():
            _restore(self._index, self._database)
        if not self._held or not os.path.samestat(os.fstat(self._held[-1]), os.stat(self._index)):
            self._held.append(_descriptors.acquire(self._index))
        descriptor = self._held[-1]
        try:
            if os_support.lock_byte(descriptor, _INDEX_LOCK, exclusive=True):
                # No connection of any process uses the index. SQLite makes it anew from the log.
                os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            if not self._log.exists():
                _restore(self._log, self._database)
        finally:
            # An exclusive lock would keep every connection out of the database.
            os_support.lock_byte(descriptor, _INDEX_LOCK, exclusive=False)


def _second_name(path: Path) -> Path:
    return path.with_name(f"{path.name}-reserve")


def _restore(path: Path, database: Path) -> None:
    """Make the file of the blocks that were kept, or an empty one, for the database's owner."""
    kept = _second_name(path)
    file = os.open(kept, os.O_CREAT | os.O_RDWR, _PRIVATE)
    try:
        if not os.geteuid():
            # A command of root must not keep the gateway's account from its own files.
            owner = os.stat(database)
            os.fchown(file, owner.st_uid, owner.st_gid)
        # The content is of the last use. Without its header SQLite takes the log for empty.
        os.pwrite(file, bytes(min(_WAL_HEADER_BYTES, os.fstat(file).st_size)), 0)
        os.fsync(file)
    finally:
        os.close(file)
    os.link(kept, path)


def _keep(path: Path) -> None:
    """Give the file its second name."""
    kept = _second_name(path)
    if kept.exists() and kept.samefile(path):
        return
    kept.unlink(missing_ok=True)
    os.link(path, kept)


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its blocks up to this size. Raises `DiskFullError`."""
    present = os.fstat(descriptor).st_size
    if present >= size:
        return
    try:
        # Behind the end alone: where the file system cannot allocate, each block is written.
        os.posix_fallocate(descriptor, present, size - present)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError from None
