"""Which line a message about a mistake names."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.sources import parse_yaml
from tests.config.test_loader import CREDENTIALS, problems

# What is wrong, the text, and the line that the parser names.
BROKEN = {
    "no colon": ("a: 1\nb 2\nc: 3\n", 2),
    "no colon last": ("a: 1\nb 2\n", 2),
    "no colon nested": ('g:\n  a: 1\n  b "x"\n  c: 1\n', 3),
    "no colon nested end of group": ("g:\n  a: 1\n  b x\nh:\n  c: 1\n", 3),
    "no space": ("a: 1\nb:2\nc: 3\n", 2),
    "no space nested": ("g:\n  a: 1\n  b:2\n  c: 3\n", 3),
    "quote unclosed": ('a: 1\nb: "x\nc: 3\n', 2),
    "quote swallow": ('a: 1\nb: "x\nc: "y"\nd: 1\n', 3),
    "quote swallow single": ("a: 1\nb: 'x\nc: 'y'\nd: 1\n", 3),
    "quote far": ('a: 1\nb: "x\nd: 1\ne: 2\nc: "y"\nd: 1\n', 5),
    "quote closed too soon": ("a: 1\nb: 'it's'\nd: 1\n", 2),
    "bracket": ("a: 1\nb: [1, 2\nc: 3\n", 3),
    "brace": ("a: 1\nb: {x: 1\nc: 3\nd: 1\n", 3),
    "bracket extra": ("a: 1\nb: [1]]\nc: 3\n", 2),
    "wrong indent deeper": ("a: 1\n  b: 2\nc: 3\n", 2),
    "wrong indent less": ("g:\n    a: 1\n  b: 2\nc: 3\n", 3),
    "wrong indent more in group": ("g:\n  a: 1\n   b: 2\n  c: 3\n", 3),
    "list": ("g:\n  - a\n  b: 2\n", 3),
    "list2": ("g:\n  - a: 1\n   b: 2\n", 3),
    "list3": ("g:\n  a: 1\n  - b\n", 3),
    "tab": ("g:\n  a: 1\n\tb: 2\n", 3),
    "tab2": ("g:\n\ta: 1\n", 2),
    "tab3": ('a: 1\nb:\t"x\n', 2),
    "colon in value": ("a: 1\nb: x: y\nc: 1\n", 2),
    "at": ("a: 1\nb: @x\nc: 1\n", 2),
    "percent": ("a: 1\nb: %x\nc: 1\n", 2),
    "backtick": ("a: 1\nb: `x`\nc: 1\n", 2),
    "star": ("a: 1\nb: *x\nc: 1\n", 2),
    "star2": ("a: 1\nb: **\nc: 1\n", 2),
    "amp": ("a: 1\nb: & x\nc: 1\n", 2),
    "escape": ('a: 1\nb: "C:\\data"\nc: 1\n', 2),
    "control": ("a: 1\nb: x\x01y\nc: 1\n", 2),
    "doc": ("a: 1\n---\nb: 1\n", 2),
    "block": ("a: |x\n  y\nb: 1\n", 1),
    "comment blank then": ("a: 1\n# x\n\nb 2\n\n# y\nc: 3\n", 4),
    "two colonless": ("a: 1\nb\nc\nd: 1\n", 2),
    "text": ("a: 1\nhello world\n", 2),
    "gt": ("a: 1\nb: > x\nc: 1\n", 2),
    "comma": ("a: {x: 1 y: 2}\nb: 1\n", 1),
    "comma ml": ("a: {x: 1,\n y: 2\n z: 3}\nb: 1\n", 3),
    "key without value indent": ("g:\na: 1\n  b: 2\nc: 1\n", 3),
    "dash no space": ("g:\n  - a\n  -b\nc: 1\n", 3),
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_text_is_told_by_the_parsers_own_position(what: str, ending: str) -> None:
    """That is where a text or key that does not end begins, else where the parser cannot go on."""
    text, line = BROKEN[what]
    (problem,) = parse_yaml(text.replace("\n", ending), "settings").problems
    assert problem.source.split(",")[0] == f"line {line}"
    # The same below thirteen lines that are fine.
    before = "".join(f"k{number}: 1{ending}" for number in range(13))
    (problem,) = parse_yaml(before + text.replace("\n", ending), "settings").problems
    assert problem.source.split(",")[0] == f"line {line + 13}"


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
def test_a_wrong_value_is_told_by_its_own_line(
    tmp_path: Path, text: str, key: str, line: int
) -> None:
    """Of an item of a list, too, not that of the list's key."""
    problem = problems(tmp_path, CREDENTIALS + text)[key]
    assert problem.source == f"line {line}"
