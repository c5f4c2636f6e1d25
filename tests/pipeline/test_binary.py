"""Binary resources: as FHIR their links are translated like any other's, as content they pass."""

from __future__ import annotations

import gzip
import json
from itertools import accumulate

import pytest

from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.doubles.gateway import RunningGateway
from tests.doubles.growth import operations
from tests.doubles.platform import Platform, http
from tests.doubles.wire import fetch, get, post

HERE = "http://gateway/fhir"
DATA = "aHR0cDovL3BsYXRmb3Jt" * 4
JSON, XML = "application/fhir+json", "application/fhir+xml"


def as_json(base: str, data: str = DATA) -> bytes:
    """Return a Binary whose access follows a patient's."""
    reference = {"reference": f"{base}/Patient/1", "display": f"see {HERE}"}
    return json.dumps(
        {
            "resourceType": "Binary",
            "contentType": "text/plain",
            "securityContext": reference,
            "data": data,
        }
    ).encode()


def type_last(base: str) -> bytes:
    return json.dumps(json.loads(as_json(base)), sort_keys=True, indent=1).encode()


def data_first(base: str) -> bytes:
    members = json.loads(as_json(base))
    return json.dumps(dict(reversed(members.items()))).encode()


def as_xml(base: str, data: str = DATA) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Binary xmlns="http://hl7.org/fhir">'
        f'<contentType value="text/plain"/><securityContext><reference value="{base}/Patient/1"/>'
        f'<display value="see {HERE}"/></securityContext><data value="{data}"/></Binary>'
    ).encode()


def long_json(base: str) -> bytes:
    return as_json(base, DATA * 8000)


def long_xml(base: str) -> bytes:
    return as_xml(base, DATA * 8000)


RESOURCES = {
    "JSON": (JSON, as_json),
    "JSON, a charset": (f"{JSON}; charset=UTF-8", as_json),
    "JSON, capitals": ("Application/FHIR+JSON", as_json),
    "JSON, a version": (f"{JSON}; fhirVersion=5.0", as_json),
    "JSON, its former name": ("application/json+fhir", as_json),
    "JSON, sorted": (JSON, type_last),
    "JSON, data first": (JSON, data_first),
    "JSON, long": (JSON, long_json),
    "XML": (XML, as_xml),
    "XML, its former name": ("application/xml+fhir; charset=utf-8", as_xml),
    "XML, long": (XML, long_xml),
}


def document(base: str) -> bytes:
    """Return FHIR that is the content of a Binary."""
    return json.dumps({"resourceType": "Patient", "link": [{"other": reference(base)}]}).encode()


def reference(base: str) -> dict[str, str]:
    return {"reference": f"{base}/Patient/1"}


def untyped(base: str) -> bytes:
    """Return JSON that resembles a Binary and has no type."""
    return json.dumps({"securityContext": reference(base)}).encode()


def around(base: str) -> bytes:
    inner = json.loads(as_json(base))
    return json.dumps({"resourceType": "Basic", "contained": [inner]}).encode()


def document_xml(base: str) -> bytes:
    """Return FHIR XML that is the content of a Binary."""
    return (
        f'<Patient xmlns="http://hl7.org/fhir"><link><other><reference value="{base}/Patient/1"/>'
        "</other></link></Patient>"
    ).encode()


CONTENTS = {
    "text": ("text/plain", as_json),
    "JSON of another kind": ("application/json", as_json),
    "XML of another kind": ("application/xml", as_xml),
    "bulk data": ("application/fhir+ndjson", as_json),
    "no type": ("", as_json),
    "a resource of FHIR in JSON": (JSON, document),
    "a resource of FHIR in XML": (XML, document_xml),
    "a resource with one inside": (JSON, around),
    "no resource": (JSON, untyped),
    "no JSON": (JSON, lambda base: f'"{base}/Patient/1'.encode()),
    "no XML": (XML, lambda base: f"{base}/Patient/1".encode()),
}


def typed(kind: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", kind),) if kind else ()


@pytest.mark.parametrize("target", ["/fhir/Binary/1", "/fhir/Binary/1/_history/2"])
@pytest.mark.parametrize(("kind", "body"), RESOURCES.values(), ids=RESOURCES)
async def test_the_link_of_a_binary_read_as_a_resource_is_translated(
    gateway: RunningGateway, platform: Platform, kind: str, body, target: str
) -> None:
    """securityContext names the gateway; no other octet changes."""
    platform.respond(http(200, body(platform.url), *typed(kind)))
    assert (await fetch(gateway.address, get(target))).body == body(HERE)


@pytest.mark.parametrize(("kind", "body"), RESOURCES.values(), ids=RESOURCES)
async def test_the_link_of_a_binary_written_as_a_resource_is_translated(
    gateway: RunningGateway, platform: Platform, kind: str, body
) -> None:
    """securityContext names the platform in the request, and the gateway in the response."""
    platform.respond(http(201, body(platform.url), *typed(kind)))
    sent = body(HERE)
    response = await fetch(gateway.address, post("/fhir/Binary", sent, f"Content-Type: {kind}"))
    # The text beside the reference names the gateway, and is not touched.
    assert platform.requests[0].body == body(platform.url)
    assert response.body == sent


@pytest.mark.parametrize(("kind", "body"), CONTENTS.values(), ids=CONTENTS)
async def test_content_of_a_binary_passes_byte_for_byte(
    gateway: RunningGateway, platform: Platform, kind: str, body
) -> None:
    """In both directions, also content that is FHIR."""
    platform.respond(http(200, body(platform.url), *typed(kind)))
    response = await fetch(
        gateway.address, post("/fhir/Binary", body(HERE), f"Content-Type: {kind}")
    )
    assert response.body == body(platform.url)
    assert platform.requests[0].body == body(HERE)
    assert (await fetch(gateway.address, get("/fhir/Binary/1"))).body == body(platform.url)


@pytest.mark.parametrize(
    "target", ["/fhir/Binary", "/fhir/Binary/_history", "/fhir/Binary/1/_history"]
)
async def test_links_in_bundles_of_binaries_are_translated(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    """Searches and histories are Bundles like those of other types."""

    def bundle(base: str) -> bytes:
        entry = {"fullUrl": f"{base}/Binary/1", "resource": json.loads(as_json(base))}
        link = {"relation": "next", "url": f"{base}/Binary?page=2"}
        return json.dumps(
            {"resourceType": "Bundle", "type": "searchset", "link": [link], "entry": [entry]}
        ).encode()

    platform.respond(http(200, bundle(platform.url), ("Content-Type", JSON)))
    assert (await fetch(gateway.address, get(target))).body == bundle(HERE)


async def test_links_in_a_patch_of_a_binary_are_translated(
    gateway: RunningGateway, platform: Platform
) -> None:
    change = {"op": "replace", "path": "/securityContext/reference", "value": f"{HERE}/Patient/1"}
    kind = "Content-Type: application/json-patch+json"
    body = json.dumps([change]).encode()
    await fetch(gateway.address, post("/fhir/Binary/1", body, kind, method="PATCH"))
    assert json.loads(platform.requests[0].body)[0]["value"] == f"{platform.url}/Patient/1"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("{platform}/Patient/1", f"{HERE}/Patient/1"),
        ("{path}/Patient/1", "/fhir/Patient/1"),
        ("Patient/1", "Patient/1"),
        ("https://elsewhere.uz/Patient/1", "https://elsewhere.uz/Patient/1"),
    ],
)
async def test_x_security_context_of_a_response_is_translated(
    gateway: RunningGateway, platform: Platform, theirs: str, ours: str
) -> None:
    """The field is a reference like `Location`, whatever the content is."""
    value = theirs.format(platform=platform.url, path=platform.base_path)
    fields = (("Content-Type", "application/pdf"), ("X-Security-Context", value))
    platform.respond(http(200, b"%PDF", *fields))
    response = await fetch(gateway.address, get("/fhir/Binary/1"))
    assert (response.header("x-security-context"), response.body) == (ours, b"%PDF")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (f"{HERE}/Patient/1", "{platform}/Patient/1"),
        ("Patient/1", "Patient/1"),
        ("https://elsewhere.uz/Patient/1", "https://elsewhere.uz/Patient/1"),
    ],
)
async def test_x_security_context_of_a_request_is_translated(
    gateway: RunningGateway, platform: Platform, ours: str, theirs: str
) -> None:
    fields = ("Content-Type: application/pdf", f"x-security-context: {ours}")
    await fetch(gateway.address, post("/fhir/Binary", b"%PDF", *fields))
    received = platform.requests[0]
    assert received.header("x-security-context") == theirs.format(platform=platform.url)
    assert received.body == b"%PDF"


async def test_links_of_a_compressed_binary_are_translated(
    gateway: RunningGateway, platform: Platform
) -> None:
    packed = gzip.compress(as_json(platform.url))
    platform.respond(http(200, packed, ("Content-Type", JSON), ("Content-Encoding", "gzip")))
    response = await fetch(gateway.address, get("/fhir/Binary/1", "Accept-Encoding: gzip"))
    assert gzip.decompress(response.body) == as_json(HERE)


@pytest.mark.parametrize("slash", ["/", "\\/"])
@pytest.mark.parametrize(("kind", "body"), [(JSON, as_json), (XML, as_xml)], ids=["JSON", "XML"])
def test_base64_data_takes_few_steps_for_each_chunk_and_is_not_retained(
    kind: str, body, slash: str
) -> None:
    links = LinkMap("https://fhir.example.uz/r5", HERE)
    rewriter = rewriter_for(kind, links, "to-gateway", of_binary=True)
    data = body("https://fhir.example.uz/r5", f"QUJ{slash}" * 5_000_000)
    chunks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    passed: list[int] = []
    steps = operations(lambda: passed.extend(len(rewriter.feed(chunk)) for chunk in chunks))
    rewriter.finish()
    assert rewriter.rewritten == 1
    kept = accumulate(len(chunk) - length for chunk, length in zip(chunks, passed, strict=True))
    assert max(kept) < 300_000
    assert steps < 200 * len(chunks)
