"""The commonest forms of a URL in an entry, told byte by byte.

What they are is said by the patterns of `gateway.fhir.json_leaps`. Compiled, this takes a fifth of
their time; interpreted several times as long, so that it is not used there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # interpreted, these are nothing but `int`
    from mypy_extensions import i64

IS_COMPILED: Final = not __file__.endswith(".py")

NEXT_ENTRY: Final = b'}},{"fullUrl":"'
"""The end of an entry's last object, and the entry behind it."""

REFERENCE: Final = b'{"reference":"'

# What a URL is: the `fullUrl` of an entry that follows another, a `reference` that comes first in
# its object, another that names a resource to the string's end, or with more behind.
IS_ENTRY: Final = 1
IS_REFERENCE: Final = 2
IS_NAME: Final = 3
IS_MENTIONED: Final = 4
FORMS: Final = 8
"""More than there are."""

_LONGEST_ID: Final = 64
_QUOTE: Final = 0x22
_B: Final = 0x42
_O: Final = 0x4F
_P: Final = 0x50
_HYPHEN: Final = 0x2D
_DOT: Final = 0x2E
_SLASH: Final = 0x2F
_SPACE: Final = 0x20
_COMMA: Final = 0x2C
_COLON: Final = 0x3A
# What may follow a name in a sentence: as `\s` in a pattern, a quote, a fragment, a query.
_AFTER_NAME: Final = b'" #?\t\n\r\f\v'
_TO_RESOURCE: Final = b'","resource":{"resourceType":"'
_HISTORY: Final = b"/_history/"
_URL_MEMBER: Final = b'"url":"'


def usual_form(text: bytes, at: i64, source: bytes) -> i64:
    """Which form a URL at `at` has that begins with `source`, and FORMS times where that ends.

    0: none of them.
    """
    if at < 1 or not stands_at(text, at, source):
        return 0
    behind: i64 = at + len(source)
    is_string = text[at - 1] == _QUOTE
    if is_string and stands_at(text, at - len(NEXT_ENTRY), NEXT_ENTRY):
        end = _entry_end(text, behind)
        if end:
            return end * FORMS + IS_ENTRY
    if not (is_string or text[at - 1] == _SPACE):
        return 0
    behind = _type_end(text, behind)
    end = _name_end(text, behind)
    if not end:
        end = _mentioned_end(text, behind)
        if not end:
            return 0
        return end * FORMS + IS_MENTIONED
    if is_string and stands_at(text, at - len(REFERENCE), REFERENCE):
        return end * FORMS + IS_REFERENCE
    return end * FORMS + IS_NAME


def behind_quote(text: bytes, begin: i64, end: i64) -> i64:
    """The place behind the last quote between these; 0: there is none."""
    while end > begin:
        end -= 1
        if text[end] == _QUOTE:
            return end + 1
    return 0


def is_behind_members(text: bytes, begin: i64, at: i64) -> bool:
    """Whether from `begin` on plain members stand, and then `"url":"`, up to `at`."""
    while at - begin > len(_URL_MEMBER):
        begin = _member_end(text, begin, at)
        if not begin:
            return False
    return at - begin == len(_URL_MEMBER) and stands_at(text, begin, _URL_MEMBER)


def _member_end(text: bytes, at: i64, limit: i64) -> i64:
    """Behind a member, a string or word, and a comma, all of it before `limit`; or 0."""
    if text[at] != _QUOTE:
        return 0
    end: i64 = at + 1
    while end < limit and _is_letter(text[end]):
        end += 1
    if end == at + 1 or end + 2 >= limit or text[end] != _QUOTE or text[end + 1] != _COLON:
        return 0
    end += 2
    begin = end
    if text[end] == _QUOTE:
        end += 1
        while end < limit and text[end] != _QUOTE:
            end += 1
        end += 1
    else:
        while end < limit and _is_of_word(text[end]):
            end += 1
    if end <= begin or end >= limit or text[end] != _COMMA:
        return 0
    return end + 1


def stands_at(text: bytes, at: i64, what: bytes) -> bool:
    """Whether `what` stands at that place."""
    length: i64 = len(what)
    if at < 0 or at + length > len(text):
        return False
    place: i64 = 0
    while place < length:
        if text[at + place] != what[place]:
            return False
        place += 1
    return True


def _entry_end(text: bytes, at: i64) -> i64:
    """Behind the type of the resource in an entry, the base of whose URL ends at `at`; or 0."""
    end = _id_end(text, _type_end(text, at))
    if not end or not stands_at(text, end, _TO_RESOURCE):
        return 0
    begin: i64 = end + len(_TO_RESOURCE)
    end = _letters_end(text, begin)
    if not end or end >= len(text) or text[end] != _QUOTE or _is_unusual(text, begin):
        return 0
    return end + 1


def _is_unusual(text: bytes, at: i64) -> bool:
    """Whether that is the type of what holds other resources, or is not rewritten at all."""
    first: i64 = text[at]
    if first == _P:  # as that of patients, the commonest
        return stands_at(text, at, b'Parameters"') or stands_at(text, at, b'Provenance"')
    if first == _B:
        return stands_at(text, at, b'Bundle"')
    return first == _O and stands_at(text, at, b'OperationOutcome"')


def _name_end(text: bytes, at: i64) -> i64:
    """Behind the quote that ends an id, or one of a version, which begins at `at`; or 0."""
    end = _id_end(text, at)
    if end and stands_at(text, end, _HISTORY):
        end = _id_end(text, end + len(_HISTORY))
    if not end or end >= len(text) or text[end] != _QUOTE:
        return 0
    return end + 1


def _mentioned_end(text: bytes, at: i64) -> i64:
    """The end of an id of any length, that begins at `at` and something else follows; or 0."""
    size: i64 = len(text)
    if not at or at >= size or text[at] <= _DOT:
        return 0
    end = at
    while end < size and _is_of_id(text[end]):
        end += 1
    if end == at or end >= size or text[end] not in _AFTER_NAME:
        return 0
    return end


def _type_end(text: bytes, at: i64) -> i64:
    """Behind a slash, a type and another slash; 0: they are not there."""
    size: i64 = len(text)
    if at >= size or text[at] != _SLASH:
        return 0
    end = _letters_end(text, at + 1)
    if not end or end >= size or text[end] != _SLASH:
        return 0
    return end + 1


def _letters_end(text: bytes, at: i64) -> i64:
    """Behind a type's name; 0: none is there."""
    size: i64 = len(text)
    if at >= size or not 0x41 <= text[at] <= 0x5A:
        return 0
    end: i64 = at + 1
    while end < size and _is_letter(text[end]):
        end += 1
    if end == at + 1:
        return 0
    return end


def _id_end(text: bytes, at: i64) -> i64:
    """Behind an id, which begins with no dot; 0: none is there, or `at` is 0."""
    size: i64 = len(text)
    if not at or at >= size or text[at] == _DOT:
        return 0
    last: i64 = at + _LONGEST_ID
    if last > size:
        last = size
    end = at
    while end < last and _is_of_id(text[end]):
        end += 1
    if end == at:
        return 0
    return end


def _is_letter(byte: i64) -> bool:
    return 0x61 <= byte <= 0x7A or 0x41 <= byte <= 0x5A


def is_letter_or_digit(byte: i64) -> bool:
    """Of ASCII."""
    return _is_letter(byte) or 0x30 <= byte <= 0x39


def _is_of_id(byte: i64) -> bool:
    if byte > _DOT:
        return is_letter_or_digit(byte)
    return byte >= _HYPHEN


def _is_of_word(byte: i64) -> bool:
    """Whether it is of a number without a sign, or of a literal."""
    return 0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or byte == _DOT
