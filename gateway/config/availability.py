"""Settings that the schema knows but this version cannot act on yet.

Later work deletes rows here. A value equal to the default is always accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.config.problems import Setting
from gateway.config.settings import Settings

# The key (`*`: any name), and which of its values are not available; empty: all but the default.
UNAVAILABLE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (("outbox.enabled", ()),)


def unavailable(settings: Settings) -> Iterator[Setting]:
    """The keys whose values this version cannot act on."""
    for key, refused in UNAVAILABLE:
        for path, value, default in _values(settings, key.split("."), ()):
            if value != default and (not refused or value in refused):
                yield path


def _values(group: Any, parts: list[str], path: Setting) -> Iterator[tuple[Setting, Any, Any]]:
    """The values at a key, each with its path and its default."""
    first, rest = parts[0], parts[1:]
    if first == "*":
        for name, inner in group.items():
            yield from _values(inner, rest, (*path, name))
    elif rest:
        yield from _values(getattr(group, first), rest, (*path, first))
    else:
        default = type(group).model_fields[first].get_default(call_default_factory=True)
        yield (*path, first), getattr(group, first), default
