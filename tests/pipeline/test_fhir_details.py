"""What FHIR's RESTful API asks of a gateway beyond plain reads and writes, seen from both sides."""

from __future__ import annotations

import json

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, fhir, http
from tests.doubles.wire import Reply, ask, get, post

FORM = "Content-Type: application/x-www-form-urlencoded"


def offers(platform: Platform) -> str:
    """The part of a CapabilityStatement that tells where to sign in."""
    return f'"security":{{"extension":[{{"url":"oauth-uris","valueUri":"{platform.url}/token"}}]}}'


async def statement(gateway: Running, platform: Platform) -> Reply:
    """The platform's CapabilityStatement as a caller gets it."""
    body = (
        f'{{"resourceType":"CapabilityStatement","implementation":{{"url":"{platform.url}"}},'
        f'"rest":[{{"mode":"server",{offers(platform)}}}]}}'
    )
    platform.answer(fhir(body.encode()))
    return await ask(gateway.address, get("/fhir/metadata"))


async def test_statement_shows_the_gateway_and_no_sign_in(
    gateway: Running, platform: Platform
) -> None:
    """A caller of plain HTTP learns the gateway's URL and of no SSO."""
    reply = await statement(gateway, platform)
    assert reply.json() == {
        "resourceType": "CapabilityStatement",
        "implementation": {"url": "http://gateway/fhir"},
        "rest": [{"mode": "server"}],
    }


async def test_statement_passes_without_rewriting(start_gateway, platform: Platform) -> None:
    """With `rewrite.enabled: false` no body is touched, this one neither."""
    async with start_gateway(rewrite={"enabled": False}) as gateway:
        reply = await statement(gateway, platform)
    assert offers(platform).encode() in reply.body


async def test_statement_in_xml_shows_no_sign_in(gateway: Running, platform: Platform) -> None:
    """So it is in XML."""
    body = b'<CapabilityStatement xmlns="http://hl7.org/fhir"><rest>%s</rest></CapabilityStatement>'
    kind = ("Content-Type", "application/fhir+xml")
    platform.answer(http(200, body % b"<security><cors/></security>", kind))
    reply = await ask(gateway.address, get("/fhir/metadata?_format=xml"))
    assert reply.body == body % b""
    assert platform.seen[0].target == "/r5/metadata?_format=xml"


async def test_smart_configuration_is_not_passed(gateway: Running, platform: Platform) -> None:
    """The platform's document would send callers to the SSO: it is not even asked for."""
    reply = await ask(gateway.address, get("/fhir/.well-known/smart-configuration"))
    assert (reply.status, reply.reason) == (404, "unknown-path")
    assert platform.seen == []


async def test_asynchronous_request_is_polled_through_the_gateway(
    gateway: Running, platform: Platform
) -> None:
    """Kick-off, progress, result and cancelling: every URL leads through the gateway."""
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
    began = await ask(gateway.address, get("/fhir/Patient", "Prefer: respond-async"))
    polled = began.header("content-location") or ""
    assert (began.status, polled) == (202, "http://gateway/fhir/_async/7?part=a%2Fb")
    path = polled.removeprefix("http://gateway")
    waiting = await ask(gateway.address, get(path))
    assert (waiting.status, waiting.header("x-progress")) == (202, "half")
    assert waiting.header("retry-after") == "3"
    done = await ask(gateway.address, get(path))
    (entry,) = done.json()["entry"]
    assert entry["response"]["location"] == "http://gateway/fhir/Patient/1/_history/1"
    assert (await ask(gateway.address, get(path, method="DELETE"))).status == 202
    assert platform.seen[0].header("prefer") == "respond-async"
    assert {seen.target for seen in platform.seen[1:]} == {"/r5/_async/7?part=a%2Fb"}


async def test_bulk_data_comes_through_the_gateway(gateway: Running, platform: Platform) -> None:
    """A manifest's files are the gateway's, and so are the references in their lines."""
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
    reply = await ask(gateway.address, get("/fhir/_export/1"))
    assert reply.body == manifest.replace(base, b"http://gateway/fhir")
    file = reply.json()["output"][0]["url"].removeprefix("http://gateway")
    reply = await ask(gateway.address, get(file, "Accept: application/fhir+ndjson"))
    assert reply.body == lines.replace(base, b"http://gateway/fhir")


async def test_search_form_reaches_the_platform_in_its_terms(
    gateway: Running, platform: Platform
) -> None:
    """Gateway URLs in a `_search` form become platform URLs, encoded as they were."""
    form = b"subject=http%3A%2F%2Fgateway%2Ffhir%2FPatient%2F1&code=a%7Cb&_count=2"
    await ask(gateway.address, post("/fhir/Observation/_search", form, FORM))
    expected = platform.url.replace(":", "%3A").replace("/", "%2F")
    assert platform.seen[0].body.decode() == (
        f"subject={expected}%2FPatient%2F1&code=a%7Cb&_count=2"
    )


async def test_conditional_requests_pass(gateway: Running, platform: Platform) -> None:
    """Validators reach the platform byte for byte, and its 304 and 412 reach the caller."""
    fields = ('If-None-Match: W/"3"', "If-Modified-Since: Wed, 25 Nov 2026 00:00:00 GMT")
    platform.script(http(304, b"", ("ETag", 'W/"3"'), length=False), fhir(b"{}", 412))
    unchanged = await ask(gateway.address, get("/fhir/Patient/1", *fields))
    assert (unchanged.status, unchanged.header("etag"), unchanged.body) == (304, 'W/"3"', b"")
    await ask(gateway.address, post("/fhir/Patient/1", b"{}", 'If-Match: W/"2"', method="PUT"))
    assert platform.seen[0].header("if-none-match") == 'W/"3"'
    assert platform.seen[0].header("if-modified-since") == "Wed, 25 Nov 2026 00:00:00 GMT"
    assert platform.seen[1].header("if-match") == 'W/"2"'


async def test_conditional_update_keeps_its_query(gateway: Running, platform: Platform) -> None:
    """The criteria in the query are the caller's but for gateway URLs."""
    target = "/fhir/Observation?identifier=a%7Cb&subject=http://gateway/fhir/Patient/1"
    await ask(gateway.address, post(target, b"{}", method="PUT"))
    assert platform.seen[0].target == (
        f"/r5/Observation?identifier=a%7Cb&subject={platform.url}/Patient/1"
    )


async def test_head_of_a_rewritten_answer_promises_no_length(
    gateway: Running, platform: Platform
) -> None:
    """The fields of GET but for the length, which rewriting may change."""
    head = http(200, b"", ("Content-Type", "application/fhir+json"), ("ETag", 'W/"1"'))
    platform.answer(head.replace(b"Content-Length: 0", b"Content-Length: 999"))
    reply = await ask(gateway.address, get("/fhir/Patient/1", method="HEAD"), head=True)
    assert (reply.status, reply.header("etag")) == (200, 'W/"1"')
    assert reply.header("content-length") is None


async def test_operation_parameters_are_translated(gateway: Running, platform: Platform) -> None:
    """`valueUri`, references and resources among the parameters, in both directions."""
    body = (
        '{"resourceType":"Parameters","parameter":[{"name":"target","valueUri":"%s/Patient/1"},'
        '{"name":"subject","valueReference":{"reference":"%s/Patient/1"}},'
        '{"name":"code","valueCode":"%s/Patient/1"}]}'
    )
    url = platform.url
    platform.answer(fhir((body % (url, url, url)).encode()))
    gw = "http://gateway/fhir"
    reply = await ask(gateway.address, post("/fhir/Patient/$do", (body % (gw, gw, gw)).encode()))
    assert platform.seen[0].body.decode() == body % (url, url, gw)
    assert reply.body.decode() == body % (gw, gw, url)


@pytest.mark.parametrize("query", ["_format=xml", "_format=application%2Ffhir%2Bxml"])
async def test_format_reaches_the_platform_and_shapes_the_gateways_own_answers(
    gateway: Running, platform: Platform, query: str
) -> None:
    """`_format` goes on as it came; an outcome that the gateway makes obeys it too."""
    platform.answer(http(502, b"<html>", ("Content-Type", "text/html")))
    reply = await ask(gateway.address, post(f"/fhir/Patient?{query}", b"{}"))
    assert platform.seen[0].target == f"/r5/Patient?{query}"
    assert (reply.reason, reply.header("content-type")) == (
        "upstream-non-fhir",
        "application/fhir+xml; charset=utf-8",
    )


async def test_links_are_counted(gateway: Running, platform: Platform) -> None:
    """Both ways: what was rewritten, and what was left alone at a place that is not listed."""
    url = platform.url
    body = {
        "resourceType": "Observation",
        "subject": {"reference": f"{url}/Patient/1"},
        "performer": [{"reference": f"{url}/Practitioner/1"}],
        "note": [{"text": f"see {url}/Patient/1"}],
    }
    platform.answer(fhir(json.dumps(body).encode()))
    await ask(gateway.address, get("/fhir/Observation/1"))
    metric = "dhp_gateway_links_total"
    assert await gateway.metric(metric, outcome="rewritten") == 2
    assert await gateway.metric(metric, outcome="unrewritten") == 1
    sent = json.dumps(body).replace(url, "http://gateway/fhir").encode()
    await ask(gateway.address, post("/fhir/Observation", sent))
    assert await gateway.metric(metric, outcome="rewritten") == 2 + 2 + 2
    assert await gateway.metric(metric, outcome="unrewritten") == 1 + 1 + 1
