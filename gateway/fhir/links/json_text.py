r"""The lexical rules of JSON: patterns that skip text in one match, and the escaping of strings.

All patterns are for text in which `\\` and `\"` are masked, so that every quote starts or ends a
string. They are possessive or atomic: none backtracks, whatever the text.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from string import ascii_letters, digits
from typing import Final

from gateway.fhir.links.map import BaseReplacement
from gateway.fhir.links.text import HostFinder, raw_length

_ESCAPE_UNIT: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|.", re.DOTALL)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)
_ESCAPED_SLASH: Final = re.compile(r"\\u002[fF]|\\/")
# In a string that is a query, a URL may be percent-encoded.
_SCHEME: Final = re.compile(
    rb"(?:h|\\u00[46]8)(?:t|\\u00[57]4){2}(?:p|\\u00[57]0)(?:s|\\u00[57]3)?"
    rb"(?::|%3a|\\u003a)(?:\\?/|%2f|\\u002f){2}"
)

# Escapes of the characters of a host or of an element name.
_HIDING: Final = re.compile(rb"\\u00(?:2[dDeE]|3[0-9aA]|[4-7])")

_STRING: Final = rb'"[^"]*+"'
_FILL: Final = rb'[^"{}\[\]]*+'

_ESCAPED_LETTER: Final = re.compile(rb"\\u00[3-7]")
_ESCAPE: Final = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_LETTERS: Final = {rb"\u%04x" % ord(char): char.encode() for char in digits + ascii_letters}


def _balanced(depth: int) -> bytes:
    """Return the pattern of an object or array of at most `depth` levels, and a separator after."""
    pattern = rb"[\[{]" + _FILL + rb"(?>(?:" + _STRING + _FILL + rb")*)[\]}]" + _FILL
    for _ in range(depth - 1):
        pattern = (
            rb"[\[{]"
            + _FILL
            + rb"(?>(?:"
            + _STRING
            + _FILL
            + rb"|"
            + pattern
            + rb")*)[\]}]"
            + _FILL
        )
    return pattern


CONTAINER: Final = _balanced(12)
_VALUE: Final = rb"(?:" + _STRING + rb"|" + CONTAINER + rb'|[^"{}\[\]\s:,])'
GAP: Final = re.compile(_FILL)
MEMBER: Final = re.compile(_FILL + rb'"([^"\\]*+)"\s*+:\s*+(?>(?:"([^"]*+)"|([{\[]))?)')
# A complete Reference whose other members hold no URL.
REFERENCE: Final = re.compile(
    rb'\{\s*+"reference"\s*+:\s*+"([^"\\]*+)"'
    rb'(?>(?:\s*+,\s*+"(?:display|type)"\s*+:\s*+"[^":\\]*+")*)\s*+\}'
)
# A complete link of a Bundle.
LINK: Final = re.compile(
    rb'\{\s*+"relation"\s*+:\s*+"[^":\\]*+"\s*+,\s*+"url"\s*+:\s*+"([^"\\]*+)"\s*+\}'
)
BEFORE_VALUE: Final = re.compile(rb"[\s:]*+")
ELEMENTS: Final = re.compile(rb"(?>(?:" + _FILL + rb"(?:" + _STRING + rb"|" + CONTAINER + rb"))*)")
MEMBERS: Final = re.compile(rb"(?>(?:" + _FILL + _STRING + rb"\s*+:\s*+" + _VALUE + rb")*)")
STRINGS: Final = re.compile(rb"(?>(?:" + _FILL + _STRING + rb")*)")
BLANKS: Final = (b" ", b"\t", b"\r", b"\n")
ARRAYS: Final = re.compile(rb"[\[ \t\r\n]*+")
OPENINGS: Final = re.compile(rb"[{\[ \t\r\n]*+")
# Members of a resource up to a watched one, or to `entry`, which is too long to match completely.
WATCHED: Final = re.compile(
    rb"(?>(?:"
    + _FILL
    + rb'"(?!(?:resourceType|type|signature|entry|path)")[^"\\]*+"\s*+:\s*+'
    + _VALUE
    + rb")*)"
)


def needles(swap: BaseReplacement) -> HostFinder:
    """Return the finder of positions in JSON that may belong to a URL under the bases."""
    return _needles(swap.hosts)


@lru_cache(maxsize=64)
def _needles(hosts: tuple[bytes, ...]) -> HostFinder:
    return HostFinder(hosts, b"\\u00", _HIDING, _SCHEME)


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


def replace_prefix(raw: bytes, length: int, target: str) -> tuple[bytes, int]:
    """Return the replacement of the first `length` characters, and the bytes these take in `raw`.

    Slashes in the replacement are escaped as in the replaced text.
    """
    if b"\\" not in raw:
        return target.encode(), length
    text = raw.decode("latin-1")
    cut = raw_length(text, length, _ESCAPE_UNIT, "\\")
    slash = _ESCAPED_SLASH.search(text, 0, cut)
    if slash is not None:
        target = target.replace("/", slash.group())
    return target.encode(), cut


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
