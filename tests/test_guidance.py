"""Each reason and cause has one text for what to do, and no other place has words of its own.

Records are in `gateway.guidance` and, of failed token requests, in `gateway.oauth.token_failures`.
Everything else shows them, or links to docs/errors.md, which is made of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jinja2
import pytest
import yaml
from jinja2 import nodes

from gateway import errors
from gateway.errors import REASONS, Reason
from gateway.guidance import COMPONENT_GUIDANCE, CONNECTION_CAUSES, REASON_GUIDANCE
from gateway.health import evidence
from gateway.oauth.token_failures import OAUTH_REMEDIES, TOKEN_CAUSES
from gateway.oauth.token_response import Cause, FailureKind
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1]
HOMES = {ROOT / "gateway/guidance.py", ROOT / "gateway/oauth/token_failures.py"}
SOURCES = [
    path
    for folder in ("gateway", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path not in HOMES and "sandbox" not in path.parts
]
TEMPLATES = tracked_files("gateway/*/templates/*.html")
RULES = ROOT / "deploy/prometheus/rules/alerts.yml"
RUNBOOKS = tracked_files("docs/runbook*.md")

# The kinds of failures have names that other things have, too.
CAUSES = {
    *(cause for cause, guidance in COMPONENT_GUIDANCE.items() if guidance.remedy),
    *(*TOKEN_CAUSES, *OAUTH_REMEDIES),
} - {*get_args(FailureKind)}
# Constants that hold a code, by their names in the code.
NAMES = {
    *(name for name, value in vars(errors).items() if isinstance(value, Reason)),
    *(name for name, value in vars(evidence).items() if isinstance(value, str) and value in CAUSES),
}
# Fewer words are a name: the state of the platform on a card.
MIN_WORDS = 6
# As many words in a row as two texts share only if one was copied.
SHARED_WORDS = 9


def is_text(text: object) -> bool:
    """Whether a constant is a text for people, and not the name of something."""
    return isinstance(text, str) and len(text.split()) >= MIN_WORDS


def is_sentence(text: str) -> bool:
    """Whether a string that is no message is meant for people all the same."""
    return text[0].isupper() and text.endswith((".", "?", "!"))


def names_cause(node: ast.AST) -> bool:
    """Whether an expression is the code of a reason or cause, or a constant that holds one."""
    if isinstance(node, ast.Constant):
        return node.value in CAUSES
    return any(
        getattr(each, "id", None) in NAMES or getattr(each, "attr", None) in NAMES
        for each in ast.walk(node)
    )


def texts_in(node: ast.AST) -> Iterator[str]:
    """Yield the texts for people below a node."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and is_text(each.value):
            yield str(each.value)


def in_code(tree: ast.AST) -> list[str]:
    """The texts that Python code assigns to a reason or cause, in a table or behind a condition."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and names_cause(key):
                    found += {*messages_in(value), *filter(is_sentence, texts_in(value))}
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            compared = (node.test.left, *node.test.comparators)
            found += [
                text
                for each in node.body
                if any(map(names_cause, compared))
                for text in messages_in(each)
            ]
    return found


def messages_in(node: ast.AST) -> Iterator[str]:
    """Yield the texts of the messages that are made below a node."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Message":
            yield from texts_in(call)


def in_template(source: str) -> list[str]:
    """The texts that a template assigns to a reason or cause."""
    tree = jinja2.Environment(autoescape=True).parse(source)
    return [
        each.value
        for pair in tree.find_all(nodes.Pair)
        if isinstance(pair.key, nodes.Const) and pair.key.value in CAUSES
        for each in pair.value.find_all(nodes.Const)
        if is_text(each.value)
    ]


def in_rules(rules: dict[str, Any]) -> list[str]:
    """The annotations of alerts that are neither what is seen, in a sentence, nor a link."""
    return [
        text
        for group in rules["groups"]
        for rule in group["rules"]
        for name, text in rule["annotations"].items()
        if not re.fullmatch("runbook_url(_ru|_uz)?", name)
        and (not re.fullmatch("summary(_ru|_uz)?", name) or ". " in text or "dhp-gateway " in text)
    ]


DO = r"^\*\*(?:Do|Что делать|Nima qilish kerak)\.\*\* "


def in_runbook(text: str) -> list[str]:
    """The sentences without a link in paragraphs that link to the record of a cause."""
    paragraphs = re.split(r"\n\n+", text)
    told = [re.sub(DO, "", each) for each in paragraphs if re.match(DO, each)]
    return [
        sentence
        for each in told
        if re.search(r"\]\(errors\.[\w.]*#", each)
        for sentence in re.split(r"(?<=[.:)])\s+(?=[A-ZА-ЯЁ`\[])", each)
        if "](" not in sentence and sentence.endswith(".")
    ]


def runs_of(text: str) -> set[str]:
    """All runs of `SHARED_WORDS` words, in small letters, without what marks them."""
    words = re.findall(r"[\w./-]*\w", text.lower().replace("`", ""))
    starts = range(len(words) - SHARED_WORDS + 1)
    return {" ".join(words[start : start + SHARED_WORDS]) for start in starts}


RECORDS = [
    text
    for table in (COMPONENT_GUIDANCE, TOKEN_CAUSES)
    for guidance in table.values()
    for text in (guidance.meaning, guidance.remedy)
] + [*OAUTH_REMEDIES.values()]
RUNS = set().union(*map(runs_of, RECORDS))


def copied(text: str) -> set[str]:
    """The runs of words that a text shares with a record."""
    return runs_of(text) & RUNS


def test_each_reason_and_cause_has_one_record() -> None:
    """Whatever a caller, the status page or the log can name; a code in two tables is one record.

    Only a state in which nothing has to be done has no remedy.
    """
    assert [*REASON_GUIDANCE] == [*REASONS]
    assert {*evidence.FAULTS} <= {*COMPONENT_GUIDANCE}
    assert {*TOKEN_CAUSES} == {*get_args(Cause)}
    for code in {*COMPONENT_GUIDANCE} & {*REASON_GUIDANCE}:
        assert COMPONENT_GUIDANCE[code] is REASON_GUIDANCE[code]
    for code in {*TOKEN_CAUSES} & {*CONNECTION_CAUSES}:
        assert TOKEN_CAUSES[code] is CONNECTION_CAUSES[code]
    assert {*COMPONENT_GUIDANCE} - CAUSES == {"fine", "untried", "token-awaited"}


def test_two_causes_do_not_have_one_text() -> None:
    """Equal meanings would be one cause; those that are one record have one object."""
    records = {id(each): each for each in COMPONENT_GUIDANCE.values()}.values()
    meanings = [each.meaning for each in records]
    assert len({*meanings}) == len(meanings)


def test_code_has_no_second_text() -> None:
    """No module assigns words of its own to a cause, or repeats those of a record."""
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        assert in_code(tree) == [], path
        assert [text for text in messages_in(tree) if copied(text)] == [], path


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_have_no_second_text(path: Path) -> None:
    """Pages show the records."""
    source = path.read_text("utf-8")
    assert in_template(source) == []
    assert copied(source) == set()


def test_alerts_have_no_second_text() -> None:
    """An alert says what is seen, and leads to the runbook."""
    text = RULES.read_text("utf-8")
    assert in_rules(yaml.safe_load(text)) == []
    assert copied(text) == set()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.name)
def test_the_runbook_has_no_second_text(path: Path) -> None:
    """What is to be done about a cause is a link there."""
    text = path.read_text("utf-8")
    assert in_runbook(text) == []
    assert copied(text) == set()
