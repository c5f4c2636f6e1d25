"""The search guard and blind updates, as callers and the platform see them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, declaring, fhir, outcome
from tests.doubles.wire import ask, get, post

STATEMENT = json.dumps(
    {
        "resourceType": "CapabilityStatement",
        "rest": [{"resource": [{"type": "Immunization", "searchParam": [{"name": "status"}]}]}],
    }
).encode()


def searchset(platform: Platform, query: str) -> bytes:
    """A page that says which parameters were used."""
    link = {"relation": "self", "url": f"{platform.url}/Immunization?{query}"}
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "link": [link]}).encode()


def answer_searches(platform: Platform, query: str, **headers: str) -> None:
    """The platform knows its statement and answers every search as if only `query` were asked."""
    platform.answer(declaring(fhir(STATEMENT), fhir(searchset(platform, query))))


def searches(platform: Platform) -> list[Any]:
    """What the platform saw but for its statement."""
    return [seen for seen in platform.seen if not seen.target.endswith("/metadata")]


async def test_ignored_parameter_is_named(gateway: Running, platform: Platform) -> None:
    """A search whose parameter the platform ignored carries a warning, and is counted."""
    answer_searches(platform, "_count=20")
    reply = await ask(gateway.address, get("/fhir/Immunization?patient.identifier=x&_count=20"))
    assert reply.status == 200
    warning = 'search-parameter-ignored; names="patient.identifier"'
    assert reply.header("x-gateway-warning") == warning
    assert await gateway.metric("dhp_gateway_search_parameters_ignored_total") == 1


async def test_used_parameters_carry_no_warning(gateway: Running, platform: Platform) -> None:
    """A search that the platform answered as asked is not touched."""
    answer_searches(platform, "status=completed")
    reply = await ask(gateway.address, get("/fhir/Immunization?status=completed&_format=json"))
    assert reply.header("x-gateway-warning") is None
    (seen,) = searches(platform)
    assert seen.header("prefer") is None


async def test_post_search_is_watched(gateway: Running, platform: Platform) -> None:
    """The parameters of a form count too."""
    answer_searches(platform, "")
    form = "Content-Type: application/x-www-form-urlencoded"
    reply = await ask(gateway.address, post("/fhir/Immunization/_search", b"odd=1", form))
    assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="odd"'


async def test_gzip_answer_is_watched(gateway: Running, platform: Platform) -> None:
    """The self link is found in a compressed answer."""
    body = gzip.compress(searchset(platform, ""))
    platform.answer(fhir(body, 200, ("Content-Encoding", "gzip")))
    reply = await ask(gateway.address, get("/fhir/Immunization?odd=1", "Accept-Encoding: gzip"))
    assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="odd"'


SHOWN_OTHERWISE = (
    "_summary=text&_elements=id&_sort=date&_sort=-status&_include=Immunization:patient"
    "&_revinclude=Provenance:target&_contained=true&_total=none&_maxresults=9&_count=5&_count=9"
)


@pytest.mark.parametrize("mode", ["warn", "block"])
@pytest.mark.parametrize("used", ["", "_sort=date,-status&_count=9"])
async def test_how_an_answer_is_shown_is_not_judged(
    start_gateway, platform: Platform, used: str, mode: str
) -> None:
    """What does not select may be missing from `self`, or stand there once."""
    async with start_gateway(fhir={"search_guard": mode}) as gateway:
        answer_searches(platform, f"status=a&{used}")
        reply = await ask(gateway.address, get(f"/fhir/Immunization?status=a&{SHOWN_OTHERWISE}"))
        assert (reply.status, reply.header("x-gateway-warning")) == (200, None)
        answer_searches(platform, used)
        reply = await ask(gateway.address, get(f"/fhir/Immunization?status=a&{SHOWN_OTHERWISE}"))
    told = reply.header("x-gateway-warning") or reply.json()["issue"][0]["diagnostics"]
    assert "status" in told
    assert "_s" not in told


async def test_unlisted_parameter_is_named(gateway: Running, platform: Platform) -> None:
    """A parameter that the CapabilityStatement does not list counts as ignored, at once."""
    answer_searches(platform, "odd=1")
    reply = await ask(gateway.address, get("/fhir/Immunization?odd=1"))
    assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="odd"'


async def test_the_statement_counts_by_its_own_names(gateway: Running, platform: Platform) -> None:
    """A parameter of a type that R5 lacks is judged by what the statement lists for it."""
    statement = STATEMENT.replace(b"Immunization", b"TelemedicineVisit")
    platform.answer(declaring(fhir(statement), fhir(searchset(platform, "status=a&b=1"))))
    for target in ("TelemedicineVisit", "Telemedicine%56isit/", "Patient/1/TelemedicineVisit"):
        reply = await ask(gateway.address, get(f"/fhir/{target}?status=a&b=1"))
        assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="b"'


async def test_block_knows_the_statement(start_gateway, platform: Platform) -> None:
    """With `block` a parameter that the CapabilityStatement does not list is refused at once."""
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        answer_searches(platform, "odd=1")
        for _ in range(2):
            reply = await ask(gateway.address, get("/fhir/Immunization?odd=1"))
            assert (reply.status, reply.reason) == (400, "search-parameter-ignored")
    assert len(platform.seen) - len(searches(platform)) == 1


async def test_what_is_known_to_filter_nothing_is_named(start_gateway, platform: Platform) -> None:
    """Although the platform declares it, and says in `self` that it was used."""
    async with start_gateway(fhir={"unfiltered": {"Immunization": ["status"]}}) as gateway:
        answer_searches(platform, "status=completed")
        reply = await ask(gateway.address, get("/fhir/Immunization?status=completed"))
        assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="status"'
        reply = await ask(gateway.address, get("/fhir/Immunization?_id=1&status:not=completed"))
        assert "status:not" in (reply.header("x-gateway-warning") or "")
        answer_searches(platform, "code=1")
        reply = await ask(gateway.address, get("/fhir/Patient?code=1"))
        assert reply.header("x-gateway-warning") is None


async def test_a_parameter_that_was_used_once_is_named(
    gateway: Running, platform: Platform
) -> None:
    """It was asked twice: half of a range is none."""
    answer_searches(platform, "status=a")
    reply = await ask(gateway.address, get("/fhir/Immunization?status=a&status=b"))
    assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="status"'
    answer_searches(platform, "status=b&status=a")
    reply = await ask(gateway.address, get("/fhir/Immunization?status=a&status=b"))
    assert reply.header("x-gateway-warning") is None


def complaining(platform: Platform, *, matches: int) -> None:
    """The platform repeats the parameter, and says behind the matches that it did not use it."""
    entries = [{"resource": {"resourceType": "Immunization", "id": "x" * 60}}] * matches
    issue = {"severity": "warning", "code": "not-supported", "diagnostics": "status is unknown"}
    outcome_ = {"resource": {"resourceType": "OperationOutcome", "issue": [issue]}}
    link = {"relation": "self", "url": f"{platform.url}/Immunization?status=a"}
    bundle = {"resourceType": "Bundle", "link": [link], "entry": [*entries, outcome_]}
    platform.answer(declaring(fhir(STATEMENT), fhir(json.dumps(bundle).encode())))


async def test_an_outcome_among_the_matches_counts(gateway: Running, platform: Platform) -> None:
    """Whatever the `self` link says."""
    complaining(platform, matches=3)
    reply = await ask(gateway.address, get("/fhir/Immunization?status=a"))
    assert reply.header("x-gateway-warning") == 'search-parameter-ignored; names="status"'


async def test_block_finds_an_outcome_behind_many_matches(
    start_gateway, platform: Platform
) -> None:
    """What is not here yet is waited for."""
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        complaining(platform, matches=6000)
        reply = await ask(gateway.address, get("/fhir/Immunization?status=a"))
        assert (reply.status, reply.reason) == (400, "search-parameter-ignored")


async def test_off_asks_nothing(start_gateway, platform: Platform) -> None:
    """With `off` there is no warning, no statement and no word about strictness."""
    async with start_gateway(fhir={"search_guard": "off"}) as gateway:
        answer_searches(platform, "")
        reply = await ask(gateway.address, get("/fhir/Immunization?odd=1"))
    assert reply.header("x-gateway-warning") is None
    (seen,) = platform.seen
    assert seen.header("prefer") is None


async def test_block_asks_for_strict_handling(start_gateway, platform: Platform) -> None:
    """With `block` a search asks for it unless its caller chose; other requests do not."""
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        answer_searches(platform, "")
        await ask(gateway.address, get("/fhir/Immunization?status=x"))
        await ask(gateway.address, get("/fhir/Immunization?status=x", "Prefer: handling=lenient"))
        await ask(gateway.address, get("/fhir/Immunization/1"))
    assert [seen.header("prefer") for seen in searches(platform)] == [
        "handling=strict",
        "handling=lenient",
        None,
    ]


async def test_broken_statement_is_no_trouble(start_gateway, platform: Platform) -> None:
    """Without a CapabilityStatement the self link alone decides."""
    async with start_gateway(fhir={"search_guard": "block"}) as gateway:
        platform.answer(declaring(outcome(404), fhir(searchset(platform, "status=x"))))
        reply = await ask(gateway.address, get("/fhir/Immunization?status=x"))
    assert reply.status == 200


async def test_blind_update_gets_the_current_version(start_gateway, platform: Platform) -> None:
    """With `auto_if_match` a PUT without If-Match goes out with the version read just before."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        platform.script(fhir(b'{"resourceType":"Patient"}', 200, ("ETag", 'W/"3"')))
        body = b'{"resourceType":"Patient","id":"1"}'
        reply = await ask(gateway.address, post("/fhir/Patient/1", body, method="PUT"))
        assert reply.status == 200
        (record,) = await gateway.audit()
        assert record["attempts"] == 1
    read, update = platform.seen
    assert (read.method, read.target) == ("GET", "/r5/Patient/1")
    assert (update.method, update.header("if-match"), update.body) == ("PUT", 'W/"3"', body)


async def test_conflict_of_a_blind_update_is_a_412(start_gateway, platform: Platform) -> None:
    """When another write came first, the platform's 412 reaches the caller without a retry."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        platform.script(fhir(b"{}", 200, ("ETag", 'W/"3"')), outcome(412))
        reply = await ask(gateway.address, post("/fhir/Patient/1", b"{}", method="PUT"))
    assert reply.status == 412
    assert len(platform.seen) == 2


async def test_careful_updates_are_left_alone(start_gateway, platform: Platform) -> None:
    """A caller's own If-Match or If-None-Match, or a resource not there, change nothing."""
    async with start_gateway(fhir={"auto_if_match": True}) as gateway:
        for field in ('If-Match: W/"1"', "If-None-Match: *"):
            await ask(gateway.address, post("/fhir/Patient/1", b"{}", field, method="PUT"))
        assert [seen.method for seen in platform.seen] == ["PUT", "PUT"]
        platform.script(outcome(404), fhir(b"{}", 201))
        reply = await ask(gateway.address, post("/fhir/Patient/2", b"{}", method="PUT"))
    assert reply.status == 201
    assert platform.seen[-1].header("if-match") is None
