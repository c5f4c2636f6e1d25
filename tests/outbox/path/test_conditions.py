"""Conditional creates in front of platforms that keep conditions, ignore them, or do not say.

The platform does each write but one, and then fails in one of many ways. None may be there twice,
and of each that nobody can know of it must be told.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.doubles.ward_platform import FAULTS, WardPlatform
from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import ASYNC, Hospital, Reply

SYSTEM = "urn:lab"
PLATFORM = {"response_timeout": 1}
# Every failure counts as one of the line's: it must not be left alone for that.
BREAKER = {"min_requests": 10_000}


def result(key: str, fault: str, *, identified: bool) -> dict[str, Any]:
    """An Observation of a patient of its own; its note tells it from others."""
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "subject": {"reference": f"Patient/{key}"},
        "note": [{"text": key}],
        "valueString": fault,
    }
    if identified:
        resource["identifier"] = [{"system": SYSTEM, "value": key}]
    return resource


async def create(hospital: Hospital, fault: str, form: str, *, identified: bool = True) -> Reply:
    """A create on a condition, by itself or in a Bundle."""
    key = f"{form}-{fault}"
    resource = result(key, fault, identified=identified)
    condition = f"identifier={SYSTEM}|{key}" if identified else f"note={key}"
    if form == "create":
        body = json.dumps(resource).encode()
        return await hospital.ask("POST", "/Observation", body, If_None_Exist=condition, **ASYNC)
    request = {"method": "POST", "url": "Observation", "ifNoneExist": condition}
    entry = {"request": request, "resource": resource}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    return await hospital.ask("POST", "", json.dumps(bundle).encode(), **ASYNC)


async def told(hospital: Hospital, reply: Reply) -> str:
    """What a caller learns in the end."""
    if reply.status != 202:
        return f"answered {reply.status}"
    ended = await hospital.ended(reply.location)
    response = ended.json["entry"][0]["response"]
    if "outcome" not in response:
        return "delivered"
    return str(response["outcome"]["issue"][0]["details"]["coding"][0]["code"])


async def carried_out(
    opened: Open, ward: WardPlatform, way: str, *, identified: bool = True
) -> dict[str, str]:
    """What is told of a create and a Bundle for every fault, sent directly or queued first."""
    async with opened(platform=PLATFORM, circuit_breaker=BREAKER) as hospital:
        hospital.platform.answer(ward.answer)
        if way == "queued":
            hospital.line.cut()
        sent = [(fault, form) for fault in FAULTS for form in ("create", "bundle")]
        replies = await asyncio.gather(
            *(create(hospital, fault, form, identified=identified) for fault, form in sent)
        )
        if way == "queued":
            assert {each.status for each in replies} == {202}
            await hospital.line.mend()
        ends = await asyncio.gather(*(told(hospital, each) for each in replies))
        return {f"{form}-{fault}": end for (fault, form), end in zip(sent, ends, strict=True)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["queued", "direct"])
async def test_a_platform_that_ignores_conditions_is_asked_first(opened: Open, way: str) -> None:
    """What it has already is found by its identifier, and told as delivered; none is doubled."""
    ward = WardPlatform()
    ends = await carried_out(opened, ward, way)
    assert set(ward.copies().values()) == {1}
    assert set(ward.copies()) == set(ends)
    if way == "direct":
        # It said itself that it has failed; so it is with every write.
        assert {ends.pop(f"{form}-500") for form in ("create", "bundle")} == {"answered 500"}
    assert set(ends.values()) == {"delivered"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("way", "platform_is"),
    [
        ("queued", {"statement": False}),
        ("queued", {"parameters": ("note",)}),
        ("direct", {"parameters": ("note",)}),
        ("queued", {"parameters": ()}),
    ],
    ids=["no statement", "it lies", "it lies to who waits for it", "undeclared"],
)
async def test_what_cannot_be_looked_for_is_told_as_unclear(
    opened: Open, way: str, platform_is: dict[str, Any]
) -> None:
    """Without identifier, and by a condition that nobody can believe in; none is doubled."""
    ward = WardPlatform(**platform_is)
    ends = await carried_out(opened, ward, way, identified=False)
    assert set(ward.copies().values()) == {1}
    if way == "direct":
        assert {ends.pop(f"{form}-500") for form in ("create", "bundle")} == {"answered 500"}
    assert set(ends.values()) == {"unclear"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["queued", "direct"])
async def test_a_declared_condition_is_relied_on(opened: Open, way: str) -> None:
    """The write is sent again with it, and the platform keeps it."""
    ward = WardPlatform(declares=True)
    ends = await carried_out(opened, ward, way)
    assert set(ward.copies().values()) == {1}
    if way == "direct":
        assert {ends.pop(f"{form}-500") for form in ("create", "bundle")} == {"answered 500"}
    assert set(ends.values()) == {"delivered"}
