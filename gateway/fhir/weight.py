"""How much memory the tree of a body would take, told from its bytes before any of it is built.

Small objects are what makes much of little: eight bytes of JSON become half a kilobyte.
"""

from __future__ import annotations

from typing import Final

# In bytes, rather too much than too little: of an object or array, of a member, of one value more.
_IN_JSON: Final = ((b"{", 150), (b"[", 100), (b":", 90), (b",", 50))
_IN_XML: Final = ((b"<", 200), (b"=", 120))
# Text is there as bytes, as a whole and in parts; one character above U+FFFF makes all of it wide.
_TEXT: Final = 3
_WIDE_TEXT: Final = 6
_WIDE: Final = tuple(bytes((first,)) for first in range(0xF0, 0xF5))
# Counting holds up everybody else for so many bytes at a time.
_STEP: Final = 1024 * 1024

# A small body may become so much, also when it comes compressed.
_FREE: Final = 36 * 1024 * 1024
# What its sender has sent itself may become so many times as much, and no body more than that.
_TIMES: Final = 12
MAX_TREE_BYTES: Final = 256 * 1024 * 1024


def tree_limit(sent: int) -> int:
    """What the tree of a body may take that came in so many bytes."""
    return min(_FREE + _TIMES * sent, MAX_TREE_BYTES)


def decoded_limit(sent: int) -> int:
    """To how many bytes a body may be opened at all that came in so many."""
    return tree_limit(sent) // _TEXT


def exceeds_tree_limit(body: bytes, most: int, *, xml: bool) -> bool:
    """Whether the tree could take more than that."""
    is_wide = any(first in body for first in _WIDE)
    weight = len(body) * (_WIDE_TEXT if is_wide else _TEXT)
    for at in range(0, len(body), _STEP):
        for sign, each in _IN_XML if xml else _IN_JSON:
            weight += each * body.count(sign, at, at + _STEP)
        if weight > most:
            return True
    return weight > most
