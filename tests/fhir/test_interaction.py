"""The interaction of a request: a row for each row of the FHIR API, and for unusual requests."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.interaction import Interaction, classify, query_names, refine_bundle
from gateway.fhir.vocabulary import INTERACTIONS, RESOURCE_TYPES
from tests.fhir.bodies import spelled_out

TRANSACTION = classify("POST", "")

# method, path, code, resource, id, safe
ROWS = [
    ("GET", "/Patient/1", "read", "Patient", "1", True),
    ("HEAD", "/Patient/1", "read", "Patient", "1", True),
    ("GET", "/Patient/1/", "read", "Patient", "1", True),
    ("GET", "/Patient/1/_history/2", "vread", "Patient", "1", True),
    ("HEAD", "/Patient/1/_history/2", "vread", "Patient", "1", True),
    ("PUT", "/Patient/1", "update", "Patient", "1", False),
    ("PUT", "/Patient", "update", "Patient", None, False),
    ("PATCH", "/Patient/1", "patch", "Patient", "1", False),
    ("PATCH", "/Patient", "patch", "Patient", None, False),
    ("DELETE", "/Patient/1", "delete", "Patient", "1", False),
    ("DELETE", "/Patient", "delete", "Patient", None, False),
    ("DELETE", "/", "delete", "", None, False),
    ("POST", "/Patient", "create", "Patient", None, False),
    ("GET", "/Patient", "search-type", "Patient", None, True),
    ("GET", "/Patient/", "search-type", "Patient", None, True),
    ("HEAD", "/Patient", "search-type", "Patient", None, True),
    ("POST", "/Patient/_search", "search-type", "Patient", None, True),
    ("GET", "/Patient/_search", "search-type", "Patient", None, True),
    ("PUT", "/Patient/_search", "other", "Patient", None, False),
    ("GET", "", "search-system", "", None, True),
    ("GET", "/", "search-system", "", None, True),
    ("POST", "/_search", "search-system", "", None, True),
    ("GET", "/_search", "search-system", "", None, True),
    ("GET", "/Patient/1/Observation", "search-type", "Observation", None, True),
    ("POST", "/Patient/1/Observation/_search", "search-type", "Observation", None, True),
    ("GET", "/Patient/1/*", "search-type", "", None, True),
    ("POST", "/Patient/1/_search", "search-type", "", None, True),
    ("POST", "/Patient/1/Observation", "other", "Observation", None, False),
    ("GET", "/Patient/1/_history", "history-instance", "Patient", "1", True),
    ("GET", "/Patient/_history", "history-type", "Patient", None, True),
    ("GET", "/_history", "history-system", "", None, True),
    ("DELETE", "/Patient/1/_history", "other", "Patient", "1", False),
    ("GET", "/metadata", "capabilities", "", None, True),
    ("HEAD", "/metadata/", "capabilities", "", None, True),
    ("POST", "/metadata", "other", "", None, False),
    ("OPTIONS", "/", "capabilities", "", None, False),
    ("OPTIONS", "/Patient", "other", "Patient", None, False),
    ("POST", "", "transaction", "", None, False),
    ("POST", "/", "transaction", "", None, False),
    ("PUT", "/", "other", "", None, False),
    ("GET", "/.well-known/smart-configuration", "smart-configuration", "", None, True),
    ("GET", "/.well-known/other", "other", "other", None, True),
    ("GET", "/_outbox/0190", "async-status", "", None, True),
    ("DELETE", "/_outbox/0190", "async-cancel", "", None, False),
    ("GET", "/$export-poll-status", "async-status", "", None, True),
    ("GET", "/Fhirless/1", "read", "other", "1", True),
    ("GET", "/patient/1", "other", "other", None, True),
    ("GET", "/Patient/a_b", "other", "other", None, True),
    ("GET", f"/Patient/{'1' * 65}", "other", "other", None, True),
    ("POST", "/Patient/1", "other", "Patient", "1", False),
    ("get", "/Patient/1", "other", "Patient", "1", False),
    ("PROPFIND", "/Patient", "other", "Patient", None, False),
    ("GET", "/Patient/1/a/b/c/d", "other", "other", None, True),
    # Read in two ways, or in none: refused to callers that are limited.
    ("GET", "/Patient/1/Observation/2", "other", "other", None, True),
    ("GET", "/Patient/1/Observation/$lastn", "other", "other", None, True),
    ("GET", "/Patient/1/Observation/_history", "other", "other", None, True),
    ("GET", "/Patient/1/_history/1/Observation/2", "other", "other", None, True),
    ("GET", "/Patient/*/Observation", "other", "other", None, True),
    ("GET", "/Patient/*", "other", "other", None, True),
    ("POST", "/Patient/a_b/$everything", "other", "other", None, False),
    ("GET", "/%50atient/%31", "read", "Patient", "1", True),
    ("GET", "/Patient%2F1", "other", "other", None, True),
    ("GET", "/Patient/..", "other", "other", None, True),
    ("GET", "/Patient/../Observation/1", "other", "other", None, True),
    ("GET", "/Patient/%2e%2E/Observation", "other", "other", None, True),
    ("GET", "//Patient/1", "other", "other", None, True),
    ("GET", "/Patient//1", "other", "other", None, True),
    ("GET", "Patient/1", "other", "other", None, True),
    ("GET", "/Patient;a=b/1", "other", "other", None, True),
    ("GET", "/Patient/$x%2F..%2F..%2FObservation", "other", "other", None, True),
    ("GET", "/Patient/$x\\..\\..\\Observation", "other", "other", None, True),
    ("GET", "/Patient/1;a=b", "other", "other", None, True),
    ("GET", "/%", "other", "other", None, True),
]

OPERATION_ROWS = [
    ("POST", "/$process-message", "", None),
    ("GET", "/Patient/$everything", "Patient", None),
    ("POST", "/Patient/%24populate", "Patient", None),
    ("GET", "/Organization/1/$practitioners", "Organization", "1"),
    ("POST", "/ValueSet/$expand", "ValueSet", None),
    ("GET", "/Patient/1/_history/2/$meta", "Patient", "1"),
    ("GET", "/Patient/1/$Ivanov", "Patient", "1"),
    ("POST", "/$", "", None),
]


@pytest.mark.parametrize(("method", "path", "code", "resource", "rid", "safe"), ROWS)
def test_names_the_interaction(method, path, code, resource, rid, safe):
    """Each request of the FHIR API has its interaction, type, id and safety."""
    assert classify(method, path) == Interaction(code, resource, rid, safe)


@pytest.mark.parametrize(("method", "path", "resource", "rid"), OPERATION_ROWS)
def test_recognizes_operations(method, path, resource, rid):
    """It is safe with GET only."""
    expected = Interaction("operation", resource, rid, method == "GET")
    assert classify(method, path) == expected


def test_other_methods_on_an_operation_are_other():
    assert classify("PUT", "/Patient/$everything").code == "other"


def test_both_kinds_of_search_are_searches():
    """A read is none."""
    searches = [("GET", "/Patient"), ("POST", "/_search"), ("GET", "/Patient/1")]
    assert [classify(*search).is_search for search in searches] == [True, True, False]


def test_the_repr_hides_the_id():
    """It may be a national identifier."""
    assert "30101901234567" not in repr(classify("GET", "/Patient/30101901234567"))


def test_knows_the_r5_types():
    assert {"Patient", "Binary", "DeviceAssociation", "Transport"} <= RESOURCE_TYPES
    assert not {"Media", "RequestGroup", "Resource", "DomainResource"} & RESOURCE_TYPES


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) | st.text()
SEGMENTS = st.sampled_from(
    ["Patient", "Foo", "1", "..", "", "_history", "_search", "$expand", "$x", "*", "%2F", "%", "é"]
)
PATHS = st.text() | st.lists(SEGMENTS, max_size=7).map(lambda parts: "/" + "/".join(parts))


@given(METHODS, PATHS)
def test_labels_stay_in_their_closed_sets(method, path):
    """Whatever arrives, nothing is raised and all labels are from the closed sets."""
    interaction = classify(method, path)
    assert interaction.code in INTERACTIONS
    assert interaction.resource in {*RESOURCE_TYPES, "", "other"}
    found = interaction.resource_id
    assert found is None or re.fullmatch(r"(?!\.{1,2}\Z)[A-Za-z0-9\-.]{1,64}", found)


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), PATHS)
def test_of_the_unsafe_methods_only_searches_are_safe(method, path):
    interaction = classify(method, path)
    assert not interaction.is_safe or (method == "POST" and path.rstrip("/").endswith("_search"))


JSON_BUNDLES = [
    (b'{"resourceType":"Bundle","type":"transaction","entry":[', "transaction"),
    (b'{"resourceType":"Bundle","type":"batch"}', "batch"),
    (b'\xef\xbb\xbf{ "type" :\n "batch"', "batch"),
    (b'{"t\\u0079pe":"b\\u0061tch"}', "batch"),
    (spelled_out(b'{"resourceType":"Bundle","type":"batch"}'), "batch"),
    (b'{"meta":{"type":"batch"},"type":"transaction"}', "transaction"),
    (b'{"entry":[{"resource":{"type":"batch"}}],"type":"transaction"}', "transaction"),
    (b'{"id":"type","x":"\\"type\\":\\"batch\\"","type":"transaction"}', "transaction"),
    (b'{"id":"}{\\\\","type":"batch"}', "batch"),
    (b'{"type":"history"}', "other"),
    (b'{"type":"collection"}', "other"),
    (b'{"type":["batch"]}', "other"),
    (b'{"type":{"type":"batch"}}', "other"),
    (b'{"type":1,"x":"batch"}', "other"),
    (b'{"type":null}', "other"),
    (b'{"type":"batc', "other"),
    (b'{"typ', "other"),
    (b'[{"type":"batch"}]', "other"),
    (b'"type":"batch"', "other"),
    (b'{"entry":[{"type":"batch"}]}', "other"),
    (b'{"type":"\\ud800\\q"}', "other"),
    (b"\x1f\x8b\x08\x00", "other"),
    (b"", "other"),
]


@pytest.mark.parametrize(("prefix", "code"), JSON_BUNDLES)
def test_finds_the_type_of_a_json_bundle(prefix, code):
    """Only `type` of the outermost object counts; without it the interaction is `other`."""
    assert refine_bundle(TRANSACTION, prefix, "application/fhir+json").code == code


NS = b'xmlns="http://hl7.org/fhir"'
XML_BUNDLES = [
    (b'<Bundle xmlns="http://hl7.org/fhir"><type value="transaction"/><entry>', "transaction"),
    (
        b"<?xml version='1.0'?><!-- <type value='x'/> --><Bundle %s><type value='batch'/>" % NS,
        "batch",
    ),
    (b'<f:Bundle xmlns:f="http://hl7.org/fhir"><f:type value="batch"/>', "batch"),
    (
        b'<Bundle %s><id value="1"/><meta><type value="batch"/></meta><type value="history"/>' % NS,
        "other",
    ),
    (
        b'<Bundle %s><entry><type value="batch"/></entry><type value="transaction"/>' % NS,
        "transaction",
    ),
    (b'<!DOCTYPE Bundle [<!ENTITY a "batch">]><Bundle %s><type value="batch"/>' % NS, "other"),
    (b'<Bundle %s><type extension="1"/>' % NS, "other"),
    (b'<Bundle %s><type value="bat' % NS, "other"),
    (b"<<", "other"),
    (b'<?xml version="1.0" encoding="nonsense"?><Bundle/>', "other"),
]


@pytest.mark.parametrize(("prefix", "code"), XML_BUNDLES)
def test_finds_the_type_of_an_xml_bundle(prefix, code):
    """Only the `type` child of the root counts; a document type is not read."""
    assert refine_bundle(TRANSACTION, prefix, "application/fhir+xml; charset=utf-8").code == code


JSON = "application/fhir+json"


def test_a_bundle_with_a_content_coding_is_other():
    plain = b'{"type":"batch"}'
    assert refine_bundle(TRANSACTION, plain, JSON, encoded=True).code == "other"


def test_without_a_content_type_the_first_octet_decides():
    """A body that begins with "<" is XML."""
    xml = b' <Bundle %s><type value="batch"/>' % NS
    assert refine_bundle(TRANSACTION, xml, "").code == "batch"
    assert refine_bundle(TRANSACTION, b'{"type":"batch"}', "text/plain").code == "batch"


def test_only_the_first_64_kib_are_inspected():
    late = b'{"entry":[' + b" " * 65536 + b'],"type":"batch"}'
    assert refine_bundle(TRANSACTION, late, "application/json").code == "other"


@given(st.binary() | st.text(alphabet='{}[]":,\\type<>/=" !-').map(str.encode), st.text())
def test_inspecting_a_bundle_never_raises(prefix, content_type):
    code = refine_bundle(TRANSACTION, prefix, content_type).code
    assert code in {"batch", "transaction", "other"}


QUERIES = [
    ("", ()),
    ("name=Ali&birthdate=ge1990-01-01", ("name", "birthdate")),
    ("a=1&b=2&a=3", ("a", "b")),
    ("_has:Observation:patient:code=1", ("_has:Observation:patient:code",)),
    (
        "subject%3APatient.name=x&identifier%3Aof-type=y",
        ("subject:Patient.name", "identifier:of-type"),
    ),
    ("&&=1&a=", ("?", "a")),
    ("Karimov", ("?",)),
    ("30101901234567=1&AA1234567=2&+998=3", ("?",)),
    ("%D0%98%D0%B2%D0%B0%D0%BD=1", ("?",)),
    ("a%0Ab=1&a%00=2&%=3", ("?",)),
    ("n" * 65 + "=1", ("?",)),
    ("n" * 64 + "=1", ("n" * 64,)),
]


@pytest.mark.parametrize(("query", "names"), QUERIES)
def test_names_of_a_query_are_unique_and_masked(query, names):
    """In order; what could be data is a question mark."""
    assert query_names(query) == names


def test_at_most_fifty_names_are_returned():
    assert len(query_names("&".join(f"p{number}=1" for number in range(2000)))) == 50


@given(st.text())
def test_names_are_short_and_of_search_characters(query):
    for name in query_names(query):
        assert name == "?" or (name.isascii() and name.isprintable() and len(name) <= 64)


@pytest.mark.parametrize("text", ["1", "a-b.c", "A" * 64, "123e4567-e89b-12d3-a456-426614174000"])
def test_accepts_fhir_ids(text):
    assert classify("GET", f"/Patient/{text}").resource_id == text


@pytest.mark.parametrize("text", ["", "a_b", "a:b", "A" * 65, "a\n", ".", "..", "é"])
def test_rejects_other_ids(text):
    """Other characters, other lengths, and dot segments."""
    assert classify("GET", f"/Patient/{text}").resource_id is None
