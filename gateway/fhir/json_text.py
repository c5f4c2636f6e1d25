r"""The lexical rules of JSON: patterns that skip text in one match, and the escaping of strings.

All patterns are for text in which `\\` and `\"` are masked, so that every quote starts or ends a
string. They are possessive or atomic: none backtracks, whatever the text.
"""

from __future__ import annotations

import json
import re
from string import ascii_letters, digits
from typing import Final

_STRING: Final = rb'"[^"]*+"'
FILL: Final = rb'[^"{}\[\]]*+'

_ESCAPED_LETTER: Final = re.compile(rb"\\u00[3-7]")
_ESCAPE: Final = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)
_LETTERS: Final = {rb"\u%04x" % ord(char): char.encode() for char in digits + ascii_letters}


def _balanced(depth: int) -> bytes:
    """Return the pattern of an object or array of at most `depth` levels, and a separator after."""
    pattern = rb"[\[{]" + FILL + rb"(?>(?:" + _STRING + FILL + rb")*)[\]}]" + FILL
    for _ in range(depth - 1):
        pattern = (
            rb"[\[{]" + FILL + rb"(?>(?:" + _STRING + FILL + rb"|" + pattern + rb")*)[\]}]" + FILL
        )
    return pattern


CONTAINER: Final = _balanced(12)
VALUE: Final = rb"(?:" + _STRING + rb"|" + CONTAINER + rb'|[^"{}\[\]\s:,])'
GAP: Final = re.compile(FILL)
BEFORE_VALUE: Final = re.compile(rb"[\s:]*+")
ELEMENTS: Final = re.compile(rb"(?>(?:" + FILL + rb"(?:" + _STRING + rb"|" + CONTAINER + rb"))*)")
MEMBERS: Final = re.compile(rb"(?>(?:" + FILL + _STRING + rb"\s*+:\s*+" + VALUE + rb")*)")
STRINGS: Final = re.compile(rb"(?>(?:" + FILL + _STRING + rb")*)")
BLANKS: Final = (b" ", b"\t", b"\r", b"\n")
ARRAYS: Final = re.compile(rb"[\[ \t\r\n]*+")
OPENINGS: Final = re.compile(rb"[{\[ \t\r\n]*+")


def masked(text: bytes) -> bytes:
    """Return text of the same length in which every quote starts or ends a string."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def plainly_spelled(text: bytes) -> bytes:
    """Return JSON, complete or a part of it, with the letters and digits of ASCII unescaped.

    A name that is searched for may be written with escapes (RFC 8259 section 7).
    """
    if b"\\u00" not in text or _ESCAPED_LETTER.search(text) is None:
        return text
    return _ESCAPE.sub(lambda match: _LETTERS.get(match[0].lower(), match[0]), text)


def unescape(raw: bytes) -> str:
    """Return the value of a JSON string; the raw text when it is invalid."""
    text = raw.decode("utf-8", "surrogateescape")
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def escape_like(raw: bytes, text: str) -> bytes:
    """Return a JSON string for `text`, escaped like `raw`, from which `text` was made.

    Return `raw` where it holds both invalid UTF-8 and escaped surrogates: they are equal in `text`.
    """
    escaped = json.dumps(text, ensure_ascii=raw.isascii())[1:-1]
    if _SURROGATE.search(escaped):
        if not _is_utf8(raw):
            return raw if _ESCAPED_SURROGATE.search(raw) else _encoded(escaped, raw)
        escaped = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped)
    return _encoded(escaped, raw)


def _encoded(escaped: str, raw: bytes) -> bytes:
    if b"\\/" in raw:
        escaped = escaped.replace("/", "\\/")
    return escaped.encode("utf-8", "surrogateescape")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
