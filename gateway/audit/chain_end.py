"""Where a chain has come to, as three places remember it.

The audit file itself: its last record. A small file beside it, which also keeps a second gateway
away and shows when records have gone from the end. And, for processes that write in turns, a file
without a name that all of them have inherited.
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
    import fcntl  # not on Windows, where the settings refuse what needs this module

# A record has some hundred bytes; what holds none in its last megabyte is another kind of file.
_FIRST_LOOK: Final = 64 * 1024
_LAST_LOOK: Final = 1024 * 1024


class NotAnAuditFileError(Exception):
    """The file holds lines, but no record of a chain."""


class FileTail(NamedTuple):
    """The end of a file: its last record, if there is one, and the half line after it."""

    link: ChainPosition | None
    partial_line: bytes


def read_tail(fd: int, size: int) -> FileTail:
    """The end of a file of that size. Raises OSError, `NotAnAuditFileError`."""
    look = _FIRST_LOOK
    while True:
        start = max(0, size - look)
        whole, _, rest = os.pread(fd, size - start, start).rpartition(b"\n")
        # Unless it is the file's beginning, the first line is cut.
        for line in reversed(whole.split(b"\n")[1 if start else 0 :]):
            if (found := chain.parse_record(line)) is not None:
                return FileTail(found.position, rest)
        if not start and not whole:
            return FileTail(None, rest)
        if not start or look >= _LAST_LOOK:
            raise NotAnAuditFileError
        look *= 4


class ChainStateFile:
    """The small file beside an audit file: `.NAME.chain`, one line, `SEQ HASH`.

    It is locked while a gateway writes (flock(2), which ends with the process). It is a hint: where
    the audit file knows of a later record, that one counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = _companion(path)
        self._fd = -1

    def lock(self, *, is_shared: bool) -> None:
        """Keep other gateways away; `is_shared`: a process of the same gateway does so already.

        Raises BlockingIOError when another one is there, else OSError.
        """
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        if not is_shared:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Shared with those that join: the last of all processes ends it.
        fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def read(self) -> ChainPosition:
        """The last link that was noted; the chain's beginning when there is none."""
        return _link(os.pread(self._fd, 100, 0))

    def write(self, link: ChainPosition) -> None:
        """Note a link unless a later one is; in place, so that it takes no room.

        A failure does no harm.
        """
        with contextlib.suppress(OSError):
            if self.read().seq > link.seq:
                return
            os.pwrite(self._fd, b"%020d %b\n" % (link.seq, link.hash.encode()), 0)

    def sync(self) -> None:
        """Have the note on the disk."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Let others write."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def read_chain_state(path: Path) -> ChainPosition:
    """What stands in the companion of an audit file; the chain's beginning when there is none."""
    try:
        return _link(_companion(path).read_bytes())
    except OSError:
        return ChainPosition()


def _companion(path: Path) -> Path:
    return path.with_name(f".{path.name}.chain")


def _link(text: bytes) -> ChainPosition:
    found = _STATE_LINE.match(text)
    return ChainPosition() if found is None else ChainPosition(int(found[1]), found[2].decode())


_STATE_LINE: Final = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")


class ChainLock:
    """Whose turn it is among the processes that write one chain, and where they have brought it.

    `fd` is a file that all of them have inherited. A lock on it (fcntl(2), which ends with its
    process) is held while one writes.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owns_descriptor = False

    @classmethod
    def in_process(cls) -> ChainLock:
        """For a process that shares the chain with no other one."""
        turn = cls(os.memfd_create("turns"))
        turn._owns_descriptor = True
        return turn

    def close(self) -> None:
        """Close the descriptor, unless others have it too."""
        if self._owns_descriptor:
            self._owns_descriptor = False
            os.close(self._fd)

    @contextmanager
    def acquire(self) -> Iterator[ChainPosition | None]:
        """Wait for the turn; the link that the last one left, None when nobody can tell.

        What is not said with `publish_position` before the end is again unknown to the next one: it
        died, or failed in a way that it could not mend.
        """
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            known = self._read()
            os.pwrite(self._fd, b"\0", 0)
            yield known
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def publish_position(self, link: ChainPosition) -> None:
        """Tell the next one where the chain has come to."""
        os.pwrite(self._fd, _STATE.pack(True, link.seq, bytes.fromhex(link.hash)), 0)

    def _read(self) -> ChainPosition | None:
        state = os.pread(self._fd, _STATE.size, 0)
        if len(state) < _STATE.size or not state[0]:
            return None
        _, seq, digest = _STATE.unpack(state)
        return ChainPosition(seq, digest.hex())


_STATE: Final = struct.Struct("=?Q32s")
