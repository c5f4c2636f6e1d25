"""What the schema of the settings says of a key, and the JSON Schema of the settings file.

Queries by path return which keys exist and what kind of value is expected. The loader uses them for
suggestions and to read environment variables. The JSON Schema is for editors and for `dhp-gateway
schema`. It does not express the rules between keys.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from gateway.config.problems import SettingPath
from gateway.config.section import Section
from gateway.config.setting_urls import DatabaseLocation, StoreLocation
from gateway.config.settings import Settings
from gateway.config.value_types import ListenAddress, Network, ResourceType
from gateway.fhir.vocabulary import RESOURCE_TYPES
from gateway.secret import Secret

# The types of values that are written as text.
TEXTS: Final = frozenset({str, Path, Secret, ListenAddress, *get_args(Network)})


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the plain types of a field's annotation, including `NoneType`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(plain for part in get_args(annotation) for plain in alternatives(part))
    if origin is Literal:
        return (str,)
    return (annotation,)


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the words that a value must be one of, empty for other types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is Annotated:
        return choices(get_args(annotation)[0])
    return ()


def is_optional(annotation: Any) -> bool:
    """Return whether null is allowed."""
    return types.NoneType in alternatives(annotation)


def section_of(annotation: Any) -> type[Section] | None:
    """Return the group of settings that the annotation stands for, None for other types."""
    sections = (
        plain
        for plain in alternatives(annotation)
        if isinstance(plain, type) and issubclass(plain, Section)
    )
    return next(sections, None)


def value_of_mapping(annotation: Any) -> Any | None:
    """Return the type of the values of a mapping with free keys, None for other types."""
    values = (get_args(plain)[1] for plain in alternatives(annotation) if get_origin(plain) is dict)
    return next(values, None)


def names_of_mapping(annotation: Any) -> Collection[str]:
    """Return the names that a mapping's keys must be among, empty where they are free."""
    names = (get_args(plain)[0] for plain in alternatives(annotation) if get_origin(plain) is dict)
    return RESOURCE_TYPES if ResourceType in names else ()


def item_of_list(annotation: Any) -> Any | None:
    """Return the type of a list's items, None for other types."""
    items = (get_args(plain)[0] for plain in alternatives(annotation) if get_origin(plain) is tuple)
    return next(items, None)


def fields_of(annotation: Any) -> dict[str, Any]:
    """Return the keys of a group with their annotations, empty for other types."""
    section = section_of(annotation)
    if section is None:
        return {}
    return {name: field.rebuild_annotation() for name, field in section.model_fields.items()}


def annotation_at(path: SettingPath) -> Any | None:
    """Return the annotation at a path, None where the schema has no such key."""
    annotation: Any = Settings
    for part in path:
        if isinstance(part, int):
            annotation = item_of_list(annotation)
        elif (value := value_of_mapping(annotation)) is not None:
            annotation = value
        else:
            annotation = fields_of(annotation).get(part)
        if annotation is None:
            return None
    return annotation


def value_paths(
    annotation: Any = Settings, path: SettingPath = ()
) -> Iterator[tuple[SettingPath, Any]]:
    """Yield every key that holds a value, with `*` for free names; lists count as values."""
    fields = fields_of(annotation)
    if fields:
        for name, inner in fields.items():
            yield from value_paths(inner, (*path, name))
    elif (value := value_of_mapping(annotation)) is not None and section_of(value):
        yield from value_paths(value, (*path, "*"))
    else:
        yield path, annotation


# Filled in by `environment`, so that the file may omit them.
_IMPLIED = {
    "Settings": ("platform", "sso"),
    "PlatformSettings": ("fhir_base_url",),
    "SsoSettings": ("token_url",),
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) with descriptions, defaults and closed lists of values.

    It cannot express everything: `dhp-gateway check` also applies the rules between keys.
    """
    schema = Settings.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    for name, definition in (*definitions.items(), ("Settings", schema)):
        _without_implied(definition, _IMPLIED.get(name, ()))
        for field in definition["properties"].values():
            _write_out_address(field)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "DHP Gateway settings",
        "description": "What `dhp-gateway run --config FILE` reads.",
        "$defs": definitions,
    }


def _without_implied(definition: dict[str, Any], implied: tuple[str, ...]) -> None:
    required = [key for key in definition.pop("required", []) if key not in implied]
    if required:
        definition["required"] = required


def _write_out_address(field: dict[str, Any]) -> None:
    # Pydantic writes the default of a dataclass as an object; the settings file has a text. A key
    # that only one of the dataclasses has shows which it is.
    if not isinstance(default := field.get("default"), dict):
        return
    if "ssl_mode" in default:
        field["default"] = str(DatabaseLocation(**default))
    elif "kind" in default:
        field["default"] = str(StoreLocation(**default))
    elif "port" in default:
        field["default"] = str(ListenAddress(**default))
