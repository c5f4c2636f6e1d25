"""What the build makes of the sources before they are compiled: the same classes, line by line."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from types import ModuleType

import pytest
from babel.messages.mofile import read_mo

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
    """The build hook, which is no part of any package."""
    path = ROOT / "deploy" / "build_hook.py"
    spec = importlib.util.spec_from_file_location("build_hook", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The source as it is compiled."""
    module = ModuleType("made")
    monkeypatch.setitem(sys.modules, "made", module)
    exec(hook.with_constructors(hook.without_slots(SOURCE)), vars(module))  # noqa: S102 - our own
    return module


def test_every_line_stays_where_it_was(hook: ModuleType) -> None:
    """Tracebacks of the compiled form name the lines of the sources."""
    changed = hook.with_constructors(hook.without_slots(SOURCE)).splitlines()
    original = SOURCE.splitlines()
    assert len(changed) == len(original)
    places = [number for number, line in enumerate(original) if line.startswith(("class", "LINE"))]
    assert [changed[number] for number in places] == [original[number] for number in places]


def test_a_written_constructor_is_the_dataclass_s_own(hook: ModuleType, made: ModuleType) -> None:
    """The same parameters, defaults and attributes; the class stays a dataclass."""
    changed = hook.with_constructors(hook.without_slots(SOURCE))
    assert changed.count("def __init__(self, first: int, second: str | None = None)") == 1
    one, other = made.Simple(1), made.Simple(first=1, second=None)
    assert (one, [each.name for each in fields(one)]) == (other, ["first", "second"])
    with pytest.raises(TypeError):
        made.Simple()


def test_what_is_not_so_simple_keeps_its_own(made: ModuleType) -> None:
    """Frozen ones, those with fields made anew, and those that inherit others'."""
    assert made.Made().items is not made.Made().items
    assert (made.Derived(1, "2").second, made.Derived(1).third) == ("2", 3)
    with pytest.raises(FrozenInstanceError):
        made.Frozen(1).first = 2


def test_slots_are_gone(made: ModuleType) -> None:
    """What is compiled has none to declare."""
    assert not any(hasattr(each, "__slots__") for each in (made.Plain, made.Simple, made.Frozen))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The catalogues as git has them."""
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
def test_every_package_gets_its_catalogues(
    hook: ModuleType,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    version: str,
    compiles: str,
) -> None:
    """Each installation speaks Russian and Uzbek, whichever way it was made."""
    monkeypatch.setenv(hook.SWITCH, compiles)
    monkeypatch.setattr(hook, "compile_in", lambda place, project: [])
    made = hook.BuildHook(str(project), {}, None, None, str(project / "dist"), target)
    made.initialize(version, {"force_include": {}})
    made.finalize(version, {}, "")
    sources = list(project.rglob("*.po"))
    assert sources
    for source in sources:
        with source.with_suffix(".mo").open("rb") as file:
            assert len(read_mo(file)) > 50


def test_catalogues_that_are_the_same_are_not_written(hook: ModuleType, project: Path) -> None:
    """A gateway that reads them while something is built would find half of one."""
    hook.compile_catalogues(project)
    before = {each: each.stat().st_mtime_ns for each in project.rglob("*.mo")}
    hook.compile_catalogues(project)
    assert {each: each.stat().st_mtime_ns for each in project.rglob("*.mo")} == before
