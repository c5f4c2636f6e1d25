"""The admin address is found beside wrong settings too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config.loader import SettingsError, load_admin_address

VARIABLE = "DHP_GATEWAY_ADMIN__ADDRESS"


def found(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    file = tmp_path / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return str(load_admin_address(file, environ or {}))


def test_the_environment_outranks_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    text = "admin: {address: 127.0.0.1:1}\n"
    assert found(tmp_path, text, {VARIABLE: "127.0.0.1:2"}) == "127.0.0.1:2"
    assert found(tmp_path, text) == "127.0.0.1:1"
    assert found(tmp_path, "") == "127.0.0.1:9464"
    assert str(load_admin_address(None, {})) == "127.0.0.1:9464"


@pytest.mark.parametrize(
    "text",
    [
        "bogus: 1\nadmin: {address: unix:/run/a.sock}\nlog: {level: loud}\n",
        "admin: {adress: x, address: unix:/run/a.sock}\n",
    ],
    ids=["unknown keys", "a sibling"],
)
def test_a_wrong_file_still_gives_the_address(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text, {"DHP_GATEWAY_NONE": "1"}) == "unix:/run/a.sock"


@pytest.mark.parametrize("text", ["admin: {address: nowhere}\n", "admin: 7\n"])
def test_an_unusable_address_gives_the_default(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text, {VARIABLE: "nowhere"}) == "127.0.0.1:9464"


@pytest.mark.parametrize("text", ["admin: [\n", "- a", "admin: {address: 'never ended\n", None])
def test_an_unreadable_file_is_a_problem_without_the_variable(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "gateway.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"gateway\.yaml"):
        load_admin_address(tmp_path / "gateway.yaml", {})
    with_variable = load_admin_address(tmp_path / "gateway.yaml", {VARIABLE: "127.0.0.1:2"})
    assert str(with_variable) == "127.0.0.1:2"
