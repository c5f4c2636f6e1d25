"""The security model promises nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def functions_of(file: str) -> set[str]:
    """The functions that a file defines."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_the_page_names_exists() -> None:
    """A test that is renamed or removed is noticed here."""
    defined = {file: functions_of(file) for file in {file for file, _ in NAMED}}
    assert [(file, name) for file, name in NAMED if name not in defined[file]] == []


@pytest.mark.parametrize("title", ["## What holds", "## The sign-in with a browser"])
def test_every_attack_has_a_test(title: str) -> None:
    """Each row of the tables of what holds names at least one."""
    section = PAGE.partition(title)[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row for row in rows if "::test_" not in row] == []


def test_the_page_is_linked() -> None:
    """The README leads to it."""
    assert "(docs/security.md)" in (ROOT / "README.md").read_text("utf-8")
