"""The audit in a file: its records form one chain, across rotations, restarts and processes.

A process that begins, or follows one that died while it wrote, finds the end of the chain in the
file. Half a line that a death has left is ended, kept, and followed by a record that says so. A
failed write is taken back to the last whole line, so that no failure leaves half a line.
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
from gateway.audit.chain_end import ChainLock, ChainStateFile
from gateway.audit.durable import DurableFile, sync_directory
from gateway.audit.rotated import rotated_path
from gateway.telemetry.logs import get_logger
from gateway.telemetry.timestamp import TimestampFormatter

_log = get_logger("gateway.audit")

_Piece = tuple[bytes, ChainPosition]  # a line, and where the chain has come to with it


@dataclass(frozen=True, slots=True)
class FileSinkSettings:
    """A file of `rotate_bytes` or more is followed by another; `sync`: written is on the disk."""

    rotate_bytes: int
    sync: bool = True


class FileSink:
    """Records into a file, each bound to the one before; see `gateway.audit.sink.Sink`.

    Processes that write to one file take turns. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        rules: FileSinkSettings,
        turn: ChainLock,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._rules = rules
        self._chain_lock = turn
        self._companion = ChainStateFile(path)
        self._clock = clock
        self._file = DurableFile(sync=rules.sync)
        self._link = ChainPosition()
        self._is_position_known = True  # what stands after that link
        self._room = rules.rotate_bytes
        self._handed = 0
        self._done = 0  # of a failed write, the lines that were written whole

    def open(self, *, is_shared: bool = False) -> None:
        """Find or make the file, and keep other gateways away until `close`.

        `is_shared`: a process of the same gateway has done so already. Raises BlockingIOError when
        another gateway writes there, OSError, `chain_end.NotAnAuditFileError`.
        """
        self._companion.lock(is_shared=is_shared)
        self._reopen()
        # Nothing is written yet: on a full disk a gateway starts, and refuses until there is room.
        chain_end.read_tail(self._file.fd, os.fstat(self._file.fd).st_size)

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines; see `Sink.write`."""
        self._handed = len(lines)
        self._file.sync()
        if self._done < len(lines):
            self._write(lines)
            # Not in the turn: others write while this process waits for the disk.
            self._file.sync()
        # Last, so that a power cut leaves no note of a record that is not there.
        self._companion.write(self._link)
        self._done = 0

    def _write(self, lines: Sequence[bytes]) -> None:
        with self._chain_lock.acquire() as known:
            self._is_position_known = False
            try:
                if self._was_moved():
                    self._reopen()
                self._load_position(known)
                while self._done < len(lines):
                    self._rotate_if_full()
                    self._append(lines[self._done :])
            finally:
                # Also of a failed write some lines may be there to stay.
                if self._is_position_known:
                    self._chain_lock.publish_position(self._link)

    def discard_failed(self) -> int:
        """Give up what was not written; see `Sink.discard_failed`."""
        # What is not on the disk may be there or not; better to call too much lost.
        written = self._done if self._file.final_sync() else 0
        self._done = 0
        return self._handed - written

    def close(self) -> None:
        """Leave the file to others."""
        self._file.close()
        self._companion.close()
        self._chain_lock.close()

    # The file

    def _was_moved(self) -> bool:
        """Whether the path means another file by now: it was moved away, or rotated."""
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
        """Begin another file when this one is large enough."""
        if self._file.size < self._room:
            return
        last = self._link
        self._file.sync()
        self._companion.write(last)
        self._companion.sync()
        try:
            target = rotated_path(self._path, last.seq, self._clock())
            self._path.rename(target)
        except OSError as error:
            _log.error("the audit file cannot be rotated and grows", error=error.strerror)
            self._room = self._file.size + self._rules.rotate_bytes
            return
        self._room = self._rules.rotate_bytes
        self._reopen()
        sync_directory(self._path.parent)
        self._load_position(last)
        _log.info("audit file rotated", file=target.name, last_seq=last.seq, last_hash=last.hash)

    # The chain

    def _load_position(self, known: ChainPosition | None) -> None:
        """Find where the chain has come to, and leave the file ready for the next record."""
        self._is_position_known = False
        self._file.refresh_size()
        rest = b""
        if known is None or not self._ends_in_line_feed():
            found, rest = chain_end.read_tail(self._file.fd, self._file.size)
            known = self._latest(found or ChainPosition()) if known is None else known
        self._link, self._is_position_known = known, True
        if rest:
            self._repair_torn_line(rest)
        if not self._file.size and self._link.seq:
            self._append_gateway_record(chain.ROTATION)

    def _ends_in_line_feed(self) -> bool:
        return not self._file.size or os.pread(self._file.fd, 1, self._file.size - 1) == b"\n"

    def _latest(self, found: ChainPosition) -> ChainPosition:
        """The end of the chain by the file and its companion."""
        noted = self._companion.read()
        if noted.seq < found.seq or noted == found:
            return found
        if self._file.size:
            _log.error("the audit file lacks its last records", has=found.seq, should=noted.seq)
        return noted

    def _repair_torn_line(self, rest: bytes) -> None:
        """End a line that was begun, and say so unless nothing but its end was missing."""
        bound = chain.parse_record(rest)
        if bound is not None and bound.has_valid_hash and bound.prev == self._link.hash:
            self._append_pieces([(b"\n", bound.position)])
            return
        _log.warning("half an audit record was found", bytes=len(rest))
        digest = hashlib.sha256(rest).hexdigest()
        self._append_gateway_record(chain.TORN, before=b"\n", bytes=len(rest), sha256=digest)

    def _append_gateway_record(self, event: str, *, before: bytes = b"", **fields: object) -> None:
        """Write a record of the file's own."""
        record = {"event": event, "timestamp": self._now(), **fields}
        line, link = chain.append_to_chain(orjson.dumps(record) + b"\n", self._link)
        self._append_pieces([(before + line, link)])

    def _now(self) -> str:
        return TimestampFormatter().format(self._clock())

    def _append(self, lines: Sequence[bytes]) -> None:
        """Write lines until the file is large enough."""
        pieces: list[_Piece] = []
        link, size, before = self._link, self._file.size, self._link.seq
        for line in lines:
            bound, link = chain.append_to_chain(line, link)
            pieces.append((bound, link))
            size += len(bound)
            if size >= self._room:
                break
        try:
            self._append_pieces(pieces)
        finally:
            self._done += self._link.seq - before

    def _append_pieces(self, pieces: Sequence[_Piece]) -> None:
        """Write pieces at the end of the file; of a failed write only whole ones stay."""
        self._is_position_known = False
        try:
            self._file.append([piece for piece, _ in pieces])
        finally:
            if kept := self._file.appended_count:
                self._link = pieces[kept - 1][1]
            self._is_position_known = self._file.is_consistent
