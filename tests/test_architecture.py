"""The directions of imports and the sizes that `docs/decisions.md` promises."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent / "gateway"

# From the top. Each part uses what stands below it, in annotations too.
FLOORS = (
    *("__main__", "cli", "commands", "process", "admin", "login", "outbox", "pipeline"),
    *("oauth", "audit", "http", "fhir", "telemetry", "config", "exchange"),
    *("errors", "secret", "os_support", "nesting", "duration", "authority", "timing"),
    *("templates", "i18n"),
)
# Beside all floors: uses none of them, and only these use it.
SANDBOX = "sandbox"
USES_SANDBOX = {"cli", "commands"}
# Within a part: what is in the first folder uses nothing of the second.
STRANGERS = (
    *(("http/client", "http/server"), ("http/server", "http/client")),
    ("fhir/links", "fhir"),
)
MAX_MODULE_LINES = 800
MAX_FUNCTION_LINES = 50

ESCAPE = re.compile(r"\\.", re.DOTALL)
SET = re.compile(r"\[\^?\]?[^\]]*\]")
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]*\})\+")

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module as imports name it."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def part_of(name: str) -> str:
    """The top-level part a module belongs to."""
    return name.partition(".")[2].partition(".")[0] or "__init__"


def folder_of(name: str) -> str:
    """The folder a module is in, below gateway/."""
    return str(NAMES[name].parent.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """The modules of the gateway that a module imports, wherever and what for it does."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            module = node.module or ""
            for alias in node.names:
                name = f"{module}.{alias.name}"
                if name in NAMES:
                    yield name
                elif module in NAMES and module != "gateway":
                    yield module


def may_import(part: str, other: str) -> bool:
    """Whether one part may use another."""
    if SANDBOX in (part, other):
        return part == other or (other == SANDBOX and part in USES_SANDBOX)
    return part == other or FLOORS.index(part) < FLOORS.index(other)


def test_imports_go_down_only() -> None:
    """A module imports only what is on its own floor or on one below."""
    pairs = [(module, name) for module, path in NAMES.items() for name in imported(path)]
    assert len(pairs) > len(NAMES)
    assert [pair for pair in pairs if not may_import(*map(part_of, pair))] == []


def test_what_lies_side_by_side_is_apart() -> None:
    """What comes from callers knows nothing of what goes to the platform, for one."""
    pairs = [(module, name) for module, path in NAMES.items() for name in imported(path)]
    assert [pair for pair in pairs if tuple(map(folder_of, pair)) in STRANGERS] == []


def test_no_import_leads_back() -> None:
    """There is an order in which every module comes behind all that it names."""
    TopologicalSorter({name: imported(path) for name, path in NAMES.items()}).prepare()


def test_modules_and_functions_stay_small() -> None:
    """No module exceeds 800 lines and no function 50."""
    texts = {module: path.read_text("utf-8") for module, path in NAMES.items()}
    assert [each for each, text in texts.items() if text.count("\n") > MAX_MODULE_LINES] == []
    long = [
        (module, node.name)
        for module, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_the_floors_name_every_part() -> None:
    """No part of the gateway is without a floor, and no floor is empty."""
    assert {part_of(name) for name in NAMES} - {"__init__"} == {*FLOORS, SANDBOX}


def test_only_the_composition_root_constructs_the_gateway() -> None:
    """Servers, pools and sessions are made in app, core, commands and the sandbox only."""
    makers = {"UpstreamPool", "CallerServer", "TokenManager", "ClientSession", "Handler"}
    roots = {"gateway.process.app", "gateway.process.core", "gateway.cli"}
    for module, path in NAMES.items():
        if module in roots or part_of(module) in {"commands", "sandbox"}:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in makers, f"{path.name} constructs {name}"


def patterns(path: Path) -> Iterator[str]:
    """What raw strings of a module hold, a letter for each escape and set of characters."""
    with path.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.STRING and "r" in token.string.partition(token.string[-1])[0]:
                yield SET.sub("x", ESCAPE.sub("x", token.string))


def test_no_group_is_repeated_possessively() -> None:
    """Python 3.11.2, Debian 12's, does not go back to where a round of one began that failed."""
    found = [(name_of(path), each) for path in MODULES for each in patterns(path)]
    assert len(found) > 50
    assert [each for each in found if POSSESSIVE_GROUP.search(each[1])] == []
