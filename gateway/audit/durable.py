"""A file that grows by whole pieces, and knows which of them are on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Readable for the gateway's user only.
MODE: Final = 0o600


class DurableFile:
    """A file that this process appends to; closed at first. With `sync` false no disk is awaited.

    After `append`, also after a failed one, `appended_count` tells how many of the pieces stay.
    `is_consistent` is false when half a piece may stand behind them.
    """

    def __init__(self, *, sync: bool) -> None:
        self.fd = -1
        self.size = 0
        self.appended_count = 0
        self.is_consistent = True
        self._syncs = sync
        self._unsynced: list[tuple[int, bytes]] = []  # what the disk may lack, by its offset
        self._has_failed_sync = False

    def open(self, path: Path) -> None:
        """Open or make the file, instead of the one before. Raises OSError."""
        self.close()
        # Without O_NONBLOCK a pipe under that name would wait for its reader.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, MODE)

    @property
    def is_regular(self) -> bool:
        """Whether it is a file that can be cut and renamed."""
        return stat.S_ISREG(os.fstat(self.fd).st_mode)

    def refresh_size(self) -> None:
        """Go on at the present end, wherever others have brought it."""
        self.size = os.fstat(self.fd).st_size

    def append(self, pieces: Sequence[bytes]) -> None:
        """Write pieces at the end. Raises OSError; whole ones that were written stay."""
        data, start, done = b"".join(pieces), self.size, 0
        self.appended_count, self.is_consistent = 0, False
        try:
            while done < len(data):
                done += os.pwrite(self.fd, memoryview(data)[done:], start + done)
        finally:
            self._accept_whole(pieces, done)
            if self._syncs and self.appended_count:
                self._unsynced.append((start, data[: self.size - start]))
            if self.size < start + done:
                os.ftruncate(self.fd, self.size)
            self.is_consistent = True

    def _accept_whole(self, pieces: Sequence[bytes], done: int) -> None:
        for piece in pieces:
            done -= len(piece)
            if done < 0:
                return
            self.size += len(piece)
            self.appended_count += 1

    def sync(self) -> None:
        """Have everything on the disk. Raises OSError; it can be repeated until it succeeds."""
        if not self._unsynced:
            return
        if self._has_failed_sync:
            # The system takes pages that it could not write for clean (fsync(2)): write them anew.
            for start, data in self._unsynced:
                os.pwrite(self.fd, data, start)
        self._has_failed_sync = True
        os.fdatasync(self.fd)
        self._has_failed_sync = False
        self._unsynced.clear()

    def final_sync(self) -> bool:
        """Try it a last time; whether everything is on the disk."""
        with contextlib.suppress(OSError):
            self.sync()
        done = not self._unsynced
        self._unsynced.clear()
        self._has_failed_sync = False
        return done

    def close(self) -> None:
        """Close it; open or not."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
