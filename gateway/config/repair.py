"""Removes wrong keys and values, so that everything else can still be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from gateway.config.problems import SettingPath
from gateway.config.settings import Settings

_MAX_ROUNDS: Final = 4


def settings_without(values: dict[str, Any], wrong: Sequence[SettingPath]) -> Settings | None:
    """Return settings made of `values` without the wrong ones, None where that fails.

    Missing required keys get a stand-in. The result serves for checking only.
    """
    remaining = copy(values)
    for _ in range(_MAX_ROUNDS):
        for setting in wrong:
            _remove(remaining, setting)
        try:
            return Settings.model_validate(remaining)
        except ValidationError as error:
            entries = error.errors(include_url=False, include_input=False)
        wrong = [entry["loc"] for entry in entries if entry["type"] != "missing"]
        for entry in entries:
            if entry["type"] == "missing":
                _put_placeholder(remaining, entry["loc"])
    return None


def rename(values: dict[str, Any], setting: SettingPath, meant: SettingPath) -> None:
    """Move the value of a misspelled key to the correct key `meant` of the same group."""
    group = value_at(values, setting[:-1])
    group[meant[-1]] = group.pop(setting[-1])


def copy(value: Any) -> Any:
    """Return a copy of dictionaries and lists that can be changed."""
    if isinstance(value, dict):
        return {key: copy(inner) for key, inner in value.items()}
    return [copy(inner) for inner in value] if isinstance(value, list) else value


def _remove(values: dict[str, Any], setting: SettingPath) -> None:
    """Remove a key; for an item of a list the whole list, as the other items would move up."""
    while setting and (isinstance(setting[-1], int) or setting[-1] == "[key]"):
        setting = setting[:-1]
    group = value_at(values, setting[:-1])
    if setting and isinstance(group, dict):
        group.pop(setting[-1], None)


def _put_placeholder(values: dict[str, Any], setting: SettingPath) -> None:
    group: Any = values
    for part in setting[:-1]:
        group = group.setdefault(part, {}) if isinstance(group, dict) else group[part]
    name = str(setting[-1])
    group[name] = "https://missing.invalid" if name.endswith("_url") else "missing"


def value_at(values: Any, setting: SettingPath) -> Any:
    """Return the value at a path, None where there is none."""
    for part in setting:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
