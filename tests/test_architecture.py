"""The floors, the directions of imports and the sizes that `docs/architecture.md` describes."""

from __future__ import annotations

import ast
import functools
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.tracked_files import tracked_files

ROOT = Path(__file__).parent.parent / "gateway"

# From the top. Parts on one floor do not import each other at run time; modules of the lowest do. A
# part may name in annotations the types of later parts of its floor.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("app",),
    ("admin",),
    ("login", "outbox"),
    ("pipeline", "oauth", "alerts", "audit"),
    ("http", "health", "config"),
    ("fhir", "telemetry"),
    (
        *("clock", "document_limits", "errors", "exchange", "field_values", "guidance", "i18n"),
        *("os_support", "secret", "templates"),
    ),
)
# What a part imports at run time, beside the lowest floor and, from the third floor up, telemetry.
IMPORTS = {
    "__main__": {"cli"},
    "cli": {
        *("admin", "alerts", "app", "audit", "config", "fhir", "health", "login", "oauth"),
        *("outbox", "sandbox"),
    },
    "app": {
        *("admin", "alerts", "audit", "config", "health", "http", "login", "oauth", "outbox"),
        "pipeline",
    },
    "admin": {"config", "health", "http", "oauth", "outbox", "pipeline"},
    "login": {"http", "oauth", "pipeline"},
    "outbox": {"fhir", "health", "http", "pipeline"},
    "pipeline": {"fhir", "health", "http"},
    "oauth": {"health", "http"},
    "audit": {"fhir"},
    "alerts": {"health"},
    "config": {"fhir"},
}
# Beside all floors: imports none of them.
SANDBOX = "sandbox"
# Within a part: what is in the first folder imports nothing of the second.
SEPARATE = (
    *(("http/client", "http/server"), ("http/server", "http/client")),
    *(("fhir", "fhir/links"), ("sandbox/sso", "sandbox/fhir")),
)
MAX_MODULE_LINES = 800
MAX_FUNCTION_LINES = 50
MAX_FOLDER_MODULES = 20
# The whole of gateway/, as it is. These numbers only go down; docs/decisions.md, "Sizes", has the
# reason of each that was raised.
MAX_MODULES = 226
MAX_PROTOCOLS = 10
MAX_NOQA = 21

# Logical lines of each part: statements and `except` clauses, so that names, comments and sentences
# are free. A part may grow by ROOM; whoever raises a number says why in docs/decisions.md.
LOGICAL_LINES = {
    "__init__": 3,
    "__main__": 18,
    "admin": 914,
    "alerts": 421,
    "app": 1_858,
    "audit": 1_475,
    "cli": 2_512,
    "clock": 44,
    "config": 1_842,
    "document_limits": 40,
    "errors": 93,
    "exchange": 50,
    "fhir": 2_852,
    "field_values": 140,
    "guidance": 20,
    "health": 638,
    "http": 2_790,
    "i18n": 181,
    "login": 1_527,
    "oauth": 1_623,
    "os_support": 157,
    "outbox": 3_379,
    "pipeline": 2_704,
    "sandbox": 2_475,
    "secret": 32,
    "telemetry": 1_005,
    "templates": 36,
}
ROOM = 0.01

# Modules that ask a clock or a source of randomness themselves. All others get it as a parameter,
# whose default may be the real one; `app` is where it is passed on from.
ASK_CLOCKS = {
    "gateway.app.run": "systemd compares the time of a reload with the clock of the machine",
    "gateway.cli.doctor": "a command: compares the Date of a server with the clock of the machine",
    "gateway.cli.doctor_network": "a command: how long the certificate of a server is still valid",
    "gateway.cli.platform_commands": "commands: the pauses between their requests",
    "gateway.http.server.caller_connection": "the clock of the event loop, as its timers",
    "gateway.http.server.listener": "the clock of the event loop, as its timers",
}
CLOCKS = re.compile(
    r"time\.(monotonic|time|perf_counter|process_time)(_ns)?|(datetime\.)?datetime\.(now|utcnow|today)"
    r"|(datetime\.)?date\.today|random\.(?!Random\b|SystemRandom\b)\w+|.*loop(\(\))?\.time"
)
# Without a moment they take the present one.
FORMATS = {"formatdate", "format_datetime", "time.gmtime", "time.localtime", "time.ctime"}

# What is in the top folder of the repository, beside what begins with a dot.
TOP_FOLDER = {
    *("CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "NOTICE", "README.md"),
    *("pyproject.toml", "requirements-dev.lock", "requirements.lock"),
    *("benchmarks", "config", "deploy", "docs", "gateway", "tests"),
}

ESCAPE = re.compile(r"\\.", re.DOTALL)
SET = re.compile(r"\[\^?\]?[^\]]*\]")
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]*\})\+")

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


@functools.cache
def texts() -> dict[str, str]:
    """Return the source of each module."""
    return {name: path.read_text("utf-8") for name, path in NAMES.items()}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of each module."""
    return {name: ast.parse(text) for name, text in texts().items()}


def part_of(name: str) -> str:
    return name.partition(".")[2].partition(".")[0] or "__init__"


def folder_of(name: str) -> str:
    return str(NAMES[name].parent.relative_to(ROOT))


def run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for what only a type checker reads."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from run(child)


def imported(name: str, read: Callable[[ast.AST], Iterator[ast.AST]] = run) -> Iterator[str]:
    """The modules of the gateway that a module imports, inside functions too.

    At run time, or with `ast.walk` in annotations as well.
    """
    for node in read(trees()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            module = node.module or ""
            for alias in node.names:
                below = f"{module}.{alias.name}"
                if below in NAMES:
                    yield below
                elif module in NAMES and module != "gateway":
                    yield module


@functools.cache
def pairs() -> list[tuple[str, str]]:
    """Return each module with each that it imports at run time."""
    return [(name, other) for name in NAMES for other in imported(name)]


def floor_of(part: str) -> int:
    """The number of a part's floor, from 1 at the bottom."""
    return next(len(FLOORS) - n for n, parts in enumerate(FLOORS) if part in parts)


def may_import(part: str, other: str) -> bool:
    """Whether one part may import another at run time."""
    if part == other or other in IMPORTS.get(part, ()):
        return True
    if SANDBOX in (part, other):
        return False
    return floor_of(other) == 1 or (other == "telemetry" and floor_of(part) >= 3)


def test_imports_go_down_only() -> None:
    """A part imports at run time only the parts of lower floors that the table gives it."""
    assert len(pairs()) > len(NAMES)
    parts = {(part_of(name), part_of(other)) for name, other in pairs()}
    assert [(a, b) for a, b in pairs() if not may_import(part_of(a), part_of(b))] == []
    for part, others in IMPORTS.items():
        lower = [other for other in others - {SANDBOX} if floor_of(other) >= floor_of(part)]
        assert lower == []
        assert others - {b for a, b in parts if a == part} == set()


def test_folders_of_one_part_are_separate() -> None:
    """The side of the callers imports nothing of the side of the platform, for one."""
    assert [pair for pair in pairs() if tuple(map(folder_of, pair)) in SEPARATE] == []


def test_no_import_leads_back() -> None:
    """There is an order in which every module comes behind all that it names, in annotations too.

    The error has the modules of a circle; each names the one before it.
    """
    TopologicalSorter({name: imported(name, ast.walk) for name in NAMES}).prepare()


def test_annotations_name_no_higher_floor() -> None:
    """What a module names only for the type checker stands below it, or behind it on its floor."""
    order = {part: place for place, part in enumerate(part for parts in FLOORS for part in parts)}
    up = [
        (name, other)
        for name in NAMES
        for other in imported(name, ast.walk)
        if order.get(part_of(other), len(order)) < order.get(part_of(name), -1)
        and floor_of(part_of(name)) > 1
    ]
    assert up == []


def test_modules_and_functions_stay_small() -> None:
    """No module exceeds 800 lines, no function 50, and no folder 20 modules."""
    assert [name for name, text in texts().items() if text.count("\n") > MAX_MODULE_LINES] == []
    long = [
        (name, node.name)
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []
    assert [n for n in Counter(map(folder_of, NAMES)).items() if n[1] > MAX_FOLDER_MODULES] == []


def test_a_name_of_a_module_is_used_once() -> None:
    """Outside of the sandbox, whose folders tell, two modules do not have one name."""
    files = [p for n, p in NAMES.items() if part_of(n) != SANDBOX and p.stem != "__init__"]
    assert [name for name, n in Counter(path.stem for path in files).items() if n > 1] == []


def test_the_gateway_does_not_grow(capsys: pytest.CaptureFixture[str]) -> None:
    """Modules, protocols and exceptions from the linter's rules only become fewer."""
    classes = [n for t in trees().values() for n in ast.walk(t) if isinstance(n, ast.ClassDef)]
    numbers = {
        "modules": (len(NAMES), MAX_MODULES),
        "protocols": (sum("Protocol" in map(ast.unparse, c.bases) for c in classes), MAX_PROTOCOLS),
        "noqa": (sum(text.count("# noqa") for text in texts().values()), MAX_NOQA),
        "imports between modules": (len(set(pairs())), None),
        "imports between parts": (len({(part_of(a), part_of(b)) for a, b in pairs()}), None),
    }
    with capsys.disabled():
        print("", *(f"{name}: {n}" for name, (n, _) in numbers.items()))  # noqa: T201 - to be seen
    assert [name for name, (n, most) in numbers.items() if most is not None and n > most] == []


def test_no_part_grows_unnoticed() -> None:
    """The logical lines of each part stay within a hundredth of the number that is written here."""
    found: Counter[str] = Counter()
    for name, tree in trees().items():
        found[part_of(name)] += sum(
            isinstance(node, ast.stmt | ast.ExceptHandler) for node in ast.walk(tree)
        )
    assert found.keys() == LOGICAL_LINES.keys()
    grown = [
        f"{part} has {now} logical lines, {now - LOGICAL_LINES[part]} more than the number here:"
        " leave out what is needless now, or raise the number and say why in docs/decisions.md"
        for part, now in found.items()
        if now > LOGICAL_LINES[part] * (1 + ROOM) + 1
    ]
    assert grown == []


def test_the_top_folder_has_nothing_else() -> None:
    """A new file or folder at the top is a decision, and needs a line here."""
    found = {path.relative_to(ROOT.parent).parts[0] for path in tracked_files()}
    assert {name for name in found if not name.startswith(".")} == TOP_FOLDER


def test_tests_look_at_tracked_files_only() -> None:
    """A pattern in a folder of the project finds what others leave there, but for modules."""
    look = re.compile(r"\b(?:DOCS|FOLDER|HERE|PACKAGE|PROJECT|REPOSITORY|ROOT|TESTS)\b.*"
                      r"\.(?:iterdir\(|r?glob\((?!\"\*\.py\"\)))")  # fmt: skip
    found = [
        f"{path.name}: {line.strip()}"
        for path in tracked_files("tests/*test_*.py")
        for line in path.read_text("utf-8").splitlines()
        if look.search(line)
    ]
    assert found == []


def test_the_floors_name_every_part() -> None:
    """No part of the gateway is without a floor, and no floor is empty."""
    named = {part for floor in FLOORS for part in floor} | {SANDBOX}
    assert {part_of(name) for name in NAMES} - {"__init__"} == named


def test_only_the_composition_root_constructs_the_gateway() -> None:
    """Servers, pools and sessions are made in app, cli and the sandbox only."""
    makers = {"UpstreamPool", "CallerServer", "make_tokens", "ClientSession", "Handler"}
    made = {
        (part_of(module), name)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "id", getattr(node.func, "attr", ""))) in makers
    }
    assert {name for part, name in made if part == "app"} == makers
    assert {part for part, _ in made} <= {"app", "cli", SANDBOX}


def clock_reads(tree: ast.AST) -> Iterator[str]:
    """Yield the calls that read a clock or draw a random number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if CLOCKS.fullmatch(called) or (called in FORMATS and not node.args):
                yield called


def test_clocks_and_random_sources_are_parameters() -> None:
    """Otherwise a test would have to wait, or to replace a function of the standard library."""
    found = {name: set(clock_reads(tree)) for name, tree in trees().items()}
    assert {name for name, calls in found.items() if calls} == ASK_CLOCKS.keys(), found


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
