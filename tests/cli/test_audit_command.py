"""`dhp-gateway audit verify` as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.hash_chain import ChainPosition, append_to_chain
from tests.audit.chained import files, lines, open_sink
from tests.doubles.command import Result, dhp


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An audit of some files."""
    path = tmp_path / "audit.jsonl"
    sink = open_sink(path, rotate_bytes=1000)
    sink.write(lines(10))
    sink.close()
    return path


def last_record(path: Path) -> dict[str, Any]:
    """The last record of a file."""
    return dict(json.loads(path.read_bytes().splitlines()[-1]))


def spoil(path: Path, number: int) -> None:
    """Change a line."""
    content = path.read_bytes().splitlines(keepends=True)
    content[number - 1] = content[number - 1].replace(b'"n"', b'"m"')
    path.write_bytes(b"".join(content))


async def test_a_whole_chain(path: Path) -> None:
    """Code 0, and a line with the last record's number and hash."""
    last = last_record(path)
    result = await dhp("audit", "verify", *files(path))
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    assert f"record {last['seq']} has hash {last['hash']}" in result.out


async def test_the_first_bad_line_is_named(path: Path) -> None:
    """Code 1, and a line that begins with file, line and what is wrong."""
    spoil(path, 2)
    result = await dhp("audit", "verify", path)
    assert result.code == 1
    assert f"{path}:2: changed: " in result.out
    result = await dhp("audit", "verify", "--json", path)
    assert result.code == 1
    bad = json.loads(result.out)["bad"]
    assert (bad["file"], bad["line"], bad["fault"]) == (str(path), 2, "changed")


def cut_off(path: Path, companion: bytes | None) -> None:
    """Take away the last record, and put something in the companion's place, or nothing."""
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:-1]))
    beside = path.with_name(f".{path.name}.chain")
    beside.unlink()
    if companion is not None:
        beside.write_bytes(companion)


def exchange_last(path: Path) -> int:
    """Put another record in the last one's place, bound as it was; gives the line's number."""
    content = path.read_bytes().splitlines(keepends=True)
    last = json.loads(content[-1])
    before = ChainPosition(last["seq"] - 1, last["prev"])
    other, _ = append_to_chain(b'{"event":"exchange","n":77}\n', before)
    path.write_bytes(b"".join([*content[:-1], other]))
    return len(content)


@pytest.mark.parametrize("spoilt", [None, b"", b"x" * 90], ids=["gone", "empty", "nonsense"])
async def test_an_end_that_nobody_vouches_for(path: Path, spoilt: bytes | None) -> None:
    """Code 4 where the last records may have gone with the companion that would know of them."""
    cut_off(path, spoilt)
    result = await dhp("audit", "verify", *files(path))
    assert (result.code, result.err) == (4, "")
    assert "unproven" in result.out
    assert "whole" not in result.out
    result = await dhp("audit", "verify", "--json", *files(path))
    found = json.loads(result.out)
    assert (result.code, found["ok"], found["end_proven"], found["bad"]) == (4, False, False, None)


async def test_nothing_is_left(path: Path) -> None:
    """Code 4, too, where the live file is empty or has gone with its companion."""
    cut_off(path, None)
    older = files(path)[:-1]
    assert (await dhp("audit", "verify", *older)).code == 4
    empty = path.with_name("empty.jsonl")
    empty.touch()
    assert (await dhp("audit", "verify", empty)).code == 4


async def test_the_last_record_was_exchanged(path: Path) -> None:
    """Code 1 for another last record with a hash of its own: the companion knows the first one."""
    number = exchange_last(path)
    result = await dhp("audit", "verify", *files(path))
    assert result.code == 1
    assert f"{path}:{number}: changed: " in result.out


async def test_wrong_usage(tmp_path: Path) -> None:
    """Code 2 without a file, and for one that cannot be read."""
    assert (await dhp("audit", "verify")).code == 2
    missing = tmp_path / "none"
    result = await dhp("audit", "verify", missing)
    assert result == Result(2, "", f"dhp-gateway: {missing}: no such file or directory\n")
    assert (await dhp("audit", "verify", tmp_path)).code == 2


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "ru",
            ["Цепочка из", "цела", "изменено: содержимое не соответствует хешу", "Конец цепочки"],
        ),
        ("uz", ["zanjir", "butun", "o‘zgartirilgan: mazmuni xeshiga mos emas", "Zanjir oxiri"]),
    ],
)
async def test_what_was_found_is_told_in_the_language_of_the_terminal(
    path: Path, language: str, words: list[str]
) -> None:
    """A whole chain, an unproven end and a bad line; JSON says the same in every language."""
    environ = {"LC_ALL": f"{language}_UZ.UTF-8"}
    whole = await dhp("audit", "verify", *files(path), environ=environ)
    named = await dhp("audit", "verify", "--lang", language, *files(path))
    assert whole == named
    (path.with_name(f".{path.name}.chain")).unlink()
    unproven = await dhp("audit", "verify", *files(path), environ=environ)
    spoil(path, 2)
    bad = await dhp("audit", "verify", path, environ=environ)
    assert bad.out.startswith(f"{path}:2: {words[2]}")
    told = whole.out + unproven.out
    assert [word for word in (words[0], words[1], words[3]) if word not in told] == []
    programs = [
        await dhp("audit", "verify", "--json", path, environ=each) for each in ({}, environ)
    ]
    assert programs[0] == programs[1]
