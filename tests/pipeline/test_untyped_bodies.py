"""Bodies without a type or as plain text, as MSXML sends them, and empty Origin fields."""

from __future__ import annotations

import pytest

from gateway.errors import outcome_text
from gateway.i18n import LANGUAGES
from tests.doubles.platform import Platform, fhir, http, page
from tests.doubles.wire import Wire, ask, get, post
from tests.faults.judgement import judge, read_json
from tests.faults.table import NOT_FHIR
from tests.pipeline.conftest import StartGateway
from tests.pipeline.stage import Stage

LAB = {"name": "lab", "networks": ["127.0.0.1"]}
NAMED = {**LAB, "content_type": "application/fhir+json"}
PATIENT = b'{"resourceType":"Patient","photo":[{"url":"http://gateway/fhir/Binary/1"}]}'

SAYS_NOTHING = {
    "no field": (),
    "an empty field": ("Content-Type: ",),
    "plain text": ("Content-Type: text/plain",),
    "plain text in UTF-8": ("Content-Type: text/plain;charset=UTF-8",),
    "in other letters": ('content-type: Text/Plain; Charset="utf-8"',),
}
SAYS_SOMETHING = {
    "XML": ("Content-Type: application/fhir+xml",),
    "JSON": ("Content-Type: application/json",),
    "HTML": ("Content-Type: text/html",),
    "a form": ("Content-Type: application/x-www-form-urlencoded",),
    "text in another encoding": ("Content-Type: text/plain; charset=koi8-u",),
    "text of Windows": ("Content-Type: text/plain; charset=windows-1251",),
}


def create(body: bytes, *fields: str, method: str = "POST", target: str = "/fhir/Patient") -> bytes:
    """A write that says of its body only what these fields say."""
    return get(target, f"Content-Length: {len(body)}", *fields, method=method) + body


@pytest.mark.parametrize("said", SAYS_NOTHING)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_callers_type_stands_in(
    start_gateway: StartGateway, platform: Platform, said: str, method: str
) -> None:
    """It is what the platform is told, once, and what the gateway itself takes the body for."""
    async with start_gateway(callers=[NAMED]) as gateway:
        request = create(PATIENT, *SAYS_NOTHING[said], method=method)
        assert (await ask(gateway.address, request)).status == 200
    (seen,) = platform.seen
    assert seen.all("content-type") == ["application/fhir+json"]
    assert seen.body == PATIENT.replace(b"http://gateway/fhir", platform.url.encode())


@pytest.mark.parametrize("said", SAYS_SOMETHING)
async def test_a_type_that_was_said_stays(
    start_gateway: StartGateway, platform: Platform, said: str
) -> None:
    """Whatever else a caller says of a body goes on as it came."""
    async with start_gateway(callers=[NAMED]) as gateway:
        await ask(gateway.address, create(PATIENT, *SAYS_SOMETHING[said]))
    kinds = [each.partition(": ")[2] for each in SAYS_SOMETHING[said]]
    assert platform.seen[0].all("content-type") == kinds


@pytest.mark.parametrize("said", SAYS_NOTHING)
@pytest.mark.parametrize(("method", "target"), [("POST", "Binary"), ("PUT", "Binar%79/1")])
async def test_what_is_stored_as_a_binary_stays_what_it_is(
    start_gateway: StartGateway, platform: Platform, said: str, method: str, target: str
) -> None:
    """Its type is the content's own; also between other writes with the same header."""
    async with start_gateway(callers=[NAMED]) as gateway:
        fields, body = SAYS_NOTHING[said], b"any text, {} bytes or none of FHIR's types"
        write = create(body, *fields, method=method)
        binary = create(body, *fields, method=method, target=f"/fhir/{target}")
        async with await Wire.open(gateway.address) as wire:
            for request in (write, binary, write, binary):
                assert (await wire.ask(request)).status == 200
    kinds = [each.partition(": ")[2] for each in fields]
    named = ["application/fhir+json"]
    seen = platform.seen
    assert [each.all("content-type") for each in seen] == [named, kinds, named, kinds]
    assert {each.body for each in seen} == {body}


@pytest.mark.parametrize(("method", "target"), [("PATCH", "Binary/1"), ("POST", "Binary/$x")])
async def test_what_is_only_sent_to_a_binary_is_named(
    start_gateway: StartGateway, platform: Platform, method: str, target: str
) -> None:
    """A patch, and what an operation is given, are no contents of it."""
    async with start_gateway(callers=[NAMED]) as gateway:
        await ask(gateway.address, create(b"{}", method=method, target=f"/fhir/{target}"))
    assert platform.seen[0].all("content-type") == ["application/fhir+json"]


@pytest.mark.parametrize("said", SAYS_NOTHING)
async def test_without_the_setting(
    start_gateway: StartGateway, platform: Platform, said: str
) -> None:
    """A caller that has no such setting is passed on as it came."""
    async with start_gateway(callers=[LAB]) as gateway:
        await ask(gateway.address, create(PATIENT, *SAYS_NOTHING[said]))
    kinds = [each.partition(": ")[2] for each in SAYS_NOTHING[said]]
    assert platform.seen[0].all("content-type") == kinds


async def test_in_chunks(start_gateway: StartGateway, platform: Platform) -> None:
    """A body whose length is not announced is one, too."""
    async with start_gateway(callers=[NAMED]) as gateway:
        chunks = b"2\r\n{}\r\n0\r\n\r\n"
        request = get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST") + chunks
        assert (await ask(gateway.address, request)).status == 200
    assert platform.seen[0].all("content-type") == ["application/fhir+json"]


@pytest.mark.parametrize(
    "request_",
    [
        get("/fhir/Patient/1"),
        get("/fhir/Patient/1", "Content-Length: 2") + b"{}",
        get("/fhir/Patient/1", "Content-Length: 0", method="DELETE"),
        get("/fhir/Patient/$x", "Content-Length: 0", method="POST"),
    ],
)
async def test_no_body_no_type(
    start_gateway: StartGateway, platform: Platform, request_: bytes
) -> None:
    """What goes on without a body goes on without a type."""
    async with start_gateway(callers=[NAMED]) as gateway:
        assert (await ask(gateway.address, request_)).status == 200
    assert platform.seen[0].all("content-type") == []


UNSUPPORTED = {
    "a page": page(415),
    "nothing": http(415, b""),
    "JSON that is no FHIR": http(415, b'{"status":415}', ("Content-Type", "application/json")),
}


@pytest.mark.parametrize("answer", UNSUPPORTED)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_415_that_is_no_fhir_is_explained(stage: Stage, answer: str, language: str) -> None:
    """It says what to send, and which setting helps a system that cannot."""
    stage.platform.answer(UNSUPPORTED[answer])
    gateway = await stage.start(callers=[LAB])
    request = create(PATIENT, f"Accept-Language: {language}")
    evidence = await stage.evidence(gateway, request)
    row = NOT_FHIR[415].but(advice="media-type")
    await judge(evidence, "upstream-non-fhir", row, language=language)
    assert "callers[].content_type" in read_json(evidence.reply)["diagnostics"]


@pytest.mark.parametrize("request_", [post("/fhir/Patient", PATIENT), get("/fhir/Patient/1")])
async def test_a_415_whose_cause_is_another(
    start_gateway: StartGateway, platform: Platform, request_: bytes
) -> None:
    """Where a type was said, or there is no body, nothing is said of the setting."""
    platform.answer(page(415))
    async with start_gateway(callers=[LAB]) as gateway:
        reply = await ask(gateway.address, request_)
    assert (reply.status, reply.reason) == (415, "upstream-non-fhir")
    assert "content_type" not in reply.body.decode()


async def test_a_415_that_is_fhir_passes(start_gateway: StartGateway, platform: Platform) -> None:
    """The platform's own explanation goes to the caller unchanged."""
    outcome = b'{"resourceType":"OperationOutcome","issue":[]}'
    platform.answer(http(415, outcome, ("Content-Type", "application/fhir+json")))
    async with start_gateway(callers=[LAB]) as gateway:
        reply = await ask(gateway.address, create(PATIENT))
    assert (reply.status, reply.reason, reply.body) == (415, None, outcome)


@pytest.mark.parametrize("origin", ["Origin:", "Origin: ", "origin: \t "])
async def test_an_empty_origin_is_none(
    start_gateway: StartGateway, platform: Platform, origin: str
) -> None:
    """It names no page, so it is no page's request."""
    platform.answer(fhir())
    async with start_gateway() as gateway:
        reply = await ask(gateway.address, post("/fhir/Patient", b"{}", origin))
    assert reply.status == 200


@pytest.mark.parametrize("field", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_remedy_for_a_foreign_page(
    start_gateway: StartGateway, platform: Platform, field: str, language: str
) -> None:
    """The 403 names what an operator can do, in words and in the diagnostics."""
    async with start_gateway() as gateway:
        request = get("/fhir/Patient/1", field, f"Accept-Language: {language}")
        reply = await ask(gateway.address, request)
    assert (reply.status, reply.reason) == (403, "caller-forbidden")
    issue = reply.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text(
        "caller-forbidden", language, advice="foreign-page"
    )
    assert "callers[].api_key_file" in issue["diagnostics"]
    assert "login.cors_origins" in issue["diagnostics"]
    assert platform.seen == []
