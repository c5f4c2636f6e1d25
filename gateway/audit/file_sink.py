"""The audit file: its records form one chain across rotations and restarts.

A process that starts reads the end of the chain from the file. A partial line that a dead process
left is terminated, kept, and followed by a `torn` record. So is all from a line on in which a power
failure has left a gap: none of it was reported as written. Chunks are appended completely or not at
all, and flushed to the disk: a failed write is truncated to the last complete line, so that no
failure leaves a partial line.

Names of rotated files sort by time and contain the number of the last record: `audit.jsonl` becomes
`audit.jsonl.20260301T083000Z-000000000042` and keeps that name.
"""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from gateway.audit.hash_chain import (
    MODE,
    ROTATION,
    TORN,
    ChainPosition,
    ChainStateFile,
    NotAnAuditFileError,
    append_to_chain,
    parse_record,
    read_tail,
)
from gateway.clock import TimestampFormatter
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import AuditSettings


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


def _sync_directory(path: Path) -> None:
    """Flush the entries of a directory to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_ROTATED_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_ROTATED_NAME: Final = re.compile(r"(.+)\.([0-9]{8}T[0-9]{6}Z)-[0-9]{12,}x*")


def _rotated_path(path: Path, last: int, now: float) -> Path:
    """Return an unused name for the file at `path`, whose last record has the number `last`."""
    moment = time.strftime(_ROTATED_TIME_FORMAT, time.gmtime(now))
    target = path.with_name(f"{path.name}.{moment}-{last:012d}")
    while target.exists():
        target = target.with_name(f"{target.name}x")
    return target


def is_rotated(path: Path) -> bool:
    """Return whether the file has the name of a rotated file."""
    return _ROTATED_NAME.fullmatch(path.name) is not None


def files_rotated_since(path: Path, since: float) -> Iterator[Path]:
    """Yield the files that were rotated from `path` at `since` (Unix time) or later."""
    for file in path.parent.iterdir():
        name = _ROTATED_NAME.fullmatch(file.name)
        if name is not None and name[1] == path.name:
            try:
                moment = calendar.timegm(time.strptime(name[2], _ROTATED_TIME_FORMAT))
            except ValueError:
                continue
            if moment >= since:
                yield file


_log = get_logger("gateway.audit")

_Chunk = tuple[bytes, ChainPosition]  # a line, and the position of the chain after it


class FileSink:
    """Writes records to a file, each bound to the record before (`audit_writer.Sink`).

    `path` is `audit.path`, which is not None here. `clock` returns Unix time in seconds.
    """

    def __init__(
        self,
        path: Path,
        settings: AuditSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._rotate_bytes = settings.rotate_bytes
        self._state_file = ChainStateFile(path)
        self._clock = clock
        self._file = DurableFile(sync=settings.fsync)
        self._position = ChainPosition()
        self._is_position_known = False  # whether `_position` is the end of the chain
        self._size_limit = settings.rotate_bytes
        self._handed = 0
        self._done = 0  # lines of a failed write that were written completely

    def open(self) -> None:
        """Open or create the file, and exclude other gateways until `close`.

        Raises BlockingIOError if another gateway writes to the file, OSError,
        `hash_chain.NotAnAuditFileError`.
        """
        self._state_file.lock()
        self._reopen()
        # Nothing is written yet: with a full disk a gateway starts, and rejects requests until
        # there is free space.
        read_tail(self._file.fd, os.fstat(self._file.fd).st_size)

    def write(self, lines: Sequence[bytes]) -> None:
        self._handed = len(lines)
        self._file.sync()
        if self._done < len(lines):
            self._write(lines)
            self._file.sync()
        # Last, so that after a power failure the state file never names a record that is missing.
        self._state_file.write(self._position)
        self._done = 0

    def _write(self, lines: Sequence[bytes]) -> None:
        if self._was_moved():
            self._reopen()
        self._load_position()
        while self._done < len(lines):
            self._rotate_if_full()
            self._append(lines[self._done :])

    def discard_failed(self) -> int:
        # Lines that were not flushed may be on the disk or not: they count as lost, since reporting
        # too many is the safe error.
        written = self._done if self._file.final_sync() else 0
        self._done = 0
        return self._handed - written

    def close(self) -> None:
        self._file.close()
        self._state_file.close()

    # File

    def _was_moved(self) -> bool:
        """Return whether the path names another file now, because it was moved or rotated."""
        if self._file.fd < 0:
            return True
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._file.fd))
        except FileNotFoundError:
            return True

    def _reopen(self) -> None:
        self._file.open(self._path)
        # Only a regular file can be truncated and renamed.
        if not stat.S_ISREG(os.fstat(self._file.fd).st_mode):
            raise NotAnAuditFileError

    def _rotate_if_full(self) -> None:
        """Start a new file if this one has reached its limit."""
        if self._file.size < self._size_limit:
            return
        last = self._position
        self._file.sync()
        self._state_file.write(last)
        self._state_file.sync()
        try:
            target = _rotated_path(self._path, last.seq, self._clock())
            self._path.rename(target)
        except OSError as error:
            _log.error("the audit file cannot be rotated and grows", error=error.strerror)
            self._size_limit = self._file.size + self._rotate_bytes
            return
        self._size_limit = self._rotate_bytes
        self._reopen()
        _sync_directory(self._path.parent)
        self._load_position()
        _log.info("audit file rotated", file=target.name, last_seq=last.seq, last_hash=last.hash)

    # Chain

    def _load_position(self) -> None:
        """Determine the position of the chain, and prepare the file for the next record."""
        self._file.refresh_size()
        rest = b""
        if not self._is_position_known or not self._ends_in_line_feed():
            flushed = self._state_file.read().seq
            found, rest = read_tail(self._file.fd, self._file.size, flushed)
            if not self._is_position_known:
                self._position = self._latest(found or ChainPosition())
        self._is_position_known = True
        if rest:
            self._repair_torn_line(rest)
        if not self._file.size and self._position.seq:
            self._append_gateway_record(ROTATION)

    def _ends_in_line_feed(self) -> bool:
        return not self._file.size or os.pread(self._file.fd, 1, self._file.size - 1) == b"\n"

    def _latest(self, file_position: ChainPosition) -> ChainPosition:
        """Return the end of the chain according to the audit file and its state file."""
        stored_position = self._state_file.read()
        if stored_position.seq < file_position.seq or stored_position == file_position:
            return file_position
        if self._file.size:
            _log.error(
                "the audit file lacks its last records",
                has=file_position.seq,
                should=stored_position.seq,
            )
        return stored_position

    def _repair_torn_line(self, rest: bytes) -> None:
        """Terminate what is torn. Record that, unless only a line feed is missing."""
        bound = parse_record(rest)
        if bound is not None and bound.has_valid_hash and bound.prev == self._position.hash:
            self._append_chunks([(b"\n", bound.position)])
            return
        _log.warning("half an audit record was found", bytes=len(rest))
        self._append_gateway_record(
            TORN, before=b"\n", bytes=len(rest), sha256=hashlib.sha256(rest).hexdigest()
        )

    def _append_gateway_record(self, event: str, *, before: bytes = b"", **fields: object) -> None:
        """Append a record about the file itself."""
        record = {"event": event, "timestamp": TimestampFormatter().format(self._clock()), **fields}
        line, position = append_to_chain(orjson.dumps(record) + b"\n", self._position)
        self._append_chunks([(before + line, position)])

    def _append(self, lines: Sequence[bytes]) -> None:
        """Append lines until the file has reached its limit."""
        chunks: list[_Chunk] = []
        position, size, before = self._position, self._file.size, self._position.seq
        for line in lines:
            bound, position = append_to_chain(line, position)
            chunks.append((bound, position))
            size += len(bound)
            if size >= self._size_limit:
                break
        try:
            self._append_chunks(chunks)
        finally:
            self._done += self._position.seq - before

    def _append_chunks(self, chunks: Sequence[_Chunk]) -> None:
        """Append chunks to the file. After a failure only complete ones remain."""
        self._is_position_known = False
        try:
            self._file.append([chunk for chunk, _ in chunks])
        finally:
            if appended_count := self._file.appended_count:
                self._position = chunks[appended_count - 1][1]
            self._is_position_known = self._file.is_consistent
