"""User and purpose asserted by a caller, and the id of the sent token, in the audit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles import sso as sso_answers
from tests.doubles.platform import Platform, unauthorized
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get

LAB = {"name": "lab", "api_key": "planted-key-of-the-lab-system"}
SAYS = {"user_header": "X-User", "purpose_header": "X-Purpose"}
KEY = f"X-Api-Key: {LAB['api_key']}"


def jwt(**claims: Any) -> str:
    parts = [{"alg": "none"}, claims, {"s": 1}]
    coded = (base64.urlsafe_b64encode(json.dumps(each).encode()) for each in parts)
    return ".".join(each.decode().rstrip("=") for each in coded)


async def record_of(start: Callable[..., Any], *fields: str, **caller: Any) -> dict[str, Any]:
    """Return the audit record of a read by the lab, with these changes of its settings."""
    async with start(callers=[{**LAB, **SAYS, **caller}]) as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", KEY, *fields))
        (record,) = await gateway.audit(1)
        return dict(record)


async def test_user_and_purpose_are_audited_and_not_forwarded(
    start_gateway, platform: Platform
) -> None:
    record = await record_of(start_gateway, "x-user: Dilnoza Karimova", "X-PURPOSE: etreat")
    asserted = (record["user"], record["user_asserted"], record["purpose"])
    assert asserted == ("Dilnoza Karimova", True, "ETREAT")
    assert [platform.requests[0].all(each) for each in ("x-user", "x-purpose")] == [[], []]


async def test_missing_and_empty_fields_assert_no_user(start_gateway, platform: Platform) -> None:
    for fields in ((), ("X-User:  ", "X-Purpose: ")):
        record = await record_of(start_gateway, *fields)
        assert record["user"] is None
        assert not record.keys() & {"user_asserted", "purpose"}


async def test_fields_that_the_settings_do_not_name_assert_no_user(start_gateway) -> None:
    nothing = dict.fromkeys(SAYS)
    record = await record_of(start_gateway, "X-User: dilnoza", "X-Purpose: TREAT", **nothing)
    assert record["user"] is None
    assert "purpose" not in record


PURPOSES = (
    "TREAT ETREAT HOPERAT RECORDMGT HDIRECT HPRGRP HSYSADMIN PATRQT FAMRQT PWATRNY GOV DISASTER"
)


@pytest.mark.parametrize("purpose", PURPOSES.split())
async def test_each_purpose_of_the_national_list_is_audited(start_gateway, purpose: str) -> None:
    assert (await record_of(start_gateway, f"X-Purpose: {purpose}"))["purpose"] == purpose


@pytest.mark.parametrize("purpose", ["HMARKT", "TREAT, ETREAT", "31508860230018", "treatment"])
async def test_other_purposes_are_not_audited(
    start_gateway, platform: Platform, purpose: str
) -> None:
    """They could be patient data. The request is forwarded without a purpose."""
    record = await record_of(start_gateway, f"X-Purpose: {purpose}", "X-User: d")
    assert (record["status"], record["user"]) == (200, "d")
    assert purpose not in json.dumps(record)
    assert platform.requests[0].header("x-purpose") is None


async def test_the_user_may_change_between_requests_of_a_connection(
    start_gateway, platform: Platform
) -> None:
    caller = {"name": "his", "networks": ["127.0.0.1"], **SAYS}
    async with start_gateway(callers=[caller]) as gateway, await Wire.open(gateway.address) as wire:
        for fields in (["X-User: a"], ["X-User: a"], ["X-User: b"], []):
            await wire.fetch(get("/fhir/Patient/1", *fields))
        records = await gateway.audit(4)
    assert [record["user"] for record in records] == ["a", "a", "b", None]


async def test_a_rejected_request_is_audited_with_its_user(start_gateway) -> None:
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
async def test_names_are_decoded_masked_and_truncated(start_gateway, sent: str, noted: str) -> None:
    """UTF-8 stays readable; unprintable and overlong values do no harm."""
    async with start_gateway(callers=[{**LAB, **SAYS}]) as gateway:
        request = get("/fhir/Patient/1", KEY, "X-User: @").replace(b"@", sent.encode("latin-1"))
        await fetch(gateway.address, request)
        (record,) = await gateway.audit(1)
    assert record["user"] == noted


async def test_the_audit_event_names_user_purpose_and_token(start_gateway, sso: Sso) -> None:
    """The AuditEvent's agent is marked as asserted, unlike a user who signed in."""
    sso.respond(sso_answers.token(jwt(jti="id-of-the-token")))
    audit = {"fhir_audit_events": True}
    async with start_gateway(callers=[{**LAB, **SAYS}], audit=audit) as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", KEY, "X-User: d", "X-Purpose: TREAT"))
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


async def test_the_audit_has_the_jti_of_the_last_token_and_no_token(
    start_gateway, sso: Sso, platform: Platform
) -> None:
    first, second = jwt(jti="one", sub="x"), jwt(jti="two", sub="x")
    sso.script(sso_answers.token(first), sso_answers.token(second))
    platform.script(unauthorized())
    async with start_gateway() as gateway:
        for _ in range(2):
            await fetch(gateway.address, get("/fhir/Patient/1"))
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
async def test_tokens_without_a_valid_jti_have_no_token_id(
    start_gateway, sso: Sso, value: str
) -> None:
    """Opaque tokens, and invalid `jti` values, are not audited."""
    sso.respond(sso_answers.token(value))
    async with start_gateway() as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1"))
        (record,) = await gateway.audit(1)
    assert (record["status"], "token_id" in record) == (200, False)
