"""A FHIR body as a tree: the same for JSON and XML."""

from __future__ import annotations

import pytest

from gateway.fhir import document_tree

JSON = b"""{"resourceType": "Observation", "status": "final", "valueQuantity": {"value": 1.10},
  "subject": {"reference": "Patient/5"}, "text": {"status": "generated", "div": "<div>x</div>"},
  "_issued": {"extension": [{"url": "u", "valueBoolean": true}]},
  "identifier": [{"system": "s", "value": "1"}, {"value": "2"}],
  "contained": [{"resourceType": "Patient", "id": "p"}]}"""
XML = b"""<?xml version="1.0"?><Observation xmlns="http://hl7.org/fhir">
  <text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml"><p>y</p></div></text>
  <contained><Patient><id value="p"/></Patient></contained>
  <identifier><system value="s"/><value value="1"/></identifier>
  <identifier><value value="2"/></identifier>
  <status value="final"/><subject><reference value="Patient/5"/></subject>
  <issued><extension url="u"><valueBoolean value="true"/></extension></issued>
  <valueQuantity><value value="1.10"/></valueQuantity></Observation>"""


def test_json_and_xml_give_the_same_tree() -> None:
    json, xml = (
        document_tree.parse_body(JSON, "application/fhir+json"),
        document_tree.parse_body(XML, "application/fhir+xml"),
    )
    assert document_tree.contains_all_of(json, xml)
    assert document_tree.contains_all_of(xml, json)


def test_a_stored_resource_contains_what_was_sent() -> None:
    """Id, version and narrative of the server make no difference; another value does."""
    sent = b'{"resourceType": "Patient", "birthDate": "1980", "name": [{"family": "A"}]}'
    unchanged = sent.replace(
        b'"resourceType"', b'"id": "9", "meta": {"versionId": "1"}, "resourceType"'
    )
    other = unchanged.replace(b"1980", b"1981")
    assert document_tree.contains_all_of(
        document_tree.parse_body(unchanged, None), document_tree.parse_body(sent, None)
    )
    assert not document_tree.contains_all_of(
        document_tree.parse_body(sent, None),
        document_tree.parse_body(unchanged.replace(b"A", b"B"), None),
    )
    assert not document_tree.contains_all_of(
        document_tree.parse_body(other, None), document_tree.parse_body(sent, None)
    )


def test_precision_is_significant() -> None:
    """1.10 is not 1.1."""
    one, other = (
        document_tree.parse_body(b'{"value": %s}' % number, None) for number in (b"1.10", b"1.1")
    )
    assert not document_tree.contains_all_of(one, other)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b'{"a": 1, "a": 2}', "application/json"),
        (b"[" * 5000 + b"]" * 5000, "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"a": NaN}', "application/json"),
        (b"<a/>", "application/xml"),
        (b'<Patient xmlns="http://hl7.org/fhir">', "application/xml"),
        (
            b'<!DOCTYPE x [<!ENTITY e "e">]><Patient xmlns="http://hl7.org/fhir"/>',
            "application/xml",
        ),
        (b"a,b", "text/csv"),
    ],
)
def test_an_ambiguous_body_is_rejected(body: bytes, content_type: str) -> None:
    with pytest.raises(document_tree.BodyParseError):
        document_tree.parse_body(body, content_type)


@pytest.mark.parametrize("depth", [250, 900, 5000, 100_000])
@pytest.mark.parametrize(
    "way", [(b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b'{"a":[', b"", b"]}")]
)
def test_deep_nesting_is_rejected(way: tuple[bytes, bytes, bytes], depth: int) -> None:
    """At the same depth by every Python, at the top and below a name."""
    begin, middle, end = way
    body = begin * depth + middle + end * depth
    for whole in (body, b'{"resourceType":"Patient","x":%s}' % body):
        with pytest.raises(document_tree.BodyParseError):
            document_tree.parse_body(whole, "application/fhir+json")


def test_what_is_read_can_be_walked() -> None:
    depth = 99
    body = b'{"item":[' * depth + b'{"x":"1"}' + b"]}" * depth
    read = document_tree.parse_body(body, None)
    assert len(list(document_tree.walk_elements(read))) == depth + 1
    assert document_tree.contains_all_of(read, read)
