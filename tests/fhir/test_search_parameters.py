"""Which search parameters the platform ignored."""

from __future__ import annotations

import json
from urllib.parse import unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.search_parameters import (
    SearchSupport,
    filtering_names,
    ignored_parameters,
    self_parameters,
)
from tests.fhir.bodies import spelled_out

BASE = "https://playground.dhp.uz/fhir/Immunization"


def searchset(query: str | None, relation: str = "self") -> bytes:
    links = [] if query is None else [{"relation": relation, "url": f"{BASE}?{query}"}]
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "link": links}).encode()


def unused(asked: str, body: bytes, capable: frozenset[str] | None) -> tuple[str, ...]:
    """Return the ignored parameters of a query or form."""
    return ignored_parameters(asked, filtering_names(asked), body, SearchSupport(capable))


@pytest.mark.parametrize(
    ("asked", "self_query", "expected"),
    [
        ("patient.identifier=x", "_count=20", ("patient.identifier",)),
        ("patient.identifier=x", "patient.identifier=x&_page=1", ()),
        ("name=a&name=b&date=1", "name=a&name=b", ("date",)),
        ("date=ge1&date=le2", "date=ge1", ("date",)),
        ("date=ge1&date=le2", "date=le2&date=ge1", ()),
        ("date=ge1&date=le2&a=1", "a=1&date=ge1%2Cle2", ("date",)),
        ("name:exact=a&name=b", "name=a&name=b", ()),
        ("name:exact=a&name=b", "name=b", ("name:exact",)),
        ("name:exact=a", "name:exact=a", ()),
        ("name%3Aexact=a", "name:exact=a", ()),
        ("name:exact=a", "name=a", ()),
        ("_format=json&_pretty=true&_count=5&_total=none&_page=2", "", ()),
        ("_lastUpdated=gt2020", "", ("_lastUpdated",)),
        ("empty=&x=1", "x=1", ()),
        ("name=a&date=1", "name=a&date=1&_page=2", ()),
        ("name=a&date=1", "name=a&date", ("date",)),
        ("name=a&date=", "name=a&date=1", ()),
        ("", "", ()),
    ],
)
def test_a_parameter_missing_from_self_is_ignored(
    asked: str, self_query: str, expected: tuple[str, ...]
) -> None:
    assert unused(asked, searchset(self_query), None) == expected


# What FHIR R5 calls search result parameters, and what a server pages by.
NOT_SELECTING = {
    "_summary": "count",
    "_elements": "id,status",
    "_sort": "-date",
    "_count": "5",
    "_total": "accurate",
    "_maxresults": "10",
    "_score": "true",
    "_contained": "both",
    "_containedType": "container",
    "_graph": "x",
    "_include": "Immunization:patient",
    "_include:iterate": "Patient:link",
    "_revinclude": "Provenance:target",
    "_format": "json",
    "_pretty": "true",
    "_page": "2",
    "_offset": "20",
    "_getpagesoffset": "20",
    "ct": "x",
}
# Parameters of all types, one of the type, and what is misspelled: they say which resources match.
SELECTING = {
    "_content": "x",
    "_filter": "x eq 1",
    "_has:Provenance:target:agent": "1",
    "_id": "1",
    "_in": "Group/1",
    "_language": "uz",
    "_lastUpdated": "gt2026",
    "_list": "1",
    "_profile": "http://x/y",
    "_query": "current",
    "_security": "R",
    "_source": "x",
    "_tag": "x",
    "_text": "x",
    "_type": "Immunization",
    "_lastupdatd": "gt2026",
    "status": "completed",
    "status:not": "completed",
    "patient.name": "x",
}


@pytest.mark.parametrize("name", NOT_SELECTING)
def test_parameters_that_do_not_select_are_not_checked(name: str) -> None:
    """Missing from `self`, fewer there, not listed, or named in an outcome."""
    once = f"{name}={NOT_SELECTING[name]}"
    issue = {"code": "not-supported", "diagnostics": f"{name} is unknown"}
    for asked in (once, f"{once}&{once}"):
        for used in ("", once):
            assert unused(f"{asked}&status=x", searchset(f"{used}&status=x"), None) == ()
        assert unused(asked, searchset(asked), frozenset({"status"})) == ()
        assert unused(f"{asked}&status=x", outcome_entry(issue, "status=x"), None) == ()


@pytest.mark.parametrize("name", SELECTING)
def test_parameters_that_select_are_checked(name: str) -> None:
    """Also those of all types, and beside one that does not select."""
    once = f"{name}={SELECTING[name]}"
    assert unused(f"{once}&_summary=true", searchset(""), None) == (name,)
    assert unused(f"{once}&{once}", searchset(once), None) == (name,)
    issue = {"code": "not-supported", "diagnostics": f"{name} is unknown"}
    assert unused(once, outcome_entry(issue, once), None) == (name,)


def test_without_a_self_link_only_the_statement_counts() -> None:
    """Without both nothing is known."""
    assert unused("odd=1&status=x", searchset(None), None) == ()
    assert unused("odd=1&status=x", searchset("a=1", "next"), None) == ()
    assert unused("odd=1&status=x", searchset(None), frozenset({"status"})) == ("odd",)


def test_an_unlisted_parameter_is_ignored_even_if_self_repeats_it() -> None:
    assert unused("odd=1", searchset("odd=1"), frozenset({"status"})) == ("odd",)
    assert unused("patient.name=1", searchset("patient.name=1"), frozenset({"patient"})) == ()
    assert unused("_id=1", searchset("_id=1"), frozenset()) == ()


def test_self_is_found_in_any_order_and_spelling() -> None:
    body = b'{"link":[{"url":"http:\\/\\/x\\/y?a=1\\u0026b=2" ,"relation" : "self"}]}'
    assert self_parameters(body) == {"a", "b"}


@pytest.mark.parametrize(
    "before",
    [
        b'{"relation":"next","title":"self","url":"http://x/y?c=1"}',
        b'{"relation":"next","url":"http://x/y?c=1","extension":[{"url":"self"},{"url":"self"}]}',
        b'{"relation":"self" ',  # broken off
    ],
)
def test_self_is_the_link_with_that_relation(before: bytes) -> None:
    """The word may occur before, also in an entry."""
    link = b'{"title":"self","relation":"self","url":"http://x/y?a=1&b=2"}'
    assert self_parameters(b'{"link":[%s,%s]}' % (before, link)) == {"a", "b"}
    assert self_parameters(b'{"link":[%s]}' % before) is None


@given(st.text("aü%+&=?#:/[] \t\r\n\0"), st.sampled_from(["", "http://x/", "//", "x?"]))
def test_the_query_of_any_self_url_is_read(rest: str, front: str) -> None:
    url = front + rest
    body = json.dumps({"link": [{"relation": "self", "url": url}]}).encode()
    try:
        query = urlsplit(url).query
    except ValueError:  # of the host, which tells nothing of the query
        return
    pairs = [part.partition("=") for part in query.split("&")]
    assert self_parameters(body) == {unquote_plus(name) for name, _, value in pairs if value}


@pytest.mark.parametrize("url", ["http://[/x?a=1", "//a]b?a=1#b=2"])
def test_an_invalid_host_in_self_does_not_matter(url: str) -> None:
    body = json.dumps({"link": [{"relation": "self", "url": url}]}).encode()
    assert self_parameters(body) == {"a"}


def test_self_of_xml_is_found() -> None:
    body = (
        b'<Bundle xmlns="http://hl7.org/fhir"><link><relation value="self"/>'
        b'<url value="http://x/y?a=1&amp;b=2"/></link></Bundle>'
    )
    assert self_parameters(body, xml=True) == {"a", "b"}


@pytest.mark.parametrize("name", ["date", "date:missing", "date.x", "_date"])
def test_parameters_known_to_have_no_effect_are_ignored(name: str) -> None:
    """Also with a modifier or chained, whatever self and statement say."""
    known = SearchSupport(frozenset({"date", "code"}), ("date", "_date"))
    asked = f"{name}=1&code=2"
    assert ignored_parameters(asked, filtering_names(asked), searchset(asked), known) == (name,)


def test_a_chain_has_no_effect_by_its_whole_name_only() -> None:
    known = SearchSupport(frozenset({"patient"}), ("patient.identifier",))
    for asked, expected in (("patient.identifier=1", ("patient.identifier",)), ("patient=1", ())):
        assert (
            ignored_parameters(asked, filtering_names(asked), searchset(asked), known) == expected
        )


def outcome_entry(issue: dict[str, object], asked: str, *, behind: int = 0) -> bytes:
    """Return a page with such an entry, after so many matches."""
    link = {"relation": "self", "url": f"{BASE}?{asked}"}
    matches = [{"resource": {"resourceType": "Immunization", "id": str(n)}} for n in range(behind)]
    outcome = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}}
    bundle = {"resourceType": "Bundle", "type": "searchset", "link": [link]}
    return json.dumps({**bundle, "entry": [*matches, outcome]}).encode()


@pytest.mark.parametrize(
    ("issue", "expected"),
    [
        ({"code": "not-supported", "diagnostics": "Parameter 'date' is unknown"}, ("date",)),
        ({"code": "not-supported", "details": {"text": "date is left out"}}, ("date",)),
        ({"code": "invalid", "expression": ["http.date"]}, ("date",)),
        ({"code": "value", "expression": ["http.date"], "diagnostics": "no date"}, ("date",)),
        ({"code": "invalid", "diagnostics": "ignored: birthdate, dates, x-date"}, ()),
        ({"code": "processing", "diagnostics": "date was ignored"}, ()),
        ({"code": "not-supported"}, ("date", "code")),
        ({"code": "not-supported", "diagnostics": "_summary"}, ()),
        ({"code": "not-found", "diagnostics": "no match for date"}, ()),
        ({"code": "informational", "diagnostics": "by date, then code"}, ()),
    ],
)
def test_an_outcome_entry_names_ignored_parameters(
    issue: dict[str, object], expected: tuple[str, ...]
) -> None:
    """By code and name, in whatever member. Words that say it beside another code do not count."""
    asked = "date=1&code=2"
    for behind in (0, 5):
        body = outcome_entry({"severity": "warning", **issue}, asked, behind=behind)
        assert unused(asked, body, None) == expected


def test_names_count_in_every_spelling() -> None:
    issue = {"code": "not-supported", "diagnostics": "date is unknown"}
    assert unused("date=1&code=2", spelled_out(searchset("code=2")), None) == ("date",)
    body = spelled_out(outcome_entry(issue, "date=1&code=2", behind=3))
    assert unused("date=1&code=2", body, None) == ("date",)


def test_an_outcome_entry_in_xml_names_ignored_parameters() -> None:
    body = (
        b'<Bundle xmlns="http://hl7.org/fhir"><entry><resource><OperationOutcome><issue>'
        b'<severity value="warning"/><code value="not-supported"/>'
        b'<diagnostics value="&quot;date&quot; is unknown"/></issue></OperationOutcome>'
        b"</resource></entry></Bundle>"
    )
    asked = "date=1&code=2"
    assert ignored_parameters(asked, filtering_names(asked), body, SearchSupport(), xml=True) == (
        "date",
    )


@pytest.mark.parametrize("rest", [b'{"resourceType":"OperationOutcome"', b'"OperationOutcome"}]}'])
def test_an_incomplete_outcome_entry_names_nothing(rest: bytes) -> None:
    assert unused("date=1", b'{"resourceType":"Bundle","entry":[' + rest, None) == ()
