"""Links in responses under a base URL of the platform that the settings lack are reported."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform, ScriptedResponse, chunked, fhir, http
from tests.doubles.wire import Response, fetch, get, post

METRIC = "dhp_gateway_missing_alias_answers_total"

# Base URLs that a platform uses for itself; `{port}` is its port.
BASES = {
    "another host": "http://fhir.internal:{port}/r5",
    "localhost": "http://localhost:{port}/r5",
    "another port": "http://127.0.0.1:1/r5",
    "another scheme and its port": "https://127.0.0.1/r5",
    "a balancer": "https://fhir.clinic.uz/r5",
    "IPv6": "http://[::1]:{port}/r5",
    "capitals": "HTTP://FHIR.Internal:{port}/r5",
}


def page(base: str, *, links: str, full: str, **more: Any) -> dict[str, Any]:
    """Return a searchset with these bases: of `self`, of the `next` link, and of fullUrls."""
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [
            {"relation": "self", "url": f"{base}/Patient?name=a"},
            {"relation": "next", "url": f"{links}/Patient?_page=2"},
        ],
        "entry": [{"fullUrl": f"{full}/Patient/1", "resource": json.loads(PATIENT)}],
        **more,
    }


def text(body: Any, **options: Any) -> bytes:
    return json.dumps(body, **options).encode()


def page_response(base: str, *, links: str, full: str, **options: Any) -> bytes:
    return fhir(text(page(base, links=links, full=full), **options))


def xml(base: str) -> bytes:
    """Return the same page in XML."""
    return (
        '<?xml version="1.0"?><Bundle xmlns="http://hl7.org/fhir"><type value="searchset"/>'
        f'<link><relation value="next"/><url value="{base}/Patient?_page=2&amp;x=1"/></link>'
        f'<entry><fullUrl value="{base}/Patient/1"/></entry></Bundle>'
    ).encode()


def links_last(base: str, here: str, pad: int = 0) -> bytes:
    """Return a page whose links follow the entries, which have no base."""
    body = page(here, links=base, full="urn:x", note="x" * pad)
    del body["entry"]
    body["entry"] = [{"resource": {"resourceType": "Patient", "link": [{"type": "seealso"}]}}]
    body["link"] = body.pop("link")
    return text(body)


def created(name: str, value: str) -> bytes:
    return fhir(PATIENT, 201, (name, value))


def in_chunks(body: bytes, size: int) -> bytes:
    return chunked(*(body[at : at + size] for at in range(0, len(body), size)))


def xml_response(body: bytes) -> bytes:
    return http(200, body, ("Content-Type", "application/fhir+xml"))


# Responses with links under a base that is not configured; built from it and the configured one.
RESPONSES: dict[str, Callable[[str, str], ScriptedResponse]] = {
    "Location": lambda base, _: created("Location", f"{base}/Patient/1/_history/1"),
    "Content-Location": lambda base, _: created("Content-Location", f"{base}/Patient/1"),
    "next": lambda base, here: page_response(here, links=base, full=here),
    "next, and no entry with a base": lambda base, here: page_response(
        here, links=base, full="urn:x"
    ),
    "self": lambda base, here: page_response(base, links=here, full=here),
    "fullUrl": lambda base, here: page_response(here, links=here, full=base),
    "all": lambda base, _: page_response(base, links=base, full=base),
    "indented": lambda base, _: page_response(base, links=base, full=base, indent=2),
    "sorted": lambda base, here: page_response(here, links=here, full=base, sort_keys=True),
    "links behind entries": lambda base, here: fhir(links_last(base, here)),
    "links at the end of a long one": lambda base, here: fhir(links_last(base, here, 300_000)),
    "escaped slashes": lambda base, here: fhir(
        text(page(base, links=here, full=here)).replace(b"/", b"\\/")
    ),
    "XML": lambda base, _: xml_response(xml(base)),
    "compressed": lambda base, here: fhir(
        gzip.compress(text(page(here, links=base, full=here))), 200, ("Content-Encoding", "gzip")
    ),
    "in chunks": lambda base, here: chunked(
        text(page(here, links=base, full=here)), b" " * 200_000
    ),
    "in small chunks": lambda base, here: in_chunks(text(page(here, links=base, full=here)), 30),
    "at the end, in small chunks": lambda base, here: in_chunks(
        links_last(base, here, 20_000), 100
    ),
    "an answer to a batch": lambda base, _: fhir(
        b'{"resourceType":"Bundle","type":"batch-response","entry":[{"response":'
        b'{"status":"201","location":"%s/Patient/1"}}]}' % base.encode()
    ),
}


def base_of(name: str, platform: Platform) -> str:
    return BASES[name].format(port=platform.url.rpartition(":")[2].partition("/")[0])


async def fetch_page(
    gateway: RunningGateway, platform: Platform, answer: ScriptedResponse, request: bytes
) -> Response:
    platform.respond(answer)
    return await fetch(gateway.address, request)


def request_for(name: str) -> bytes:
    """Return a request to which the response of that name is a valid one."""
    if "ocation" in name:
        return post("/fhir/Patient", PATIENT)
    if "batch" in name:
        return post("/fhir", text({"resourceType": "Bundle", "type": "batch", "entry": []}))
    return get("/fhir/Patient?name=a")


async def reported_base(gateway: RunningGateway) -> str | None:
    """Return the base that the status page names."""
    base: str | None = (await gateway.facts())["platform"]["missing_alias"]
    return base


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("base_name", ["localhost", "a balancer"])
async def test_links_with_another_base_are_counted_once_for_a_response(
    gateway: RunningGateway, platform: Platform, name: str, base_name: str
) -> None:
    base = base_of(base_name, platform)
    answer = RESPONSES[name](base, platform.url)
    response = await fetch_page(gateway, platform, answer, request_for(name))
    assert response.status in (200, 201)
    assert await gateway.metric(METRIC) == 1
    assert await reported_base(gateway) == base


@pytest.mark.parametrize("name", BASES)
async def test_the_reported_base_is_the_missing_alias(
    start_gateway, platform: Platform, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """With it in the settings all links name the gateway."""
    base = base_of(name, platform)
    alias = base.lower()
    body = text(page(base, links=base, full=base))
    async with start_gateway() as gateway:
        for _ in range(3):
            await fetch_page(gateway, platform, fhir(body), get("/fhir/Patient?name=a"))
        assert await gateway.metric(METRIC) == 3
        assert await reported_base(gateway) == alias
    logged = [each for each in caplog.records if "rewrite.aliases" in each.getMessage()]
    assert [alias in each.getMessage() for each in logged] == [True]
    assert logged[0].levelno == logging.WARNING
    async with start_gateway(rewrite={"aliases": [alias]}) as gateway:
        response = await fetch_page(gateway, platform, fhir(body), get("/fhir/Patient?name=a"))
        assert response.body == body.replace(base.encode(), b"http://gateway/fhir")
        assert await gateway.metric(METRIC) == 0
        assert await reported_base(gateway) is None


HL7 = "http://hl7.org/r5"
OTHER = "https://elsewhere.uz"
GATEWAY = "http://gateway/fhir"


def canonical(here: str, **options: Any) -> bytes:
    resource = {"resourceType": "ValueSet", "url": f"{HL7}/ValueSet/a"}
    entry = {"fullUrl": f"{HL7}/ValueSet/a", "resource": resource}
    return fhir(text({**page(here, links=here, full=here), "entry": [entry]}, **options))


def with_license_link(here: str) -> bytes:
    body = page(here, links=here, full=here)
    body["link"].insert(0, {"relation": "license", "url": f"{HL7}/License"})
    return fhir(text(body))


def with_patient(here: str, **members: Any) -> bytes:
    entry = {"resource": {"resourceType": "Patient", **members}}
    return fhir(text({**page(here, links=here, full=here), "entry": [entry]}))


# Responses without a link under another base of the platform; built from the configured one.
HARMLESS: dict[str, Callable[[str], ScriptedResponse]] = {
    "its own base": lambda here: page_response(here, links=here, full=here),
    "its own base, in capitals": lambda here: page_response(
        here.upper().replace("/R5", "/r5"), links=here, full=here
    ),
    "the gateway's": lambda _: page_response(GATEWAY, links=GATEWAY, full=GATEWAY),
    "no links": lambda _: fhir(text({"resourceType": "Bundle", "type": "searchset"})),
    "relative links": lambda _: page_response("", links=".", full="urn:x"),
    "another path": lambda here: page_response(here, links=f"{OTHER}/fhir", full=f"{OTHER}/fhir"),
    "a path that begins alike": lambda here: page_response(
        here, links=f"{OTHER}/r5x", full=f"{OTHER}/r5x"
    ),
    "another server's patient": lambda here: with_patient(
        here,
        link=[{"other": {"reference": f"{OTHER}/r5/Patient/1"}}],
        photo=[{"url": f"{OTHER}/r5/Binary/1"}],
    ),
    "code systems and profiles": lambda here: with_patient(
        here,
        meta={"profile": [f"{HL7}/StructureDefinition/a"]},
        extension=[{"url": f"{HL7}/StructureDefinition/a", "valueUri": f"{HL7}/a"}],
        identifier=[{"system": f"{HL7}/sid/a", "value": "1"}],
    ),
    "a resource identified by its canonical URL": canonical,
    "the same without blanks": lambda here: canonical(here, separators=(",", ":")),
    "a link to a licence": with_license_link,
    "the text of an error": lambda _: fhir(
        text({"resourceType": "OperationOutcome", "issue": [{"diagnostics": f"{HL7}/Patient"}]})
    ),
    "no FHIR": lambda _: http(200, text({"link": f"{HL7}/Patient"}), ("Content-Type", "a/b")),
}


@pytest.mark.parametrize("answer", HARMLESS.values(), ids=HARMLESS)
async def test_urls_that_are_no_links_of_the_platform_are_not_counted(
    gateway: RunningGateway, platform: Platform, answer: Callable[[str], ScriptedResponse]
) -> None:
    request = get("/fhir/Patient?name=a", "Accept: a/b, */*")
    await fetch_page(gateway, platform, answer(platform.url), request)
    assert await gateway.metric(METRIC) == 0
    assert await reported_base(gateway) is None


@pytest.mark.parametrize(
    "value",
    [
        "Patient/1/_history/1",
        "/r5/Patient/1/_history/1",
        "{here}/Patient/1/_history/1",
        "https://elsewhere.uz/upload/1",
        "urn:uuid:1",
        f"https://{'a' * 400}.uz/r5/Patient/1",
        "https:/r5",
        "",
    ],
)
async def test_relative_and_foreign_locations_are_not_counted(
    gateway: RunningGateway, platform: Platform, value: str
) -> None:
    answer = created("Location", value.format(here=platform.url))
    await fetch_page(gateway, platform, answer, post("/fhir/Patient", PATIENT))
    assert await gateway.metric(METRIC) == 0


@pytest.mark.parametrize(
    ("path", "is_counted"),
    [("/Patient?_page=2", True), ("?_getpages=2", True), ("", False), ("/about/us", False)],
)
async def test_under_a_base_without_a_path_only_fhir_urls_count(
    start_gateway, platform: Platform, path: str, is_counted: bool
) -> None:
    here = platform.url.removesuffix("/r5")
    body = text(page(here, links=f"https://fhir.clinic.uz{path}#", full="urn:x"))
    body = body.replace(b"#/Patient?_page=2", b"")
    async with start_gateway(platform={"fhir_base_url": here}) as gateway:
        await fetch_page(gateway, platform, fhir(body), get("/fhir/Patient?name=a"))
        assert await gateway.metric(METRIC) == is_counted
        assert await reported_base(gateway) == ("https://fhir.clinic.uz" if is_counted else None)


@pytest.mark.parametrize("target", ["/fhir/Composition/1/$document", "/fhir/Bundle/1"])
async def test_links_in_a_document_are_not_counted(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    """A document keeps the URLs of the server that created it."""
    base = "https://fhir.clinic.uz/r5"
    document = {**page(base, links=base, full=base), "type": "document"}
    await fetch_page(gateway, platform, fhir(text(document)), get(target))
    assert await gateway.metric(METRIC) == 0


async def test_without_rewriting_no_links_are_counted(start_gateway, platform: Platform) -> None:
    base = "https://fhir.clinic.uz/r5"
    async with start_gateway(rewrite={"enabled": False}) as gateway:
        body = text(page(base, links=base, full=base))
        await fetch_page(gateway, platform, fhir(body), get("/fhir/Patient?name=a"))
        assert await gateway.metric(METRIC) == 0


async def test_the_number_of_reported_bases_is_bounded(
    gateway: RunningGateway, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of the first 16 is logged once; all responses are counted."""
    for number in range(40):
        base = f"https://host{number % 20}.uz/r5"
        answer = created("Location", f"{base}/Patient/1")
        await fetch_page(gateway, platform, answer, post("/fhir/Patient", PATIENT))
    assert await gateway.metric(METRIC) == 40
    texts = [each.getMessage() for each in caplog.records]
    logged = [text.split("//")[1].split(".")[0] for text in texts if "rewrite.aliases" in text]
    assert logged == [f"host{number}" for number in range(16)]


@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_the_status_page_names_the_setting_and_the_value(
    gateway: RunningGateway, platform: Platform, language: str
) -> None:
    answer = created("Location", "https://fhir.clinic.uz/r5/Patient/1")
    await fetch_page(gateway, platform, answer, post("/fhir/Patient", PATIENT))
    _, html = await gateway.admin_page(f"/status?lang={language}")
    assert "https://fhir.clinic.uz/r5" in html
    assert "rewrite.aliases" in html
