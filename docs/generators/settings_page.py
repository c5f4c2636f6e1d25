"""The documents generated from the schema: docs/settings.md and config/reference.yaml."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

from docs.generators.translation import Translation, wrapped
from gateway.config import settings_schema
from gateway.config.problems import SettingPath, dotted
from gateway.config.section import Section
from gateway.config.settings import PRESETS, Settings
from gateway.config.value_types import Unit

# The name of the page's catalogues.
NAME: Final = "settings_page"


class ReferenceTexts(NamedTuple):
    """The prose of the page in Markdown, and the translation of all other texts."""

    introduction: str
    keys: str
    top_level: str
    required: str
    by_environment: str
    list_of: str
    mapping_to: str
    alternative: str
    translation: Translation


_ENGLISH: Final = {
    "introduction": """\
# Settings

Made from the schema by `make docs`; do not edit.

The gateway reads a YAML file: that of `--config`, otherwise of the variable `DHP_GATEWAY_CONFIG`,
otherwise `/etc/dhp-gateway/gateway.yaml`, otherwise `./gateway.yaml`. Environment variables replace
single keys. An unknown key or variable is an error. `dhp-gateway check` opens no connection and
prints every problem at once; its exit code is 2 if there is one. Warnings change no exit code.

* Durations are seconds. Sizes are bytes: integers, or texts with `B`, `kB`, `MB`, `GB`, `KiB`,
  `MiB` or `GiB`, such as `16MiB`.
* The variable of a key is `DHP_GATEWAY_` and the key in capitals, with two underscores for a dot:
  `DHP_GATEWAY_LISTEN__BASE_PATH` for `listen.base_path`,
  `DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID` for `credentials.default.client_id`. A list has one
  variable for all its entries: `DHP_GATEWAY_ADMIN__OPERATORS` for `admin.operators`.
* The value of a variable is parsed for numbers and `true`/`false`, and as JSON for lists and
  groups. For keys that may be null, `null` or an empty value means null.
* Any secret `x` may be given as `x_file`: the path of a file, of which a final line break is
  ignored. An environment variable for either replaces both of the file.
* Relative paths start in the directory in which the gateway is started.

`environment` sets the URLs below. `dhp-playground` and `dhp-production` are the platform of today's
guide. `playground` and `production` are addresses of guide 0.1.0, which are not used any more:
`check`, `doctor` and the start warn of them. Each environment has its own clients: an SSO answers
`invalid_client` to those of another one. `custom`, the default, sets none, so that no secret goes
to an address that was not chosen.

| environment | `platform.fhir_base_url` | `sso.token_url` | `sso.authorize_url` |
| --- | --- | --- | --- |
""",
    "keys": "Behind each key, in parentheses: its type; its default. A default of null means: not "
    "set.",
    "top_level": "Top level",
    "required": "required",
    "by_environment": "by `environment`",
    "list_of": "list of {}",
    "mapping_to": "mapping of name to {}",
    "alternative": "{} or {}",
}


@cache
def words_of(language: str) -> ReferenceTexts:
    """Return the prose in a language."""
    translation = Translation(NAME, language)
    return ReferenceTexts(
        **{name: translation(text) for name, text in _ENGLISH.items()}, translation=translation
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One key, as the documents show it. `default` is `...` where the key is required."""

    setting: SettingPath
    annotation: Any
    default: Any
    meaning: str

    @property
    def name(self) -> str:
        return str(self.setting[-1])


def markdown(language: str = "en") -> str:
    """Return docs/settings.md: a list for each group of keys."""
    words = words_of(language)
    parts = [words.introduction + "".join(f"{line}\n" for line in _presets()) + f"\n{words.keys}\n"]
    for setting, section in _groups(Settings, ()):
        rows = [row for row in _rows(section, setting) if not _is_group(row)]
        if rows:
            name = _shown(setting)
            heading = f"## `{name}`" if setting else f"## {words.top_level}"
            meaning = words.translation((section.__doc__ or "").splitlines()[0], name)
            items = "".join(f"{_item(row, words)}\n" for row in rows)
            parts.append(f"{heading}\n\n{meaning}\n\n{items}")
    return "\n".join(parts)


def reference_yaml() -> str:
    """Return config/reference.yaml: every key with its default and its meaning."""
    head = [
        "# Every setting of DHP Gateway with its default and its meaning.",
        "# Made from the schema by `make docs`; do not edit, copy what you need.",
        "# Durations are seconds; sizes are bytes or texts such as 16MiB.",
        "",
    ]
    return "\n".join([*head, *_yaml_group(Settings, ())]) + "\n"


def format_size(size: int) -> str:
    """Return the shortest exact notation of a number of bytes, as settings may have it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _presets() -> Iterator[str]:
    for name, preset in PRESETS.items():
        urls = {**preset["platform"], **preset["sso"]}
        cells = [
            f"`{urls[key]}`" if key in urls else "–"
            for key in ("fhir_base_url", "token_url", "authorize_url")
        ]
        yield f"| `{name}` | {' | '.join(cells)} |"


def _groups(
    section: type[Section], setting: SettingPath
) -> Iterator[tuple[SettingPath, type[Section]]]:
    yield setting, section
    for row in _rows(section, setting):
        if (inner := _inner(row)) is not None:
            yield from _groups(inner[1], inner[0])


def _inner(row: _Row) -> tuple[SettingPath, type[Section]] | None:
    """Return the group that a key holds, directly, under free names or as a list's item."""
    if (value := settings_schema.value_of_mapping(row.annotation)) is not None:
        found, setting = settings_schema.section_of(value), (*row.setting, "*")
    elif (item := settings_schema.item_of_list(row.annotation)) is not None:
        found, setting = settings_schema.section_of(item), (*row.setting, 0)
    else:
        found, setting = settings_schema.section_of(row.annotation), row.setting
    return (setting, found) if found is not None else None


def _is_group(row: _Row) -> bool:
    return settings_schema.section_of(
        row.annotation
    ) is not None and not settings_schema.is_optional(row.annotation)


def _rows(section: type[Section], setting: SettingPath) -> Iterator[_Row]:
    for name, field in section.model_fields.items():
        default = ... if field.is_required() else field.get_default(call_default_factory=True)
        annotation = field.rebuild_annotation()
        yield _Row((*setting, name), annotation, default, field.description or "")


def _shown(setting: SettingPath) -> str:
    """Return the name of a group or key on the page."""
    parts = [{"*": "<name>"}.get(str(part), part) for part in setting]
    return ".".join(str(part) for part in parts).replace(".0", "[]")


def _item(row: _Row, words: ReferenceTexts) -> str:
    """Return a key as an item of a list: its name, type, default and meaning."""
    group = str(row.setting[0])
    by_environment = any(row.name in preset.get(group, {}) for preset in PRESETS.values())
    default = words.by_environment if by_environment else _default(row, words)
    meaning = words.translation(row.meaning, _shown(row.setting))
    kind = _type(_required_type(row), words)
    return wrapped(f"* `{row.name}` ({kind}; {default}): {meaning}", "  ")


def _required_type(row: _Row) -> Any:
    """Return the type without null if null is the default, which shows that it is possible."""
    arguments = get_args(row.annotation)
    if row.default is None and arguments[1:] == (type(None),):
        return arguments[0]
    return row.annotation


def _default(row: _Row, words: ReferenceTexts) -> str:
    return words.required if row.default is ... else f"`{_scalar(row)}`"


def _type(annotation: Any, words: ReferenceTexts) -> str:
    """Return the type in words: `seconds`, `list of URL`, `on` or `off`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        name = _unit(annotation)
        return words.translation(name) if name else _type(arguments[0], words)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return words.list_of.format(_type(arguments[0], words))
    if origin is dict:
        return words.mapping_to.format(_type(arguments[1], words))
    if arguments:
        return words.alternative.format(*(_type(part, words) for part in arguments))
    name = _plain(annotation)
    return words.translation(name)


def _unit(annotation: Any) -> str:
    """Return the name of the key's value type, empty where the Python type is sufficient."""
    parts = get_args(annotation) if get_origin(annotation) is Annotated else ()
    return next((part.name for part in parts[1:] if isinstance(part, Unit)), "")


def _plain(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "group"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, "null")


def _scalar(row: _Row) -> str:
    """Return the default in YAML."""
    value = row.default
    if _unit(row.annotation) == "bytes":
        return format_size(value)
    if isinstance(value, tuple | list):
        return json.dumps(list(value))
    if value is None or isinstance(value, bool | dict):
        return json.dumps(value)
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9_./:@-]+", text) else json.dumps(text)


# Examples of the reference for keys that are required, or in a group of optional keys only.
_EXAMPLES: Final[dict[str, str]] = {
    "platform.fhir_base_url": "https://playground.dhp.uz/fhir",
    "sso.token_url": "https://playground.dhp.uz/sso/oauth/token",
    "credentials.*.client_id": "hospital-17",
    "credentials.*.client_secret_file": "/run/secrets/dhp_client_secret",
    "admin.operators[0].name": "dilnoza",
    "callers[0].name": "lab",
    "callers[0].basic_auth.username": "lab",
}


def _yaml_group(section: type[Section], setting: SettingPath) -> Iterator[str]:
    for row in _rows(section, setting):
        yield from _yaml_key(row)
        if not setting:
            yield ""


def _yaml_key(row: _Row) -> Iterator[str]:
    indent = "  " * (len(row.setting) - 1)
    width = 98 - len(indent)
    for line in textwrap.wrap(row.meaning, width, break_on_hyphens=False, break_long_words=False):
        yield f"{indent}# {line}"
    inner = _inner(row)
    if inner is None:
        example = _EXAMPLES.get(dotted(row.setting))
        yield f"{indent}{row.name}: {example or _scalar(row)}"
    elif isinstance(inner[0][-1], int):
        yield f"{indent}{row.name}: []"
        yield f"{indent}# An entry with every key:"
        yield from _as_comment(_list_entry(inner[1], inner[0]))
    else:
        yield f"{indent}{row.name}:"
        if inner[0][-1] == "*":
            yield f"{indent}  default:"
        yield from _yaml_group(inner[1], inner[0])


def _list_entry(section: type[Section], setting: SettingPath) -> Iterator[str]:
    yield "  " * (len(setting) - 1) + "-"
    yield from _yaml_group(section, setting)


def _as_comment(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"# {line}"
