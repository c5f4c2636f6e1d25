"""The files that settings name, each with its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.config.problems import SettingPath


def named_files(value: Any, key: SettingPath = ()) -> Iterator[tuple[SettingPath, Path]]:
    """Yield every file whose content the gateway reads, with its key.

    These are secrets, keys, certificates and trust roots.
    """
    if isinstance(value, Path):
        if str(key[-1]).endswith("_file"):
            yield key, value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from named_files(getattr(value, field), (*key, field))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from named_files(inner, (*key, name))
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from named_files(inner, (*key, index))
