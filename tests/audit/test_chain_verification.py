"""Changes of audit files are detected, and the first faulty line is named."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from gateway.audit.chain_verification import verify_files
from tests.audit.chained import append, files, lines, open_sink

Position = tuple[int, int]  # which file, which line, from 0
ROTATED = 1767225600.0  # when, by the names of the files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three files of ten lines or so, written by two processes one after the other."""
    path = tmp_path / "audit.jsonl"
    for start in (0, 14):
        append(path, 14, start, rotate_bytes=2100)
    assert len(files(path)) == 3
    return path


def _content(path: Path) -> list[list[bytes]]:
    return [file.read_bytes().splitlines(keepends=True) for file in files(path)]


def _positions(path: Path) -> list[Position]:
    content = _content(path)
    return [(f, n) for f, each in enumerate(content) for n in range(len(each))]


def _write(path: Path, content: list[list[bytes]]) -> None:
    for file, each in zip(files(path), content, strict=True):
        file.write_bytes(b"".join(each))


def _fault(path: Path) -> tuple[Position, str]:
    bad = verify_files(files(path)).fault
    assert bad is not None
    return (files(path).index(bad.file), bad.line - 1), bad.fault


def test_an_unchanged_chain_is_intact(path: Path) -> None:
    for order in (files(path), files(path)[::-1]):
        verdict = verify_files(order)
        assert (verdict.fault, verdict.first, verdict.torn) == (None, 1, [])
        assert verdict.records == len(_positions(path)) == verdict.last.seq


def test_any_changed_byte_is_found(path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    untouched = _content(path)
    for f, n in _positions(path):
        content = [list(each) for each in untouched]
        line = bytearray(content[f][n])
        where = chance.randrange(len(line) - 1)
        line[where] = ord("#") if line[where] != ord("#") else ord("+")
        content[f][n] = bytes(line)
        _write(path, content)
        assert _fault(path) == ((f, n), "changed")


def test_any_removed_line_is_found(path: Path) -> None:
    untouched = _content(path)
    for f, n in _positions(path):
        content = [list(each) for each in untouched]
        del content[f][n]
        _write(path, content)
        after = (f, n) if n < len(content[f]) else (f + 1, 0)
        expected = (f, n) if f == 2 and n == len(content[f]) else after
        assert _fault(path)[0] == expected


def test_any_two_swapped_lines_are_found(path: Path) -> None:
    untouched = _content(path)
    places = _positions(path)
    for one, other in itertools.pairwise(places):
        content = [list(each) for each in untouched]
        (f, n), (g, m) = one, other
        content[f][n], content[g][m] = content[g][m], content[f][n]
        _write(path, content)
        assert _fault(path)[0] == one


def test_a_rewritten_line_is_found_at_the_next(path: Path) -> None:
    content = _content(path)
    other = open_sink(path.parent / "other.jsonl")
    other.write([*lines(3), b'{"event":"exchange","n":99}\n'])
    other.close()
    content[0][3] = (path.parent / "other.jsonl").read_bytes().splitlines(keepends=True)[3]
    _write(path, content)
    assert _fault(path) == ((0, 4), "changed")


def test_a_missing_file_is_a_gap(path: Path) -> None:
    first, _, last = files(path)
    bad = verify_files([first, last]).fault
    assert bad is not None
    assert (bad.file, bad.line, bad.fault) == (last, 1, "gap")


def test_older_files_may_be_missing(path: Path) -> None:
    verdict = verify_files(files(path)[1:])
    assert verdict.fault is None
    assert verdict.first == json.loads(_content(path)[1][0])["seq"] > 1
    second = files(path)[1]
    second.write_bytes(b"".join(second.read_bytes().splitlines(keepends=True)[1:]))
    bad = verify_files(files(path)[1:]).fault
    assert bad is not None
    assert (bad.line, bad.fault) == (1, "removed")


def test_a_partial_last_line_is_torn(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"event":"exch')
    end = len(_content(path)[2]) - 1
    assert _fault(path) == ((2, end), "torn")
    append(path, 1)
    verdict = verify_files(files(path))
    assert verdict.fault is None
    assert verdict.torn == [f"{path}:{end + 1}"]


def test_a_report_covers_only_the_torn_line_it_describes(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"event":"exch')
    append(path, 1)
    path.write_bytes(path.read_bytes().replace(b'{"event":"exch\n', b'{"event":"exca\n'))
    assert _fault(path)[1] == "changed"


def test_a_line_completed_during_verification_counts(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])

    def continue_writing(_: float) -> None:
        path.write_bytes(whole)

    assert verify_files(files(path), continue_writing).fault is None


def test_a_rotation_after_the_files_were_listed_is_no_gap(path: Path) -> None:
    listed = files(path)
    append(path, 30, rotate_bytes=2100)
    assert len(files(path)) > len(listed) + 1
    verdict = verify_files(listed, clock=lambda: ROTATED + 10)
    assert verdict.fault is None
    assert list(verdict.files) == files(path)
    assert verdict.records == len(_positions(path))
    here = path.parent
    spelt = [here / ".." / here.name / each.name for each in files(path)[:-1]]
    again = verify_files([*spelt, path], clock=lambda: ROTATED + 10)
    assert (again.fault, again.records) == (None, verdict.records)


def test_omitted_files_are_not_read(path: Path) -> None:
    first, _, last = files(path)
    bad = verify_files([first, last], clock=lambda: ROTATED + 3600).fault
    assert bad is not None
    assert bad.fault == "gap"
    assert verify_files([last], clock=lambda: ROTATED).files == (last,)


def test_a_rotation_while_older_files_are_read_is_no_gap(path: Path) -> None:
    first = files(path)[0]
    whole, before = first.read_bytes(), len(_positions(path))
    first.write_bytes(whole[:-1])

    def continue_writing(_: float) -> None:
        first.write_bytes(whole)
        append(path, 30, rotate_bytes=2100)

    verdict = verify_files(files(path), continue_writing, lambda: ROTATED + 3600)
    assert (verdict.fault, verdict.torn) == (None, [])
    assert before <= verdict.records < len(_positions(path))


def test_verification_waits_for_a_file_being_rotated(path: Path) -> None:
    listed = files(path)
    path.rename(moved := path.with_name(f"{path.name}.20260101T000000Z-000000000999"))

    def continue_writing(_: float) -> None:
        path.touch()

    verdict = verify_files(listed, continue_writing, lambda: ROTATED)
    assert (verdict.fault, verdict.files) == (None, (*listed[:-1], moved, path))
    assert verify_files([path], clock=lambda: ROTATED).fault is None
