"""A file to which chunks are appended completely or not at all, and flushed to the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Only the gateway's own account may read the file.
MODE: Final = 0o600


class DurableFile:
    """A file that this process appends to; initially closed. Without `sync` nothing is flushed.

    After `append`, also after a failed one, `appended_count` is the number of chunks that were
    written completely and remain. `is_consistent` is false if a part of a chunk may follow them.
    """

    def __init__(self, *, sync: bool) -> None:
        self.fd = -1
        self.size = 0
        self.appended_count = 0
        self.is_consistent = True
        self._syncs = sync
        # Data that may not be on the disk yet, with its offset.
        self._unsynced: list[tuple[int, bytes]] = []
        self._has_failed_sync = False

    def open(self, path: Path) -> None:
        """Open or create the file, in place of the one that was open before. Raises OSError."""
        self.close()
        # Without O_NONBLOCK, opening a pipe of that name would block until it has a reader.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, MODE)

    @property
    def is_regular(self) -> bool:
        """Whether the path is a regular file, which can be truncated and renamed."""
        return stat.S_ISREG(os.fstat(self.fd).st_mode)

    def refresh_size(self) -> None:
        """Continue at the current end of the file, which others may have changed."""
        self.size = os.fstat(self.fd).st_size

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write chunks at the end. Raises OSError; chunks that were written completely remain."""
        data, start, done = b"".join(chunks), self.size, 0
        self.appended_count, self.is_consistent = 0, False
        try:
            while done < len(data):
                done += os.pwrite(self.fd, memoryview(data)[done:], start + done)
        finally:
            self._accept_complete(chunks, done)
            if self._syncs and self.appended_count:
                self._unsynced.append((start, data[: self.size - start]))
            if self.size < start + done:
                os.ftruncate(self.fd, self.size)
            self.is_consistent = True

    def _accept_complete(self, chunks: Sequence[bytes], done: int) -> None:
        for chunk in chunks:
            done -= len(chunk)
            if done < 0:
                return
            self.size += len(chunk)
            self.appended_count += 1

    def sync(self) -> None:
        """Flush all data to the disk. Raises OSError, and can then be called again."""
        if not self._unsynced:
            return
        if self._has_failed_sync:
            # After an error the kernel marks the pages as clean (fsync(2)), so they are written
            # again.
            for start, data in self._unsynced:
                os.pwrite(self.fd, data, start)
        self._has_failed_sync = True
        os.fdatasync(self.fd)
        self._has_failed_sync = False
        self._unsynced.clear()

    def final_sync(self) -> bool:
        """Try a last time to flush. Return whether all data are on the disk."""
        with contextlib.suppress(OSError):
            self.sync()
        done = not self._unsynced
        self._unsynced.clear()
        self._has_failed_sync = False
        return done

    def close(self) -> None:
        """Close the file if it is open."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
