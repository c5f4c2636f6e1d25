"""`dhp-gateway audit verify` as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.chained import files, lines, open_sink
from tests.test_cli import Result, dhp


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


async def test_wrong_usage(tmp_path: Path) -> None:
    """Code 2 without a file, and for one that cannot be read."""
    assert (await dhp("audit", "verify")).code == 2
    missing = tmp_path / "none"
    result = await dhp("audit", "verify", missing)
    assert result == Result(2, "", f"dhp-gateway: {missing}: no such file or directory\n")
    assert (await dhp("audit", "verify", tmp_path)).code == 2
