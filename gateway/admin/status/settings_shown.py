"""The settings in force for display, with secrets and values of unknown types masked.

A value whose type is not listed here is masked, so that a new kind of setting reveals nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.config import ListenAddress, Settings
from gateway.config.database_url import DatabaseLocation
from gateway.config.section import Section
from gateway.config.store_url import StoreLocation
from gateway.secret import MASK

# Parameters of token requests can hold anything, secrets included.
_UNKNOWN: Final = frozenset({"extra_params"})
_LOCATIONS: Final = (StoreLocation, DatabaseLocation)
_PLAIN: Final = (str, Path, ListenAddress, Enum, IPv4Network, IPv6Network)

VisibleSetting = str | int | float | bool


def visible_settings(settings: Settings) -> dict[str, VisibleSetting]:
    """Return every key that has a value, in dotted notation, with the value or a mask."""
    return dict(_section("", settings))


def url_without_secrets(url: str) -> str:
    """Return scheme, host, port and path of a URL; its other parts may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _section(prefix: str, section: Section) -> Iterator[tuple[str, VisibleSetting]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if value is None:
            continue
        key = f"{prefix}{name}"
        if name in _UNKNOWN:
            if value:
                yield key, MASK
        else:
            yield from _value(key, value)


def _value(key: str, value: Any) -> Iterator[tuple[str, VisibleSetting]]:
    if isinstance(value, Section):
        yield from _section(f"{key}.", value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _value(f"{key}.{name}", item)
    elif isinstance(value, list | tuple | set | frozenset):
        if any(isinstance(item, Section) for item in value):
            for number, item in enumerate(value):
                yield from _value(f"{key}.{number}", item)
        elif value:
            yield key, ", ".join(str(_text(item)) for item in value)
    else:
        yield key, _text(value)


def _text(value: Any) -> VisibleSetting:
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, _PLAIN):
        # `_LOCATIONS` mask their passwords themselves (`__str__`).
        text = str(value) if isinstance(value, _LOCATIONS) else MASK
    else:
        text = str(value.value) if isinstance(value, Enum) else str(value)
    return url_without_secrets(text) if "://" in text else text
