"""Reads the settings file: YAML 1.2's plain types, no duplicate keys, a line for every key.

YAML 1.1, PyYAML's default, would turn `off` into false and `10:30` into 630.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.problems import MAX_DEPTH, Problem, SettingPath, dotted
from gateway.config.syntax import syntax_problem
from gateway.config.text_file import TextDecodingError, decode, read_bytes
from gateway.i18n import EMPTY_MESSAGE, Message, system_error

MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc] # the base depends on libyaml
    yaml_implicit_resolvers: Final[dict[str, Any]] = {}


_TAG: Final = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("null", r"|~|null|Null|NULL", ["", "~", "n", "N"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class YamlDocument:
    """The content of a file: its `values`, the `lines` of its keys, and the `problems` of its form.

    Values at the `reported_keys` keys must not be reported again.
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
    except TextDecodingError as error:
        return _failed_document(path, error.problem, error.hint)
    return parse_yaml(text, str(path))


_UNREADABLE: Final[dict[type, Message]] = {
    FileNotFoundError: Message("check the path after --config or in DHP_GATEWAY_CONFIG"),
    PermissionError: Message("let the user who runs this read it, or run it as the gateway's user"),
    IsADirectoryError: Message("name the file in it"),
}


def parse_yaml(text: str, name: str) -> YamlDocument:
    """Return the content of a YAML text; `name` stands for it in problems."""
    document = YamlDocument()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        document.problems.append(syntax_problem(name, text, error, _Loader))
        return document
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"):
        return document
    if not isinstance(node, yaml.MappingNode):
        return _failed_document(
            Path(name), Message("is not a group of keys"), Message("begin with e.g. `listen:`")
        )
    _Reader(document).mapping(node, ())
    return document


def _failed_document(path: Path, message: Message, hint: Message) -> YamlDocument:
    return YamlDocument(problems=[Problem(str(path), message, hint)])


class _Reader:
    """Turns nodes into values and records lines, duplicates and unsupported YAML."""

    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        self._open: set[int] = set()

    def mapping(self, node: yaml.MappingNode, path: SettingPath) -> None:
        self._document.values = self._mapping(node, path)

    def _value(self, node: yaml.Node, path: SettingPath) -> Any:
        if id(node) in self._open:
            self._add_problem(
                node, path, Message("refers to itself"), Message("write the value out")
            )
            self._document.reported_keys.append(path)
            return None
        if len(path) > MAX_DEPTH:
            return self._too_deep(node, path[:1])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

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

    def _mapping(self, node: yaml.MappingNode, path: SettingPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add_problem(
                    key_node,
                    path,
                    Message("has a key that is no word"),
                    Message("write `key: value`"),
                )
                continue
            key = str(key_node.value)
            key_path = (*path, key)
            if key in values:
                first = self._document.lines[key_path]
                hint = Message("remove it here or in line {first}", first=first)
                self._add_problem(key_node, key_path, Message("is given twice"), hint)
                continue
            self._document.lines[key_path] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, key_path)
        return values

    def _scalar(self, node: yaml.Node, path: SettingPath) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float"):
            return self._number(text, kind)
        if kind != "str":
            self._add_problem(
                node,
                path,
                Message("has a YAML tag"),
                Message("remove the `!…` in front of the value"),
            )
            self._document.reported_keys.append(path)
        return text

    @staticmethod
    def _number(text: str, kind: str) -> Any:
        # A longer number is a mistake, and Python refuses to parse integers of thousands of digits.
        if len(text) > 30:
            return text
        return int(text) if kind == "int" else float(text)

    def _add_problem(
        self, node: yaml.Node, path: SettingPath, message: Message, hint: Message
    ) -> None:
        where = Message("line {line}", line=node.start_mark.line + 1)
        self._document.problems.append(Problem(dotted(path), message, hint, where))
