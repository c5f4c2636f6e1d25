"""What FHIR's RESTful API requires of an intermediary beyond reads and writes."""

from __future__ import annotations

import json

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, fhir, http
from tests.doubles.wire import Response, Wire, fetch, get, post


def offers(platform: Platform) -> str:
    return f'"security":{{"extension":[{{"url":"oauth-uris","valueUri":"{platform.url}/token"}}]}}'


async def statement(gateway: RunningGateway, platform: Platform) -> Response:
    """Return the platform's CapabilityStatement as a caller gets it."""
    body = (
        f'{{"resourceType":"CapabilityStatement","implementation":{{"url":"{platform.url}"}},'
        f'"rest":[{{"mode":"server",{offers(platform)}}}]}}'
    )
    platform.respond(fhir(body.encode()))
    return await fetch(gateway.address, get("/fhir/metadata"))


async def test_the_statement_names_the_gateway_and_no_sso(
    gateway: RunningGateway, platform: Platform
) -> None:
    response = await statement(gateway, platform)
    assert response.json() == {
        "resourceType": "CapabilityStatement",
        "implementation": {"url": "http://gateway/fhir"},
        "rest": [{"mode": "server"}],
    }


async def test_without_rewriting_the_statement_passes_unchanged(
    start_gateway, platform: Platform
) -> None:
    async with start_gateway(rewrite={"enabled": False}) as gateway:
        response = await statement(gateway, platform)
    assert offers(platform).encode() in response.body


async def test_the_smart_configuration_is_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    """It would send callers to the SSO. The platform does not receive the request."""
    response = await fetch(gateway.address, get("/fhir/.well-known/smart-configuration"))
    assert (response.status, response.reason) == (404, "unknown-path")
    assert platform.requests == []


async def test_asynchronous_request_is_polled_through_the_gateway(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Kick-off, status, result and cancellation: every URL names the gateway."""
    place = f"{platform.url}/_async/7?part=a%2Fb"
    platform.script(
        http(202, b"", ("Content-Location", place)),
        http(202, b"", ("X-Progress", "half"), ("Retry-After", "3")),
        fhir(
            b'{"resourceType":"Bundle","type":"batch-response","entry":[{"response":{"status":'
            b'"201","location":"%s/Patient/1/_history/1"}}]}' % platform.url.encode()
        ),
        http(202, b""),
    )
    began = await fetch(gateway.address, get("/fhir/Patient", "Prefer: respond-async"))
    polled = began.header("content-location") or ""
    assert (began.status, polled) == (202, "http://gateway/fhir/_async/7?part=a%2Fb")
    path = polled.removeprefix("http://gateway")
    waiting = await fetch(gateway.address, get(path))
    assert (waiting.status, waiting.header("x-progress")) == (202, "half")
    assert waiting.header("retry-after") == "3"
    done = await fetch(gateway.address, get(path))
    (entry,) = done.json()["entry"]
    assert entry["response"]["location"] == "http://gateway/fhir/Patient/1/_history/1"
    assert (await fetch(gateway.address, get(path, method="DELETE"))).status == 202
    assert platform.requests[0].header("prefer") == "respond-async"
    assert {request.target for request in platform.requests[1:]} == {"/r5/_async/7?part=a%2Fb"}


async def test_bulk_data_is_fetched_through_the_gateway(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The URLs in the manifest and the references in NDJSON lines name the gateway."""
    base = platform.url.encode()
    manifest = (
        b'{"request":"%s/$export","output":[{"type":"Observation","url":"%s/files/1.ndjson"}],'
        b'"error":[{"url":"%s/files/2.ndjson"}],"requiresAccessToken":true}' % (base, base, base)
    )
    line = b'{"resourceType":"Observation","subject":{"reference":"%s/Patient/%d"}}\n'
    lines = b"".join(line % (base, number) for number in range(3))
    ndjson = ("Content-Type", "application/fhir+ndjson")
    platform.script(
        http(200, manifest, ("Content-Type", "application/json")), http(200, lines, ndjson)
    )
    response = await fetch(gateway.address, get("/fhir/_export/1"))
    assert response.body == manifest.replace(base, b"http://gateway/fhir")
    file = response.json()["output"][0]["url"].removeprefix("http://gateway")
    response = await fetch(gateway.address, get(file, "Accept: application/fhir+ndjson"))
    assert response.body == lines.replace(base, b"http://gateway/fhir")


async def test_the_criteria_of_a_conditional_update_are_kept(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Except for gateway URLs."""
    target = "/fhir/Observation?identifier=a%7Cb&subject=http://gateway/fhir/Patient/1"
    await fetch(gateway.address, post(target, b"{}", method="PUT"))
    assert platform.requests[0].target == (
        f"/r5/Observation?identifier=a%7Cb&subject={platform.url}/Patient/1"
    )


async def test_a_head_has_no_length_where_the_get_is_rewritten(
    gateway: RunningGateway, platform: Platform
) -> None:
    head = http(200, b"", ("Content-Type", "application/fhir+json"), ("ETag", 'W/"1"'))
    platform.respond(head.replace(b"Content-Length: 0", b"Content-Length: 999"))
    response = await fetch(gateway.address, get("/fhir/Patient/1", method="HEAD"), head=True)
    assert (response.status, response.header("etag")) == (200, 'W/"1"')
    assert response.header("content-length") is None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_304_has_no_length_where_the_get_is_rewritten(
    gateway: RunningGateway, platform: Platform, method: str
) -> None:
    """It would be that of the platform's body, and not of the one that the gateway rewrites."""
    platform.respond(http(304, b"", ("ETag", 'W/"1"')).replace(b"Length: 0", b"Length: 999"))
    request = get("/fhir/Patient/1", 'If-None-Match: W/"1"', method=method)
    response = await fetch(gateway.address, request, head=method == "HEAD")
    assert (response.status, response.header("content-length")) == (304, None)
    assert response.header("etag") == 'W/"1"'


@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("HEAD", 304), ("GET", 304)])
@pytest.mark.parametrize("digest", ["Content-MD5", "Digest", "Content-Digest", "Repr-Digest"])
async def test_a_response_without_its_body_has_no_digest_where_that_is_rewritten(
    gateway: RunningGateway, platform: Platform, digest: str, method: str, code: int
) -> None:
    platform.respond(fhir(b"", code, (digest, "x")))
    request = get("/fhir/Patient/1", method=method)
    response = await fetch(gateway.address, request, head=method == "HEAD")
    assert (response.status, response.header(digest)) == (code, None)


async def test_links_are_counted(gateway: RunningGateway, platform: Platform) -> None:
    """In both directions: rewritten links, and links at places that are not rewritten."""
    url = platform.url
    body = {
        "resourceType": "Observation",
        "subject": {"reference": f"{url}/Patient/1"},
        "performer": [{"reference": f"{url}/Practitioner/1"}],
        "note": [{"text": f"see {url}/Patient/1"}],
    }
    platform.respond(fhir(json.dumps(body).encode()))
    await fetch(gateway.address, get("/fhir/Observation/1"))
    metric = "dhp_gateway_links_total"
    assert await gateway.metric(metric, outcome="rewritten") == 2
    assert await gateway.metric(metric, outcome="unrewritten") == 1
    sent = json.dumps(body).replace(url, "http://gateway/fhir").encode()
    await fetch(gateway.address, post("/fhir/Observation", sent))
    assert await gateway.metric(metric, outcome="rewritten") == 2 + 2 + 2
    assert await gateway.metric(metric, outcome="unrewritten") == 1 + 1 + 1


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"HTTP/1.1 200 OK\r\n"), (499, b"HTTP/1.1 499 \r\n")]
)
async def test_the_status_line_has_the_registered_phrase_if_there_is_one(
    gateway: RunningGateway, platform: Platform, status: int, line: bytes
) -> None:
    platform.respond(fhir(b'{"resourceType":"OperationOutcome"}', status))
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient/1"))
        assert await wire.reader.readline() == line
