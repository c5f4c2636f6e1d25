"""Placeholders of the examples are no values."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.section import is_placeholder
from tests.config.test_loader import problems

WORDS = [
    *("your-client-id", "YOUR_SECRET", "Your secret here", "changeme", "Change-Me!", "changeme123"),
    *("SECRET", "CLIENT_ID", "CLIENT-SECRET", "<client-id>", "<secret>", '"SECRET"', "${SECRET}"),
    *("{{ client_id }}", "xxx", "XXXXXX", "****", "...", "…", "my-client-id", "replace-me", "TODO"),
]


@pytest.mark.parametrize("word", WORDS)
def test_placeholders_are_recognised(word: str) -> None:
    assert is_placeholder(word)


@pytest.mark.parametrize(
    "value",
    [
        *("hospital-17", "hospital-demo", "sandbox-secret", "secret", "client", "a", "yourclinic"),
        *("b2c9…", "x", "xx", '{"kty": "RSA", "n": "0"}', "pass<word", "exchange-me", "s3<c>ret"),
    ],
)
def test_possible_values_are_no_placeholders(value: str) -> None:
    assert not is_placeholder(value)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("credentials: {default: {client_id: your-client-id, client_secret: b}}",
         "credentials.default.client_id", 1),
        ("credentials:\n  default:\n    client_id: a\n    client_secret: changeme",
         "credentials.default.client_secret", 4),
        ("credentials: {default: {client_id: a, client_secret: b}}\n"
         "callers:\n  - {name: lab, api_key: SECRET}", "callers[0].api_key", 3),
        ("credentials: {default: {client_id: a, client_secret: b, scope: <scope>}}",
         "credentials.default.scope", 1),
        ("credentials: {default: {client_id: a, client_secret: b}}\n"
         "login: {client_id: <client-id>}", "login.client_id", 2),
    ],
)  # fmt: skip
def test_a_placeholder_is_a_problem_of_its_setting(
    tmp_path: Path, text: str, key: str, line: int
) -> None:
    (problem,) = problems(tmp_path, text).values()
    assert (problem.key, problem.source) == (key, f"line {line}")
    assert problem.message == "is still the example's placeholder"
