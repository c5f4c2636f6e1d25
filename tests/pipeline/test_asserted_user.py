"""Who used the old system, and which token that went out with, as the audit tells."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles import sso as sso_answers
from tests.doubles.platform import Platform, unauthorized
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get

LAB = {"name": "lab", "api_key": "planted-key-of-the-lab-system"}
SAYS = {"user_header": "X-User", "purpose_header": "X-Purpose"}
KEY = f"X-Api-Key: {LAB['api_key']}"


def jwt(**claims: Any) -> str:
    """An access token with these claims."""
    parts = [{"alg": "none"}, claims, {"s": 1}]
    coded = (base64.urlsafe_b64encode(json.dumps(each).encode()) for each in parts)
    return ".".join(each.decode().rstrip("=") for each in coded)


async def record_of(start: Callable[..., Any], *fields: str, **caller: Any) -> dict[str, Any]:
    """The audit record of a read by the lab, whose settings are changed so."""
    async with start(callers=[{**LAB, **SAYS, **caller}]) as gateway:
        await ask(gateway.address, get("/fhir/Patient/1", KEY, *fields))
        (record,) = await gateway.audit(1)
        return dict(record)


async def test_the_user_is_noted_as_asserted(start_gateway, platform: Platform) -> None:
    """The old system's user and purpose stand in the audit and do not reach the platform."""
    record = await record_of(start_gateway, "x-user: Dilnoza Karimova", "X-PURPOSE: etreat")
    told = (record["user"], record["user_asserted"], record["purpose"])
    assert told == ("Dilnoza Karimova", True, "ETREAT")
    assert [platform.seen[0].all(each) for each in ("x-user", "x-purpose")] == [[], []]


@pytest.mark.parametrize("spelling", ["X_User", "x.user", "X-USER"])
async def test_no_other_spelling_goes_on(start_gateway, platform: Platform, spelling: str) -> None:
    """A server that takes an underscore for a dash learns of no user either."""
    await record_of(start_gateway, f"{spelling}: dilnoza")
    assert "dilnoza" not in str(platform.seen[0].headers)


async def test_nobody_named_is_nobody(start_gateway, platform: Platform) -> None:
    """Without the fields, or with empty ones, nothing is asserted."""
    for fields in ((), ("X-User:  ", "X-Purpose: ")):
        record = await record_of(start_gateway, *fields)
        assert record["user"] is None
        assert not record.keys() & {"user_asserted", "purpose"}


async def test_other_callers_headers_mean_nothing(start_gateway) -> None:
    """Where the settings name no header, nothing is noted."""
    nothing = dict.fromkeys(SAYS)
    record = await record_of(start_gateway, "X-User: dilnoza", "X-Purpose: TREAT", **nothing)
    assert record["user"] is None
    assert "purpose" not in record


PURPOSES = (
    "TREAT ETREAT HOPERAT RECORDMGT HDIRECT HPRGRP HSYSADMIN PATRQT FAMRQT PWATRNY GOV DISASTER"
)


@pytest.mark.parametrize("purpose", PURPOSES.split())
async def test_the_national_purposes_are_noted(start_gateway, purpose: str) -> None:
    """Each of the list."""
    assert (await record_of(start_gateway, f"X-Purpose: {purpose}"))["purpose"] == purpose


@pytest.mark.parametrize("purpose", ["HMARKT", "TREAT, ETREAT", "31508860230018", "treatment"])
async def test_other_purposes_are_not_noted(
    start_gateway, platform: Platform, purpose: str
) -> None:
    """What is not of the national list could be data: the request passes without it."""
    record = await record_of(start_gateway, f"X-Purpose: {purpose}", "X-User: d")
    assert (record["status"], record["user"]) == (200, "d")
    assert purpose not in json.dumps(record)
    assert platform.seen[0].header("x-purpose") is None


async def test_each_request_of_a_connection_has_its_own(start_gateway, platform: Platform) -> None:
    """Users change, and leave, from one request to the next."""
    caller = {"name": "his", "networks": ["127.0.0.1"], **SAYS}
    async with start_gateway(callers=[caller]) as gateway, await Wire.open(gateway.address) as wire:
        for fields in (["X-User: a"], ["X-User: a"], ["X-User: b"], []):
            await wire.ask(get("/fhir/Patient/1", *fields))
        records = await gateway.audit(4)
    assert [record["user"] for record in records] == ["a", "a", "b", None]


async def test_a_refused_request_tells_its_user(start_gateway) -> None:
    """Who tried what the caller may not is known too."""
    allow = {"interactions": ["search-type"]}
    record = await record_of(start_gateway, "X-User: dilnoza", allow=allow)
    assert (record["status"], record["user"], record["user_asserted"]) == (403, "dilnoza", True)


@pytest.mark.parametrize(
    ("sent", "noted"),
    [
        ("Дилноза".encode().decode("latin-1"), "Дилноза"),
        ("a\tb", "a\ufffdb"),
        ("x" * 5000, "x" * 256),
    ],
)
async def test_any_name_can_be_noted(start_gateway, sent: str, noted: str) -> None:
    """Names in UTF-8 stay readable; what cannot be shown and what is too long does no harm."""
    async with start_gateway(callers=[{**LAB, **SAYS}]) as gateway:
        request = get("/fhir/Patient/1", KEY, "X-User: @").replace(b"@", sent.encode("latin-1"))
        await ask(gateway.address, request)
        (record,) = await gateway.audit(1)
    assert record["user"] == noted


async def test_the_audit_event_names_user_purpose_and_token(start_gateway, sso: Sso) -> None:
    """The person is an agent of the AuditEvent, told apart from one who has signed in."""
    sso.handle(sso_answers.token(jwt(jti="id-of-the-token")))
    audit = {"fhir_audit_events": True}
    async with start_gateway(callers=[{**LAB, **SAYS}], audit=audit) as gateway:
        await ask(gateway.address, get("/fhir/Patient/1", KEY, "X-User: d", "X-Purpose: TREAT"))
        events = [each["resource"] for each in await gateway.audit(1, event="audit-event")]
        while not any(each["code"]["coding"][0]["code"] == "read" for each in events):
            events = [
                each["resource"] for each in await gateway.audit(len(events) + 1, "audit-event")
            ]
    (event,) = [each for each in events if each["code"]["coding"][0]["code"] == "read"]
    client, _, person = event["agent"]
    assert person["who"]["identifier"] == {"system": "urn:dhp-gateway:user", "value": "d"}
    assert person["who"]["display"] == "as the client says"
    assert person["authorization"][0]["coding"][0]["code"] == "TREAT"
    assert client["policy"] == ["id-of-the-token"]


async def test_the_token_is_known_by_its_jti(start_gateway, sso: Sso, platform: Platform) -> None:
    """The record has the `jti` of the token that was used last, and never the token."""
    first, second = jwt(jti="one", sub="x"), jwt(jti="two", sub="x")
    sso.script(sso_answers.token(first), sso_answers.token(second))
    platform.script(unauthorized())
    async with start_gateway() as gateway:
        for _ in range(2):
            await ask(gateway.address, get("/fhir/Patient/1"))
        records = await gateway.audit(2)
        fetched = await gateway.audit(2, event="token")
        gateway.audit_file.seek(0)
        everything = gateway.audit_file.read().decode()
    assert [record["token_id"] for record in records] == ["two", "two"]
    assert [event["token_id"] for event in fetched] == ["one", "two"]
    assert first not in everything
    assert second not in everything


@pytest.mark.parametrize(
    "value",
    ["opaque", "a.b.c", jwt(sub="x"), jwt(jti=17), jwt(jti=""), jwt(jti="a b"), jwt(jti="x" * 300)],
)
async def test_what_has_no_jti_has_no_token_id(start_gateway, sso: Sso, value: str) -> None:
    """Opaque tokens, and identities that are none, are not noted."""
    sso.handle(sso_answers.token(value))
    async with start_gateway() as gateway:
        await ask(gateway.address, get("/fhir/Patient/1"))
        (record,) = await gateway.audit(1)
    assert (record["status"], "token_id" in record) == (200, False)
