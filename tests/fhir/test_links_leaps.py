"""Pages of entries, which are taken many at once where they look as nearly all do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pages import searchset
from gateway.fhir import json_leaps, page_head
from gateway.fhir.json_leaps import Leap
from gateway.fhir.json_links import JsonRewriter
from gateway.fhir.json_text import needles
from gateway.fhir.link_map import Swap
from gateway.fhir.links import LinkMap
from gateway.fhir.page_head import head_of_page
from tests.doubles.growth import operations

BASE: Final = "https://playground.dhp.uz/fhir"
LINKS: Final = LinkMap(BASE, "http://his.local:8080/fhir", ("https://alias.dhp.uz/r5",))
SWAP: Final = LINKS.answers
GATEWAY: Final = "http://his.local:8080/fhir"
URL: Final = f"{BASE}/Patient/1"


@pytest.fixture(params=["patterns", "bytes"], scope="module", autouse=True)
def told_by(request: pytest.FixtureRequest) -> Iterator[str]:
    """What tells the forms of URLs: interpreted, it is patterns; compiled, it is byte by byte."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (json_leaps, page_head):
            patch.setattr(module, "IS_COMPILED", request.param == "bytes")
        yield request.param


class StepByStep(JsonRewriter):
    """Follows the structure of everything."""

    __slots__ = ()

    def _begin(self, text: bytes) -> int:
        return 0

    def _leap(self, frame: Any, text: bytes, pos: int) -> int | None:
        return None


URLS: Final = st.sampled_from(
    [
        f"{BASE}/Patient/1",
        f"{BASE}/Observation/a-1.b/_history/2",
        f"{BASE}/Patient/..",
        f"{BASE}/Patient/.",
        f"{BASE}/../admin",
        f"{BASE}/Patient?name=x",
        f"{BASE}/metadata",
        f"{BASE}",
        f"{BASE}er/Patient/1",
        "http://playground.dhp.uz/fhir/Patient/1",
        "https://PLAYGROUND.dhp.uz/fhir/Patient/1",
        "https://playground.dhp.uz:443/fhir/Patient/1",
        "https://alias.dhp.uz/r5/Patient/1",
        "https://elsewhere.example/Patient/1",
        "xttp://playground.dhp.uz/fhir/Patient/1",
        "s://playground.dhp.uz/fhir/Patient/1",
        "://playground.dhp.uz/fhir/Patient/1",
        "urn:uuid:5d0c6f0a-1f1e-4c55-9a1b-000000000011",
        "Patient/1",
    ]
)
REFERENCES: Final = st.fixed_dictionaries(
    {"reference": URLS}, optional={"display": st.sampled_from(["x", '"', f"{BASE}/Patient/1"])}
)
# Names under which a Reference is one, is none, or is one only in some places.
PARENTS: Final = st.sampled_from(
    [
        "subject",
        "performer",
        "condition",
        "criteria",
        "nameExpression",
        "statement",
        "reference",
        "request",
    ]
)
SENTENCES: Final = st.sampled_from(
    [
        "plain",
        f"see {BASE}/Patient/1",
        f"{BASE}/Patient/1 and {BASE}/Patient/2",
        'a "quote"\n',
        "\\",
    ]
)
ATTACHMENTS: Final = st.fixed_dictionaries(
    {}, optional={"contentType": st.just("text/plain"), "size": st.just(12), "url": URLS}
)


def _member(value: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> Any:
    return st.tuples(names, value)


PLAIN_MEMBERS: Final = st.one_of(
    _member(REFERENCES | st.lists(REFERENCES, max_size=3), PARENTS),
    _member(ATTACHMENTS | st.lists(ATTACHMENTS, max_size=2), st.sampled_from(["content", "photo"])),
    _member(ATTACHMENTS, st.sampled_from(["extension", "implementation", "link"])),
    _member(URLS | SENTENCES, st.sampled_from(["url", "source", "value", "valueUrl", "fullUrl"])),
    _member(st.fixed_dictionaries({"who": REFERENCES}), st.sampled_from(["signature", "agent"])),
    _member(st.fixed_dictionaries({"div": SENTENCES}), st.just("text")),
    _member(st.lists(st.fixed_dictionaries({"item": REFERENCES}), max_size=3), st.just("entry")),
    _member(st.fixed_dictionaries({"reference": REFERENCES}), st.sampled_from(["issues", "item"])),
)
TYPES: Final = st.sampled_from(
    ["Patient", "Observation", "OperationOutcome", "Provenance", "Parameters", "Basic", "List"]
)


QUERIES: Final = (
    f"Patient?link={BASE}/P/1",
    "Patient?link=http%3A%2F%2Fhis.local%3A8080%2Ffhir%2FP%2F1&x=a%3a%2F%2F",
    "Patient?link=HTTP%3a%2F%2fHIS.local%3A8080%2Ffhir%2FP%2F1%3A,https%3A//example.org",
)
REQUESTS: Final = st.fixed_dictionaries(
    {"method": st.just("POST"), "url": st.sampled_from(["Patient", *QUERIES])},
    optional={"ifNoneExist": st.sampled_from(["identifier=x|1", f"subject={BASE}/Patient/1"])},
)


@st.composite
def resources(draw: st.DrawFn, depth: int = 1) -> dict[str, Any]:
    """A resource, sometimes with others in it."""
    kind = draw(TYPES)
    resource: dict[str, Any] = {"resourceType": kind, **dict(draw(st.lists(PLAIN_MEMBERS)))}
    if depth and draw(st.integers(0, 4)) == 0:
        resource["contained"] = [draw(resources(depth=0))]
    if depth and draw(st.integers(0, 4)) == 0:
        resource = draw(bundles(depth=0))
    return resource


# What stands in a Bundle before its entries.
HEAD_MEMBERS: Final = st.one_of(
    _member(st.just("b-1"), st.just("id")),
    _member(URLS | SENTENCES, st.sampled_from(["implicitRules", "language"])),
    _member(st.just(12), st.just("total")),
    _member(st.fixed_dictionaries({"profile": st.lists(URLS), "a": REFERENCES}), st.just("meta")),
    _member(st.fixed_dictionaries({"who": REFERENCES}), st.sampled_from(["signature", "issues"])),
)


@st.composite
def bundles(draw: st.DrawFn, depth: int = 1) -> dict[str, Any]:
    """A Bundle whose entries have their members in the usual order, or not."""
    entries = []
    for _ in range(draw(st.integers(0, 6))):
        members: dict[str, Any] = {"fullUrl": draw(URLS), "resource": draw(resources(depth=depth))}
        shape = draw(st.integers(0, 9))
        if shape < 4:
            members["search"] = {"mode": "match"}
        elif shape == 4:
            members = dict(reversed(members.items()))
        elif shape == 5:
            del members["fullUrl"]
        elif shape == 6:
            members["response"] = {"location": draw(URLS), "outcome": draw(resources(depth=0))}
        elif shape == 7:
            members["request"] = draw(REQUESTS)
        entries.append(members)
    kind = draw(st.sampled_from(["searchset", "transaction", "history", "document", "batch"]))
    bundle: dict[str, Any] = {"resourceType": "Bundle"}
    bundle.update(draw(st.lists(HEAD_MEMBERS)))
    head = {"type": kind, "link": [{"relation": "self", "url": draw(URLS)}]}
    bundle.update(head if draw(st.booleans()) else reversed(head.items()))
    bundle["entry"] = entries
    if draw(st.integers(0, 5)) == 0:
        bundle["signature"] = {"who": draw(REFERENCES)}
    return bundle


def rewritten(
    body: bytes, size: int, how: type[JsonRewriter] = JsonRewriter, swap: Swap = SWAP
) -> tuple[bytes, int, int]:
    """What comes out when the body arrives in pieces of that size, and the two counts."""
    rewriter = how(swap)
    pieces = [rewriter.feed(body[at : at + size]) for at in range(0, len(body), size)]
    pieces.append(rewriter.finish())
    return b"".join(pieces), rewriter.rewritten, rewriter.unrewritten


def rewritten_whole(body: bytes, swap: Swap = SWAP) -> tuple[bytes, int, int]:
    """The same of a body that is there to its end."""
    rewriter = JsonRewriter(swap)
    return b"".join(rewriter.whole(body)), rewriter.rewritten, rewriter.unrewritten


@settings(deadline=None)
@given(bundles(), st.sampled_from([None, 1]), st.integers(20, 400), st.booleans())
def test_leaping_changes_nothing(
    bundle: dict[str, Any], indent: int | None, size: int, is_request: bool
) -> None:
    """Whatever a Bundle holds and however it arrives: as if its structure had been followed."""
    separators = (",", ":") if indent is None else None
    body = json.dumps(bundle, indent=indent, separators=separators, ensure_ascii=False).encode()
    swap = SWAP
    if is_request:
        body, swap = body.replace(BASE.encode(), GATEWAY.encode()), LINKS.requests
    step_by_step = rewritten(body, len(body), StepByStep, swap)
    for each in (len(body), size, 1):
        assert rewritten(body, each, swap=swap) == step_by_step
    assert rewritten_whole(body, swap) == step_by_step


def page(*entries: dict[str, Any]) -> bytes:
    """A page of these entries, as short as JSON can be."""
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": [*entries]}
    return json.dumps(bundle, separators=(",", ":")).encode()


def entry(number: int, **members: Any) -> dict[str, Any]:
    """An entry with a plain resource."""
    resource = {"resourceType": "Observation", **members}
    return {"fullUrl": f"{BASE}/Observation/{number}", "resource": resource}


def leap_over(body: bytes) -> tuple[bytes, Leap]:
    """What a leap from the first entry leaves to be looked at, and the leap."""
    start = body.index(b'{"fullUrl"')
    places = [at for at in needles(SWAP).positions(body) if at >= start]
    leap = Leap(body, places, start, SWAP)
    return body[leap.end :], leap


def test_usual_entries_are_taken_at_once() -> None:
    """Of the last nobody knows whether it is there to its end, but what becomes of its URL."""
    usual = entry(2, subject={"reference": f"{BASE}/Patient/1"}, note=[{"text": f"see {BASE}/x"}])
    rest, leap = leap_over(page(entry(1), usual, entry(3)))
    assert rest.startswith(b'{"fullUrl":"https://playground.dhp.uz/fhir/Observation/3"')
    assert len(leap.urls) == 4
    assert len(leap.left) == 1


@pytest.mark.parametrize(
    ("members", "stays"),
    [
        ({"performer": [{"reference": URL, "display": "x"}, {"reference": URL}]}, 0),
        ({"content": [{"attachment": {"contentType": "text/plain", "url": URL}}]}, 0),
        ({"contained": [{"subject": {"reference": URL}}]}, 0),
        ({"contained": [{"resourceType": "Patient", "meta": {"source": URL}}]}, 1),
        ({"serviceType": [{"reference": {"reference": URL}}], "sourceType": "designation"}, 0),
        ({"meta": {"source": URL, "profile": [URL]}}, 2),
        ({"note": [{"text": f"see {URL} and {URL}"}]}, 1),
    ],
    ids=lambda members: next(iter(members)) if isinstance(members, dict) else "",
)
def test_usual_elements_are_judged_in_a_leap(members: dict[str, Any], stays: int) -> None:
    """References, Attachments, and what stays as it is."""
    rest, leap = leap_over(page(entry(1), entry(2, **members), entry(3)))
    assert rest.startswith(b'{"fullUrl":"https://playground.dhp.uz/fhir/Observation/3"')
    urls = json.dumps(members).count(URL) if not stays else 0
    assert (len(leap.urls), len(leap.stays), leap.left) == (3 + urls, stays, [])


@pytest.mark.parametrize(
    ("request_", "replaced"),
    [
        ({"method": "PUT", "url": "Patient/1"}, 4),
        ({"method": "POST", "url": f"Patient?link={GATEWAY}/Patient/1"}, 1),
        ({"method": "POST", "url": "Patient", "ifNoneExist": f"a={GATEWAY}/Patient/1"}, 1),
        ({"method": "POST", "url": "Patient?link=http%3A%2F%2Fhis.local%3A8080%2Ffhir%2FP%2F1"}, 1),
    ],
    ids=["plain", "query", "condition", "encoded"],
)
def test_entries_of_a_transaction_are_taken_at_once_too(
    request_: dict[str, str], replaced: int
) -> None:
    """Up to one whose own members hold a query with a URL."""
    subject = {"reference": f"{BASE}/Patient/1"}
    text = page(entry(1), {**entry(2, subject=subject), "request": request_}, entry(3))
    body = text.replace(b"searchset", b"transaction").replace(BASE.encode(), GATEWAY.encode())
    start = body.index(b'{"fullUrl"')
    places = [at for at in needles(LINKS.requests).positions(body) if at >= start]
    assert len(Leap(body, places, start, LINKS.requests).urls) == replaced
    leapt = rewritten(body, len(body), swap=LINKS.requests)
    assert leapt == rewritten(body, len(body), StepByStep, LINKS.requests)


@pytest.mark.parametrize("rewriter", [JsonRewriter, StepByStep])
def test_a_request_that_a_resource_names_is_a_reference(rewriter: type[JsonRewriter]) -> None:
    """Only an entry's own element of that name holds queries."""
    text = page(entry(1), entry(2, request={"reference": f"{BASE}/Claim/1"}), entry(3))
    body = text.replace(b"searchset", b"transaction").replace(BASE.encode(), GATEWAY.encode())
    after, replaced, left = rewritten(body, len(body), rewriter, LINKS.requests)
    assert b'"request":{"reference":"%s/Claim/1"}' % BASE.encode() in after
    assert (replaced, left) == (4, 0)


@pytest.mark.parametrize("others", [0, 30, 300])
@pytest.mark.parametrize("host", ["PLAYGROUND.dhp.uz", "pLAYGROUND.DHP.UZ", "playground.dhp.uz"])
def test_a_host_is_found_in_any_case(host: str, others: int) -> None:
    """However many URLs there are whose hosts begin with the same letter."""
    subject = {"reference": f"HTTPS://{host}/fhir/Patient/1"}
    coding = [{"system": f"https://p{number}.example/x"} for number in range(others)]
    body = page(entry(1), entry(2, coding=coding, subject=subject))
    assert rewritten(body, len(body))[1] == 3


# An entry without a resource.
DELETED: Final = {"request": {"method": "DELETE", "url": "Patient/1"}}
BUNDLE: Final = {"resourceType": "Bundle"}


@pytest.mark.parametrize(
    "members",
    [
        {"issues": {"subject": {"reference": URL}, "signature": []}},
        {"contained": [{"resourceType": "OperationOutcome", "subject": {"reference": URL}}]},
        {"contained": [{"subject": {"reference": URL}, "resourceType": "OperationOutcome"}]},
        {"x": {"y": [{"entry": [{"x": {"y": {}}}, {"fullUrl": URL}]}]}},
        {"contained": [{"entry": [DELETED, entry(4)], "resourceType": "Bundle"}]},
        {"contained": [{"entry": [DELETED, entry(4)], "type": "document", **BUNDLE}]},
        {"contained": [{"x": "B" * 9, "entry": [DELETED, entry(4)], "type": "document", **BUNDLE}]},
        {"entry": [{"item": {"reference": URL}}, {"item": {"reference": URL, "display": "B"}}]},
        {"subject": {"reference": URL}, "meta": {"source": f"{URL}#1"}},
    ],
    ids=lambda members: next(iter(members)),
)
@pytest.mark.parametrize("blank", [b"", b" "])
def test_wherever_a_page_is_cut_it_is_rewritten_alike(
    members: dict[str, Any], blank: bytes
) -> None:
    """What stands behind the cut may say that a URL stays, or where an entry ends."""
    body = page(entry(1), entry(2, **members), entry(3))
    body = body.replace(b'"contained":', b'"contained"%s:' % blank)
    wanted = rewritten(body, len(body), StepByStep)
    assert rewritten_whole(body) == wanted
    for cut in range(1, len(body) + 1):
        rewriter = JsonRewriter(SWAP)
        pieces = (rewriter.feed(body[:cut]), rewriter.feed(body[cut:]), rewriter.finish())
        assert (b"".join(pieces), rewriter.rewritten, rewriter.unrewritten) == wanted


def head_of(**members: Any) -> tuple[bytes, tuple[int, list[int]] | None]:
    """A page with these members before an entry, and what is told of its beginning."""
    body = json.dumps({"resourceType": "Bundle", **members}, separators=(",", ":")).encode()
    return body, head_of_page(body, needles(SWAP).positions(body), SWAP)


NEXT: Final = {"relation": "next", "url": f"{BASE}/Patient?name=http%3A%2F%2Fx&_page=3"}
SELF: Final = {"relation": "self", "url": f"{BASE}?_getpages=x"}
SEARCHSET: Final = {"id": "b", "meta": {"tag": [{"code": "x"}]}, "type": "searchset", "total": 7}


def test_a_usual_beginning_is_taken_at_once() -> None:
    """Up to the first entry, with the links of the page."""
    body, head = head_of(**SEARCHSET, link=[SELF, NEXT], entry=[entry(1)])
    assert head is not None
    end, urls = head
    assert body[end:].startswith(b'{"fullUrl"')
    assert [body.startswith(BASE.encode(), at) for at in urls] == [True, True]
    assert rewritten(body, len(body)) == rewritten(body, len(body), StepByStep)


@pytest.mark.parametrize(
    "members",
    [
        {**SEARCHSET, "type": "document"},
        {"link": [SELF]},
        {**SEARCHSET, "signature": {"who": {"reference": URL}}},
        {**SEARCHSET, "meta": {"profile": [URL]}},
        {**SEARCHSET, "meta": {"extension": [{"x": "y", "url": f"{BASE}/x"}]}},
        {**SEARCHSET, "link": [{"relation": "self", "url": f"{BASE}/../admin"}]},
        {**SEARCHSET, "link": [{"relation": "self", "url": f"{BASE}/a\\b"}]},
        {**SEARCHSET, "link": [{"relation": "self", "url": f"{BASE}/\\host/b"}]},
        {**SEARCHSET, "link": [{"relation": "self", "url": f"{BASE}er?x"}]},
    ],
)
def test_a_beginning_that_is_unusual_is_followed(members: dict[str, Any]) -> None:
    """Where it is not sure what becomes of its links, or of any URL behind."""
    body, head = head_of(**members, entry=[entry(1)])
    assert head is None
    assert rewritten(body, len(body)) == rewritten(body, len(body), StepByStep)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("query", ["Patient", "Observation?code=http%3A%2F%2Floinc.org%7C58410-2"])
def test_a_page_as_the_benchmark_takes_it(query: str, dense: bool, told_by: str) -> None:
    """It is rewritten as if its structure had been followed, with a fraction of the steps."""
    body = searchset(60 * 1024, BASE, dense=dense, query=query)
    wanted = rewritten(body, len(body), StepByStep)
    for size in (len(body), 4096, 999):
        assert rewritten(body, size) == wanted
    if told_by == "bytes":
        return  # what is not compiled takes many steps for it
    steps = operations(lambda: rewritten(body, len(body), StepByStep))
    assert operations(lambda: rewritten(body, len(body))) * 4 < steps


def test_a_page_that_arrives_in_pieces_is_taken_at_once_too(told_by: str) -> None:
    """Only at the edges of the pieces is the structure followed."""
    note = [{"text": "x" * 1000}]
    body = page(*(entry(number, note=note) for number in range(1000)))
    assert rewritten(body, 64 * 1024)[1:] == (1000, 0)
    limit = 30 if told_by == "patterns" else 90
    assert operations(lambda: rewritten(body, 64 * 1024)) < limit * 1000


@pytest.mark.parametrize(
    "members",
    [
        {"resourceType": "Bundle"},
        {"resourceType": "OperationOutcome"},
        {"contained": [{"resourceType": "Patient"}], "subject": {"reference": URL}},
        {"signature": [{"who": {"reference": f"{BASE}/Patient/1"}}]},
        {"condition": {"reference": f"{BASE}/Condition/1"}},
        {"valueUrl": f"{BASE}/Patient/1"},
        {"subject": {"reference": f"{BASE}/Patient/.."}},
        {"subject": {"reference": "https://alias.dhp.uz/r5/Patient/1"}},
        {"contained": {"reference": f"{BASE}/Patient/1"}},
        {"performer": [{"reference": "Patient/1"}, {"reference": f"{BASE}/Patient/1"}]},
        {"implementation": {"url": f"{BASE}/Patient/1"}},
        {"source": URL, "note": [{"text": f"see {BASE}/x"}], "valueUrl": URL},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_leap_ends_before_what_is_unusual(members: dict[str, Any]) -> None:
    """The structure is then followed step by step."""
    rest, leap = leap_over(page(entry(1), entry(2, **members), entry(3), entry(4)))
    assert rest.startswith(b'{"fullUrl":"https://playground.dhp.uz/fhir/Observation/2"')
    assert (len(leap.urls), leap.stays, leap.left) == (1, [], [])
