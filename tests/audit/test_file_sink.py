"""The audit in a file is one chain over rotations, restarts and failures."""

from __future__ import annotations

import hashlib
import os
import random
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.audit.chain_verification import verify_files
from gateway.audit.hash_chain import NotAnAuditFileError
from tests.audit.chained import append, files, lines, open_sink, records, require_chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_records_are_chained(path: Path) -> None:
    sink = open_sink(path)
    sink.write(lines(2))
    sink.write(lines(1, 2))
    sink.close()
    found = records(path)
    require_chain(found)
    assert [record["n"] for record in found] == [0, 1, 2]
    assert list(found[0]) == ["event", "n", "seq", "prev", "hash"]


def test_only_the_owner_may_read(path: Path) -> None:
    append(path, 10, rotate_bytes=500)
    assert len(files(path)) > 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_the_chain_continues_over_rotations_and_restarts(path: Path) -> None:
    for start in range(5):
        append(path, 7, start * 7, rotate_bytes=1000)
    found = records(path)
    require_chain(found)
    assert [record["n"] for record in found if record["event"] == "exchange"] == list(range(35))
    assert all(1000 <= file.stat().st_size < 1300 for file in files(path)[:-1])
    assert len(files(path)) >= 6
    assert verify_files(files(path)).fault is None


def test_the_chain_continues_in_a_new_file_after_a_rename(path: Path) -> None:
    sink = open_sink(path)
    sink.write(lines(2))
    path.rename(path.with_name("audit.jsonl.1"))
    sink.write(lines(1, 2))
    sink.close()
    require_chain(records(path))
    assert [record["event"] for record in records(path)[2:]] == ["rotation", "exchange"]


def test_the_chain_continues_when_all_files_were_archived(path: Path) -> None:
    append(path, 2)
    last = records(path)[-1]
    path.unlink()
    append(path, 1)
    require_chain(records(path), 3, last["hash"])


def test_a_torn_line_is_kept_and_reported(path: Path) -> None:
    append(path, 2)
    torn = b'{"event":"exchange","timest'
    with path.open("ab") as file:
        file.write(torn)
    append(path, 1, 2)
    written = path.read_bytes().splitlines()
    assert written[2] == torn
    path.write_bytes(b"".join(line + b"\n" for line in written if line != torn))
    found = records(path)
    require_chain(found)
    assert found[2]["event"] == "torn"
    assert found[2]["bytes"] == len(torn)
    assert found[2]["sha256"] == hashlib.sha256(torn).hexdigest()


def _tear(path: Path, flushed: int, chance: random.Random) -> bool:
    """Lose some blocks behind `flushed` bytes; return whether a byte was lost."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.2:
        del content[flushed:]
    for start in range(flushed // 512 * 512, len(content), 512):
        if chance.random() < 0.5:
            kept = max(start, flushed)
            end = min(start + 512, len(content))
            content[kept:end] = bytes(end - kept)
    has_lost = bytes(content) != path.read_bytes()
    path.write_bytes(content)
    return has_lost


@pytest.mark.parametrize("batch", [3, 40, 2_000])
def test_what_a_power_failure_tears_is_kept_and_reported(path: Path, batch: int) -> None:
    chance = random.Random(batch)  # noqa: S311 - no secret
    state, written, has_lost = path.with_name(".audit.jsonl.chain"), 0, False
    for _ in range(25 if batch < 1_000 else 6):
        sink = open_sink(path, 1 << 30)
        sink.write(lines(5, written))
        flushed, position = path.stat().st_size, state.read_bytes()
        sink.write(lines(batch, 1_000_000))
        sink.close()
        has_lost |= _tear(path, flushed, chance)
        # Nothing flushes the state, either.
        state.write_bytes(chance.choice((position, b"")))
        written += 5
    open_sink(path, 1 << 30).close()
    sink = open_sink(path, 1 << 30)
    sink.write(lines(1, written))
    sink.close()
    verdict = verify_files([path])
    assert has_lost
    assert verdict.fault is None
    assert verdict.torn
    found = map(
        int, re.findall(rb'^{"event":"exchange","n":([0-9]+),"seq"', path.read_bytes(), re.M)
    )
    assert [number for number in found if number < 1_000_000] == list(range(written + 1))


def test_a_gap_before_what_was_flushed_is_no_tear(path: Path) -> None:
    sink = open_sink(path)
    sink.write(lines(9))
    sink.close()
    content = path.read_bytes().splitlines(keepends=True)
    content[4] = content[4].replace(b"exchange", b"ex\0hange")
    path.write_bytes(b"".join(content))
    sink = open_sink(path)
    sink.write(lines(1, 9))
    sink.close()
    verdict = verify_files([path])
    assert verdict.fault is not None
    assert verdict.fault.fault == "removed"


def test_a_line_without_its_line_feed_counts(path: Path) -> None:
    append(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    # A process that dies in that moment has not noted the record either.
    path.with_name(".audit.jsonl.chain").unlink()
    append(path, 1, 2)
    require_chain(records(path))
    assert [record["n"] for record in records(path)] == [0, 1, 2]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_truncated_records_are_reported_after_a_restart(path: Path, kept: int) -> None:
    append(path, 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    append(path, 1)
    verdict = verify_files([path])
    if kept:
        assert verdict.fault is not None
        assert (verdict.fault.line, verdict.fault.fault) == (kept + 1, "removed")
    else:
        assert verdict.first == 4


@pytest.mark.parametrize("content", [b'{"event":"start"}\n', b"x\ny\n", b"\0" * 2_000_000])
def test_a_file_without_a_chain_is_rejected_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(NotAnAuditFileError):
        open_sink(path)
    assert path.read_bytes() == content


def test_a_pipe_is_rejected(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(NotAnAuditFileError):
        open_sink(path)


def test_a_full_disk_loses_nothing(
    path: Path, file_size_limit: Callable[[int | None], None]
) -> None:
    sink = open_sink(path)
    sink.write(lines(2))
    file_size_limit(1000)
    with pytest.raises(OSError, match="File too large"):
        sink.write(lines(20, 2))
    assert path.read_bytes().endswith(b"\n")
    assert 2 < len(records(path)) < 22
    with pytest.raises(OSError, match="File too large"):
        sink.write(lines(20, 2))
    file_size_limit(None)
    sink.write(lines(20, 2))
    sink.write(lines(1, 22))
    sink.close()
    require_chain(records(path))
    assert [record["n"] for record in records(path)] == list(range(23))


def test_discarded_records_leave_no_gap(
    path: Path, file_size_limit: Callable[[int | None], None]
) -> None:
    sink = open_sink(path)
    file_size_limit(1000)
    with pytest.raises(OSError, match="File too large"):
        sink.write(lines(20))
    kept = len(records(path))
    assert sink.discard_failed() == 20 - kept
    file_size_limit(None)
    sink.write(lines(1, 20))
    sink.close()
    require_chain(records(path))
    assert [record["n"] for record in records(path)] == [*range(kept), 20]


def test_a_rotation_that_fails_does_not_stop_the_audit(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 240)
    append(path, 8, rotate_bytes=500)
    require_chain(records(path))
    assert files(path) == [path]
    assert len(records(path)) == 8
