"""Texts of problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.problems import Problem
from tests.config.test_loader import CREDENTIALS, problems


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("listen on 127.0.0.1", "Listen on 127.0.0.1."),
        ("did you mean address?", "Did you mean address?"),
        ("shorten it", "Shorten it."),
        ("http:// is for loopback hosts only", "http:// is for loopback hosts only."),
        ("audit.sink: file writes there", "audit.sink: file writes there."),
        ("environment: custom fills in no URLs", "environment: custom fills in no URLs."),
        ("callers[0] has the same name", "callers[0] has the same name."),
        ("auth_method private_key_jwt needs it", "auth_method private_key_jwt needs it."),
    ],
)
def test_keys_and_urls_keep_their_case(hint: str, shown: str) -> None:
    assert str(Problem("key", "is wrong", hint)) == f"key: is wrong. {shown}"


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "a: 1\n\tb: 2\n", "a:\n  \tb: {\n"])
def test_a_tab_is_named_as_the_cause(tmp_path: Path, text: str) -> None:
    """A tab and spaces look the same on the screen, so that the message names the tab."""
    (problem,) = problems(tmp_path, text).values()
    assert problem.message == "is not valid YAML: a tab stands before the key"
    assert "spaces" in problem.hint
    assert problem.source.startswith("line 2") or text.endswith("{\n")


def test_the_signs_that_yaml_expected_are_shown(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "a: [1, 2\nb: 3\n").values()
    assert problem.message == "is not valid YAML: did not find expected ',' or ']'"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("environment: playgrund\n", "environment", "did you mean playground?"),
        ("environment: test\n", "environment", "choose one of them"),
        ("log: {level: warn}\n", "log.level", "did you mean warning?"),
        ("bogus: 1\n", "bogus", "known here: "),
        ("listen: {port: 8080}\n", "listen.port", "known here: "),
    ],
)
def test_only_similar_names_are_suggested(tmp_path: Path, text: str, key: str, hint: str) -> None:
    assert problems(tmp_path, CREDENTIALS + text)[key].hint.startswith(hint)


@pytest.mark.parametrize("name", ["DHP_GATEWAY_FOO", "DHP_GATEWAY_PORT"])
def test_the_prefix_of_variables_does_not_make_them_similar(tmp_path: Path, name: str) -> None:
    hint = problems(tmp_path, CREDENTIALS, {name: "1"})[name].hint
    assert hint.startswith("see docs/settings.md")


def test_a_variable_gets_no_hint_about_quotes(tmp_path: Path) -> None:
    variable = {"DHP_GATEWAY_LIMITS__MAX_HEADERS": "many"}
    found = problems(tmp_path, CREDENTIALS, variable)["limits.max_headers"]
    assert (found.message, found.hint) == ("must be a whole number", "")
    found = problems(tmp_path, f"{CREDENTIALS}limits: {{max_headers: many}}")["limits.max_headers"]
    assert "quotes" in found.hint
