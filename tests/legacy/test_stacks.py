"""Programs in many languages, with their libraries' defaults, work through the gateway."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.doubles.processes import REPOSITORY
from tests.legacy.conftest import Results
from tests.legacy.stacks import OK, STACKS

SEEN = REPOSITORY / "tests" / "legacy" / "results.json"


@pytest.mark.parametrize("name", STACKS)
def test_a_program_with_its_librarys_defaults(results: Results, name: str) -> None:
    """Each step succeeds, or has the documented result of its library."""
    for way in results[name].keys() - {"fields"}:
        steps = results[name][way]
        words = STACKS[name].words_of(way)
        assert steps == {step: words.get(step, OK) for step in steps}, way


def test_results_json_has_these_results(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables of docs/clients.md are made of it."""
    with capsys.disabled():
        for name, ways in results.items():
            fates = ", ".join(map(" ".join, ways["fields"].items()))
            sys.stdout.write(f"\n{name}: {fates}")
    rows = (f"{json.dumps(name)}: {json.dumps(ways)}" for name, ways in results.items())
    received = "{\n" + ",\n".join(rows) + "\n}\n"
    if os.environ.get("WRITE_RESULTS"):
        SEEN.write_text(received, encoding="utf-8")
    advice = "WRITE_RESULTS=1 make test TESTS=tests/legacy && make docs"
    assert SEEN.read_text(encoding="utf-8") == received, advice
