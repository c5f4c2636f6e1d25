"""Reads settings from a YAML file and from environment variables, and merges the two.

Plain values in the file have the types of YAML 1.2: YAML 1.1, PyYAML's default, would turn `off`
into false and `10:30` into 630. Duplicate keys are problems. The line of each key is recorded. A
syntax error is reported at the parser's position; the mistake may be above it.

The name of a variable is `DHP_GATEWAY_` and the path in capitals, with levels joined by `__`. Texts
are used unchanged; numbers and booleans are parsed; lists and groups are JSON. For keys that may be
null, `null` or an empty text means null. Variables override the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config import settings_schema
from gateway.config.problems import (
    MAX_DEPTH,
    InvalidValueError,
    Problem,
    SettingPath,
    closest_word,
    dotted,
)
from gateway.config.settings import Settings
from gateway.config.text_files import decode, read_bytes
from gateway.document_limits import exceeds_depth
from gateway.i18n import EMPTY_MESSAGE, Message, system_error

PREFIX: Final = "DHP_GATEWAY_"
# Names the settings file for the commands; it is no setting.
CONFIG_VARIABLE: Final = "DHP_GATEWAY_CONFIG"
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


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

    The name of a credential is taken from the file, or from the JSON of its group, if that has one
    that differs only in case, and is in lower case otherwise.
    """
    found = EnvironmentValues()
    # Shorter names first, so that a variable for a key overrides the JSON of its group.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            values = merge(file_values, found.values)
            path = _path(name.removeprefix(PREFIX).split("__"), values)
            annotation = settings_schema.annotation_at(path) if path else None
            if annotation is None:
                hint = _suggestion(name)
                found.problems.append(Problem(name, Message("is not the name of a setting"), hint))
                continue
            value = _parse_variable(environ[name], annotation)
            found.names[path] = name
            _set_value(found.values, path, value)
    return found


def _path(parts: list[str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the path that a variable's parts name, empty where the schema has no such key.

    `values` are those known so far, whose names in mappings are used as they are spelled there.
    """
    annotation: Any = Settings
    group: Any = values
    path: list[str] = []
    for part in parts:
        name = part.lower()
        # Of a mapping such as `credentials`, whose keys are chosen by the operator.
        item_type = settings_schema.value_of_mapping(annotation)
        if item_type is not None:
            known = (
                *(group if isinstance(group, Mapping) else ()),
                *settings_schema.names_of_mapping(annotation),
            )
            name = next((key for key in known if key.lower() == name), name)
        annotation = (
            settings_schema.fields_of(annotation).get(name) if item_type is None else item_type
        )
        if annotation is None or not name or part != part.upper():
            return ()
        group = group.get(name) if isinstance(group, Mapping) else None
        path.append(name)
    return tuple(path)


def _parse_variable(text: str, annotation: Any) -> Any:
    """Return the value of a variable's text, or the text itself where it cannot be parsed.

    Validation then reports the expected type.
    """
    if settings_schema.is_optional(annotation) and text in ("", "null"):
        return None
    types = settings_schema.alternatives(annotation)
    if any(each in settings_schema.TEXTS for each in types):
        return text
    if bool in types:
        return _BOOLEANS.get(text.lower(), text)
    if int in types or float in types:
        return _number(text, is_integer=int in types)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if exceeds_depth(value, MAX_DEPTH) else value


def _number(text: str, *, is_integer: bool) -> Any:
    # A longer number is a mistake, and Python refuses to parse integers of thousands of digits.
    if len(text) > 30 or not text.isascii() or "_" in text:
        return text
    try:
        return int(text) if is_integer else float(text)
    except ValueError:
        return text


def _set_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    group = values
    for part in path[:-1]:
        inner = group.get(part)
        if not isinstance(inner, dict):
            inner = group[part] = {}
        group = inner
    group[path[-1]] = value


def _suggestion(name: str) -> Message:
    """Return a hint for an unknown variable: the most similar name of a setting, if any."""
    group = name
    while group := group.rpartition("__")[0]:
        path = _path(group.removeprefix(PREFIX).split("__"), {})
        # The entries of a list have no variables of their own.
        if path and settings_schema.item_of_list(settings_schema.annotation_at(path)) is not None:
            return Message("did you mean {near}?", near=group)
    known = [variable_name(path) for path, _ in settings_schema.value_paths()]
    # The name chosen by the operator is between the fixed parts of `credentials.*.client_id`.
    parts = name.split("__")
    chosen = parts[1] if len(parts) > 2 else "DEFAULT"
    spelled: Iterable[str] = (variable.replace("*", chosen) for variable in known)
    # The common prefix would make all names similar.
    ends = [variable.removeprefix(PREFIX) for variable in (*spelled, CONFIG_VARIABLE)]
    near = closest_word(name.removeprefix(PREFIX), ends)
    if near is None:
        return Message("see docs/settings.md for the names")
    return Message("did you mean {near}?", near=PREFIX + near)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, group by group; lists are replaced, not joined.

    A secret and its `_file` are one setting in two forms: either in `over` replaces both in `base`.
    """
    merged = dict(base)
    for key in over:
        other_form = key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"
        if other_form in merged and other_form not in over:
            del merged[other_form]
    for key, value in over.items():
        old = merged.get(key)
        are_groups = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if are_groups else value  # type: ignore[arg-type] # groups
    return merged


# Where YAML begins a new line; Python's splitlines() splits at more characters.
_LINE_BREAK: Final = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
# A character that YAML forbids. Compiled only for a file with an error: that takes 5 ms.
_FORBIDDEN: Final = r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_SYNTAX_HINT: Final = Message("check indentation, colons and quotes there")
# Contexts of PyYAML's errors in which a token was not closed: `context_mark` is where it begins.
_UNCLOSED: Final = ("while scanning a simple key", "while scanning a quoted scalar")


def _syntax_problem(name: str, text: str, error: yaml.YAMLError) -> Problem:
    """Return the problem of the file `name`; `error` was raised when its text was parsed."""
    if forbidden := re.search(_FORBIDDEN, text):
        where = Message("line {line}", line=len(_LINE_BREAK.split(text[: forbidden.start()])))
        return Problem(
            name,
            Message("contains a character that is not text"),
            Message("delete the invisible character there; {look}", look=_SYNTAX_HINT),
            where,
        )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Problem(name, Message("is not valid YAML"), Message("save it as plain text"))
    lines = _LINE_BREAK.split(text)
    if mark.line < len(lines) and re.match(r" *\t", lines[mark.line]):
        return Problem(
            name,
            Message("is not valid YAML: a tab stands before the key"),
            Message("indent with spaces; YAML accepts no tabs there"),
            Message("line {line}", line=mark.line + 1),
        )
    parser_message = _QUOTED.sub(_mask_quoted, getattr(error, "problem", None) or "")
    what = Message.external(parser_message, Message("not readable"))
    if (getattr(error, "context", None) or "").startswith(_UNCLOSED):
        mark = getattr(error, "context_mark", None) or mark
    hint = Message("{look}, and whether a bracket was left open above", look=_SYNTAX_HINT)
    where = Message("line {line}, column {column}", line=mark.line + 1, column=mark.column + 1)
    return Problem(name, Message("is not valid YAML: {what}", what=what), hint, where)


_QUOTED: Final = re.compile(r"(['\"])(.*?)\1")


def _mask_quoted(quoted: re.Match[str]) -> str:
    """Mask quoted text: PyYAML's messages may quote a part of a secret. One character is shown."""
    return quoted[0] if len(quoted[2]) == 1 else "…"


MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_YamlLoader):  # type: ignore[misc] # the base depends on libyaml
    # Without the resolvers of YAML 1.1. Those of `_PLAIN_FORMS` are added below.
    yaml_implicit_resolvers: Final[dict[str, Any]] = {}


_YAML_TAG: Final = "tag:yaml.org,2002:"
# How a plain value of each type is written, and the characters that it may begin with.
_PLAIN_FORMS: Final = {
    "null": (re.compile(r"^(?:|~|null|Null|NULL)$"), ["", "~", "n", "N"]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    "float": (
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
}
for _kind, _form in _PLAIN_FORMS.items():
    _Loader.add_implicit_resolver(_YAML_TAG + _kind, *_form)


@dataclass(slots=True)
class YamlDocument:
    """The content of a file: its `values`, the `lines` of its keys, and `problems` of its syntax.

    `reported_keys` are keys with such a problem, whose values must not be reported again.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[SettingPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    reported_keys: list[SettingPath] = field(default_factory=list)


def read_yaml(path: Path) -> YamlDocument:
    """Return the file's content; everything that is wrong with it is in `problems`."""
    try:
        content = read_bytes(path, MAX_FILE_BYTES)
    except OSError as error:
        why = system_error(error, Message("unknown"))
        return _failed_document(
            path,
            Message("cannot be read: {why}", why=why),
            _UNREADABLE.get(type(error), EMPTY_MESSAGE),
        )
    if len(content) > MAX_FILE_BYTES:
        return _failed_document(
            path, Message("is larger than 4 MiB"), Message("is it the right file?")
        )
    try:
        text = decode(content)
    except InvalidValueError as error:
        return _failed_document(path, error.message, error.hint)
    return parse_yaml(text, str(path))


_UNREADABLE: Final[dict[type, Message]] = {
    FileNotFoundError: Message("check the path after --config or in DHP_GATEWAY_CONFIG"),
    PermissionError: Message(
        "let the user who runs this command read it, or run it as the gateway's user"
    ),
    IsADirectoryError: Message("name the file in it"),
}


def parse_yaml(text: str, name: str) -> YamlDocument:
    """Return the content of a YAML text; `name` stands for it in problems."""
    document = YamlDocument()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(name, text, error))
        return document
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{_YAML_TAG}null"):
        return document
    if not isinstance(node, yaml.MappingNode):
        return _failed_document(
            Path(name), Message("is not a group of keys"), Message("begin with e.g. `listen:`")
        )
    document.values = _NodeReader(document).mapping(node, ())
    return document


def _failed_document(path: Path, message: Message, hint: Message) -> YamlDocument:
    return YamlDocument(problems=[Problem(str(path), message, hint)])


class _NodeReader:
    """Converts YAML nodes to values. Records lines, duplicate keys and unsupported YAML."""

    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        self._ancestors: set[int] = set()  # ids of the nodes around the one that is read

    def _value(self, node: yaml.Node, path: SettingPath) -> Any:
        if id(node) in self._ancestors:
            self._add_problem(
                node, path, Message("refers to itself"), Message("write the complete value")
            )
            self._document.reported_keys.append(path)
            return None
        if len(path) > MAX_DEPTH:
            return self._too_deep(node, path[:1])
        self._ancestors.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._ancestors.discard(id(node))

    def _item(self, node: yaml.Node, path: SettingPath) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self._value(node, path)

    def _too_deep(self, node: yaml.Node, key: SettingPath) -> None:
        if key not in self._document.reported_keys:
            self._add_problem(
                node,
                key,
                Message("is nested too deeply"),
                Message("see docs/settings.md for its form"),
            )
            self._document.reported_keys.append(key)

    def mapping(self, node: yaml.MappingNode, path: SettingPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add_problem(
                    key_node,
                    path,
                    Message("has a key that is not a word"),
                    Message("write `key: value`"),
                )
                continue
            key = str(key_node.value)
            key_path = (*path, key)
            if key in values:
                first = self._document.lines[key_path]
                self._add_problem(
                    key_node,
                    key_path,
                    Message("is set twice"),
                    Message("remove it here or in line {first}", first=first),
                )
                continue
            self._document.lines[key_path] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, key_path)
        return values

    def _scalar(self, node: yaml.Node, path: SettingPath) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_YAML_TAG)
        if kind == "str":
            return text
        # An explicit tag such as `!!int` need not fit the value.
        if kind not in _PLAIN_FORMS or not _PLAIN_FORMS[kind][0].match(text):
            self._add_problem(
                node,
                path,
                Message("has a YAML tag"),
                Message("remove the `!…` in front of the value"),
            )
            self._document.reported_keys.append(path)
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        return _number(text, is_integer=kind == "int")

    def _add_problem(
        self, node: yaml.Node, path: SettingPath, message: Message, hint: Message
    ) -> None:
        where = Message("line {line}", line=node.start_mark.line + 1)
        self._document.problems.append(Problem(dotted(path), message, hint, where))
