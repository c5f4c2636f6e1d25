"""The work of rewriting bodies that were written to cause as much as possible."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from gateway.fhir.links.deferred_edits import EDITS_LIMIT
from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from gateway.fhir.links.stream_rewriter import Rewriter
from tests.doubles.growth import FACTOR, NEARLY_LINEAR, cost_ratio, growth, operations

GATEWAY = "http://127.0.0.1:8080/fhir"
PLATFORM = "https://playground.dhp.uz/fhir"
LINKS = LinkMap(PLATFORM, GATEWAY)
SHORT = LinkMap(PLATFORM, "http://e/fhir")
URL = GATEWAY.encode()
SIZE = 64 * 1024

JSON, XML = "application/fhir+json", "application/fhir+xml"
NDJSON, FORM = "application/fhir+ndjson", "application/x-www-form-urlencoded"


def rewriter(kind: str, links: LinkMap = LINKS) -> Rewriter:
    return rewriter_for(kind, links, "to-platform")


def passed(kind: str, body: bytes, links: LinkMap = LINKS) -> bytes:
    subject = rewriter(kind, links)
    pieces = [subject.feed(body[at : at + SIZE]) for at in range(0, len(body), SIZE)]
    return b"".join((*pieces, subject.finish()))


DULL = {
    "a line for each number": (NDJSON, (b"1\n" * (SIZE // 3) + b'"%s"\n' % URL) * 4),
    "empty lines": (NDJSON, (b"\n" * (SIZE // 2) + b'"%s"\n' % URL) * 4),
    "empty fields": (FORM, (b"&" * (SIZE // 2) + b"a=%s&" % URL) * 4),
    "fields with an escape": (FORM, b"%41&" * SIZE),
    "escapes": (JSON, b"[" + b'"\\u0061",' * SIZE),
    "hosts": (JSON, b"[" + b'"127.0.0.1",' * SIZE),
    "references to characters": (XML, b"<a>" + b'<a b="&#97;"/>' * SIZE),
    "arrays": (JSON, b'["%s",' % URL + b"[" * 2 * SIZE),
    "levels": (JSON, b'["%s",' % URL + b'{"a":' * 127 + b"[{" * SIZE),
    "elements": (XML, b'<a><a b="%s"/>' % URL + b"<a></a>" * SIZE),
    "comments": (XML, b'<a><a b="%s"/>' % URL + b"<!----><?a?>" * SIZE),
    "hosts in tags": (XML, b"<a>" + b"<127.0.0.1/>" * SIZE),
}


@pytest.mark.parametrize(("kind", "body"), DULL.values(), ids=DULL.keys())
def test_chunks_without_a_url_take_a_constant_number_of_steps(kind: str, body: bytes) -> None:
    pieces = len(body) // SIZE + 1
    assert operations(lambda: passed(kind, body)) < 300 * pieces + 3000


@pytest.mark.parametrize(
    "body", [b"[" + b'"e",' * SIZE, b'["' + b"e" * SIZE, b"[" + b'"//e",' * SIZE]
)
def test_a_short_host_does_not_make_every_octet_a_candidate(body: bytes) -> None:
    """A caller chooses its Host."""
    assert operations(lambda: passed(JSON, body, SHORT)) < 300 * (len(body) // SIZE + 1)


def test_lines_with_a_url_are_found_among_many() -> None:
    """Of search forms and bulk data."""
    line = b'{"resourceType":"Basic","subject":{"reference":"%s/Patient/1"}}\n' % URL
    body = b"1\n" * 100 + line + b"2\n" + line + line + b'{"x":"' + b"a" * 99 + b'"}\n' + line[:-1]
    assert passed(NDJSON, body) == body.replace(URL, PLATFORM.encode())
    body = b"a=1&&" * 100 + b"a=%s/x&" % URL + b"b=&" + b"c=%s&c=%s" % (URL, URL)
    assert passed(FORM, body) == body.replace(URL, PLATFORM.encode())


def test_the_search_backwards_for_an_objects_begin_is_bounded() -> None:
    links = b",".join([b'{"x":1,"reference":"%s/Patient/1"}' % URL.upper()] * 100)
    parts = b",".join([b'{"p":[' + b"{}," * 700 + links + b"]}"] * 16)
    body = b'{"resourceType":"Basic","a":[' + parts + b"]}"
    exact = b'{"_":"signature",' + body[1:]
    assert cost_ratio(lambda: passed(JSON, body), lambda: passed(JSON, exact), enough=3) < 3


def test_entries_with_a_host_in_capitals_are_read_once() -> None:
    entries = b",".join([b'{"fullUrl":"http://GATEWAY:8080/fhir/A/1"}'] * 20_000)
    body = b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % entries
    links = LinkMap(PLATFORM, "http://gateway:8080/fhir")
    in_small_letters = body.replace(b"GATEWAY", b"gateway")
    ratio = cost_ratio(
        lambda: passed(JSON, body, links), lambda: passed(JSON, in_small_letters, links), enough=20
    )
    assert ratio < 20


@pytest.mark.parametrize("size", [40_000, 1_000_000])
@pytest.mark.parametrize("change", ["type last", "signed", "document", "collection"])
def test_a_bundle_that_is_decided_late_or_stays_costs_little_more(change: str, size: int) -> None:
    """Its entries pass together, as those of a Bundle that is known to be a search result."""
    subject = {"reference": f"{GATEWAY}/Patient/1", "display": "Каримова Д."}
    resource = {"resourceType": "Observation", "status": "final", "subject": subject}
    entry = {"fullUrl": f"{GATEWAY}/Observation/1", "resource": resource}
    entries = [entry] * (size // len(json.dumps(entry)))
    body = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    changes = {
        "type last": {"entry": entries, "type": "batch", "resourceType": "Bundle"},
        "signed": {**body, "signature": {"data": "c2ln"}},
        "document": {**body, "type": "document"},
        "collection": {**body, "type": "collection"},
    }
    text, changed = json.dumps(body).encode(), json.dumps(changes[change]).encode()
    assert cost_ratio(lambda: passed(JSON, changed), lambda: passed(JSON, text), enough=3) < 3


TRICKLES = {
    "a string with a URL": (JSON, b'["%s' % URL, b"c"),
    "escaped quotes": (JSON, b'["%s' % URL, b'\\"'),
    "one string of URLs": (JSON, b'["', URL),
    "a tag with a URL": (XML, b'<a><a b="%s' % URL, b"c"),
    "many attributes": (XML, b'<a><a b="%s"' % URL, b' c=""'),
    "an instruction": (XML, b'<a b="%s"/><?x ' % URL, b"c"),
    "a field": (FORM, b"a=%s" % URL, b"c"),
    "a field of URLs": (FORM, b"a=", b"," + URL),
    "a line": (NDJSON, b'"%s' % URL, b"c"),
}


@pytest.mark.parametrize(("kind", "start", "packet"), TRICKLES.values(), ids=TRICKLES.keys())
def test_an_incomplete_token_is_not_read_again_for_each_chunk(
    kind: str, start: bytes, packet: bytes
) -> None:
    def trickle(number: int) -> None:
        subject = rewriter(kind)
        subject.feed(start)
        for _ in range(number):
            subject.feed(packet)

    most = 60_000 // len(packet)
    assert growth(trickle, most // FACTOR) < NEARLY_LINEAR


COLLECTION = b'{"resourceType":"Bundle","type":"collection","entry":['
ENTRY = b'{"fullUrl":"%s"},' % URL
HOLDS = {"links": ENTRY, "resources": b'{"resource":{"a":{"reference":"%s/Patient/1"}}},' % URL}


@pytest.mark.parametrize("unit", HOLDS.values(), ids=HOLDS.keys())
def test_pending_links_take_bounded_memory(unit: bytes) -> None:
    body = COLLECTION + unit * (2 * 1024 * 1024 // len(unit))
    subject = rewriter(JSON)
    tracemalloc.start()
    for at in range(0, len(body), SIZE):
        subject.feed(body[at : at + SIZE])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * EDITS_LIMIT + len(body)


def test_names_of_elements_are_not_cached() -> None:
    name = b"n" * 5000
    unit = b'{"%d' + name + b'":{"reference":"%s/Patient/1"}},' % URL
    body = b'{"resourceType":"Basic","a":[' + b"".join(unit % number for number in range(500))
    tracemalloc.start()
    passed(JSON, body)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000


@pytest.mark.parametrize("size", [77, 1000, SIZE])
def test_more_pending_links_than_the_limit_are_not_rewritten(size: int) -> None:
    """However the Bundle arrives."""
    body = COLLECTION + ENTRY * 30_000 + b'{}]},{"subject":{"reference":"%s/Patient/1"}}' % URL
    subject = rewriter(JSON)
    pieces = [subject.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join((*pieces, subject.finish())) == body[: -len(URL) - 13] + (
        b'%s/Patient/1"}}' % PLATFORM.encode()
    )
    assert (subject.rewritten, subject.unrewritten) == (1, 30_000)


def test_pending_links_are_rewritten_once_no_signature_can_follow() -> None:
    body = COLLECTION + ENTRY * 15_000 + b"{}]}"
    assert passed(JSON, body) == body.replace(URL, PLATFORM.encode())


def test_few_links_in_much_text_that_waits_are_rewritten() -> None:
    """The limit is one of links; text may wait up to `HOLD_LIMIT`."""
    entry = b'{"fullUrl":"%s","resource":{"resourceType":"Basic","id":"%d%s"}},'
    entries = b"".join(entry % (URL, number, b"x" * 4000) for number in range(1500))
    body = COLLECTION + entries + b"{}]}"
    assert passed(JSON, body) == body.replace(URL, PLATFORM.encode())
