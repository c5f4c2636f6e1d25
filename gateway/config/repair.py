"""Takes wrong keys and values out, so that everything else can still be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from gateway.config.problems import SettingPath
from gateway.config.settings import Settings

_MAX_ROUNDS: Final = 4


def settings_without(values: dict[str, Any], wrong: Sequence[SettingPath]) -> Settings | None:
    """Settings made of `values` less the wrong ones; None when that does not succeed.

    Required keys that are missing get a stand-in. The result serves for checking only.
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
    """Puts what stands under a misspelled key under the one that was meant, beside it."""
    group = at(values, setting[:-1])
    group[meant[-1]] = group.pop(setting[-1])


def copy(value: Any) -> Any:
    """Values of their own, to be changed."""
    if isinstance(value, dict):
        return {key: copy(inner) for key, inner in value.items()}
    return [copy(inner) for inner in value] if isinstance(value, list) else value


def _remove(values: dict[str, Any], setting: SettingPath) -> None:
    """Takes a key out; for an item of a list the whole list, as the others would move up."""
    while setting and (isinstance(setting[-1], int) or setting[-1] == "[key]"):
        setting = setting[:-1]
    group = at(values, setting[:-1])
    if setting and isinstance(group, dict):
        group.pop(setting[-1], None)


def _put_placeholder(values: dict[str, Any], setting: SettingPath) -> None:
    here: Any = values
    for part in setting[:-1]:
        here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
    name = str(setting[-1])
    here[name] = "https://missing.invalid" if name.endswith("_url") else "missing"


def at(values: Any, setting: SettingPath) -> Any:
    """What stands under a key; None where there is none."""
    for part in setting:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
