"""The audit file: its records form one chain across rotations and restarts.

A process that starts reads the end of the chain from the file. A partial line that a dead process
left is terminated, kept, and followed by a `torn` record. A failed write is truncated to the last
complete line, so that no failure leaves a partial line.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from gateway.audit import chain, chain_end
from gateway.audit.chain import ChainPosition
from gateway.audit.chain_end import ChainStateFile
from gateway.audit.durable import DurableFile, sync_directory
from gateway.audit.rotated import rotated_path
from gateway.telemetry.logs import get_logger
from gateway.telemetry.timestamp import TimestampFormatter

_log = get_logger("gateway.audit")

_Chunk = tuple[bytes, ChainPosition]  # a line, and the position of the chain after it


@dataclass(frozen=True, slots=True)
class FileSinkSettings:
    """Settings of the file. It is rotated at `rotate_bytes`; with `sync` each write is flushed."""

    rotate_bytes: int
    sync: bool = True


class FileSink:
    """Writes records to a file, each bound to the record before (`gateway.audit.sink.Sink`).

    `clock` returns Unix time in seconds.
    """

    def __init__(
        self,
        path: Path,
        rules: FileSinkSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._rules = rules
        self._state_file = ChainStateFile(path)
        self._clock = clock
        self._file = DurableFile(sync=rules.sync)
        self._position = ChainPosition()
        self._is_position_known = False  # whether `_position` is the end of the chain
        self._size_limit = rules.rotate_bytes
        self._handed = 0
        self._done = 0  # lines of a failed write that were written completely

    def open(self) -> None:
        """Open or create the file, and exclude other gateways until `close`.

        Raises BlockingIOError if another gateway writes to the file, OSError,
        `chain_end.NotAnAuditFileError`.
        """
        self._state_file.lock()
        self._reopen()
        # Nothing is written yet: with a full disk a gateway starts, and rejects requests until
        # there is free space.
        chain_end.read_tail(self._file.fd, os.fstat(self._file.fd).st_size)

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines (`Sink.write`)."""
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
        """Discard what was not written (`Sink.discard_failed`)."""
        # Lines that were not flushed may be on the disk or not: they count as lost, since reporting
        # too many is the safe error.
        written = self._done if self._file.final_sync() else 0
        self._done = 0
        return self._handed - written

    def close(self) -> None:
        """Close the file and release the lock that excludes other gateways."""
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
        if not self._file.is_regular:
            raise chain_end.NotAnAuditFileError

    def _rotate_if_full(self) -> None:
        """Start a new file if this one has reached its limit."""
        if self._file.size < self._size_limit:
            return
        last = self._position
        self._file.sync()
        self._state_file.write(last)
        self._state_file.sync()
        try:
            target = rotated_path(self._path, last.seq, self._clock())
            self._path.rename(target)
        except OSError as error:
            _log.error("the audit file cannot be rotated and grows", error=error.strerror)
            self._size_limit = self._file.size + self._rules.rotate_bytes
            return
        self._size_limit = self._rules.rotate_bytes
        self._reopen()
        sync_directory(self._path.parent)
        self._load_position()
        _log.info("audit file rotated", file=target.name, last_seq=last.seq, last_hash=last.hash)

    # Chain

    def _load_position(self) -> None:
        """Determine the position of the chain, and prepare the file for the next record."""
        self._file.refresh_size()
        rest = b""
        if not self._is_position_known or not self._ends_in_line_feed():
            found, rest = chain_end.read_tail(self._file.fd, self._file.size)
            if not self._is_position_known:
                self._position = self._latest(found or ChainPosition())
        self._is_position_known = True
        if rest:
            self._repair_torn_line(rest)
        if not self._file.size and self._position.seq:
            self._append_gateway_record(chain.ROTATION)

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
        """Terminate a partial line. Record that, unless only its line feed is missing."""
        bound = chain.parse_record(rest)
        if bound is not None and bound.has_valid_hash and bound.prev == self._position.hash:
            self._append_chunks([(b"\n", bound.position)])
            return
        _log.warning("half an audit record was found", bytes=len(rest))
        digest = hashlib.sha256(rest).hexdigest()
        self._append_gateway_record(chain.TORN, before=b"\n", bytes=len(rest), sha256=digest)

    def _append_gateway_record(self, event: str, *, before: bytes = b"", **fields: object) -> None:
        """Append a record about the file itself."""
        record = {"event": event, "timestamp": self._now(), **fields}
        line, position = chain.append_to_chain(orjson.dumps(record) + b"\n", self._position)
        self._append_chunks([(before + line, position)])

    def _now(self) -> str:
        return TimestampFormatter().format(self._clock())

    def _append(self, lines: Sequence[bytes]) -> None:
        """Append lines until the file has reached its limit."""
        chunks: list[_Chunk] = []
        position, size, before = self._position, self._file.size, self._position.seq
        for line in lines:
            bound, position = chain.append_to_chain(line, position)
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
