"""Reads settings from environment variables and merges them over those of the file.

The name is `DHP_GATEWAY_` and the path in capitals, with levels joined by `__`. Texts are used
unchanged; numbers and truth values are parsed; lists and groups are JSON. For keys that may be
null, `null` or an empty text means null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.config import shape
from gateway.config.problems import MAX_DEPTH, Problem, SettingPath, closest_word
from gateway.config.settings import Settings
from gateway.i18n import Message
from gateway.nesting import exceeds_depth

PREFIX: Final = "DHP_GATEWAY_"
# Names the settings file for the commands; it is no setting.
CONFIG_VARIABLE: Final = "DHP_GATEWAY_CONFIG"
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(slots=True)
class EnvironmentValues:
    """The settings of the environment.

    `values` by key, `names` of the variables by path, and `problems`.
    """

    values: dict[str, Any] = field(default_factory=dict)
    names: dict[SettingPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def variable_name(path: SettingPath) -> str:
    """Return the environment variable that sets the key at a path."""
    return PREFIX + "__".join(str(part).upper() for part in path)


def has_settings(environ: Mapping[str, str]) -> bool:
    """Return whether any variable sets a setting."""
    return any(name.startswith(PREFIX) and name != CONFIG_VARIABLE for name in environ)


def read_environment(
    environ: Mapping[str, str], file_values: Mapping[str, Any]
) -> EnvironmentValues:
    """Return the settings in `environ`.

    Names of credentials are converted to lower case, unless the file has one that differs only in
    case.
    """
    found = EnvironmentValues()
    # Shorter names first, so that a variable for a key overrides the JSON of its group.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            path = _path(name.removeprefix(PREFIX).split("__"), file_values)
            annotation = shape.annotation_at(path) if path else None
            if annotation is None:
                hint = _nearest(name)
                found.problems.append(Problem(name, Message("names no setting"), hint))
                continue
            value = parse_variable(environ[name], annotation)
            found.names[path] = name
            _put(found.values, path, value)
    return found


def _path(parts: list[str], file_values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the path that a variable's parts name, empty where the schema has no such key."""
    annotation: Any = Settings
    file_group: Any = file_values
    path: list[str] = []
    for part in parts:
        name = part.lower()
        value = shape.value_of_mapping(annotation)
        if value is not None:
            spelled = (
                [key for key in file_group if key.lower() == name]
                if isinstance(file_group, Mapping)
                else []
            )
            name = spelled[0] if spelled else name
        annotation = value if value is not None else shape.fields_of(annotation).get(name)
        if annotation is None or not name or part != part.upper():
            return ()
        file_group = file_group.get(name) if isinstance(file_group, Mapping) else None
        path.append(name)
    return tuple(path)


def parse_variable(text: str, annotation: Any) -> Any:
    """Return the value of a variable's text, or the text itself where it cannot be parsed.

    Validation then reports the expected type.
    """
    if shape.is_optional(annotation) and text in ("", "null"):
        return None
    if shape.is_text(annotation):
        return text
    plain = shape.alternatives(annotation)
    if bool in plain:
        return _FLAGS.get(text.lower(), text)
    if int in plain or float in plain:
        return _number(text, is_integer=int in plain)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if exceeds_depth(value, MAX_DEPTH) else value


def _number(text: str, *, is_integer: bool) -> Any:
    if len(text) > 30 or not text.isascii() or "_" in text:
        return text
    try:
        return int(text) if is_integer else float(text)
    except ValueError:
        return text


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    group = values
    for part in path[:-1]:
        inner = group.get(part)
        if not isinstance(inner, dict):
            inner = group[part] = {}
        group = inner
    group[path[-1]] = value


def _nearest(name: str) -> Message:
    known = [variable_name(path) for path, _ in shape.value_paths()]
    # The name chosen by the operator is between the fixed parts of `credentials.*.client_id`.
    parts = name.split("__")
    free = parts[1] if len(parts) > 2 else "DEFAULT"
    spelled: Iterable[str] = (variable.replace("*", free) for variable in known)
    # The common prefix would make all names similar.
    ends = [variable.removeprefix(PREFIX) for variable in (*spelled, CONFIG_VARIABLE)]
    near = closest_word(name.removeprefix(PREFIX), ends)
    if near is None:
        return Message("see docs/settings.md for the names")
    return Message("did you mean {near}?", near=PREFIX + near)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, group by group; lists are replaced, not joined.

    A secret and its `_file` are one setting in two forms: setting either replaces both.
    """
    merged = dict(base)
    for key in over:
        twin = key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"
        if twin in merged and twin not in over:
            del merged[twin]
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type] # mappings
    return merged
