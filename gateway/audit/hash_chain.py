"""The hash chain of audit files: how each record is bound to the record before it.

The line of a record ends in `,"seq":N,"prev":"H","hash":"H"}`. `seq` counts from 1, `prev` is the
`hash` of the record before (64 zeros for the first), and `hash` is the SHA-256 of the bytes of the
line without `,"hash":"…"` and without the line feed. To recompute it, nothing has to be parsed or
serialized again, so that any tool can do it: docs/audit.md shows one.

The end of a chain is stored in two places. The audit file itself ends with the last record. A state
file beside it also excludes a second gateway and shows whether records were removed from the end.
The file sink writes with this module, `audit verify` checks with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from gateway import os_support

GENESIS: Final = "0" * 64
# Events that occur only in files. A file that continues another one begins with a `rotation`. A
# file whose first lines were removed can thus be distinguished from a file whose predecessor was
# archived.
ROTATION: Final = "rotation"
TORN: Final = "torn"
_TORN_START: Final = b'{"event":"torn",'

# The text of a JSON string cannot match: quotes inside of it are escaped.
_END: Final = re.compile(
    rb',"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z'
)
_MAX_END_BYTES: Final = 200
_HASH_MEMBER: Final = len(b',"hash":""}') + 64


class ChainPosition(NamedTuple):
    """The position that a chain has reached: sequence number and hash of its last record."""

    seq: int = 0
    hash: str = GENESIS


class ChainedRecord(NamedTuple):
    """The chain members of a record. `has_valid_hash`: `hash` matches the bytes of the line."""

    seq: int
    prev: str
    hash: str
    has_valid_hash: bool

    @property
    def position(self) -> ChainPosition:
        """The position after this record, to which the next record has to be bound."""
        return ChainPosition(self.seq, self.hash)


def append_to_chain(line: bytes, last: ChainPosition) -> tuple[bytes, ChainPosition]:
    """Return the record of a line that is bound to `last`, and the new position.

    `line` is a JSON object with its line feed, and so is the record.
    """
    seq = last.seq + 1
    body = b'%b,"seq":%d,"prev":"%b"' % (line[:-2], seq, last.hash.encode())
    digest = hashlib.sha256(body + b"}").hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), ChainPosition(seq, digest)


def parse_record(line: bytes) -> ChainedRecord | None:
    """Return the chain members of a line without its line feed, or None if it has none."""
    found = _END.search(line, max(0, len(line) - _MAX_END_BYTES))
    if found is None:
        return None
    seq, prev, digest = int(found[1]), found[2].decode(), found[3].decode()
    computed = hashlib.sha256(line[:-_HASH_MEMBER] + b"}").hexdigest()
    return ChainedRecord(seq, prev, digest, has_valid_hash=computed == digest)


# Only the gateway's own account may read the file.
MODE: Final = 0o600


# Bytes. A file of more than a mebibyte without any record is no audit file. What was not flushed
# when the power failed is at most one write of all that may wait (`audit_writer.MAX_BYTES`).
_FIRST_READ_BYTES: Final = 64 * 1024
_MAX_FOREIGN_BYTES: Final = 1024 * 1024
_MAX_READ_BYTES: Final = 64 * 1024 * 1024


class NotAnAuditFileError(Exception):
    """The file holds lines, but no record of a chain."""


def read_tail(fd: int, size: int, flushed: int | None = None) -> tuple[ChainPosition | None, bytes]:
    """Return the end of a file of `size` bytes.

    It is the position of the last record, if any, and what is torn behind it: a partial line, or
    all from a line on in which a power failure has left a gap. `flushed` is the number of a record
    that is surely before any such gap. Raises OSError, `NotAnAuditFileError`.
    """
    length = _FIRST_READ_BYTES
    while True:
        start = max(0, size - length)
        lines = os.pread(fd, size - start, start).split(b"\n")
        # Unless the read began at offset 0, the first line is incomplete.
        whole = lines[1 if start else 0 : (torn := _first_torn(lines))]
        first = _first_record(whole)
        if first is not None and (flushed is None or first.seq <= flushed + 1):
            break
        if not start or length >= _MAX_READ_BYTES:
            break
        length *= 4
    last = _first_record(reversed(whole))
    if last is None and (whole or size > _MAX_FOREIGN_BYTES):
        raise NotAnAuditFileError
    return last.position if last is not None else None, b"\n".join(lines[torn:])


def _first_record(lines: Iterable[bytes]) -> ChainedRecord | None:
    return next((found for line in lines if (found := parse_record(line)) is not None), None)


def has_gap(line: bytes) -> bool:
    """Return whether a part of the line never reached the disk: no record has such bytes."""
    return b"\0" in line


def _first_torn(lines: list[bytes]) -> int:
    """Return the index of the first torn line that no `torn` record has reported."""
    first = last = len(lines) - 1
    for index, line in enumerate(lines):
        if has_gap(line):
            first = min(first, index)
        elif line.startswith(_TORN_START) and index < last:
            first = last
    return first


class ChainStateFile:
    """The state file beside an audit file: `.NAME.chain`, with the single line `SEQ HASH`.

    It is locked while a gateway writes (flock(2); the lock ends with the process). Its position is
    a hint: if the audit file ends with a later record, that record counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = _state_path(path)
        self._fd = -1

    def lock(self) -> None:
        """Exclude other gateways.

        Raises BlockingIOError if another gateway holds the lock, or another OSError.
        """
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        os_support.lock_file(self._fd)

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
