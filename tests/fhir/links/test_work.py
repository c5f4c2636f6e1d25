"""How much work bodies make that were written to make as much as possible."""

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
    """A rewriter of requests."""
    found = rewriter_for(kind, links, "to-platform")
    assert found is not None
    return found


def passed(kind: str, body: bytes, links: LinkMap = LINKS) -> bytes:
    """The body behind a rewriter, fed as it comes from a socket."""
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
def test_what_holds_no_url_is_not_looked_at(kind: str, body: bytes) -> None:
    """Pieces without a URL of the base cost some steps each, whatever they are made of."""
    pieces = len(body) // SIZE + 1
    assert operations(lambda: passed(kind, body)) < 300 * pieces + 3000


@pytest.mark.parametrize(
    "body", [b"[" + b'"e",' * SIZE, b'["' + b"e" * SIZE, b"[" + b'"//e",' * SIZE]
)
def test_a_short_host_does_not_make_every_byte_a_candidate(body: bytes) -> None:
    """A caller chooses its Host; a letter of it is no URL."""
    assert operations(lambda: passed(JSON, body, SHORT)) < 300 * (len(body) // SIZE + 1)


def test_lines_of_a_search_form_and_of_bulk_data_are_found_among_others() -> None:
    """Those with a URL are rewritten, wherever they stand."""
    line = b'{"resourceType":"Basic","subject":{"reference":"%s/Patient/1"}}\n' % URL
    body = b"1\n" * 100 + line + b"2\n" + line + line + b'{"x":"' + b"a" * 99 + b'"}\n' + line[:-1]
    assert passed(NDJSON, body) == body.replace(URL, PLATFORM.encode())
    body = b"a=1&&" * 100 + b"a=%s/x&" % URL + b"b=&" + b"c=%s&c=%s" % (URL, URL)
    assert passed(FORM, body) == body.replace(URL, PLATFORM.encode())


def test_objects_that_begin_far_away_cost_no_more_than_following_the_structure() -> None:
    """What is around a link is searched backwards, but not a long way for each of many links."""
    links = b",".join([b'{"x":1,"reference":"%s/Patient/1"}' % URL.upper()] * 100)
    parts = b",".join([b'{"p":[' + b"{}," * 700 + links + b"]}"] * 16)
    body = b'{"resourceType":"Basic","a":[' + parts + b"]}"
    exact = b'{"_":"signature",' + body[1:]
    assert cost_ratio(lambda: passed(JSON, body), lambda: passed(JSON, exact), enough=3) < 3


def test_entries_with_a_host_in_capitals_are_not_read_again_for_each_of_them() -> None:
    """Those of a Bundle that streams pass together, however its host is written."""
    entries = b",".join([b'{"fullUrl":"http://GATEWAY:8080/fhir/A/1"}'] * 20_000)
    body = b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % entries
    links = LinkMap(PLATFORM, "http://gateway:8080/fhir")
    in_small_letters = body.replace(b"GATEWAY", b"gateway")
    ratio = cost_ratio(
        lambda: passed(JSON, body, links),
        lambda: passed(JSON, in_small_letters, links),
        enough=20,
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
def test_an_open_token_is_not_read_again_for_each_packet(
    kind: str, start: bytes, packet: bytes
) -> None:
    """A packet costs the same, however long the token has become meanwhile."""

    def trickle(number: int) -> None:
        subject = rewriter(kind)
        subject.feed(start)
        for _ in range(number):
            subject.feed(packet)

    most = 60_000 // len(packet)
    assert growth(trickle, most // FACTOR) < NEARLY_LINEAR


COLLECTION = b'{"resourceType":"Bundle","type":"collection","entry":['
ENTRY = b'{"fullUrl":"%s"},' % URL
HOLDS = {
    "links": ENTRY,
    "resources": b'{"resource":{"a":{"reference":"%s/Patient/1"}}},' % URL,
}


@pytest.mark.parametrize("unit", HOLDS.values(), ids=HOLDS.keys())
def test_links_that_wait_take_little_memory(unit: bytes) -> None:
    """A body made of links that wait for the end of their Bundle has a bound on its memory."""
    body = COLLECTION + unit * (2 * 1024 * 1024 // len(unit))
    subject = rewriter(JSON)
    tracemalloc.start()
    for at in range(0, len(body), SIZE):
        subject.feed(body[at : at + SIZE])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * EDITS_LIMIT + len(body)


def test_names_of_elements_are_not_kept() -> None:
    """Ever new and long ones in the paths of links leave nothing behind."""
    name = b"n" * 5000
    unit = b'{"%d' + name + b'":{"reference":"%s/Patient/1"}},' % URL
    body = b'{"resourceType":"Basic","a":[' + b"".join(unit % number for number in range(500))
    tracemalloc.start()
    passed(JSON, body)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000


@pytest.mark.parametrize("size", [77, 1000, SIZE])
def test_too_many_links_that_wait_stay(size: int) -> None:
    """With more than the limit of them in one undecided Bundle all stay, however it arrives."""
    body = COLLECTION + ENTRY * 30_000 + b'{}]},{"subject":{"reference":"%s/Patient/1"}}' % URL
    subject = rewriter(JSON)
    pieces = [subject.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join((*pieces, subject.finish())) == body[: -len(URL) - 13] + (
        b'%s/Patient/1"}}' % PLATFORM.encode()
    )
    assert (subject.rewritten, subject.unrewritten) == (1, 30_000)


def test_many_links_that_wait_are_rewritten() -> None:
    """Below the limit a collection is rewritten once its end shows that it has no signature."""
    body = COLLECTION + ENTRY * 15_000 + b"{}]}"
    assert passed(JSON, body) == body.replace(URL, PLATFORM.encode())


def test_few_links_in_much_text_that_waits_are_rewritten() -> None:
    """The limit is one of links; text may wait up to `HOLD_LIMIT`."""
    entry = b'{"fullUrl":"%s","resource":{"resourceType":"Basic","id":"%d%s"}},'
    entries = b"".join(entry % (URL, number, b"x" * 4000) for number in range(1500))
    body = COLLECTION + entries + b"{}]}"
    assert passed(JSON, body) == body.replace(URL, PLATFORM.encode())
