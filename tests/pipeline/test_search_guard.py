"""The search guard and blind updates, as callers and the platform see them."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, declaring, fhir, outcome
from tests.doubles.wire import fetch, get, post

STATEMENT = json.dumps(
    {
        "resourceType": "CapabilityStatement",
        "rest": [{"resource": [{"type": "Immunization", "searchParam": [{"name": "status"}]}]}],
    }
).encode()


def searchset(platform: Platform, query: str) -> bytes:
    """Return a page whose self link names the parameters used."""
    link = {"relation": "self", "url": f"{platform.url}/Immunization?{query}"}
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "link": [link]}).encode()


def respond_to_searches(platform: Platform, query: str, **headers: str) -> None:
    """Let the platform use only `query` of each search, and declare its parameters."""
    platform.respond(declaring(fhir(STATEMENT), fhir(searchset(platform, query))))


def searches(platform: Platform) -> list[Any]:
    return [request for request in platform.requests if not request.target.endswith("/metadata")]


async def test_an_ignored_parameter_is_named_and_counted(
    gateway: RunningGateway, platform: Platform
) -> None:
    respond_to_searches(platform, "_count=20")
    response = await fetch(
        gateway.address, get("/fhir/Immunization?patient.identifier=x&_count=20")
    )
    assert response.status == 200
    warning = 'search-parameter-ignored; names="patient.identifier"'
    assert response.header("x-gateway-warning") == warning
    assert await gateway.metric("dhp_gateway_search_parameters_ignored_total") == 1


async def test_used_parameters_cause_no_warning(
    gateway: RunningGateway, platform: Platform
) -> None:
    respond_to_searches(platform, "status=completed")
    response = await fetch(gateway.address, get("/fhir/Immunization?status=completed&_format=json"))
    assert response.header("x-gateway-warning") is None
    (received,) = searches(platform)
    assert received.header("prefer") is None


async def test_searches_by_post_are_checked(gateway: RunningGateway, platform: Platform) -> None:
    respond_to_searches(platform, "")
    form = "Content-Type: application/x-www-form-urlencoded"
    response = await fetch(gateway.address, post("/fhir/Immunization/_search", b"odd=1", form))
    assert response.header("x-gateway-warning") == 'search-parameter-ignored; names="odd"'


async def test_compressed_searchsets_are_checked(
    gateway: RunningGateway, platform: Platform
) -> None:
    body = gzip.compress(searchset(platform, ""))
    platform.respond(fhir(body, 200, ("Content-Encoding", "gzip")))
    response = await fetch(
        gateway.address, get("/fhir/Immunization?odd=1", "Accept-Encoding: gzip")
    )
    assert response.header("x-gateway-warning") == 'search-parameter-ignored; names="odd"'


async def test_types_unknown_to_r5_count_as_the_statement_declares_them(
    gateway: RunningGateway, platform: Platform
) -> None:
    statement = STATEMENT.replace(b"Immunization", b"TelemedicineVisit")
    platform.respond(declaring(fhir(statement), fhir(searchset(platform, "status=a&b=1"))))
    for target in ("TelemedicineVisit", "Telemedicine%56isit/", "Patient/1/TelemedicineVisit"):
        response = await fetch(gateway.address, get(f"/fhir/{target}?status=a&b=1"))
        assert response.header("x-gateway-warning") == 'search-parameter-ignored; names="b"'


async def test_block_rejects_parameters_missing_from_the_statement(
    start_gateway, platform: Platform
) -> None:
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        respond_to_searches(platform, "odd=1")
        for _ in range(2):
            response = await fetch(gateway.address, get("/fhir/Immunization?odd=1"))
            assert (response.status, response.reason) == (400, "search-parameter-ignored")
    assert len(platform.requests) - len(searches(platform)) == 1


async def test_parameters_known_to_have_no_effect_are_named(
    start_gateway, platform: Platform
) -> None:
    """Although the platform declares them and names them in `self`."""
    async with start_gateway(fhir={"unfiltered": {"Immunization": ["status"]}}) as gateway:
        respond_to_searches(platform, "status=completed")
        response = await fetch(gateway.address, get("/fhir/Immunization?status=completed"))
        assert response.header("x-gateway-warning") == 'search-parameter-ignored; names="status"'
        response = await fetch(
            gateway.address, get("/fhir/Immunization?_id=1&status:not=completed")
        )
        assert "status:not" in (response.header("x-gateway-warning") or "")
        respond_to_searches(platform, "code=1")
        response = await fetch(gateway.address, get("/fhir/Patient?code=1"))
        assert response.header("x-gateway-warning") is None


def with_outcome(platform: Platform, *, matches: int) -> None:
    """Return a searchset with all parameters in `self` and an outcome that names an unused one."""
    entries = [{"resource": {"resourceType": "Immunization", "id": "x" * 60}}] * matches
    issue = {"severity": "warning", "code": "not-supported", "diagnostics": "status is unknown"}
    outcome_ = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}}
    link = {"relation": "self", "url": f"{platform.url}/Immunization?status=a"}
    bundle = {"resourceType": "Bundle", "link": [link], "entry": [*entries, outcome_]}
    platform.respond(declaring(fhir(STATEMENT), fhir(json.dumps(bundle).encode())))


async def test_block_waits_for_an_outcome_after_many_matches(
    start_gateway, platform: Platform
) -> None:
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        with_outcome(platform, matches=6000)
        response = await fetch(gateway.address, get("/fhir/Immunization?status=a"))
        assert (response.status, response.reason) == (400, "search-parameter-ignored")


async def test_off_sends_no_warning_and_requests_nothing(start_gateway, platform: Platform) -> None:
    async with start_gateway(fhir={"search_guard": "off"}) as gateway:
        respond_to_searches(platform, "")
        response = await fetch(gateway.address, get("/fhir/Immunization?odd=1"))
    assert response.header("x-gateway-warning") is None
    (received,) = platform.requests
    assert received.header("prefer") is None


async def test_block_asks_for_strict_handling(start_gateway, platform: Platform) -> None:
    """Unless the caller chose; other requests are unchanged."""
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        respond_to_searches(platform, "")
        await fetch(gateway.address, get("/fhir/Immunization?status=x"))
        await fetch(gateway.address, get("/fhir/Immunization?status=x", "Prefer: handling=lenient"))
        await fetch(gateway.address, get("/fhir/Immunization/1"))
    assert [received.header("prefer") for received in searches(platform)] == [
        "handling=strict",
        "handling=lenient",
        None,
    ]


async def test_without_statement_self_link_alone_counts(start_gateway, platform: Platform) -> None:
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        platform.respond(declaring(outcome(404), fhir(searchset(platform, "status=x"))))
        response = await fetch(gateway.address, get("/fhir/Immunization?status=x"))
    assert response.status == 200


async def test_blind_update_gets_the_current_version(start_gateway, platform: Platform) -> None:
    """With `auto_if_match` an update gets the version of a read just before."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        platform.script(fhir(b'{"resourceType":"Patient"}', 200, ("ETag", 'W/"3"')))
        body = b'{"resourceType":"Patient","id":"1"}'
        response = await fetch(gateway.address, post("/fhir/Patient/1", body, method="PUT"))
        assert response.status == 200
        (record,) = await gateway.audit()
        assert record["attempts"] == 1
    read, update = platform.requests
    assert (read.method, read.target) == ("GET", "/r5/Patient/1")
    assert (update.method, update.header("if-match"), update.body) == ("PUT", 'W/"3"', body)


async def test_the_version_of_a_compressed_read_is_restored(
    start_gateway, platform: Platform
) -> None:
    """Apache's mod_deflate appends `-gzip`, with which the platform would answer 412."""
    packed = gzip.compress(b'{"resourceType":"Patient"}')
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        fields = ("Content-Encoding", "gzip"), ("ETag", 'W/"3-gzip"')
        platform.script(fhir(packed, 200, *fields))
        await fetch(gateway.address, post("/fhir/Patient/1", b"{}", method="PUT"))
    assert platform.requests[-1].header("if-match") == 'W/"3"'


async def test_conflict_of_a_blind_update_is_a_412(start_gateway, platform: Platform) -> None:
    """Where another write came first; it is not retried."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        platform.script(fhir(b"{}", 200, ("ETag", 'W/"3"')), outcome(412))
        response = await fetch(gateway.address, post("/fhir/Patient/1", b"{}", method="PUT"))
    assert response.status == 412
    assert len(platform.requests) == 2


async def test_updates_with_a_condition_are_unchanged(start_gateway, platform: Platform) -> None:
    """Updates of missing resources too."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        for field in ('If-Match: W/"1"', "If-None-Match: *"):
            await fetch(gateway.address, post("/fhir/Patient/1", b"{}", field, method="PUT"))
        assert [request.method for request in platform.requests] == ["PUT", "PUT"]
        platform.script(outcome(404), fhir(b"{}", 201))
        response = await fetch(gateway.address, post("/fhir/Patient/2", b"{}", method="PUT"))
    assert response.status == 201
    assert platform.requests[-1].header("if-match") is None
