"""Bodies without a type or as plain text, as MSXML sends them, and empty Origin fields."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import outcome_text
from gateway.i18n import LANGUAGES
from tests.doubles.platform import Platform, fhir, http, page
from tests.doubles.wire import Wire, fetch, get, post
from tests.faults.judgement import assert_result, read_json
from tests.faults.table import NOT_FHIR
from tests.pipeline.conftest import StartGateway
from tests.pipeline.testbed import Testbed

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
    return get(target, f"Content-Length: {len(body)}", *fields, method=method) + body


@pytest.mark.parametrize("said", SAYS_NOTHING)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_configured_type_replaces_a_missing_one(
    start_gateway: StartGateway, platform: Platform, said: str, method: str
) -> None:
    """The platform gets it, once, and the gateway reads the body so."""
    async with start_gateway(callers=[NAMED]) as gateway:
        request = create(PATIENT, *SAYS_NOTHING[said], method=method)
        assert (await fetch(gateway.address, request)).status == 200
    (received,) = platform.requests
    assert received.all("content-type") == ["application/fhir+json"]
    assert received.body == PATIENT.replace(b"http://gateway/fhir", platform.url.encode())


@pytest.mark.parametrize(
    ("caller", "fields"),
    [
        *((NAMED, fields) for fields in SAYS_SOMETHING.values()),
        *((LAB, fields) for fields in SAYS_NOTHING.values()),
    ],
)
async def test_a_stated_type_is_kept_and_none_is_added_without_the_setting(
    start_gateway: StartGateway, platform: Platform, caller: dict[str, Any], fields: tuple[str, ...]
) -> None:
    async with start_gateway(callers=[caller]) as gateway:
        await fetch(gateway.address, create(PATIENT, *fields))
    kinds = [each.partition(": ")[2] for each in fields]
    assert platform.requests[0].all("content-type") == kinds


@pytest.mark.parametrize("said", SAYS_NOTHING)
@pytest.mark.parametrize(("method", "target"), [("POST", "Binary"), ("PUT", "Binar%79/1")])
async def test_the_type_of_binary_content_is_kept(
    start_gateway: StartGateway, platform: Platform, said: str, method: str, target: str
) -> None:
    """Also between other writes with the same header."""
    async with start_gateway(callers=[NAMED]) as gateway:
        fields, body = SAYS_NOTHING[said], b"any text, {} bytes or none of FHIR's types"
        write = create(body, *fields, method=method)
        binary = create(body, *fields, method=method, target=f"/fhir/{target}")
        async with await Wire.open(gateway.address) as wire:
            for request in (write, binary, write, binary):
                assert (await wire.fetch(request)).status == 200
    kinds = [each.partition(": ")[2] for each in fields]
    named = ["application/fhir+json"]
    received = platform.requests
    assert [each.all("content-type") for each in received] == [named, kinds, named, kinds]
    assert {each.body for each in received} == {body}


@pytest.mark.parametrize(("method", "target"), [("PATCH", "Binary/1"), ("POST", "Binary/$x")])
async def test_patches_and_operations_of_a_binary_get_the_configured_type(
    start_gateway: StartGateway, platform: Platform, method: str, target: str
) -> None:
    async with start_gateway(callers=[NAMED]) as gateway:
        await fetch(gateway.address, create(b"{}", method=method, target=f"/fhir/{target}"))
    assert platform.requests[0].all("content-type") == ["application/fhir+json"]


async def test_a_chunked_body_gets_the_configured_type(
    start_gateway: StartGateway, platform: Platform
) -> None:
    async with start_gateway(callers=[NAMED]) as gateway:
        chunks = b"2\r\n{}\r\n0\r\n\r\n"
        request = get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST") + chunks
        assert (await fetch(gateway.address, request)).status == 200
    assert platform.requests[0].all("content-type") == ["application/fhir+json"]


@pytest.mark.parametrize(
    "request_",
    [
        get("/fhir/Patient/1"),
        get("/fhir/Patient/1", "Content-Length: 2") + b"{}",
        get("/fhir/Patient/1", "Content-Length: 0", method="DELETE"),
        get("/fhir/Patient/$x", "Content-Length: 0", method="POST"),
    ],
)
async def test_a_request_without_a_body_gets_no_type(
    start_gateway: StartGateway, platform: Platform, request_: bytes
) -> None:
    async with start_gateway(callers=[NAMED]) as gateway:
        assert (await fetch(gateway.address, request_)).status == 200
    assert platform.requests[0].all("content-type") == []


UNSUPPORTED = {
    "a page": page(415),
    "nothing": http(415, b""),
    "JSON that is no FHIR": http(415, b'{"status":415}', ("Content-Type", "application/json")),
}


@pytest.mark.parametrize("answer", UNSUPPORTED)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_415_without_fhir_names_setting(testbed: Testbed, answer: str, language: str) -> None:
    testbed.platform.respond(UNSUPPORTED[answer])
    gateway = await testbed.start(callers=[LAB])
    request = create(PATIENT, f"Accept-Language: {language}")
    evidence = await testbed.send(gateway, request)
    row = NOT_FHIR[415].changed(advice="media-type")
    await assert_result(evidence, "upstream-non-fhir", row, language=language)
    assert "callers[].content_type" in read_json(evidence.response)["diagnostics"]


@pytest.mark.parametrize("request_", [post("/fhir/Patient", PATIENT), get("/fhir/Patient/1")])
async def test_a_415_with_another_cause_does_not_name_the_setting(
    start_gateway: StartGateway, platform: Platform, request_: bytes
) -> None:
    """Where a type was stated, or there is no body."""
    platform.respond(page(415))
    async with start_gateway(callers=[LAB]) as gateway:
        response = await fetch(gateway.address, request_)
    assert (response.status, response.reason) == (415, "upstream-non-fhir")
    assert "content_type" not in response.body.decode()


async def test_a_415_with_fhir_passes_unchanged(
    start_gateway: StartGateway, platform: Platform
) -> None:
    outcome = b'{"resourceType":"OperationOutcome","issue":[]}'
    platform.respond(http(415, outcome, ("Content-Type", "application/fhir+json")))
    async with start_gateway(callers=[LAB]) as gateway:
        response = await fetch(gateway.address, create(PATIENT))
    assert (response.status, response.reason, response.body) == (415, None, outcome)


@pytest.mark.parametrize("origin", ["Origin:", "Origin: ", "origin: \t "])
async def test_an_empty_origin_is_ignored(
    start_gateway: StartGateway, platform: Platform, origin: str
) -> None:
    platform.respond(fhir())
    async with start_gateway() as gateway:
        response = await fetch(gateway.address, post("/fhir/Patient", b"{}", origin))
    assert response.status == 200


@pytest.mark.parametrize(
    "field",
    [
        *("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"),
        *("Origin: ftp://gateway", "Origin: app://gateway", "Origin: ://gateway"),
        *("Origin: http://gateway@evil.example", "Origin: http://evil.example@gateway"),
        *("Origin: http://evil.example://gateway", "Origin: gateway", "Origin: http://gateway/"),
    ],
)
async def test_the_error_for_a_web_page_of_another_origin_names_the_remedy(
    start_gateway: StartGateway, platform: Platform, field: str
) -> None:
    """In text and diagnostics, where any caller on this machine is accepted."""
    async with start_gateway() as gateway:
        for language in LANGUAGES:
            request = post("/fhir/Patient", b"{}", field, f"Accept-Language: {language}")
            response = await fetch(gateway.address, request)
            assert (response.status, response.reason) == (403, "caller-forbidden")
            issue = response.json()["issue"][0]
            assert issue["details"]["text"] == outcome_text(
                "caller-forbidden", language, advice="foreign-page"
            )
            assert "callers[].api_key_file" in issue["diagnostics"]
            assert "login.cors_origins" in issue["diagnostics"]
    assert platform.requests == []
