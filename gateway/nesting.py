"""Limits the nesting of untrusted values before code walks them recursively.

The limit of parsers differs between versions of Python; some accept values far deeper than Python's
recursion limit.
"""

from __future__ import annotations

from collections.abc import Iterator


def exceeds_depth(value: object, max_depth: int) -> bool:
    """Return whether lists and dicts are nested more than `max_depth` levels deep."""
    level = [value]
    for _ in range(max_depth + 1):
        level = [child for parent in level for child in _children(parent)]
    return bool(level)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
