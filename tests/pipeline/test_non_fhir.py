"""What is not FHIR is no answer to who reads or searches: an empty list must not be made of it."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Line, Platform, fhir, http, page, read_body
from tests.doubles.wire import TruncatedResponseError, ask, get, post
from tests.fhir.bodies import spelled_out

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
    """The field of a type, where there is one."""
    return [("Content-Type", kind)] if kind else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", NOTHING)
async def test_reads_get_fhir_or_an_error(
    gateway: Running, platform: Platform, body: str, kind: str
) -> None:
    """Whatever its type says, a 2xx without FHIR becomes a 502."""
    platform.answer(http(200, NOTHING[body], *typed(kind)))
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")
    assert reply.json()["issue"][0]["code"] == "processing"
    assert "platform-status=200" in reply.json()["issue"][0]["diagnostics"]


async def test_an_error_page_leaves_what_the_caller_may_do(
    gateway: Running, platform: Platform
) -> None:
    """A 405 without FHIR keeps its Allow (RFC 9110 15.5.6), as fhirstarter answers a PATCH."""
    detail = b'{"detail":"Method Not Allowed"}'
    platform.answer(http(405, detail, *typed("application/json"), ("Allow", "GET, POST")))
    reply = await ask(gateway.address, get("/fhir/Patient"))
    assert (reply.status, reply.reason) == (405, "upstream-non-fhir")
    assert reply.header("allow") == "GET, POST"


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", ""])
async def test_an_outcome_of_another_type_is_the_platforms_own(
    gateway: Running, platform: Platform, kind: str
) -> None:
    """A FHIR error passes unchanged, as HAPI's to the deletion of an export that has ended."""
    body = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error"}]}'
    platform.answer(http(404, body, *typed(kind)))
    reply = await ask(gateway.address, get("/fhir/$export-poll-status?_jobId=1"))
    assert (reply.status, reply.reason, reply.body) == (404, None, body)


@pytest.mark.parametrize("target", READS + SEARCHES)
@pytest.mark.parametrize("code", [200, 201, 203])
async def test_every_kind_of_reading_is_judged(
    gateway: Running, platform: Platform, target: str, code: int
) -> None:
    """Reads, old versions, histories and searches, with any 2xx."""
    platform.answer(fhir(b'{"success":true}', code))
    reply = await ask(gateway.address, get(f"/fhir/{target}"))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("target", READS + SEARCHES)
@pytest.mark.parametrize("code", [200, 201, 404, 500])
async def test_a_type_counts_in_every_spelling(
    gateway: Running, platform: Platform, target: str, code: int
) -> None:
    """That JSON allows: in answers of every kind, errors too."""
    body = spelled_out(b'{"id":"1","resourceType":"OperationOutcome"}')
    platform.answer(fhir(body, code))
    reply = await ask(gateway.address, get(f"/fhir/{target}"))
    assert (reply.status, reply.reason, reply.body) == (code, None, body)


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_a_spelled_out_type_may_come_in_pieces(
    gateway: Running, platform: Platform, step: int
) -> None:
    """Behind what has gone on already; wherever it is cut."""
    end = spelled_out(b'"resourceType" : "Basic"}')
    begin = b'{"id":"' + LONG + b'",'

    async def answer(line: Line) -> None:
        await read_body(line.reader, line.seen)
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n"
        )
        line.writer.write(head % len(begin + end) + begin)
        for at in range(0, len(end), step):
            await line.writer.drain()
            await asyncio.sleep(0)
            line.writer.write(end[at : at + step])

    platform.answer(answer)
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    assert (reply.status, reply.body) == (200, begin + end)


async def test_searches_by_post_are_judged(gateway: Running, platform: Platform) -> None:
    """A search is one by whatever method."""
    platform.answer(fhir(b"{}"))
    form = "Content-Type: application/x-www-form-urlencoded"
    reply = await ask(gateway.address, post("/fhir/Patient/_search", b"name=x", form))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize("name", FHIR)
async def test_fhir_passes_in_every_form(
    gateway: Running, platform: Platform, name: str, coding: str | None
) -> None:
    """Also where `resourceType` stands last, however long it takes to come."""
    body, kind = FHIR[name]
    fields = typed(kind) + ([("Content-Encoding", coding)] if coding else [])
    platform.answer(http(200, gzip.compress(body) if coding else body, *fields))
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize("begin", [b"text ", b"<root>", b"[", b"  \r\n text"])
async def test_long_ones_are_judged_by_their_beginning(
    gateway: Running, platform: Platform, begin: bytes, coding: str | None
) -> None:
    """What cannot become FHIR any more is a clean 502, however long it is."""
    body = begin + LONG
    fields = [("Content-Encoding", coding)] if coding else []
    platform.answer(fhir(gzip.compress(body) if coding else body, 200, *fields))
    reply = await ask(gateway.address, get("/fhir/Patient/1"))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize("rewrite", [True, False])
async def test_a_long_one_that_was_none_never_looks_whole(
    start_gateway, platform: Platform, rewrite: bool
) -> None:
    """JSON streams on while it may still name its type; without it the connection is aborted."""
    platform.answer(fhir(b'{"x":"' + LONG + b'"}'))
    async with start_gateway(rewrite={"enabled": rewrite}) as gateway:
        with pytest.raises(TruncatedResponseError):
            await ask(gateway.address, get("/fhir/Patient/1"))
        (record,) = await gateway.audit(1)
        assert (record["outcome"], record["reason"]) == ("aborted", "upstream-non-fhir")
        old = await ask(gateway.address, get("/fhir/Patient/1", version="1.0"))
    assert (old.status, old.reason) == (502, "upstream-non-fhir")


async def test_a_compressed_one_that_was_none_is_a_clean_failure(
    gateway: Running, platform: Platform
) -> None:
    """What is here already, but only shows when it is opened, is judged before it goes on."""
    body = gzip.compress(b'{"x":"' + LONG + b'"}')
    platform.answer(fhir(body, 200, ("Content-Encoding", "gzip")))
    for field in ("Accept-Encoding: gzip", "Accept-Encoding: identity"):
        reply = await ask(gateway.address, get("/fhir/Patient/1", field))
        assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(("code", "kind"), [(204, "text/html"), (204, ""), (304, "text/html")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_status_without_a_body_is_not_judged_by_its_type(
    gateway: Running, platform: Platform, code: int, kind: str, method: str
) -> None:
    """204 and 304 are answers, whatever the platform calls the body that is not there."""
    platform.answer(http(code, b"", *typed(kind), length=False))
    reply = await ask(gateway.address, get("/fhir/Patient/1", method=method))
    assert (reply.status, reply.reason) == (code, None)


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
async def test_what_was_asked_for_passes(
    gateway: Running, platform: Platform, query: str, accept: str, kind: str, body: bytes
) -> None:
    """A body of another type than FHIR's is an answer to who named that type."""
    platform.answer(http(200, body, ("Content-Type", kind)))
    reply = await ask(gateway.address, get(f"/fhir/Patient/1{query}", accept))
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize(
    "accept", ["application/json", "application/fhir+json", "*/*", "text/csv;q=0, */*"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
async def test_asking_for_fhir_asks_for_nothing_else(
    gateway: Running, platform: Platform, accept: str, kind: str
) -> None:
    """Under a name of FHIR's own only FHIR is what was asked for, and `*/*` names nothing."""
    platform.answer(http(200, b'{"success":true}', ("Content-Type", kind)))
    reply = await ask(gateway.address, get("/fhir/Patient/1", f"Accept: {accept}"))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(
    "answer", [http(200, b"ok"), fhir(b"{}"), http(200), page(200), page(404), page(500)]
)
async def test_binaries_are_never_judged(
    gateway: Running, platform: Platform, answer: bytes
) -> None:
    """What a Binary holds is its own business."""
    platform.answer(answer)
    reply = await ask(gateway.address, get("/fhir/Binary/1"))
    assert (reply.status, reply.reason) == (int(answer[9:12]), None)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert reply.body == body
    kind = reply.header("content-type")
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
async def test_other_answers_need_no_resource(
    gateway: Running, platform: Platform, answer: bytes, request_: bytes
) -> None:
    """Parts, where an answer will be found, and answers to writes and operations pass."""
    platform.answer(answer)
    reply = await ask(gateway.address, request_)
    assert (reply.status, reply.reason) == (int(answer[9:12]), None)


@pytest.mark.parametrize(("kind", "status"), [("text/html", 502), ("", 200), ("text/plain", 200)])
async def test_head_is_judged_by_its_type(
    gateway: Running, platform: Platform, kind: str, status: int
) -> None:
    """Of a body that is not there, only that it would be a page is known."""
    platform.answer(http(200, b"", *typed(kind)))
    reply = await ask(gateway.address, get("/fhir/Patient/1", method="HEAD"), head=True)
    assert reply.status == status
