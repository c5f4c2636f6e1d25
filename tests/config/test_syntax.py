"""Which line a message about a mistake names."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.sources import parse_yaml
from tests.config.test_loader import CREDENTIALS, problems

# What is wrong, the text, and the line that the parser names.
BROKEN = {
    "no colon": ("a: 1\nb 2\nc: 3\n", 2),
    "no colon nested end of group": ("g:\n  a: 1\n  b x\nh:\n  c: 1\n", 3),
    "no space": ("a: 1\nb:2\nc: 3\n", 2),
    "quote unclosed": ('a: 1\nb: "x\nc: 3\n', 2),
    "quote swallow": ('a: 1\nb: "x\nc: "y"\nd: 1\n', 3),
    "quote far": ('a: 1\nb: "x\nd: 1\ne: 2\nc: "y"\nd: 1\n', 5),
    "quote closed too soon": ("a: 1\nb: 'it's'\nd: 1\n", 2),
    "bracket": ("a: 1\nb: [1, 2\nc: 3\n", 3),
    "brace": ("a: 1\nb: {x: 1\nc: 3\nd: 1\n", 3),
    "bracket extra": ("a: 1\nb: [1]]\nc: 3\n", 2),
    "wrong indent deeper": ("a: 1\n  b: 2\nc: 3\n", 2),
    "wrong indent less": ("g:\n    a: 1\n  b: 2\nc: 3\n", 3),
    "wrong indent more in group": ("g:\n  a: 1\n   b: 2\n  c: 3\n", 3),
    "list": ("g:\n  - a\n  b: 2\n", 3),
    "list3": ("g:\n  a: 1\n  - b\n", 3),
    "tab": ("g:\n  a: 1\n\tb: 2\n", 3),
    "tab3": ('a: 1\nb:\t"x\n', 2),
    "colon in value": ("a: 1\nb: x: y\nc: 1\n", 2),
    "at": ("a: 1\nb: @x\nc: 1\n", 2),
    "percent": ("a: 1\nb: %x\nc: 1\n", 2),
    "backtick": ("a: 1\nb: `x`\nc: 1\n", 2),
    "star": ("a: 1\nb: *x\nc: 1\n", 2),
    "amp": ("a: 1\nb: & x\nc: 1\n", 2),
    "escape": ('a: 1\nb: "C:\\data"\nc: 1\n', 2),
    "control": ("a: 1\nb: x\x01y\nc: 1\n", 2),
    "doc": ("a: 1\n---\nb: 1\n", 2),
    "block": ("a: |x\n  y\nb: 1\n", 1),
    "comment blank then": ("a: 1\n# x\n\nb 2\n\n# y\nc: 3\n", 4),
    "comma": ("a: {x: 1 y: 2}\nb: 1\n", 1),
    "key without value indent": ("g:\na: 1\n  b: 2\nc: 1\n", 3),
    "dash no space": ("g:\n  - a\n  -b\nc: 1\n", 3),
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("what", BROKEN)
def test_broken_yaml_is_reported_at_the_position_of_the_parser(what: str, ending: str) -> None:
    text, line = BROKEN[what]
    (problem,) = parse_yaml(text.replace("\n", ending), "settings").problems
    assert problem.source.split(",")[0] == f"line {line}"
    # The same below thirteen lines that are fine.
    before = "".join(f"k{number}: 1{ending}" for number in range(13))
    (problem,) = parse_yaml(before + text.replace("\n", ending), "settings").problems
    assert problem.source.split(",")[0] == f"line {line + 13}"


@pytest.mark.parametrize("value", ["!!int x", "!!float 1,5", "!!bool yes", "!!null x", "!own 1"])
def test_a_tag_that_its_value_does_not_have_is_reported(value: str) -> None:
    (problem,) = parse_yaml(f"limits:\n  keep_alive: {value}\n", "settings").problems
    assert str(problem).startswith("limits.keep_alive: has a YAML tag (line 2)")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("log:\n  level: loud\n", "log.level", 3),
        ("log:\n\n  # a comment\n  level: loud\n", "log.level", 5),
        ("callers:\n  - name: lab\n    networks:\n      - 10.0.0.0/8\n      - 10.0.0.7/16\n",
         "callers[0].networks[1]", 6),
        ("callers:\n  - name: lab\n  - name: ward\n    rate_limit:\n      burst: x\n",
         "callers[1].rate_limit.burst", 6),
        ("callers:\n  - name: lab\n  - networks: []\n", "callers[1].name", 4),
        ("platform:\n  fhir_base_url: fhir.clinic.uz\n", "platform.fhir_base_url", 3),
        ("sso:\n  timeout: 5\n  timeout: 6\n", "sso.timeout", 4),
        ("listen:\n  adress: 127.0.0.1:1\n", "listen.adress", 3),
    ],
)  # fmt: skip
def test_an_invalid_value_is_reported_with_its_line(
    tmp_path: Path, text: str, key: str, line: int
) -> None:
    problem = problems(tmp_path, CREDENTIALS + text)[key]
    assert problem.source == f"line {line}"
