"""The end of a chain, which is stored in three places.

The audit file itself ends with the last record. A state file beside it also excludes a second
gateway and shows whether records were removed from the end. Workers that write one chain also share
an anonymous file that all of them have inherited.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gateway.audit import chain
from gateway.audit.chain import ChainPosition
from gateway.audit.durable import MODE

with contextlib.suppress(ImportError):
    import fcntl  # not on Windows, where the settings reject what needs this module

# Bytes. A record has some hundred bytes: a file without any in its last mebibyte is no audit file.
_FIRST_READ_BYTES: Final = 64 * 1024
_MAX_READ_BYTES: Final = 1024 * 1024


class NotAnAuditFileError(Exception):
    """The file holds lines, but no record of a chain."""


class FileTail(NamedTuple):
    """The end of a file: the position of its last record, if any, and the partial line after it."""

    position: ChainPosition | None
    partial_line: bytes


def read_tail(fd: int, size: int) -> FileTail:
    """Return the end of a file of `size` bytes. Raises OSError, `NotAnAuditFileError`."""
    length = _FIRST_READ_BYTES
    while True:
        start = max(0, size - length)
        complete, _, rest = os.pread(fd, size - start, start).rpartition(b"\n")
        # Unless the read began at offset 0, the first line is incomplete.
        for line in reversed(complete.split(b"\n")[1 if start else 0 :]):
            if (found := chain.parse_record(line)) is not None:
                return FileTail(found.position, rest)
        if not start and not complete:
            return FileTail(None, rest)
        if not start or length >= _MAX_READ_BYTES:
            raise NotAnAuditFileError
        length *= 4


class ChainStateFile:
    """The state file beside an audit file: `.NAME.chain`, with the single line `SEQ HASH`.

    It is locked while a gateway writes (flock(2); the lock ends with the process). Its position is
    a hint: if the audit file ends with a later record, that record counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = _state_path(path)
        self._fd = -1

    def lock(self, *, is_shared: bool) -> None:
        """Exclude other gateways.

        `is_shared`: another worker of this gateway holds the lock already. Raises BlockingIOError
        if another gateway holds the lock, or another OSError.
        """
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        if not is_shared:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A shared lock, so that other workers can acquire it too. It ends with the last of them.
        fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def read(self) -> ChainPosition:
        """Return the stored position; the beginning of the chain if there is none."""
        return _parse_position(os.pread(self._fd, 100, 0))

    def write(self, position: ChainPosition) -> None:
        """Store a position unless a later one is stored.

        The file is overwritten in place, so that no disk space is needed. Errors are ignored, since
        the position is only a hint.
        """
        with contextlib.suppress(OSError):
            if self.read().seq > position.seq:
                return
            os.pwrite(self._fd, b"%020d %b\n" % (position.seq, position.hash.encode()), 0)

    def sync(self) -> None:
        """Flush the stored position to the disk. Errors are ignored."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file and thereby release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def read_chain_state(path: Path) -> ChainPosition:
    """Return the position in the state file of an audit file; the chain's beginning if none."""
    try:
        return _parse_position(_state_path(path).read_bytes())
    except OSError:
        return ChainPosition()


def _state_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.chain")


def _parse_position(text: bytes) -> ChainPosition:
    found = _STATE_LINE.match(text)
    return ChainPosition() if found is None else ChainPosition(int(found[1]), found[2].decode())


_STATE_LINE: Final = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")


class ChainLock:
    """The lock under which workers write one chain, and the position published to the next one.

    `fd` is the descriptor of a file that all workers have inherited. A lock on it (fcntl(2); it
    ends with the process) is held during a write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owns_descriptor = False

    @classmethod
    def in_process(cls) -> ChainLock:
        """Return a lock for a process that is the only writer of the chain."""
        lock = cls(os.memfd_create("turns"))
        lock._owns_descriptor = True
        return lock

    def close(self) -> None:
        """Close the descriptor, unless it is shared with other workers."""
        if self._owns_descriptor:
            self._owns_descriptor = False
            os.close(self._fd)

    @contextmanager
    def acquire(self) -> Iterator[ChainPosition | None]:
        """Acquire the lock and yield the published chain position, None when it is unknown.

        It is unknown after a process failed or died without calling `publish_position`.
        """
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            known = self._read()
            os.pwrite(self._fd, b"\0", 0)
            yield known
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def publish_position(self, position: ChainPosition) -> None:
        """Publish the position of the chain for the next holder of the lock."""
        os.pwrite(self._fd, _STATE.pack(True, position.seq, bytes.fromhex(position.hash)), 0)

    def _read(self) -> ChainPosition | None:
        state = os.pread(self._fd, _STATE.size, 0)
        if len(state) < _STATE.size or not state[0]:
            return None
        _, seq, digest = _STATE.unpack(state)
        return ChainPosition(seq, digest.hex())


_STATE: Final = struct.Struct("=?Q32s")
