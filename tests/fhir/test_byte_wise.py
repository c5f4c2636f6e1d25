"""The forms of URLs in entries, as machine code tells them and as patterns do."""

from __future__ import annotations

import itertools
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.byte_wise import FORMS, behind_quote, is_behind_members, usual_form
from gateway.fhir.json_leaps import MEMBERS, _forms
from gateway.fhir.page_head import HEAD, page_head, page_link, page_link_end

BASE: Final = b"http://platform.example/fhir"
USUAL: Final = _forms(BASE)[0]
# What stands one after the other, from before the URL on, and what may stand there instead.
PARTS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b'}},{"fullUrl":"', b'},{"fullUrl":"', b'{"reference":"', b'"', b" ", b"", b"[", b'x"'),
    (BASE, BASE[:-1], BASE.upper()),
    (b"/", b"", b"//", b"?"),
    (b"Patient", b"Aa", b"A", b"patient", b"Pat1ent", b"", b"X" * 99, b"[a", b"a`", b"A{"),
    (b"/", b"", b"?", b'"'),
    (b"1", b"a-1.b", b"-a", b".", b"..", b".a", b"", b"x" * 64, b"x" * 65, b"a@", b"/a", b"a,b"),
    (b"", b"/_history/1", b"/_history/", b"/_history/.", b"/_history/a!", b"/_history"),
    (b'"', b" ", b"#", b"?", b"\t", b"\v", b"\xa0", b"\\", b"", b"'"),
    (b',"resource":{"resourceType":"', b',"resource":{"resourceType": "', b"}"),
    (b"Basic", b"Bundle", b"BundleX", b"Parameters", b"Provenance", b"OperationOutcome", b"p", b""),
    (b'"', b"\\", b""),
)


@st.composite
def urls(draw: st.DrawFn) -> tuple[bytes, int]:
    """A URL with what is around it, usual but for two parts at most; and where it begins."""
    parts = [each[0] for each in PARTS]
    for number in (0, *draw(st.lists(st.integers(1, len(PARTS) - 1), max_size=2))):
        parts[number] = draw(st.sampled_from(PARTS[number]))
    return b"".join(parts), len(parts[0])


@given(urls(), st.integers(0, 200))
def test_each_form_is_told_as_the_patterns_do(url: tuple[bytes, int], cut: int) -> None:
    """With the same end, also where the text ends anywhere in between."""
    whole, at = url
    for text in (whole, whole[: at + cut]):
        found = USUAL.match(text, at)
        wanted = (0, 0) if found is None else (found.lastindex, found.end())
        form = usual_form(text, at, BASE)
        assert (form % FORMS, form // FORMS) == wanted


def test_each_part_may_be_any() -> None:
    """One after the other, behind each that may come first."""
    for first in PARTS[0]:
        for number, others in enumerate(PARTS[1:], 1):
            for other in others:
                parts = [first, *(each[0] for each in PARTS[1:])]
                parts[number] = other
                text = b"".join(parts)
                found = USUAL.match(text, len(first))
                wanted = 0 if found is None else (found.lastindex or 0) + found.end() * FORMS
                assert usual_form(text, len(first), BASE) == wanted


def test_members_before_a_url_are_told_as_the_pattern_does() -> None:
    """Whatever they are made of, and wherever that ends."""
    likely = (b'"a":"x"', b'"b":12.5', b'"a":""', b",", b'"url":"', b'"url":"x"', b'"abcdef":')
    odd = (b'"', b":", b"a", b'"":1', b'"a1":1', b'"a" :1', b"{", b"-")
    for parts in itertools.product((*likely, *odd), repeat=4):
        text = b"".join(parts)
        for at in (len(text), len(text) - len(parts[-1])):
            wanted = MEMBERS.fullmatch(text, 0, at) is not None
            assert is_behind_members(text, 0, at) == wanted, text[:at]


@given(st.binary(max_size=9) | st.text('a"', max_size=9).map(str.encode))
def test_the_last_quote_is_found(text: bytes) -> None:
    """Between any two places."""
    for begin in range(len(text)):
        for end in range(len(text) + 1):
            assert behind_quote(text, begin, end) == text.rfind(b'"', begin, end) + 1


# The members of a page's beginning, those that are usual first.
MEMBERS_OF_A_PAGE: Final = (
    *(b',"type":"searchset"', b',"type":"history"', b',"total":120', b',"id":"a-1"'),
    *(b',"link":[]', b',"link":[{"relation":"self","url":"%s?a=1"}]' % BASE),
    b',"link":[{"relation":"self","url":"x"},{"relation":"next","url":""}]',
    *(b',"meta":{"lastUpdated":"}{"}', b',"meta":{"tag":[{"code":"x"},{}]}', b',"meta":{}'),
    *(b',"timestamp":""', b',"language":"uz"', b',"implicitRules":"x"'),
    *(b',"type":"document"', b',"type": "searchset"', b',"total":', b',"total":-1', b',"id":"'),
    *(b',"link":{}', b',"link":[{"relation":"self"}]', b',"link":[{"url":"x"}]', b',"link":['),
    *(b',"link":[{"relation":"a","url":"b"},]', b',"link":[{"relation":"a","url":"b"} ]'),
    b',"link":[{"relation":"a","url":"b"};{"relation":"a","url":"b"}]',
    *(b',"meta":{"a":{"b":{}}}', b',"meta":[]', b',"meta":{"a', b',"extension":[]', b",", b"}"),
)


def test_a_beginning_is_told_as_the_pattern_does() -> None:
    """Where it ends, and where its links stand, whichever members come in whatever order."""
    three = itertools.product(MEMBERS_OF_A_PAGE[:9], MEMBERS_OF_A_PAGE, MEMBERS_OF_A_PAGE)
    for members in three:
        told_as_the_pattern_does(b'{"resourceType":"Bundle"%s,"entry":[{' % b"".join(members))


def test_a_beginning_may_end_anywhere() -> None:
    """In each of its members."""
    whole = b'{"resourceType":"Bundle"%s,"entry":[' % b"".join(MEMBERS_OF_A_PAGE[1:13])
    for end in range(len(whole)):
        told_as_the_pattern_does(whole[:end])
        told_as_the_pattern_does(whole[:end] + b',"entry":[')


def told_as_the_pattern_does(text: bytes) -> None:
    """Look at one."""
    found = HEAD.match(text)
    links = (0, 0) if found is None or not found.lastindex else found.span(found.lastindex)
    assert page_head(text) == (0 if found is None else found.end(), *links), text


def test_a_page_s_link_is_told_as_the_pattern_does() -> None:
    """Whatever stands before it, in it and behind it, and wherever the text ends."""
    before = (b',"url":"', b'"url":"', b',"uri":"', b"")
    sources = (BASE, BASE[:-1], BASE.upper())
    paths = (b"", b"/Patient", b"/$x/_y-1", b"/", b"//a", b"/__a", b"/-a", b"/a.b", b"/a\\b")
    queries = (b"", b"?", b"?a=%2F&b", b"?a\\/b", b"#a", b"?{}")
    for parts in itertools.product(before, sources, paths, queries, (b'"', b'"}', b"", b"\\")):
        text, at = b"".join(parts), len(parts[0])
        found = page_link(BASE).match(text, at)
        assert page_link_end(text, at, BASE) == (0 if found is None else found.end()), text
