"""A body that is delimited by close: complete, or truncated anywhere."""

from __future__ import annotations

import gzip

import pytest

from gateway.http.client.body_completeness import is_complete

JSON = b'{"resourceType":"Bundle","entry":[{"a":1.10},{"b":"\\u00e9\xd0\xb9"}],"c":null}'
XML = b'<?xml version="1.0"?><Patient xmlns="http://hl7.org/fhir"><id value="1"/></Patient>'
NDJSON = b'{"a":1}\n{"b":2}\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/fhir+json", JSON),
        ("application/fhir+json;charset=utf-8", b"\xef\xbb\xbf" + JSON),
        ("application/xml", XML),
        ("application/fhir+ndjson", NDJSON),
    ],
)
async def test_complete_json_xml_and_ndjson_is_recognised(kind: str, body: bytes) -> None:
    assert await is_complete(kind, None, body)


@pytest.mark.parametrize(("kind", "body"), [("application/json", JSON), ("text/xml", XML)])
async def test_no_prefix_of_a_document_is_complete(kind: str, body: bytes) -> None:
    for length in range(len(body)):
        assert not await is_complete(kind, None, body[:length]), length


async def test_ndjson_is_complete_after_a_line_feed_only() -> None:
    whole = [n for n in range(len(NDJSON) + 1) if await is_complete("a/ndjson", None, NDJSON[:n])]
    assert whole == [8, 16]


@pytest.mark.parametrize(("kind", "body"), [("a/json", JSON), ("a/ndjson", NDJSON)])
async def test_gzip_is_complete_when_it_decodes_to_its_end(kind: str, body: bytes) -> None:
    packed = gzip.compress(body)
    for length in range(len(packed)):
        assert not await is_complete(kind, "gzip", packed[:length]), length
    assert await is_complete(kind, "gzip", packed)


async def test_a_number_is_never_complete() -> None:
    """More digits could follow."""
    assert not await is_complete("application/json", None, b"12")
    assert await is_complete("application/json", None, b"true")


async def test_other_types_and_codings_are_never_complete() -> None:
    assert not await is_complete("text/plain", None, JSON)
    assert not await is_complete(None, None, JSON)
    assert not await is_complete("application/json", "gzip", JSON)
