"""The beginning of a page of search results or of a history, taken at once where it is usual.

What is usual is said by patterns. Compiled, it is told byte by byte, in a fraction of their time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.fhir.byte_wise import IS_COMPILED, is_letter_or_digit, stands_at
from gateway.fhir.link_map import Swap

if TYPE_CHECKING:  # interpreted, these are nothing but `int`
    from mypy_extensions import i64

_QUOTE: Final = 0x22
_QUESTION: Final = 0x3F
_END_OF_LIST: Final = 0x5D
_SLASH: Final = 0x2F
_COMMA: Final = 0x2C
_HYPHEN: Final = 0x2D
_LOW_LINE: Final = 0x5F
_DOLLAR: Final = 0x24
_OPENING: Final = 0x7B
_CLOSING: Final = 0x7D
_DEEPEST: Final = 2
_PAGE: Final = b'{"resourceType":"Bundle"'
_TYPE: Final = b',"type":"'
_TYPES: Final = (b'searchset"', b'history"')
_TOTAL: Final = b',"total":'
_LINKS: Final = b',"link":['
_META: Final = b',"meta":{'
_TEXTS: Final = (b',"id":"', b',"language":"', b',"timestamp":"', b',"implicitRules":"')
_ENTRIES: Final = b',"entry":['
_RELATION: Final = b'{"relation":"'
_URL: Final = b'","url":"'
_BEFORE_LINK: Final = b',"url":"'
_LINK_END: Final = b'"}'

# The members of a page before its entries, in any order.
_STRING: Final = rb'"[^"]*+"'
_FLAT: Final = rb'\{(?:[^{}"]|' + _STRING + rb")*+\}"
_OBJECT: Final = rb'\{(?:[^{}"]|' + _STRING + rb"|" + _FLAT + rb")*+\}"
_LINK: Final = rb'\{"relation":"[^"]*+","url":"[^"]*+"\}'
_LINK_LIST: Final = rb',"link":\[(?:' + _LINK + rb"(?:," + _LINK + rb")*+)?+\]"
_OTHER: Final = rb',"(?:id|implicitRules|language|timestamp)":' + _STRING + rb'|,"total":[0-9]++'
_OTHERS: Final = rb"(?:" + _OTHER + rb'|,"meta":' + _OBJECT + rb")*+"
_BUNDLE_TYPE: Final = rb',"type":"(?:searchset|history)"' + _OTHERS
HEAD: Final = re.compile(
    (rb'\{"resourceType":"Bundle"' + _OTHERS + rb"(?:")
    + (_BUNDLE_TYPE + rb"(" + _LINK_LIST + rb")?|(" + _LINK_LIST + rb")" + _OTHERS + _BUNDLE_TYPE)
    + (rb")" + _OTHERS + rb',"entry":\[')
)


@lru_cache(maxsize=64)
def page_link(source: bytes) -> re.Pattern[bytes]:
    """The URL of a link of a page, which begins with `source`."""
    # A backslash is two low lines in masked text: a name holds one at most, at its beginning.
    path = rb"(?:/[_$]?+[A-Za-z0-9][A-Za-z0-9\-]*+)*+"
    return re.compile(rb'(?<=,"url":")' + re.escape(source) + path + rb'(?:\?[^"\\]*+)?+"')


def head_of_page(text: bytes, places: list[int], swap: Swap) -> tuple[int, list[int]] | None:
    """Where the first entry of a page would begin, and which of `places` are links to be replaced.

    None where it does not begin as nearly all do that are answers to a search or a history. No
    letter in the text is escaped; `places` are as for a leap.
    """
    upto, begin, end = page_head(text) if IS_COMPILED else _matched(text)
    if not upto:
        return None
    source = swap.plain_source
    urls: list[int] = []
    number = 0
    while places[number] < upto:
        at = places[number]
        behind = _link_end(text, at, source) if begin < at < end else 0
        if not behind:
            return None
        urls.append(at)
        while places[number] < behind:
            number += 1
    return upto, urls


def _matched(text: bytes) -> tuple[int, int, int]:
    """What `page_head` gives."""
    head = HEAD.match(text)
    if head is None:
        return 0, 0, 0
    return (head.end(), *(head.span(head.lastindex) if head.lastindex else (0, 0)))


def _link_end(text: bytes, at: int, source: bytes) -> int:
    if IS_COMPILED:
        return int(page_link_end(text, at, source))
    link = page_link(source).match(text, at)
    return 0 if link is None else link.end()


def page_head(text: bytes) -> tuple[i64, i64, i64]:
    """Where the first entry of a page begins, and between which places its links stand.

    All are 0 where it begins otherwise than nearly all pages do.
    """
    at: i64 = len(_PAGE) if stands_at(text, 0, _PAGE) else 0
    links: i64 = 0
    links_end: i64 = 0
    is_page = False
    while at:
        if stands_at(text, at, _ENTRIES):
            return (at + len(_ENTRIES), links, links_end) if is_page else (0, 0, 0)
        if stands_at(text, at, _LINKS):
            if links:
                break
            links, at = at, _links_end(text, at + len(_LINKS))
            links_end = at
        elif stands_at(text, at, _TYPE):
            if is_page:
                break
            is_page, at = True, _page_type_end(text, at + len(_TYPE))
        else:
            at = _other_end(text, at)
    return 0, 0, 0


def page_link_end(text: bytes, at: i64, source: bytes) -> i64:
    """Behind the quote that ends a page's link at `at`, which begins with `source`; or 0."""
    if not stands_at(text, at - len(_BEFORE_LINK), _BEFORE_LINK) or not stands_at(text, at, source):
        return 0
    end: i64 = at + len(source)
    size: i64 = len(text)
    while end < size and text[end] == _SLASH:
        end = _segment_end(text, end + 1)
        if not end:
            return 0
    if end < size and text[end] == _QUESTION:
        begin = end
        end = text.find(b'"', begin)
        if end < 0 or text.find(b"\\", begin, end) >= 0:
            return 0
    if end >= size or text[end] != _QUOTE:
        return 0
    return end + 1


def _page_type_end(text: bytes, at: i64) -> i64:
    """Behind a type of page that begins at `at`, and its quote; or 0."""
    for each in _TYPES:
        if stands_at(text, at, each):
            return at + len(each)
    return 0


def _links_end(text: bytes, at: i64) -> i64:
    """Behind the list of links whose first begins at `at`; or 0."""
    size: i64 = len(text)
    if at < size and text[at] == _END_OF_LIST:
        return at + 1
    while stands_at(text, at, _RELATION):
        at = text.find(b'"', at + len(_RELATION))
        if at < 0 or not stands_at(text, at, _URL):
            return 0
        at = text.find(b'"', at + len(_URL))
        if at < 0 or not stands_at(text, at, _LINK_END):
            return 0
        at += len(_LINK_END)
        if at >= size:
            return 0
        if text[at] == _END_OF_LIST:
            return at + 1
        if text[at] != _COMMA:
            return 0
        at += 1
    return 0


def _other_end(text: bytes, at: i64) -> i64:
    """Behind a member of a page that says nothing of its type and holds no links; or 0."""
    if stands_at(text, at, _TOTAL):
        return _digits_end(text, at + len(_TOTAL))
    if stands_at(text, at, _META):
        return _object_end(text, at + len(_META))
    for each in _TEXTS:
        if stands_at(text, at, each):
            end: i64 = text.find(b'"', at + len(each))
            return end + 1
    return 0


def _digits_end(text: bytes, at: i64) -> i64:
    """Behind the digits that begin at `at`; 0: there are none."""
    size: i64 = len(text)
    end: i64 = at
    while end < size and 0x30 <= text[end] <= 0x39:
        end += 1
    if end == at:
        return 0
    return end


def _object_end(text: bytes, at: i64) -> i64:
    """Behind an object that was opened before `at` and holds no others that hold some; or 0."""
    size: i64 = len(text)
    depth: i64 = 1
    while at < size:
        byte: i64 = text[at]
        if byte == _QUOTE:
            at = text.find(b'"', at + 1)
            if at < 0:
                return 0
        elif byte == _OPENING:
            depth += 1
            if depth > _DEEPEST:
                return 0
        elif byte == _CLOSING:
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return 0


def _segment_end(text: bytes, at: i64) -> i64:
    """Behind a segment of the path of a page's link; or 0."""
    size: i64 = len(text)
    if at < size and (text[at] == _LOW_LINE or text[at] == _DOLLAR):
        at += 1
    if at >= size or not is_letter_or_digit(text[at]):
        return 0
    while at < size and (is_letter_or_digit(text[at]) or text[at] == _HYPHEN):
        at += 1
    return at
