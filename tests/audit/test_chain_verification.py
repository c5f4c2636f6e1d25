"""What is done to audit files is found, and the first bad line is named."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from gateway.audit.chain_verification import verify_files
from tests.audit.chained import files, lines, open_sink

Place = tuple[int, int]  # which file, which line, from 0
ROTATED = 1767225600.0  # when, by the names of the files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three files of ten lines or so, written by two processes one after the other."""
    path = tmp_path / "audit.jsonl"
    for start in (0, 14):
        sink = open_sink(path, rotate_bytes=2100)
        sink.write(lines(14, start))
        sink.close()
    assert len(files(path)) == 3
    return path


def _content(path: Path) -> list[list[bytes]]:
    return [file.read_bytes().splitlines(keepends=True) for file in files(path)]


def _places(path: Path) -> list[Place]:
    content = _content(path)
    return [(f, n) for f, each in enumerate(content) for n in range(len(each))]


def _write(path: Path, content: list[list[bytes]]) -> None:
    for file, each in zip(files(path), content, strict=True):
        file.write_bytes(b"".join(each))


def _bad(path: Path) -> tuple[Place, str]:
    bad = verify_files(files(path)).fault
    assert bad is not None
    return (files(path).index(bad.file), bad.line - 1), bad.fault


def test_an_untouched_chain_is_whole(path: Path) -> None:
    """Nothing is found in any order of the files, and the last record is told."""
    for order in (files(path), files(path)[::-1]):
        verdict = verify_files(order)
        assert (verdict.fault, verdict.first, verdict.torn) == (None, 1, [])
        assert verdict.records == len(_places(path)) == verdict.last.seq


def test_any_changed_byte_is_found(path: Path) -> None:
    """A changed byte anywhere is found at its line, or at the next where it split a line."""
    chance = random.Random(7)  # noqa: S311 - no secret
    untouched = _content(path)
    for f, n in _places(path):
        content = [list(each) for each in untouched]
        line = bytearray(content[f][n])
        where = chance.randrange(len(line) - 1)
        line[where] = ord("#") if line[where] != ord("#") else ord("+")
        content[f][n] = bytes(line)
        _write(path, content)
        assert _bad(path) == ((f, n), "changed")


def test_any_removed_line_is_found(path: Path) -> None:
    """A line that is gone is found where it was, at the end of the last file too."""
    untouched = _content(path)
    for f, n in _places(path):
        content = [list(each) for each in untouched]
        del content[f][n]
        _write(path, content)
        after = (f, n) if n < len(content[f]) else (f + 1, 0)
        expected = (f, n) if f == 2 and n == len(content[f]) else after
        assert _bad(path)[0] == expected


def test_any_two_swapped_lines_are_found(path: Path) -> None:
    """Lines that have changed places, also across a rotation, are found at the first of them."""
    untouched = _content(path)
    places = _places(path)
    for one, other in itertools.pairwise(places):
        content = [list(each) for each in untouched]
        (f, n), (g, m) = one, other
        content[f][n], content[g][m] = content[g][m], content[f][n]
        _write(path, content)
        assert _bad(path)[0] == one


def test_a_line_that_was_written_anew_is_found_at_the_next(path: Path) -> None:
    """A record that is replaced together with its hash does not match the record after it."""
    content = _content(path)
    other = open_sink(path.parent / "other.jsonl")
    other.write([*lines(3), b'{"event":"exchange","n":99}\n'])
    other.close()
    content[0][3] = (path.parent / "other.jsonl").read_bytes().splitlines(keepends=True)[3]
    _write(path, content)
    assert _bad(path) == ((0, 4), "changed")


def test_a_missing_file_is_a_gap(path: Path) -> None:
    """Without the file in the middle the first line of the next one is named."""
    first, _, last = files(path)
    bad = verify_files([first, last]).fault
    assert bad is not None
    assert (bad.file, bad.line, bad.fault) == (last, 1, "gap")


def test_older_files_may_be_missing(path: Path) -> None:
    """A chain may begin where a file does, but not within one."""
    verdict = verify_files(files(path)[1:])
    assert verdict.fault is None
    assert verdict.first == json.loads(_content(path)[1][0])["seq"] > 1
    second = files(path)[1]
    second.write_bytes(b"".join(second.read_bytes().splitlines(keepends=True)[1:]))
    bad = verify_files(files(path)[1:]).fault
    assert bad is not None
    assert (bad.line, bad.fault) == (1, "removed")


def test_half_a_line_at_the_end_is_torn(path: Path) -> None:
    """Named as torn until the gateway has reported it; then it is only noted."""
    with path.open("ab") as file:
        file.write(b'{"event":"exch')
    end = len(_content(path)[2]) - 1
    assert _bad(path) == ((2, end), "torn")
    sink = open_sink(path)
    sink.write(lines(1))
    sink.close()
    verdict = verify_files(files(path))
    assert verdict.fault is None
    assert verdict.torn == [f"{path}:{end + 1}"]


def test_half_a_line_is_not_excused_by_another_ones_report(path: Path) -> None:
    """A report covers exactly the bytes that the gateway has found."""
    with path.open("ab") as file:
        file.write(b'{"event":"exch')
    sink = open_sink(path)
    sink.write(lines(1))
    sink.close()
    path.write_bytes(path.read_bytes().replace(b'{"event":"exch\n', b'{"event":"exca\n'))
    assert _bad(path)[1] == "changed"


def test_a_gateway_may_be_writing(path: Path) -> None:
    """Half a line that is ended while it is looked at counts as a line."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])

    def go_on(_: float) -> None:
        path.write_bytes(whole)

    assert verify_files(files(path), go_on).fault is None


def test_no_record_is_no_fault(tmp_path: Path) -> None:
    """An empty file holds nothing that could be wrong."""
    (tmp_path / "audit.jsonl").touch()
    verdict = verify_files([tmp_path / "audit.jsonl"])
    assert (verdict.fault, verdict.first, verdict.records) == (None, None, 0)


def test_a_rotation_after_the_files_were_listed_is_no_gap(path: Path) -> None:
    """What a shell's `audit.jsonl*` no longer named when it was read is read too, once."""
    listed = files(path)
    sink = open_sink(path, rotate_bytes=2100)
    sink.write(lines(30))
    sink.close()
    assert len(files(path)) > len(listed) + 1
    verdict = verify_files(listed, clock=lambda: ROTATED + 10)
    assert verdict.fault is None
    assert list(verdict.files) == files(path)
    assert verdict.records == len(_places(path))
    here = path.parent
    spelt = [here / ".." / here.name / each.name for each in files(path)[:-1]]
    again = verify_files([*spelt, path], clock=lambda: ROTATED + 10)
    assert (again.fault, again.records) == (None, verdict.records)


def test_files_that_were_left_out_stay_out(path: Path) -> None:
    """Neither what was rotated long ago, nor what comes before all that was given."""
    first, _, last = files(path)
    bad = verify_files([first, last], clock=lambda: ROTATED + 3600).fault
    assert bad is not None
    assert bad.fault == "gap"
    assert verify_files([last], clock=lambda: ROTATED).files == (last,)


def test_a_rotation_while_older_files_are_read_is_no_gap(path: Path) -> None:
    """Reading gigabytes takes its time; the file that was live at the beginning counts."""
    first = files(path)[0]
    whole, before = first.read_bytes(), len(_places(path))
    first.write_bytes(whole[:-1])

    def go_on(_: float) -> None:
        first.write_bytes(whole)
        sink = open_sink(path, rotate_bytes=2100)
        sink.write(lines(30))
        sink.close()

    verdict = verify_files(files(path), go_on, lambda: ROTATED + 3600)
    assert (verdict.fault, verdict.torn) == (None, [])
    assert before <= verdict.records < len(_places(path))


def test_a_file_that_is_just_being_made_is_waited_for(path: Path) -> None:
    """For a moment of a rotation the path means no file, and then an empty one."""
    listed = files(path)
    path.rename(moved := path.with_name(f"{path.name}.20260101T000000Z-000000000999"))

    def go_on(_: float) -> None:
        path.touch()

    verdict = verify_files(listed, go_on, lambda: ROTATED)
    assert (verdict.fault, verdict.files) == (None, (*listed[:-1], moved, path))
    assert verify_files([path], clock=lambda: ROTATED).fault is None
