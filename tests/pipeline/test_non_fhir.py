"""A read or search must not succeed without FHIR: callers could take it for an empty result."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    Platform,
    PlatformConnection,
    fhir,
    http,
    page,
    read_body,
    silence,
    then_close,
)
from tests.doubles.wire import TruncatedResponseError, fetch, get, post
from tests.fhir.bodies import spelled_out
from tests.pipeline import shared

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    return shared.NO_CIRCUIT


READS = ["Patient/1", "Patient/1/_history/2", "Patient/1/_history", "Patient/_history", "_history"]
SEARCHES = ["Patient?name=x", "?_type=Patient", "Patient/1/Observation?code=x"]
KINDS = ["application/fhir+json", "application/json", "application/fhir+xml", "text/plain", ""]
NOTHING = {
    "nothing": b"",
    "white space": b" \r\n",
    "text": b"ok",
    "an empty object": b"{}",
    "an object": b'{"success":true,"resource":"Patient"}',
    "the word as a value": b'{"missing":["resourceType"]}',
    "the word in a text": b'{"error":"no \\"resourceType\\": x"}',
    "the word in a text, with an escape": rb'{"error":"no \"\\u0072esourceType\": x"}',
    "an array": b'[{"resourceType":"Patient"}]',
    "null": b"null",
    "a number": b"0",
    "XML": b'<?xml version="1.0"?><root><status>ok</status></root>',
    "UTF-16": '<?xml version="1.0"?><root/>'.encode("utf-16"),
}
LONG = b"x" * 300_000
FHIR = {
    "usual": (b'{"resourceType":"Patient"}', "application/fhir+json"),
    "laid out": (b'\xef\xbb\xbf{\n  "resourceType" :\n "Patient"\n}', "application/fhir+json"),
    "last": (b'{"id":"1","resourceType":"Patient"}', "application/fhir+json"),
    "last of much": (b'{"id":"' + LONG + b'","resourceType":"Patient"}', "application/json"),
    "an escape in the name": (rb'{"\u0072esourceType":"Basic"}', "application/fhir+json"),
    "one in upper case": (rb'{"resource\u0054yp\u0065" :"Basic"}', "application/json"),
    "escapes in the type": (rb'{"id":"1","resourceType":"\u0042asi\u0063"}', "application/json"),
    "nothing but escapes": (spelled_out(b'{"id":"1","resourceType":"Basic"}'), "application/json"),
    "escapes, last of much": (
        b'{"id":"' + LONG + b'",' + spelled_out(b'"resourceType" \n:"Basic"}'),
        "application/json",
    ),
    "unnamed": (b'{"resourceType":"Patient"}', ""),
    "as text": (b'{"resourceType":"Patient"}', "text/plain"),
    "XML": (b'<?xml version="1.0"?><Patient xmlns="http://hl7.org/fhir"/>', "text/xml"),
    "UTF-16": ('<Patient xmlns="http://hl7.org/fhir"/>'.encode("utf-16"), "application/xml"),
    "much XML": (b"<!--%s--><P xmlns='http://hl7.org/fhir'/>" % LONG[:60_000], "application/xml"),
}


def typed(kind: str) -> list[tuple[str, str]]:
    return [("Content-Type", kind)] if kind else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", NOTHING)
async def test_a_2xx_without_fhir_becomes_a_502(
    gateway: RunningGateway, platform: Platform, body: str, kind: str
) -> None:
    """Whatever its Content-Type."""
    platform.respond(http(200, NOTHING[body], *typed(kind)))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")
    assert response.json()["issue"][0]["code"] == "processing"
    assert "platform-status=200" in response.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    "title", ["No required SSL certificate was sent", "The SSL certificate error"]
)
async def test_a_page_about_our_certificate_is_logged_as_such(
    gateway: RunningGateway, platform: Platform, title: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As nginx 1.22.1 answers with `ssl_verify_client on`; its handshake succeeds."""
    body = f"<html>\r\n<head><title>400 {title}</title></head>\r\n</html>\r\n".encode()
    platform.respond(http(400, body, *typed("text/html")))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.reason) == (400, "upstream-non-fhir")
    assert "platform.client_cert_file" in caplog.text


async def test_a_405_without_fhir_keeps_its_allow(
    gateway: RunningGateway, platform: Platform
) -> None:
    """RFC 9110 section 15.5.6; fhirstarter responds so to a PATCH."""
    detail = b'{"detail":"Method Not Allowed"}'
    platform.respond(http(405, detail, *typed("application/json"), ("Allow", "GET, POST")))
    response = await fetch(gateway.address, get("/fhir/Patient"))
    assert (response.status, response.reason) == (405, "upstream-non-fhir")
    assert response.header("allow") == "GET, POST"


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 412, 422, 500, 501, 502, 503, 504])
async def test_a_page_in_doubt_is_not_told_as_a_refusal(
    gateway: RunningGateway, platform: Platform, code: int
) -> None:
    """A firewall that inspects responses refuses them when the write has had its effect."""
    platform.respond(page(code))
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    text = response.json()["issue"][0]["details"]["text"]
    assert "not known whether the data was saved" in text


@pytest.mark.parametrize(
    "code", [405, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 428, 429, 431, 511]
)
async def test_a_page_that_refuses_a_write_says_so(
    gateway: RunningGateway, platform: Platform, code: int
) -> None:
    """RFC 9110 section 15.5: with such a status the request was not processed."""
    platform.respond(page(code))
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert (response.status, response.reason) == (code, "upstream-non-fhir")
    assert "did not process it" in response.json()["issue"][0]["details"]["text"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("code", [404, 422, 500])
async def test_a_long_outcome_with_a_late_type_passes_unchanged(
    gateway: RunningGateway, platform: Platform, code: int, packed: bool
) -> None:
    """Servers that sort the members of JSON write `resourceType` behind hundreds of issues."""
    body = b'{"issue":[{"diagnostics":"' + LONG + b'"}],"resourceType":"OperationOutcome"}'
    coding = [("Content-Encoding", "gzip")] if packed else []
    platform.respond(fhir(gzip.compress(body, 0) if packed else body, code, *coding))
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert (response.status, response.reason, response.body) == (code, None, body)


@pytest.mark.parametrize("end", ["complete", "closed", "silent"])
async def test_a_long_error_without_a_type_becomes_an_outcome(
    start_gateway, platform: Platform, end: str
) -> None:
    """Long before `idle_timeout` where its end never comes: the platform's status is known."""
    error = fhir(b'{"trace":"' + LONG + b'"}', 500)

    async def stall(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        if connection.request.is_from_gateway:
            # A probe of the shared gateway would wait for long.
            connection.writer.write(error)
            return
        connection.writer.write(error[:-2])
        await silence(connection)

    platform.respond({"complete": error, "closed": then_close(error[:-2]), "silent": stall}[end])
    async with start_gateway(platform={"idle_timeout": 3600}) as gateway:
        response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert (response.status, response.reason) == (500, "upstream-non-fhir")


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", ""])
async def test_an_outcome_with_another_content_type_passes_unchanged(
    gateway: RunningGateway, platform: Platform, kind: str
) -> None:
    """As HAPI's, when an export is deleted that has ended."""
    body = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error"}]}'
    platform.respond(http(404, body, *typed(kind)))
    response = await fetch(gateway.address, get("/fhir/$export-poll-status?_jobId=1"))
    assert (response.status, response.reason, response.body) == (404, None, body)


@pytest.mark.parametrize("target", READS + SEARCHES)
@pytest.mark.parametrize("code", [200, 201, 203])
async def test_reads_histories_and_searches_are_checked(
    gateway: RunningGateway, platform: Platform, target: str, code: int
) -> None:
    """With any 2xx."""
    platform.respond(fhir(b'{"success":true}', code))
    response = await fetch(gateway.address, get(f"/fhir/{target}"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("target", READS + SEARCHES)
@pytest.mark.parametrize("code", [200, 201, 404, 500])
async def test_resource_type_is_found_in_every_spelling_of_json(
    gateway: RunningGateway, platform: Platform, target: str, code: int
) -> None:
    """In errors too."""
    body = spelled_out(b'{"id":"1","resourceType":"OperationOutcome"}')
    platform.respond(fhir(body, code))
    response = await fetch(gateway.address, get(f"/fhir/{target}"))
    assert (response.status, response.reason, response.body) == (code, None, body)


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_an_escaped_resource_type_may_be_split(
    gateway: RunningGateway, platform: Platform, step: int
) -> None:
    """After a long first part that was sent already."""
    end = spelled_out(b'"resourceType" : "Basic"}')
    begin = b'{"id":"' + LONG + b'",'

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n"
        )
        connection.writer.write(head % len(begin + end) + begin)
        for at in range(0, len(end), step):
            await connection.writer.drain()
            await asyncio.sleep(0)
            connection.writer.write(end[at : at + step])

    platform.respond(respond)
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.body) == (200, begin + end)


async def test_searches_by_post_are_checked(gateway: RunningGateway, platform: Platform) -> None:
    platform.respond(fhir(b"{}"))
    form = "Content-Type: application/x-www-form-urlencoded"
    response = await fetch(gateway.address, post("/fhir/Patient/_search", b"name=x", form))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize("name", FHIR)
async def test_fhir_passes_in_every_form(
    gateway: RunningGateway, platform: Platform, name: str, coding: str | None
) -> None:
    """Also where `resourceType` is the last member of a long body."""
    body, kind = FHIR[name]
    fields = typed(kind) + ([("Content-Encoding", coding)] if coding else [])
    platform.respond(http(200, gzip.compress(body) if coding else body, *fields))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize("begin", [b"text ", b"<root>", b"[", b"  \r\n text"])
async def test_a_long_body_that_cannot_be_fhir_becomes_a_502(
    gateway: RunningGateway, platform: Platform, begin: bytes, coding: str | None
) -> None:
    body = begin + LONG
    fields = [("Content-Encoding", coding)] if coding else []
    platform.respond(fhir(gzip.compress(body) if coding else body, 200, *fields))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("rewrite", [True, False])
async def test_a_long_body_without_a_resource_type_does_not_look_complete(
    start_gateway, platform: Platform, rewrite: bool
) -> None:
    """JSON is streamed while it may still name its type; then the connection is aborted."""
    platform.respond(fhir(b'{"x":"' + LONG + b'"}'))
    async with start_gateway(rewrite={"enabled": rewrite}) as gateway:
        with pytest.raises(TruncatedResponseError):
            await fetch(gateway.address, get("/fhir/Patient/1"))
        (record,) = await gateway.audit(1)
        assert (record["outcome"], record["reason"]) == ("aborted", "upstream-non-fhir")
        old = await fetch(gateway.address, get("/fhir/Patient/1", version="1.0"))
    assert (old.status, old.reason) == (502, "upstream-non-fhir")


async def test_a_compressed_body_is_checked_before_it_is_sent(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Where it was received completely."""
    body = gzip.compress(b'{"x":"' + LONG + b'"}')
    platform.respond(fhir(body, 200, ("Content-Encoding", "gzip")))
    for field in ("Accept-Encoding: gzip", "Accept-Encoding: identity"):
        response = await fetch(gateway.address, get("/fhir/Patient/1", field))
        assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(("code", "kind"), [(204, "text/html"), (204, ""), (304, "text/html")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_204_or_304_is_not_checked(
    gateway: RunningGateway, platform: Platform, code: int, kind: str, method: str
) -> None:
    """Whatever its Content-Type."""
    platform.respond(http(code, b"", *typed(kind), length=False))
    response = await fetch(gateway.address, get("/fhir/Patient/1", method=method))
    assert (response.status, response.reason) == (code, None)


ASKED = [
    ("", "Accept: text/csv", "text/csv", b"a,b\n"),
    ("", "Accept: text/html", "text/html", b"<html></html>"),
    ("?_format=text/csv", "Accept: */*", "text/csv;charset=utf-8", b"a,b\n"),
    ("?_format=csv", "Accept: */*", "text/csv", b""),
    ("?_format=ttl", "Accept: */*", "text/turtle", b"@prefix"),
    ("?_format=application%2Fdicom%2Bjson", "Accept: */*", "application/dicom+json", b"[]"),
    ("?_format=html", "Accept: */*", "text/html", b"<html></html>"),
    ("", "Accept: image/*, */*;q=0.1", "image/png", b"\x89PNG"),
]


@pytest.mark.parametrize(("query", "accept", "kind", "body"), ASKED)
async def test_a_media_type_that_the_caller_accepts_passes(
    gateway: RunningGateway, platform: Platform, query: str, accept: str, kind: str, body: bytes
) -> None:
    platform.respond(http(200, body, ("Content-Type", kind)))
    response = await fetch(gateway.address, get(f"/fhir/Patient/1{query}", accept))
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize(
    "accept", ["application/json", "application/fhir+json", "*/*", "text/csv;q=0, */*"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
async def test_accepting_fhir_or_anything_accepts_no_other_type(
    gateway: RunningGateway, platform: Platform, accept: str, kind: str
) -> None:
    platform.respond(http(200, b'{"success":true}', ("Content-Type", kind)))
    response = await fetch(gateway.address, get("/fhir/Patient/1", f"Accept: {accept}"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(
    "answer", [http(200, b"ok"), fhir(b"{}"), http(200), page(200), page(404), page(500)]
)
async def test_binaries_are_not_checked(
    gateway: RunningGateway, platform: Platform, answer: bytes
) -> None:
    platform.respond(answer)
    response = await fetch(gateway.address, get("/fhir/Binary/1"))
    assert (response.status, response.reason) == (int(answer[9:12]), None)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert response.body == body
    kind = response.header("content-type")
    assert kind is None or f"Content-Type: {kind}".encode() in head


@pytest.mark.parametrize(
    ("answer", "request_"),
    [
        (http(200, b"part of a resource"[:4]).replace(b" 200 ", b" 206 "), get("/fhir/Patient/1")),
        (http(202, b"", ("Content-Location", "/x")), get("/fhir/Patient?x=1")),
        (http(200, b""), post("/fhir/Patient", b"{}")),
        (http(201, b""), post("/fhir/Patient", b"{}")),
        (http(204, b"", length=False), post("/fhir/Patient", b"{}")),
        (http(200, b"a,b", ("Content-Type", "text/csv")), get("/fhir/$x", "Accept: text/csv")),
        (fhir(b'{"output":[]}'), get("/fhir/$export")),
        (http(200, b"ok", ("Content-Type", "text/plain")), get("/fhir/Patient/$count")),
    ],
)
async def test_other_responses_need_no_resource(
    gateway: RunningGateway, platform: Platform, answer: bytes, request_: bytes
) -> None:
    """Ranges, 202 with a status URL, and responses to writes and operations."""
    platform.respond(answer)
    response = await fetch(gateway.address, request_)
    assert (response.status, response.reason) == (int(answer[9:12]), None)


@pytest.mark.parametrize(
    "answer", [http(202, b""), http(200, b"", ("Content-Location", "/fhir/Patient/1/_history/2"))]
)
async def test_a_read_without_a_resource_fails_unless_a_202_names_its_status_url(
    gateway: RunningGateway, platform: Platform, answer: bytes
) -> None:
    platform.respond(answer)
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(("kind", "status"), [("text/html", 502), ("", 200), ("text/plain", 200)])
async def test_a_head_is_checked_by_its_content_type(
    gateway: RunningGateway, platform: Platform, kind: str, status: int
) -> None:
    platform.respond(http(200, b"", *typed(kind)))
    response = await fetch(gateway.address, get("/fhir/Patient/1", method="HEAD"), head=True)
    assert response.status == status
