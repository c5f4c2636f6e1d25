"""Reads settings from environment variables and lays them over those of the file.

`DHP_GATEWAY_` + the path in capitals, levels joined by `__`. Texts are taken as they are; numbers
and truth values are parsed; lists and groups are JSON. For keys that may be null, `null` or nothing
means null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.config import shape
from gateway.config.problems import DEEPEST, Problem, SettingPath, closest_word
from gateway.config.settings import Settings
from gateway.nesting import exceeds_depth
from gateway.phrases import Phrase

PREFIX: Final = "DHP_GATEWAY_"
# Names the settings file for the commands; no setting itself.
CONFIG_VARIABLE: Final = "DHP_GATEWAY_CONFIG"
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(slots=True)
class EnvironmentValues:
    """What the environment says: `values`, the variable's name for each path, and problems."""

    values: dict[str, Any] = field(default_factory=dict)
    names: dict[SettingPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def variable_name(path: SettingPath) -> str:
    """The environment variable that sets the key at a path."""
    return PREFIX + "__".join(str(part).upper() for part in path)


def has_settings(environ: Mapping[str, str]) -> bool:
    """Whether any variable sets something."""
    return any(name.startswith(PREFIX) and name != CONFIG_VARIABLE for name in environ)


def read_environment(
    environ: Mapping[str, str], file_values: Mapping[str, Any]
) -> EnvironmentValues:
    """The settings among `environ`.

    Names of credentials are lower-cased, unless the file spells one the same way but for its case.
    """
    found = EnvironmentValues()
    # Shorter names first, so that a key outranks the JSON of the group it stands in.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            path = _path(name.removeprefix(PREFIX).split("__"), file_values)
            annotation = shape.annotation_at(path) if path else None
            if annotation is None:
                hint = _nearest(name)
                found.problems.append(Problem(name, Phrase("names no setting"), hint))
                continue
            value = parse_variable(environ[name], annotation)
            found.names[path] = name
            _put(found.values, path, value)
    return found


def _path(parts: list[str], file_values: Mapping[str, Any]) -> tuple[str, ...]:
    """The path that a variable's parts spell; empty when there is none."""
    here: Any = Settings
    given: Any = file_values
    path: list[str] = []
    for part in parts:
        name = part.lower()
        value = shape.value_of_mapping(here)
        if value is not None:
            spelled = [k for k in given if k.lower() == name] if isinstance(given, Mapping) else []
            name = spelled[0] if spelled else name
        here = value if value is not None else shape.fields_of(here).get(name)
        if here is None or not name or part != part.upper():
            return ()
        given = given.get(name) if isinstance(given, Mapping) else None
        path.append(name)
    return tuple(path)


def parse_variable(text: str, annotation: Any) -> Any:
    """The value that a variable's text means; the text itself where it cannot be parsed.

    Validation then says what was expected.
    """
    if shape.is_optional(annotation) and text in ("", "null"):
        return None
    if shape.is_text(annotation):
        return text
    plain = shape.alternatives(annotation)
    if bool in plain:
        return _FLAGS.get(text.lower(), text)
    if int in plain or float in plain:
        return _number(text, whole=int in plain)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if exceeds_depth(value, DEEPEST) else value


def _number(text: str, *, whole: bool) -> Any:
    if len(text) > 30 or not text.isascii() or "_" in text:
        return text
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return text


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    here = values
    for part in path[:-1]:
        inner = here.get(part)
        if not isinstance(inner, dict):
            inner = here[part] = {}
        here = inner
    here[path[-1]] = value


def _nearest(name: str) -> Phrase:
    known = [variable_name(path) for path, _ in shape.value_paths()]
    # A free name stands between the two fixed parts of `credentials.*.client_id`.
    parts = name.split("__")
    free = parts[1] if len(parts) > 2 else "DEFAULT"
    spelled: Iterable[str] = (variable.replace("*", free) for variable in known)
    # The prefix that all have would make all of them alike.
    ends = [each.removeprefix(PREFIX) for each in (*spelled, CONFIG_VARIABLE)]
    near = closest_word(name.removeprefix(PREFIX), ends)
    if near is None:
        return Phrase("see docs/settings.md for the names")
    return Phrase("did you mean {near}?", near=PREFIX + near)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top, group by group; lists are replaced, not joined.

    A secret and its `_file` are one setting in two forms: giving either replaces both.
    """
    merged = dict(base)
    for key in over:
        twin = key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"
        if twin in merged and twin not in over:
            del merged[twin]
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type] # both are
    return merged
