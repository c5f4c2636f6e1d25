"""A limited caller may do what is listed; everything else, and what is ambiguous, is rejected."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform
from tests.doubles.wire import Response, fetch, get, post
from tests.pipeline import shared
from tests.pipeline.conftest import StartGateway

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    return {"callers": [caller(resources=["Observation"])]}


FORM: Final = "application/x-www-form-urlencoded"


def caller(**allow: Any) -> dict[str, Any]:
    return {"name": "his", "networks": ["127.0.0.0/8"], "allow": allow}


async def assert_forbidden(gateway: RunningGateway, request: bytes) -> None:
    response = await fetch(gateway.address, request)
    assert (response.status, response.reason) in [(403, "caller-forbidden"), (400, "bad-request")]


def search_by_post(form: str, kind: str = FORM) -> bytes:
    return post("/fhir/Observation/_search", form.encode(), f"Content-Type: {kind}")


TARGETS = [
    *("Observation/1/$graphql?query=x", "Observation/$export", "$export", "?_type=Observation"),
    *("Patient?subject=1", "Patient/../Observation/1"),
    "Observation?_revinclude=Provenance:target",
    "Observation?_revinclude:iterate=Provenance:target",
    "Observation?_include=Observation:subject",
    "Observation?%5Finclude=Observation:subject",
    *(f"Observation/1/${name}" for name in ("graph", "document", "apply", "everything", "x")),
    *("Observation/$lastn", "Observation/$stats", "Observation/1/%24graph", "$graph", "$versions"),
    *("Observation/1/$graph/", "Observation/1/_history/1/$graph", "Observation/1/$Graph"),
    "Observation?subject:Patient.identifier=1",
    "Observation?subject._has:Observation:subject:code=1",
    "Observation?subject.name=x",
    *(f"Observation?{name}=x" for name in ("_filter", "_query", "_graph", "_contained", "_list")),
    *("Observation?_type=Patient", "Observation?_getpages=1", "Observation?_method=DELETE"),
    "Observation?_INCLUDE=Observation:subject",
    "Observation?code=1;_include=Observation:subject:Patient",
    "Observation?%5F%49nclude=Observation:subject:Patient",
    "Observation?_has:Patient:link:name=x",
    "Observation?_sort=subject:Patient.name",
    "Observation/1?_include=Observation:subject:Patient",
    "Observation/_history?_list=1",
    *("Patient/1/Observation", "Patient/1/Observation?code=1", "Patient/1/Observation/2"),
    *("Observation/1/*", "_history", "_search?_type=Observation", "observation/1"),
]


@pytest.mark.parametrize("target", TARGETS)
async def test_unlisted_reads_are_forbidden(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    """Operations, chains, compartments and unknown targets."""
    await assert_forbidden(gateway, get(f"/fhir/{target}"))
    assert platform.requests == []


@pytest.mark.parametrize("target", TARGETS)
async def test_unlisted_requests_of_other_methods_are_forbidden(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    """A conditional write is a search too."""
    for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE"):
        response = await fetch(
            gateway.address, post(f"/fhir/{target}", b"{}", method=method), head=method == "HEAD"
        )
        assert response.status in (400, 403)
    assert platform.requests == []


@pytest.mark.parametrize(
    "query", [each.partition("?")[2] for each in TARGETS if each.startswith("Observation?")]
)
async def test_forms_and_conditions_are_checked_like_queries(
    gateway: RunningGateway, platform: Platform, query: str
) -> None:
    """The form of a search, and If-None-Exist."""
    await assert_forbidden(gateway, search_by_post(query))
    for condition in (query, f"?{query}", f"Observation?{query}", f"code=1&{query}"):
        await assert_forbidden(
            gateway, post("/fhir/Observation", b"{}", f"If-None-Exist: {condition}")
        )
    two = (f"If-None-Exist: {first}" for first in ("code=1", query))
    await assert_forbidden(gateway, post("/fhir/Observation", b"{}", *two))
    assert platform.requests == []


KINDS = [
    (f"Content-Type: {FORM}, multipart/form-data; boundary=x",),
    (f"Content-Type: {FORM}", "Content-Type: multipart/form-data; boundary=x"),
    ("Content-Type: multipart/form-data; boundary=x", f"Content-Type: {FORM}"),
    (f"Content-Type: {FORM}x",),
    (f"Content-Type: {FORM}; charset=utf-16",),
    (f"Content-Type: {FORM}; charset=utf-8; charset=ibm037",),
    (f"Content-Type: {FORM}", "Content-Encoding: identity"),
    ("Content-Type: application/fhir+json",),
    (),
    (f"Content-Type: {FORM}", "Connection: Content-Type"),
    (f"Content-Type: {FORM}", "Connection: close, content-type"),
]


@pytest.mark.parametrize("fields", KINDS)
async def test_an_ambiguous_search_form_is_rejected(
    gateway: RunningGateway, platform: Platform, fields: tuple[str, ...]
) -> None:
    """A server may read it otherwise than it was checked."""
    head = ["POST /fhir/Observation/_search HTTP/1.1", "Host: x", "Content-Length: 6", *fields]
    await assert_forbidden(gateway, "\r\n".join((*head, "", "code=1")).encode())
    assert platform.requests == []


@pytest.mark.parametrize("name", ["Content_Type", "CONTENT_TYPE", "If_None_Exist", "X_Provenance"])
async def test_lookalikes_of_checked_names_are_not_forwarded(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    fields = f"Content-Type: {FORM}", f"{name}: x"
    request = post("/fhir/Observation/_search", b"code=1", *fields)
    assert (await fetch(gateway.address, request)).status == 200
    assert platform.requests[0].header(name) is None


@pytest.mark.parametrize("path", ["Observation", "Observation/1"])
async def test_a_form_in_place_of_a_resource_is_rejected(
    gateway: RunningGateway, platform: Platform, path: str
) -> None:
    """A server could read it as a search."""
    method = "PUT" if path.endswith("1") else "POST"
    for kind in (FORM, f"application/fhir+json, {FORM}", "multipart/form-data; boundary=x"):
        form = post(f"/fhir/{path}", b"_include=*", f"Content-Type: {kind}", method=method)
        await assert_forbidden(gateway, form)
    assert platform.requests == []


@pytest.mark.parametrize(
    ("allow", "passes"),
    [
        ({"resources": ["Observation"]}, False),
        ({"resources": ["Observation", "Provenance"]}, True),
        ({"interactions": ["update"]}, False),
        ({"interactions": ["update"], "resources": ["Observation", "Provenance"]}, False),
        ({"interactions": ["update", "create"]}, True),
        ({"operations": []}, True),
    ],
)
async def test_x_provenance_requires_permission_to_create_a_provenance(
    start_gateway: StartGateway, platform: Platform, allow: dict[str, Any], passes: bool
) -> None:
    async with start_gateway(callers=[caller(**allow)]) as gateway:
        request = post("/fhir/Observation/1", b"{}", 'X-Provenance: {"a":1}', method="PUT")
        assert (await fetch(gateway.address, request)).status == (200 if passes else 403)
    assert len(platform.requests) == passes


ORDINARY = [
    *("Observation/1", "Observation/1/_history/2", "Observation/1/_history", "metadata"),
    *("Observation/_history?_since=2020&_count=5", "Observation?", "Observation/"),
    "Observation?code=a%7Cb&date=ge2020&subject=Patient/1&patient=1&_sort=-date,code",
    "Observation?_id=1&_lastUpdated=gt2020&_count=5&_page=2&_elements=code&_summary=true",
    "Observation?_format=json&_pretty=true&_total=accurate&subject:Patient=1",
    "Observation?_include=Observation:has-member:Observation",
]


@pytest.mark.parametrize("target", ORDINARY)
async def test_reads_and_searches_of_a_listed_type_are_allowed(
    gateway: RunningGateway, platform: Platform, target: str
) -> None:
    """Histories and pages too."""
    assert (await fetch(gateway.address, get(f"/fhir/{target}"))).status == 200
    assert platform.requests[0].target == f"/r5/{target}"


async def test_writes_of_a_listed_type_are_allowed(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Conditional ones too, and searches by POST."""
    requests = [
        post("/fhir/Observation", b"{}"),
        post("/fhir/Observation", b"{}", "If-None-Exist: identifier=urn:x%7C1"),
        post("/fhir/Observation?identifier=urn:x%7C1", b"{}", method="PUT"),
        post("/fhir/Observation/1", b"{}", method="PUT"),
        search_by_post("code=1&date=2020"),
        search_by_post("code=1&date=2020", f"{FORM}; charset=UTF-8"),
        get("/fhir/Observation/_search?code=1", "Content-Length: 0", method="POST"),
        get("/fhir/Observation?code=1", f"Content-Type: {FORM}", "Content-Length: 0"),
        get("/fhir/Observation/1", f"Content-Type: {FORM}"),
    ]
    assert [(await fetch(gateway.address, each)).status for each in requests] == [200] * 9
    assert [request.method for request in platform.requests].count("POST") == 5


@pytest.mark.parametrize(
    ("allow", "target", "passes"),
    [
        ({"resources": ["ValueSet"], "operations": ["$expand"]}, "ValueSet/$expand?url=x", True),
        ({"resources": ["ValueSet"], "operations": ["expand"]}, "ValueSet/1/%24expand", True),
        ({"resources": ["ValueSet"], "operations": ["*"]}, "ValueSet/1/$x-own", True),
        ({"resources": ["ValueSet"], "operations": ["$x-own"]}, "ValueSet/1/$x-own", True),
        ({"resources": ["ValueSet"], "operations": ["$expand"]}, "ValueSet/1/$Expand", False),
        ({"resources": ["ValueSet"], "operations": ["$expand"]}, "ValueSet/$lookup", False),
        ({"resources": ["ValueSet"], "operations": ["$expand"]}, "Patient/$expand", False),
        ({"resources": ["ValueSet"], "operations": ["*"]}, "$export", False),
        ({"resources": ["ValueSet"]}, "ValueSet/$expand", False),
        ({"operations": ["$expand"]}, "ValueSet/$expand", True),
        ({"operations": ["$expand"]}, "Patient/1/$everything", False),
        ({"operations": ["$expand"]}, "Patient/1/$everything;x=1", False),
        ({"operations": ["$expand"]}, "Patient?_query=everything", False),
        ({"operations": ["$expand"]}, "Patient?_include=*", True),
        ({"operations": []}, "ValueSet/$expand", False),
        ({}, "Patient/1/$everything", True),
        ({"interactions": ["operation"]}, "Patient/1/$everything", True),
        ({"interactions": ["read"]}, "Patient/1", True),
        ({"interactions": ["read"]}, "Patient", False),
        ({"interactions": ["read"], "resources": ["Patient"]}, "metadata", False),
        ({"resources": ["Patient"]}, "metadata", True),
        ({"resources": ["Patient"]}, "Unknown/1", False),
        ({"interactions": ["read"]}, "ValueSet/$expand", False),
        ({"interactions": ["read"], "operations": ["*"]}, "ValueSet/$expand", False),
        ({"interactions": ["search-type"]}, "Patient?_Method=DELETE", False),
    ],
)
async def test_a_request_requires_its_interaction_operation_and_type(
    start_gateway: StartGateway,
    platform: Platform,
    allow: dict[str, Any],
    target: str,
    passes: bool,
) -> None:
    """In `interactions`, `operations` and `resources`."""
    async with start_gateway(callers=[caller(**allow)]) as gateway:
        response: Response = await fetch(gateway.address, get(f"/fhir/{target}"))
    assert response.status == 200 if passes else response.status in (400, 403)
    assert len(platform.requests) == passes


JUDGED = [
    *("Content-Type", "If-None-Exist", "Accept", "X-Provenance", "If-Match", "Prefer", "Origin"),
    *("Content-Encoding", "Max-Forwards", "keep-alive, content-type", "Accept-Language"),
    *("If-None-Match", "Accept-Encoding", "Sec-Fetch-Site"),
]
# They end here, or the gateway writes its own.
ENDS_HERE = [
    *("Authorization", "Cookie", "X-Api-Key", "Host", "Via", "X-Request-Id", "Content-Length"),
    *("Expect", "TE", "Transfer-Encoding", "X-Forwarded-For", "Forwarded", "Upgrade", "close"),
]


@pytest.mark.parametrize("named", JUDGED)
async def test_connection_must_not_name_checked_fields(
    start_gateway: StartGateway, platform: Platform, named: str
) -> None:
    """Such a field would be removed after it was checked."""
    async with start_gateway() as gateway:
        for fields in ((f"Connection: {named}",), ("Connection: close", f"Connection:\t{named}")):
            response = await fetch(gateway.address, post("/fhir/Patient", b"{}", *fields))
            assert (response.status, response.reason) == (400, "bad-request")
        assert platform.requests == []
        for harmless in ("keep-alive", "TE, close", "X-Own", "Via, Host, Authorization", ""):
            read = get("/fhir/Patient/1", f"Connection: {harmless}", "X-Own: 1")
            assert (await fetch(gateway.address, read)).status == 200


@pytest.mark.parametrize("named", ENDS_HERE)
async def test_connection_may_name_fields_that_are_not_forwarded(
    start_gateway: StartGateway, platform: Platform, named: str
) -> None:
    fields = ("X-Request-Id: 1", "X-Forwarded-For: 192.0.2.1", "Authorization: Bearer x")
    async with start_gateway() as gateway:
        for more in ((), (f"Connection: {named}",)):
            response = await fetch(gateway.address, post("/fhir/Patient", b"{}", *fields, *more))
            assert response.status == 200
    plain, listed = platform.requests
    assert (listed.headers, listed.body) == (plain.headers, plain.body)
