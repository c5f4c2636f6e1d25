"""A body without an announced end: whole, or cut anywhere."""

from __future__ import annotations

import pytest

from gateway.http.client.body_completeness import is_complete
from gateway.http.content_coding import gzip_compress

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
async def test_whole_documents(kind: str, body: bytes) -> None:
    """Complete JSON, XML and NDJSON is recognised by its own grammar."""
    assert await is_complete(kind, None, body)


@pytest.mark.parametrize(("kind", "body"), [("application/json", JSON), ("text/xml", XML)])
async def test_cut_documents(kind: str, body: bytes) -> None:
    """No part of a document that begins at its first byte is taken for the whole."""
    for length in range(len(body)):
        assert not await is_complete(kind, None, body[:length]), length


async def test_ndjson_is_whole_after_a_line_only() -> None:
    """NDJSON that ends in the middle of a line, without its line feed or any line, is cut."""
    whole = [n for n in range(len(NDJSON) + 1) if await is_complete("a/ndjson", None, NDJSON[:n])]
    assert whole == [8, 16]


@pytest.mark.parametrize(("kind", "body"), [("a/json", JSON), ("a/ndjson", NDJSON)])
async def test_cut_gzip(kind: str, body: bytes) -> None:
    """What is compressed is whole when it can be opened to its end."""
    packed = gzip_compress(body)
    for length in range(len(packed)):
        assert not await is_complete(kind, "gzip", packed[:length]), length
    assert await is_complete(kind, "gzip", packed)


async def test_number_is_never_whole() -> None:
    """A number could have had more digits."""
    assert not await is_complete("application/json", None, b"12")
    assert await is_complete("application/json", None, b"true")


async def test_what_cannot_be_judged_is_not_whole() -> None:
    """Another type, none, or a coded body cannot be told to be whole."""
    assert not await is_complete("text/plain", None, JSON)
    assert not await is_complete(None, None, JSON)
    assert not await is_complete("application/json", "gzip", JSON)
