"""The tables of servers of others, seen from outside by running pytest."""

from __future__ import annotations

from pathlib import Path

from tests.test_conftest import run_pytest

TESTS = """import pytest
from tests.interop.table import describe, not_offered, note
SERVERS = [pytest.param(n, marks=pytest.mark.column("SSO", n)) for n in ("one", "two", "three")]
@pytest.fixture(params=SERVERS)
def server(request):
    describe(request.node, "version " + request.param)
    assert request.param != "three", "does not start"
    return request.param
@pytest.mark.row("a renewal")
def test_renewal(server, request):
    assert server == "one", "came late"
    note(request.node, "after 3 s")
@pytest.mark.row("a sign-in")
def test_sign_in(server, request):
    if server == "two":
        return not_offered(request.node, "knows no users")
def test_without_a_cell(): pass
"""


def test_every_cell_says_what_was_seen(tmp_path: Path) -> None:
    """Passed, not offered and faults, those of fixtures too, with more than one process."""
    shown = run_pytest(tmp_path, TESTS, "1", "-n2").stdout
    begin = shown.index("SSO")
    lines = shown[begin - 2 :].splitlines()[:10]
    assert lines[:5] == [
        "| SSO       | one         | three         | two             |",
        "| --------- | ----------- | ------------- | --------------- |",
        "|           | version one | version three | version two     |",
        "| a renewal | passed (1)  | FAULT (2)     | FAULT (3)       |",
        "| a sign-in | passed      | FAULT (2)     | not offered (4) |",
    ]
    assert lines[6] == "* (1) after 3 s"
    assert lines[7].startswith("* (2) AssertionError: does not start")
    assert lines[8].startswith("* (3) AssertionError: came late")
    assert lines[9] == "* (4) knows no users"
