"""The requests of a Bundle, which every server has to read as the gateway does."""

from __future__ import annotations

import pytest

from gateway.fhir.bundle_requests import BundleRequest, read_bundle, read_request
from gateway.fhir.document_tree import BodyParseError
from tests.fhir.bodies import spelled_out

JSON, XML = "application/fhir+json", "application/fhir+xml"
NS = b'xmlns="http://hl7.org/fhir"'
BATCH = b'{"resourceType":"Bundle","type":"batch"}'
XML_BATCH = b'<Bundle %s><type value="batch"/></Bundle>' % NS


def with_more(members: bytes) -> bytes:
    return BATCH[:-1] + members + b"}"


def with_elements(elements: bytes) -> bytes:
    return XML_BATCH.replace(b"</Bundle>", elements + b"</Bundle>")


READABLE = [
    (JSON, BATCH),
    (JSON, b"\xef\xbb\xbf \n" + BATCH + b"\n"),
    (JSON, spelled_out(BATCH)),
    (JSON, with_more(b',"id":"type","meta":{"tag":[{"code":"\\"type\\":\\"transaction\\""}]}')),
    (JSON, with_more(b',"entry":[{"resource":{"resourceType":"List","type":"transaction"}}]')),
    ("application/json; charset=UTF-8", BATCH),
    ("application/json+fhir", BATCH),
    ('text/json;fhirVersion=5.0;charset="utf-8"', BATCH),
    ("", BATCH),
    ("text/plain", BATCH),
    ("", b" " + XML_BATCH),
    (XML, XML_BATCH),
    ("text/xml", b'<?xml version="1.0" encoding="UTF-8"?><!-- x -->' + XML_BATCH),
    (XML, b'<f:Bundle xmlns:f="http://hl7.org/fhir"><f:type value="batch"/></f:Bundle>'),
    (
        XML,
        XML_BATCH.replace(
            NS, NS + b' xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:schemaLocation="a b"'
        ),
    ),
]


@pytest.mark.parametrize(("content_type", "body"), READABLE)
def test_a_plain_bundle_is_read(content_type: str, body: bytes) -> None:
    assert read_bundle(body, content_type)[0] == "batch"


READ_IN_TWO_WAYS = [
    (JSON, with_more(b',"type":"transaction"')),
    (JSON, with_more(b',"id":"\\"{","TYPE":"transaction"')),
    (JSON, with_more(b',"t\\u0079pe":"transaction"')),
    (JSON, with_more(b',"t\\ype":"transaction"')),
    (JSON, with_more(b"," + spelled_out(b'"type":"transaction"'))),
    (JSON, with_more(b',"id":"' + b"a" * 70_000 + b'","type":"transaction"')),
    (JSON, with_more(b',"entry":[],"Entry":[]')),
    (JSON, with_more(b',"entry":[{"resource":{"id":"1","id":"2"}}]')),
    (JSON, with_more(b',"_type":{"id":"1"}')),
    (JSON, with_more(b',"type ":"transaction"')),
    (JSON, BATCH.replace(b"{", b'{/*"type":"transaction",*/')),
    (JSON, BATCH.replace(b"{", b"{//\n")),
    (JSON, BATCH.replace(b"{", b"{#\n")),
    (JSON, BATCH.replace(b'"', b"'")),
    (JSON, BATCH.replace(b'"type"', b"type")),
    (JSON, BATCH + b'{"type":"transaction"}'),
    (JSON, BATCH + b"\0"),
    (JSON, b"[" + BATCH + b"]"),
    (JSON, with_more(b',"total":NaN')),
    (JSON, with_more(b',"id":"\xff"')),
    (JSON, with_more(b',"id":"\n"')),
    (JSON, BATCH.decode().encode("utf-16")),
    (JSON, BATCH.decode().encode("utf-16-le")),
    (JSON, BATCH.replace(b"Bundle", b"bundle")),
    (JSON, b'{"type":"batch"}'),
    (JSON, b'{"resourceType":"Bundle"}'),
    (JSON, b""),
    (JSON, XML_BATCH),
    (XML, BATCH),
    ("application/fhir+json; charset=utf-16", BATCH),
    ("application/fhir+json; charset=utf-8; charset=utf-16", BATCH),
    ("application/fhir+json, application/fhir+xml", BATCH),
    ("application/fhir+json text/xml", BATCH),
    ("application/x-www-form-urlencoded", BATCH),
    ("multipart/form-data; boundary=x", BATCH),
    ("application/fhir+ndjson", BATCH),
    ("application/octet-stream", BATCH),
    (XML, XML_BATCH.replace(b" " + NS, b"")),
    (XML, XML_BATCH.replace(b"hl7.org/fhir", b"hl7.org/fhir/")),
    (XML, XML_BATCH.replace(b"Bundle", b"bundle")),
    (XML, with_elements(b'<type value="transaction"/>')),
    (XML, with_elements(b'<Type value="transaction"/>')),
    (XML, with_elements(b'<x:type xmlns:x="u" value="transaction"/>')),
    (XML, with_elements(b'<x:type xmlns:x="http://www.w3.org/1999/xhtml" value="transaction"/>')),
    (XML, with_elements(b'<Foo><type value="transaction"/></Foo>')),
    (XML, with_elements(b'<entry value="1"><request/></entry>')),
    (XML, with_elements(b'<resourceType value="Patient"/>')),
    (XML, XML_BATCH.replace(b"value=", b"xmlns:x='u' x:value='transaction' value=")),
    (XML, XML_BATCH.replace(b"value=", b"Value=")),
    (XML, b'<!DOCTYPE Bundle [<!ENTITY e "batch">]>' + XML_BATCH.replace(b'"batch"', b'"&e;"')),
    (XML, b'<?xml version="1.0" encoding="cp037"?>' + XML_BATCH),
    (XML, b'<?xml version="1.1"?>' + XML_BATCH),
    (XML, XML_BATCH.decode().encode("utf-16")),
    (XML, XML_BATCH.decode().encode("utf-16-le")),
    (XML, XML_BATCH + XML_BATCH),
]


@pytest.mark.parametrize(("content_type", "body"), READ_IN_TWO_WAYS)
def test_an_ambiguous_bundle_is_rejected(content_type: str, body: bytes) -> None:
    """A caller that may send batches only cannot disguise a transaction as one."""
    with pytest.raises(BodyParseError):
        read_bundle(body, content_type)


def first_request(entry: bytes, content_type: str = JSON) -> BundleRequest:
    json = with_more(b',"entry":[%s]' % entry)
    body = json if content_type == JSON else with_elements(b"<entry>%s</entry>" % entry)
    return read_request(read_bundle(body, content_type)[1][0])


def test_an_entry_means_the_same_in_json_and_xml() -> None:
    json = (
        b'{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","contained":'
        b'[{"resourceType":"Group"}]},"request":{"method":"POST","url":"Patient","ifNoneExist":"a=1"}}'
    )
    xml = (
        b'<fullUrl value="urn:uuid:1"/><resource><Patient><text><div '
        b'xmlns="http://www.w3.org/1999/xhtml"><method value="GET"/></div></text><contained>'
        b'<Group/></contained></Patient></resource><request><method value="POST"/>'
        b'<url value="Patient"/><ifNoneExist value="a=1"/></request>'
    )
    expected = BundleRequest("POST", "Patient", "a=1", "Patient")
    assert first_request(json) == first_request(xml, XML) == expected


REQUEST = b'"request":{"method":"GET","url":"Patient/1"}'
XML_REQUEST = b'<request><method value="GET"/><url value="Patient/1"/></request>'
NOT_PLAIN = [
    (JSON, b"{}"),
    (JSON, b'"text"'),
    (JSON, b'{"request":null}'),
    (JSON, b'{"request":[{"method":"GET","url":"Patient/1"},{"method":"GET","url":"Patient/1"}]}'),
    (JSON, b'{%s,"Request":{}}' % REQUEST),
    (JSON, b'{%s,"modifierExtension":[]}' % REQUEST),
    *((JSON, b"{%s}" % REQUEST.replace(b"GET", m)) for m in (b"get", b"TRACE", b"", b"GET\\u0000")),
    (JSON, b"{%s}" % REQUEST.replace(b"Patient/1", b"")),
    (JSON, b"{%s}" % REQUEST.replace(b'"url"', b'"Url"')),
    (JSON, b"{%s}" % REQUEST.replace(b'"url"', b'"Method":"DELETE","url"')),
    (JSON, b'{%s,"resource":"Patient"}' % REQUEST),
    (JSON, b'{%s,"resource":{}}' % REQUEST),
    (JSON, b'{%s,"resource":{"resourceType":["Patient","Group"]}}' % REQUEST),
    (JSON, b'{%s,"resource":{"resourceType":"Patient","ResourceType":"Group"}}' % REQUEST),
    (XML, b""),
    (XML, XML_REQUEST + XML_REQUEST),
    (XML, XML_REQUEST.replace(b"<request>", b'<request method="DELETE">')),
    (XML, XML_REQUEST.replace(b"<url ", b'<method value="DELETE"/><url ')),
    (XML, XML_REQUEST.replace(b"<url ", b'<Foo><method value="DELETE"/></Foo><url ')),
    (XML, XML_REQUEST.replace(b"<request>", b'<request value="1">')),
    (XML, XML_REQUEST + b"<resource><Patient/><Group/></resource>"),
    (XML, XML_REQUEST + b"<resource/>"),
]


@pytest.mark.parametrize(("content_type", "entry"), NOT_PLAIN)
def test_an_ambiguous_entry_is_rejected(content_type: str, entry: bytes) -> None:
    with pytest.raises(BodyParseError):
        first_request(entry, content_type)
