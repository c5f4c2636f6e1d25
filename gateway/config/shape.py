"""Queries of the schema by path: which keys exist and what kind of value is expected.

The loader uses it for suggestions and to read environment variables.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from gateway.config.problems import SettingPath
from gateway.config.section import Section
from gateway.config.settings import Settings
from gateway.config.values import ListenAddress, Network
from gateway.secret import Secret

_TEXTS: Final = frozenset({str, Path, Secret, ListenAddress, *get_args(Network)})


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


def is_text(annotation: Any) -> bool:
    """Return whether the value is written as text."""
    return any(plain in _TEXTS for plain in alternatives(annotation))


def is_optional(annotation: Any) -> bool:
    """Return whether null is allowed."""
    return types.NoneType in alternatives(annotation)


def section_of(annotation: Any) -> type[Section] | None:
    """Return the group of settings that the annotation stands for, None for other types."""
    for plain in alternatives(annotation):
        if isinstance(plain, type) and issubclass(plain, Section):
            return plain
    return None


def value_of_mapping(annotation: Any) -> Any | None:
    """Return the type of the values of a mapping with free keys, None for other types."""
    for plain in alternatives(annotation):
        if get_origin(plain) is dict:
            return get_args(plain)[1]
    return None


def item_of_list(annotation: Any) -> Any | None:
    """Return the type of a list's items, None for other types."""
    for plain in alternatives(annotation):
        if get_origin(plain) is tuple:
            return get_args(plain)[0]
    return None


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
