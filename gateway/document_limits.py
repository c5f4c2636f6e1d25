"""Limits the nesting and the memory of an untrusted document before code works on its tree.

The limit of parsers on nesting differs between versions of Python; some accept values far deeper
than Python's recursion limit. The depth of a value is therefore checked before code walks it
recursively.

The memory that the tree of a body would take is estimated from its bytes, before it is built. Small
objects take the most memory for their length: eight bytes of JSON become 250 of memory, and 58 kB
of gzip took 1.8 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final


def exceeds_depth(value: object, max_depth: int) -> bool:
    """Return whether lists and dicts are nested more than `max_depth` levels deep."""
    level = [value]
    while level and max_depth >= 0:
        level = [child for parent in level for child in _children(parent)]
        max_depth -= 1
    return bool(level)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


# Bytes for an object, an array, a member and a further value; rather too many than too few.
_IN_JSON: Final = ((b"{", 150), (b"[", 100), (b":", 90), (b",", 50))
_IN_XML: Final = ((b"<", 200), (b"=", 120))
# Bytes of memory for a byte of text, which exists as bytes, as one string and as its parts. One
# character above U+FFFF makes the whole string wide.
_TEXT: Final = 3
_WIDE_TEXT: Final = 6
_WIDE: Final = tuple(bytes((first,)) for first in range(0xF0, 0xF5))
# Bytes that are counted in one call, during which all other threads and tasks are blocked.
_STEP: Final = 1024 * 1024

# Bytes that the tree of a small body may take, also when the body was compressed.
_MIN_TREE_LIMIT: Final = 36 * 1024 * 1024
# A tree may take this many times the bytes received in addition, and at most `MAX_TREE_BYTES`.
_TREE_BYTES_PER_BYTE: Final = 12
MAX_TREE_BYTES: Final = 256 * 1024 * 1024


def tree_limit(sent: int) -> int:
    """Return the bytes that the tree of a body may take that was received in `sent` bytes."""
    return min(_MIN_TREE_LIMIT + _TREE_BYTES_PER_BYTE * sent, MAX_TREE_BYTES)


def decoded_limit(sent: int) -> int:
    """Return the bytes to which a body received in `sent` bytes may be decoded."""
    return tree_limit(sent) // _TEXT


def exceeds_tree_limit(body: bytes, max_bytes: int, *, xml: bool) -> bool:
    """Return whether the tree of a body could take more than `max_bytes` bytes."""
    is_wide = any(first in body for first in _WIDE)
    weight = len(body) * (_WIDE_TEXT if is_wide else _TEXT)
    for at in range(0, len(body), _STEP):
        for sign, cost in _IN_XML if xml else _IN_JSON:
            weight += cost * body.count(sign, at, at + _STEP)
        if weight > max_bytes:
            return True
    return weight > max_bytes
