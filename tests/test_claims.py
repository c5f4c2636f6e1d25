"""What pages written by hand claim can be looked up: settings, defaults, reasons and tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from docs.generators.guidance import GUIDANCE
from tests.config.test_schema import table_of_settings
from tests.test_architecture import FLOORS, SANDBOX, TREES, floor_of

ROOT = Path(__file__).parents[1]
GENERATED = {"settings.md", "errors.md"}
PAGES = [
    ROOT / "README.md",
    *sorted(each for each in (ROOT / "docs").glob("*.md") if each.name not in GENERATED),
]
DEFAULTS = {
    key: cells[1].strip("`")
    for key, cells in table_of_settings("en").items()
    if re.fullmatch(r"[\w.]+", key)
}
SECTIONS = "|".join({key.partition(".")[0] for key in DEFAULTS if "." in key})
SETTINGS = {
    ".".join(key.split(".")[: n + 1]) for key in DEFAULTS for n in range(key.count(".") + 1)
}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FILES = (".jsonl", ".log", ".db", ".py", ".yaml")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@cache
def functions(file: str) -> set[str]:
    """The names of a test file's functions; none if there is no such file."""
    if not (ROOT / file).exists():
        return set()
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_named_is_there(path: Path) -> None:
    """Each setting, default, reason and test that a page names is one."""
    text = path.read_text("utf-8")
    named = set(re.findall(rf"`((?:{SECTIONS})\.[a-z][a-z_.]*)(?:: [^`]*)?`", text))
    assert [each for each in named - SETTINGS if not each.endswith(FILES)] == []
    for key, default in re.findall(r"default `([a-z_.]+): ([^`]+)`", text):
        assert (key, DEFAULTS[key]) == (key, default)
    assert set(re.findall(r"X-Gateway-Error[`:]*:? `?([a-z]+(?:-[a-z]+)*)`", text)) <= set(GUIDANCE)
    assert [each for each in TEST.findall(text) if each[1] not in functions(each[0])] == []


def test_the_architecture_shows_the_floors() -> None:
    """The table lists every part, in the order that imports keep to."""
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## The floors")[2]
    rows = re.findall(r"^\| (\d?) \| `(\w+)` \| ", table.partition("\n## ")[0], re.MULTILINE)
    parts = [(str(floor_of(part)), part) for floor in FLOORS for part in floor]
    assert rows == [*parts, ("", SANDBOX)]


def test_files_that_the_architecture_names_exist() -> None:
    """`http/request_target.py` and the like are found below gateway/, or below tests/."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    names = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+)`", text)
    assert len(names) > 20
    places = (
        ROOT,
        ROOT / "gateway",
        ROOT / "gateway/config",
        ROOT / "tests",
    )
    assert [each for each in names if not any((place / each).exists() for place in places)] == []


def test_classes_that_the_architecture_names_exist() -> None:
    """`RequestContext` and `Handler.handle` are classes of the gateway, with such a method."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    names = re.findall(r"`([A-Z][a-z]\w+)(?:\.(\w+))?(?:\(.*\))?`", text)
    assert len(names) > 40
    classes = {
        node.name: {each.name for each in ast.walk(node) if isinstance(each, FUNCTION)}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert [
        f"{name}.{method}"
        for name, method in names
        if name not in classes or (method and method not in classes[name])
    ] == []
