"""Planted faults: a random sample of small changes of `gateway/`, each of which a test must notice.

    .venv/bin/python -m tests.mutants --count 150 --seed 1
    .venv/bin/python -m tests.mutants --repeat survivors.json

A mutant is one changed place: a comparison turned, a condition negated, a number moved by one, a
call left out, and the like. First the tests of the parts concerned run once with a record of which
of them reaches which line. Then each mutant is written into a copy of the tree, and the tests that
reach its line run until one fails; a run that takes far longer than it should counts as noticed,
too. What survives is printed as a difference, and is judged by a person: a mutant may mean the
same as the code. The sample depends on the seed and on the code alone.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

REPOSITORY = Path(__file__).parents[1]
# The parts where a fault costs most, and the tests that look at them.
PARTS = ("oauth", "pipeline", "outbox")
TESTS = ("tests/oauth", "tests/pipeline", "tests/outbox", "tests/faults", "tests/lifecycle")
# Most tests of one mutant; a line that more of them reach is reached in much the same way.
MOST_TESTS = 60
# Seconds until the tests of a mutant count as failed: some mutants never end.
PATIENCE = 240.0

_TURNED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_EXCHANGED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed place of a module; `text` is the whole module with it."""

    module: str
    line: int
    text: str

    def difference(self) -> str:
        """Return what is changed, as `diff` shows it."""
        before = ast.unparse(ast.parse((REPOSITORY / self.module).read_text())).splitlines()
        changed = difflib.unified_diff(before, self.text.splitlines(), n=0, lineterm="")
        return "\n".join(line for line in changed if not line.startswith(("---", "+++", "@@")))


def places(text: str) -> Iterator[tuple[int, int]]:
    """Yield every place of a module that may be changed, as its node's number and a variant."""
    for number, node in enumerate(ast.walk(ast.parse(text))):
        for variant in range(len(_changes(node))):
            yield number, variant


def mutate(module: str, text: str, place: tuple[int, int]) -> Mutant:
    """Return the module with this place changed."""
    tree = ast.parse(text)
    number, variant = place
    node: Any = list(ast.walk(tree))[number]
    _replace(tree, node, _changes(node)[variant])
    return Mutant(module, node.lineno, ast.unparse(ast.fix_missing_locations(tree)))


def _changes(node: ast.AST) -> Sequence[ast.AST]:
    """Return what may stand in a node's place."""
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in _TURNED:
            return [ast.Compare(left, [_TURNED[type(operator)]()], [right])]
        case ast.BoolOp(operator, values):
            return [ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)]
        case ast.UnaryOp(ast.Not(), operand):
            return [operand]
        case ast.BinOp(left, operator, right) if type(operator) in _EXCHANGED:
            return [ast.BinOp(left, _EXCHANGED[type(operator)](), right)]
        case ast.Constant(bool() as value):
            return [ast.Constant(not value)]
        case ast.Constant(int() | float() as value):
            return [ast.Constant(value + 1)]
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant):
            return [ast.Return(ast.Constant(None))]
        case ast.Expr(ast.Call() | ast.Await()) | ast.AugAssign():
            return [ast.Pass()]
        case ast.If(condition, body, orelse):
            return [ast.If(ast.UnaryOp(ast.Not(), condition), body, orelse)]
    return []


def _replace(tree: ast.AST, node: ast.AST, change: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, change)
            elif isinstance(value, list):
                value[:] = [change if each is node else each for each in value]


def reached(lines: Path) -> dict[str, dict[int, list[str]]]:
    """Return the tests that reach each line, by module; `lines` is what `coverage` recorded."""
    data = coverage.CoverageData(str(lines))
    data.read()
    return {
        str(Path(file).relative_to(REPOSITORY)): {
            line: sorted(filter(None, tests))
            for line, tests in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }


def record(tests: Sequence[str], lines: Path) -> None:
    """Run tests once and record which lines each reaches. Raises SystemExit if one fails."""
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={lines}"]
    command += [
        "--rcfile=/dev/null",
        "--source=gateway",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "tests.mutants",
    ]
    if subprocess.run([*command, *tests], cwd=REPOSITORY, check=False).returncode != 0:
        raise SystemExit("The tests fail without a mutant.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say which test is running. This module is the plug-in of `record`."""
    if (running := coverage.Coverage.current()) is not None:
        running.switch_context(item.nodeid)


def notice(mutant: Mutant, tests: Sequence[str], tree: Path) -> str | None:
    """Return what noticed the mutant, a test or "time", or None when it survives."""
    file = tree / mutant.module
    original = file.read_text()
    file.write_text(mutant.text)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly"]
    command += ["--no-header", "--tb=no", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "time"
    finally:
        file.write_text(original)
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"pytest ended with {done.returncode}"


def sample(parts: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return as many mutants of these parts; the same ones for a seed."""
    texts = {
        str(path.relative_to(REPOSITORY)): path.read_text()
        for part in parts
        for path in sorted((REPOSITORY / "gateway" / part).rglob("*.py"))
    }
    found = [(module, place) for module, text in texts.items() for place in places(text)]
    drawn = random.Random(seed).sample(found, min(count, len(found)))  # noqa: S311 - no secret
    return [mutate(module, texts[module], place) for module, place in drawn]


def tests_of(mutant: Mutant, tests: Mapping[str, Mapping[int, list[str]]]) -> list[str]:
    """Return the tests that reach a mutant's line; `tests` are those of all lines, by module.

    No test reaches a line that runs at import: those count that reach a line with its names. They
    are named without parameters, which may have the value in their names.
    """
    if found := tests.get(mutant.module, {}).get(mutant.line):
        return found
    names = _names_set_at_import(mutant)
    if not names:
        return []
    named = re.compile(rf"\b(?:{'|'.join(names)})\b")
    return sorted(
        {
            test.partition("[")[0]
            for module, lines in tests.items()
            for number, text in enumerate((REPOSITORY / module).read_text().splitlines(), 1)
            if named.search(text)
            for test in lines.get(number, ())
        }
    )


def _names_set_at_import(mutant: Mutant) -> list[str]:
    """Return what the statement at a mutant's line sets, nothing within a function."""
    tree = ast.parse((REPOSITORY / mutant.module).read_text())
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef)]
    return [
        node.id
        for scope in scopes
        for statement in scope.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        and statement.lineno <= mutant.line <= (statement.end_lineno or 0)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def choose(tests: Sequence[str], mutant: Mutant) -> list[str]:
    """Return the tests of a mutant: at first some that are named after its module.

    Of them and of the others, tests are taken from all their files in turn: one file would often
    use up `MOST_TESTS`.
    """
    name = Path(mutant.module).stem
    taken: Counter[str] = Counter()
    turns = {}
    for test in sorted(tests):
        file = test.partition("::")[0]
        turns[test] = taken[file]
        taken[file] += 1
    in_turn = sorted(tests, key=lambda test: (test.count("crash"), turns[test], test))
    near = [test for test in in_turn if name in test][: MOST_TESTS // 2]
    return list(dict.fromkeys([*near, *in_turn]))[:MOST_TESTS]


def main() -> None:
    """Plant the mutants and print what survives. Ends with 1 when one does."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=150)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--parts", default=",".join(PARTS))
    options.add_argument("--tests", nargs="*", default=TESTS)
    options.add_argument("--repeat", type=Path, help="only those of a file of survivors")
    options.add_argument("--json", type=Path, help="where to write what survives")
    chosen = options.parse_args()
    if chosen.repeat:
        planted = [Mutant(**each) for each in json.loads(chosen.repeat.read_text())]
    else:
        planted = sample(chosen.parts.split(","), chosen.count, chosen.seed)
    with tempfile.TemporaryDirectory() as directory:
        lines = Path(directory, "lines")
        record(chosen.tests, lines)
        tests = reached(lines)
        tree = Path(directory, "tree")
        _copy_tree(tree)
        survivors = []
        for number, mutant in enumerate(planted, 1):
            began = time.monotonic()
            near = choose(tests_of(mutant, tests), mutant)
            by = notice(mutant, near, tree) if near else None
            how = f"noticed by {by}" if by else f"SURVIVES {len(near)} tests"
            taken = time.monotonic() - began
            _say(f"{number} {mutant.module}:{mutant.line} {how} ({taken:.0f} s)")
            if by is None:
                survivors.append(mutant)
                _say(mutant.difference())
    _say(f"{len(planted)} mutants, {len(survivors)} survive")
    if chosen.json:
        values = [{"module": m.module, "line": m.line, "text": m.text} for m in survivors]
        chosen.json.write_text(json.dumps(values))
    sys.exit(1 if survivors else 0)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the output of the program


def _copy_tree(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, tree / name, follow_symlinks=False)
    for compiled in REPOSITORY.glob("gateway/locale/*/LC_MESSAGES/*.mo"):
        shutil.copy2(compiled, tree / compiled.relative_to(REPOSITORY))
    os.symlink(REPOSITORY / ".venv", tree / ".venv")


if __name__ == "__main__":
    main()
