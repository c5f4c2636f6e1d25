"""Verification of the chain of audit files. The report describes the first faulty line.

The files are read in the order of their records, whatever order they are passed in. A chain may
begin with a later record than the first, since old files are deleted eventually. That nothing was
removed from the end is proven only if the last file is still beside its state file.

A gateway may write and rotate meanwhile. The files that were at the paths when the list was made
are verified, whatever their current names.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import orjson

from gateway.audit.file_sink import files_rotated_since, is_rotated
from gateway.audit.hash_chain import (
    GENESIS,
    ROTATION,
    TORN,
    ChainedRecord,
    ChainPosition,
    has_gap,
    parse_record,
    read_chain_state,
)
from gateway.i18n import Message

Fault = Literal["changed", "removed", "swapped", "torn", "gap"]

# Seconds in which a running gateway completes a line that it has begun.
_COMPLETION_TIMEOUT: Final = 0.2
# Seconds that may pass between the listing of the files and their verification.
_MAX_LISTING_AGE: Final = 60.0

# Open files that may be rotated while they are read, by the paths that were passed.
_Live = dict[Path, BinaryIO]


class RecordLine(NamedTuple):
    """A line of a file, without its line feed."""

    file: Path
    number: int
    text: bytes
    is_terminated: bool  # by a line feed

    @property
    def place(self) -> str:
        """The position in the form `FILE:LINE`."""
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first faulty line, and what is wrong with it."""

    file: Path
    line: int
    fault: Fault
    detail: Message


@dataclass(slots=True)
class VerificationReport:
    """The result. Without any record `first` is None, and `last` is the chain's beginning."""

    files: tuple[Path, ...]
    records: int = 0
    first: int | None = None
    last: ChainPosition = field(default_factory=ChainPosition)
    # Partial lines that the gateway has recorded, as `FILE:LINE`.
    torn: list[str] = field(default_factory=list)
    fault: ChainFault | None = None
    is_end_proven: bool = False  # that nothing was removed after `last`


def verify_files(
    files: Iterable[Path],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> VerificationReport:
    """Verify the chain over these files. Raises OSError for a file that cannot be read."""
    since = clock() - _MAX_LISTING_AGE
    paths = tuple(files)
    # Before the files are opened, because a running gateway continues to write.
    stored_positions = {file: read_chain_state(file) for file in paths}
    with ExitStack() as stack:
        live = {
            file: stack.enter_context(_open(file, pause)) for file in paths if not is_rotated(file)
        }
        ordered = _ordered(paths, live, since)
        verdict = VerificationReport(ordered)
        with closing(_lines(ordered, live, pause)) as lines:
            for line in lines:
                verdict.fault = _check_line(verdict, line, lines) or _check_stored_hash(
                    verdict, line, stored_positions
                )
                if verdict.fault is not None:
                    break
        if verdict.fault is None:
            verdict.fault = _check_truncation(verdict, stored_positions, live)
            # Where a state file is missing, the position is the chain's beginning.
            verdict.is_end_proven = verdict.fault is None and any(
                position != ChainPosition() for position in stored_positions.values()
            )
    return verdict


def _open(path: Path, pause: Callable[[float], None]) -> BinaryIO:
    with suppress(FileNotFoundError):
        return path.open("rb")
    # A rotation is between renaming the old file and creating the new one.
    pause(_COMPLETION_TIMEOUT)
    return path.open("rb")


@contextmanager
def _read(path: Path, live: _Live) -> Iterator[BinaryIO]:
    """Open a file, or rewind it if it is open already."""
    if path in live:
        live[path].seek(0)
        yield live[path]
        return
    with path.open("rb") as file:
        yield file


def _ordered(paths: Sequence[Path], live: _Live, since: float) -> tuple[Path, ...]:
    """Return the files sorted by first record, including those rotated after the list was made."""
    first = {file: _first_record(file, live) for file in paths}
    known = [_identity(file, live) for file in paths]
    beginning = min(first.values(), default=0.0)
    # A directory that cannot be listed does not prevent the verification of the files.
    with suppress(PermissionError):
        for file in [rotated for path in live for rotated in files_rotated_since(path, since)]:
            # The file may be archived at this moment.
            with suppress(FileNotFoundError):
                if _identity(file, live) not in known:
                    number = _first_record(file, live)
                    # Records before all the files that were passed were omitted on purpose.
                    if number > beginning or beginning == math.inf:
                        first[file] = number
    return tuple(sorted(first, key=first.__getitem__))


def _identity(path: Path, live: _Live) -> tuple[int, int]:
    status = os.fstat(live[path].fileno()) if path in live else path.stat()
    return status.st_dev, status.st_ino


def _check_stored_hash(
    verdict: VerificationReport, line: RecordLine, stored_positions: Mapping[Path, ChainPosition]
) -> ChainFault | None:
    """Return a fault if a state file has another hash for the record that was read last."""
    last = verdict.last
    if all(position.seq != last.seq or position == last for position in stored_positions.values()):
        return None
    return _fault(
        line,
        "changed",
        Message(
            "record {seq} is not the one that the gateway has recorded as the last", seq=last.seq
        ),
    )


def _check_truncation(
    verdict: VerificationReport, stored_positions: Mapping[Path, ChainPosition], live: _Live
) -> ChainFault | None:
    """Return a fault if the gateway has written more records than there are."""
    last = verdict.last.seq
    for path, position in stored_positions.items():
        if position.seq > last:
            with _read(path, live) as lines:
                number = sum(1 for _ in lines) + 1
            return ChainFault(
                path,
                number,
                "removed",
                Message(
                    "the gateway has written records up to {seq}; those after {last} are missing",
                    seq=position.seq,
                    last=last,
                ),
            )
    return None


def _first_record(path: Path, live: _Live) -> float:
    """Return the number of the first record; infinity for an empty file, which was just created.

    A file that holds lines but no record has 0.
    """
    with _read(path, live) as lines:
        for line in lines:
            if (found := parse_record(line.rstrip(b"\n"))) is not None:
                return found.seq
        return 0 if lines.tell() else math.inf


def _lines(
    files: Sequence[Path], live: _Live, pause: Callable[[float], None]
) -> Generator[RecordLine, None, None]:
    for path in files:
        with _read(path, live) as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    pause(_COMPLETION_TIMEOUT)
                    text += file.readline()
                yield RecordLine(path, number, text.removesuffix(b"\n"), text.endswith(b"\n"))


def _check_line(
    verdict: VerificationReport, line: RecordLine, rest: Iterator[RecordLine]
) -> ChainFault | None:
    """Check one line; for a torn line also the record that reports it."""
    found = parse_record(line.text)
    if found is None or has_gap(line.text):
        report = _report_of_torn(line, rest)
        if isinstance(report, ChainFault):
            return report
        verdict.torn.append(line.place)
        line, found = report, parse_record(report.text)
    if found is None or not found.has_valid_hash:
        return _fault(line, "changed", Message("its content does not match its hash"))
    fault = _check_first(verdict, line, found) if verdict.first is None else None
    fault = fault or _check_next(verdict, line, found, rest)
    if fault is None:
        verdict.records += 1
        verdict.last = found.position
    return fault


def _report_of_torn(line: RecordLine, rest: Iterator[RecordLine]) -> RecordLine | ChainFault:
    """Return the record that reports this torn line, or a fault.

    It reports a partial line alone, or all from a line with a gap on. In between are lines of the
    same file.
    """
    digest, last = hashlib.sha256(line.text), line
    for report in rest:
        record = _parsed(report.text)
        if record.get("event") == TORN and record.get("sha256") == digest.hexdigest():
            return report
        if not has_gap(line.text) or report.file != line.file:
            break
        digest.update(b"\n" + report.text)
        last = report
    else:
        if has_gap(line.text) or not last.is_terminated:
            return _fault(
                line,
                "torn",
                Message(
                    "half a line at the end: the gateway was interrupted; its next start records "
                    "that"
                ),
            )
    return _fault(line, "changed", Message("it is not a record of a chain"))


def _check_first(
    verdict: VerificationReport, line: RecordLine, found: ChainedRecord
) -> ChainFault | None:
    """Return a fault unless a chain may begin here: at record 1 or at the beginning of a file."""
    begins = _parsed(line.text).get("event") in (ROTATION, TORN)
    if found.seq > 1 and not begins:
        return _fault(
            line,
            "removed",
            Message("it is record {seq}; those before it are missing", seq=found.seq),
        )
    verdict.first = found.seq
    verdict.last = ChainPosition(found.seq - 1, found.prev if found.seq > 1 else GENESIS)
    return None


def _check_next(
    verdict: VerificationReport, line: RecordLine, found: ChainedRecord, rest: Iterator[RecordLine]
) -> ChainFault | None:
    awaited = verdict.last.seq + 1
    if found.seq == awaited:
        if found.prev == verdict.last.hash:
            return None
        return _fault(
            line,
            "changed",
            Message(
                "record {seq} does not follow the record before it: one of them was replaced",
                seq=found.seq,
            ),
        )
    misplacement = Message(
        "it is record {seq}, where record {awaited} should be", seq=found.seq, awaited=awaited
    )
    if found.seq < awaited:
        return _fault(line, "swapped", Message("{here}, which was found before", here=misplacement))
    found_line = next((later for later in rest if _is_record(later, awaited)), None)
    if found_line is not None:
        return _fault(
            line,
            "swapped",
            Message("{here}, which is in {place}", here=misplacement, place=found_line.place),
        )
    return _fault(line, "gap" if line.number == 1 else "removed", _missing(awaited, found.seq - 1))


def _missing(first: int, last: int) -> Message:
    if first == last:
        return Message("record {seq} is missing before it", seq=first)
    return Message("records {first} to {last} are missing before it", first=first, last=last)


def _is_record(line: RecordLine, seq: int) -> bool:
    found = parse_record(line.text)
    return found is not None and found.seq == seq


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _fault(line: RecordLine, fault: Fault, detail: Message) -> ChainFault:
    return ChainFault(line.file, line.number, fault, detail)
