"""The command `dhp-gateway audit verify`."""

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
    path = tmp_path / "audit.jsonl"
    sink = open_sink(path, rotate_bytes=1000)
    sink.write(lines(10))
    sink.close()
    return path


def last_record(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes().splitlines()[-1]))


def corrupt_line(path: Path, number: int) -> None:
    content = path.read_bytes().splitlines(keepends=True)
    content[number - 1] = content[number - 1].replace(b'"n"', b'"m"')
    path.write_bytes(b"".join(content))


async def test_an_intact_chain_ends_with_0(path: Path) -> None:
    last = last_record(path)
    result = await dhp("audit", "verify", *files(path))
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    assert f"record {last['seq']} has hash {last['hash']}" in result.out
    assert (await dhp("audit", "verify", "--require-end", *files(path))).code == 0


async def test_the_first_faulty_line_is_reported(path: Path) -> None:
    corrupt_line(path, 2)
    result = await dhp("audit", "verify", path)
    assert result.code == 1
    assert f"{path}:2: changed: " in result.out
    result = await dhp("audit", "verify", "--json", path)
    assert result.code == 1
    bad = json.loads(result.out)["bad"]
    assert (bad["file"], bad["line"], bad["fault"]) == (str(path), 2, "changed")


def truncate_audit(path: Path, companion: bytes | None) -> None:
    """Remove the last record, and replace the companion file or remove it."""
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:-1]))
    beside = path.with_name(f".{path.name}.chain")
    beside.unlink()
    if companion is not None:
        beside.write_bytes(companion)


def replace_last_record(path: Path) -> int:
    """Replace the last record by another one with a valid hash. Return its line number."""
    content = path.read_bytes().splitlines(keepends=True)
    last = json.loads(content[-1])
    before = ChainPosition(last["seq"] - 1, last["prev"])
    other, _ = append_to_chain(b'{"event":"exchange","n":77}\n', before)
    path.write_bytes(b"".join([*content[:-1], other]))
    return len(content)


@pytest.mark.parametrize("spoilt", [None, b"", b"x" * 90], ids=["gone", "empty", "nonsense"])
async def test_a_chain_whose_companion_is_missing_has_no_confirmed_end(
    path: Path, spoilt: bytes | None
) -> None:
    """The last records may have gone with the companion that would know of them."""
    truncate_audit(path, spoilt)
    result = await dhp("audit", "verify", *files(path))
    assert (result.code, result.err) == (0, "")
    assert "not confirmed" in result.out
    assert "whole" not in result.out
    result = await dhp("audit", "verify", "--json", *files(path))
    found = json.loads(result.out)
    assert (result.code, found["ok"], found["end_proven"], found["bad"]) == (0, True, False, None)
    assert (await dhp("audit", "verify", "--require-end", *files(path))).code == 1


async def test_an_empty_or_missing_live_file_confirms_no_end(path: Path) -> None:
    truncate_audit(path, None)
    older = files(path)[:-1]
    assert (await dhp("audit", "verify", *older)).code == 0
    assert (await dhp("audit", "verify", "--require-end", *older)).code == 1
    empty = path.with_name("empty.jsonl")
    empty.touch()
    assert (await dhp("audit", "verify", empty)).code == 0
    assert (await dhp("audit", "verify", "--require-end", empty)).code == 1


async def test_a_replaced_last_record_is_reported(path: Path) -> None:
    number = replace_last_record(path)
    result = await dhp("audit", "verify", *files(path))
    assert result.code == 1
    assert f"{path}:{number}: changed: " in result.out


async def test_a_missing_or_unreadable_file_ends_with_2(tmp_path: Path) -> None:
    assert (await dhp("audit", "verify")).code == 2
    missing = tmp_path / "none"
    result = await dhp("audit", "verify", missing)
    assert result == Result(2, "", f"dhp-gateway: {missing}: no such file or directory\n")
    assert (await dhp("audit", "verify", tmp_path)).code == 2
