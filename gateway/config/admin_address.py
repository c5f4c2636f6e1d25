"""Reads the one setting that a health check needs, in spite of problems with other settings.

A gateway keeps its old settings while the file on disk is broken, and a shell beside it may lack
the variables that it was started with: neither makes it unhealthy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.config.environment import read_environment
from gateway.config.inbound import AdminSettings
from gateway.config.text_file import TextDecodingError, decode, read_bytes
from gateway.config.values import InvalidValueError, ListenAddress, parse_address
from gateway.config.yaml_file import MAX_FILE_BYTES, parse_yaml

# The group `admin` alone, for files with invalid YAML elsewhere.
_GROUP: Final = re.compile(r"^admin[ \t]*:.*(?:\n(?:[ \t].*|#.*|[ \t]*))*", re.MULTILINE)


def load_admin_address(path: Path | None, environ: Mapping[str, str]) -> ListenAddress:
    """Return `admin.address` of the environment, else of the file, else the default.

    Never raises.
    """
    for values in _sources(path, environ):
        group = values.get("admin")
        try:
            return parse_address(group.get("address") if isinstance(group, dict) else None)
        except InvalidValueError:
            continue
    return AdminSettings().address


def _sources(path: Path | None, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    yield read_environment(environ, {}).values
    text = _text(path) if path is not None else ""
    yield parse_yaml(text, "settings").values
    if group := _GROUP.search(text):
        yield parse_yaml(group[0], "settings").values


def _text(path: Path) -> str:
    try:
        content = read_bytes(path, MAX_FILE_BYTES)
    except OSError:
        return ""
    try:
        return decode(content)
    except TextDecodingError:
        return content.decode("utf-8", "replace")
