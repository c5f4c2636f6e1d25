"""The build hook changes sources before they are compiled; classes and line numbers stay."""

from __future__ import annotations

import shutil
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from types import ModuleType

import pytest
from babel.messages.mofile import read_mo

from tests.environments import load_module

ROOT = Path(__file__).parents[2]
SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass, field

class Plain:
    """Has slots."""
    __slots__ = (
        "a",
        "b",
    )

@dataclass(slots=True)
class Simple:
    """Has a docstring

    of several lines.
    """

    first: int
    second: str | None = None

@dataclass(frozen=True, slots=True)
class Frozen:
    """Cannot be changed."""

    first: int

@dataclass(slots=True)
class Made:
    """Has a list of its own."""

    items: list[int] = field(default_factory=list)

@dataclass(slots=True)
class Derived(Simple):
    """Has another's fields."""

    third: int = 3

LINE = 45
'''


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    return load_module(ROOT / "deploy" / "build_hook.py")


@pytest.fixture
def compiled_source(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("compiled_source")
    monkeypatch.setitem(sys.modules, "compiled_source", module)
    exec(hook.with_constructors(hook.without_slots(SOURCE)), vars(module))  # noqa: S102 - our own
    return module


def test_line_numbers_are_kept(hook: ModuleType) -> None:
    changed = hook.with_constructors(hook.without_slots(SOURCE)).splitlines()
    original = SOURCE.splitlines()
    assert len(changed) == len(original)
    places = [number for number, line in enumerate(original) if line.startswith(("class", "LINE"))]
    assert [changed[number] for number in places] == [original[number] for number in places]


def test_a_generated_constructor_equals_that_of_the_dataclass(
    hook: ModuleType, compiled_source: ModuleType
) -> None:
    changed = hook.with_constructors(hook.without_slots(SOURCE))
    assert changed.count("def __init__(self, first: int, second: str | None = None)") == 1
    one, other = compiled_source.Simple(1), compiled_source.Simple(first=1, second=None)
    assert (one, [each.name for each in fields(one)]) == (other, ["first", "second"])
    with pytest.raises(TypeError):
        compiled_source.Simple()


def test_other_dataclasses_keep_their_constructors(compiled_source: ModuleType) -> None:
    assert compiled_source.Made().items is not compiled_source.Made().items
    assert (compiled_source.Derived(1, "2").second, compiled_source.Derived(1).third) == ("2", 3)
    with pytest.raises(FrozenInstanceError):
        compiled_source.Frozen(1).first = 2


def test_slots_are_removed(compiled_source: ModuleType) -> None:
    assert not any(
        hasattr(each, "__slots__")
        for each in (compiled_source.Plain, compiled_source.Simple, compiled_source.Frozen)
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "gateway/locale", tmp_path / "gateway/locale")
    for each in tmp_path.rglob("*.mo"):
        each.unlink()
    return tmp_path


@pytest.mark.parametrize(
    ("target", "version", "compiles"),
    [
        ("sdist", "standard", ""),
        ("wheel", "standard", ""),
        ("wheel", "standard", "1"),
        ("wheel", "editable", ""),
    ],
)
def test_every_build_compiles_the_catalogues(
    hook: ModuleType,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    version: str,
    compiles: str,
) -> None:
    monkeypatch.setenv(hook.SWITCH, compiles)
    monkeypatch.setattr(hook, "compile_in", lambda place, project: [])
    compiled_source = hook.BuildHook(str(project), {}, None, None, str(project / "dist"), target)
    compiled_source.initialize(version, {"force_include": {}})
    compiled_source.finalize(version, {}, "")
    sources = list(project.rglob("*.po"))
    assert sources
    for source in sources:
        with source.with_suffix(".mo").open("rb") as file:
            assert len(read_mo(file)) > 50


def test_unchanged_catalogues_are_not_written(hook: ModuleType, project: Path) -> None:
    """A gateway that reads them during a build would find a partial one."""
    hook.compile_catalogues(project)
    before = {each: each.stat().st_mtime_ns for each in project.rglob("*.mo")}
    hook.compile_catalogues(project)
    assert {each: each.stat().st_mtime_ns for each in project.rglob("*.mo")} == before
