"""How deep a value from outside is nested, asked before anybody walks it by recursion.

Parsers end somewhere else in each version of Python, some far beyond what Python itself can walk.
"""

from __future__ import annotations

from collections.abc import Iterator


def exceeds_depth(value: object, max_depth: int) -> bool:
    """Whether lists and dicts stand within each other on more than that many levels."""
    level = [value]
    for _ in range(max_depth + 1):
        level = [inner for each in level for inner in _children(each)]
    return bool(level)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
