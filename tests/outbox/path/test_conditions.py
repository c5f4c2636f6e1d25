"""Conditional creates with platforms that apply conditions, ignore them, or declare none.

The platform does each write but one, and then fails in one of many ways. None may be stored twice,
and each whose outcome is unknown must be reported as unclear.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.platform import Platform
from tests.doubles.storing_platform import FAULTS, StoringPlatform
from tests.outbox.path.conftest import opening
from tests.outbox.path.harness import ASYNC, OutboxSetup, Response

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


async def create(setup: OutboxSetup, fault: str, form: str, *, identified: bool = True) -> Response:
    key = f"{form}-{fault}"
    resource = result(key, fault, identified=identified)
    condition = f"identifier={SYSTEM}|{key}" if identified else f"note={key}"
    if form == "create":
        body = json.dumps(resource).encode()
        return await setup.ask("POST", "/Observation", body, If_None_Exist=condition, **ASYNC)
    request = {"method": "POST", "url": "Observation", "ifNoneExist": condition}
    entry = {"request": request, "resource": resource}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    return await setup.ask("POST", "", json.dumps(bundle).encode(), **ASYNC)


async def final_result(setup: OutboxSetup, reply: Response) -> str:
    if reply.status != 202:
        return f"answered {reply.status}"
    ended = await setup.final_response(reply.location)
    assert ended.status == 200, ended.body
    response = ended.json["entry"][0]["response"]
    if "outcome" not in response:
        return "delivered"
    return str(response["outcome"]["issue"][0]["details"]["coding"][0]["code"])


@dataclass(frozen=True)
class Case:
    """How a platform takes conditions, and whether the writes come to it directly or are queued."""

    way: str
    platform_is: dict[str, Any] = field(default_factory=dict)
    identified: bool = True


IGNORED = {f"ignores conditions, {way}": Case(way) for way in ("queued", "direct")}
UNCLEAR = {
    "no statement": Case("queued", {"statement": False}, identified=False),
    "it lies": Case("queued", {"parameters": ("note",)}, identified=False),
    "it lies to who waits for it": Case("direct", {"parameters": ("note",)}, identified=False),
    "undeclared": Case("queued", {"parameters": ()}, identified=False),
}
RELIED_ON = {f"declares them, {way}": Case(way, {"declares": True}) for way in ("queued", "direct")}
CASES = IGNORED | UNCLEAR | RELIED_ON


@dataclass(frozen=True)
class Course:
    """The result of each write, and the number of its copies at the platform."""

    ends: dict[str, str]
    copies: dict[str, int]


async def run_case(case: Case, folder: Path) -> Course:
    """A create and a Bundle for every fault, sent directly or queued first."""
    ward = StoringPlatform(**case.platform_is)
    sections = {"platform": PLATFORM, "circuit_breaker": BREAKER}
    async with Platform() as platform, opening(platform, folder, **sections) as setup:
        platform.respond(ward.respond)
        sent = [(fault, form) for fault in FAULTS for form in ("create", "bundle")]
        creations = [create(setup, *each, identified=case.identified) for each in sent]
        if case.way == "queued":
            setup.relay.cut()
            replies = [await each for each in creations]
            assert {(each.status, each.headers.get("X-Gateway-Error")) for each in replies} == {
                (202, None)
            }
            await setup.relay.restore()
        else:
            # Those that come to the platform directly wait for it.
            replies = await asyncio.gather(*creations)
        ends = await asyncio.gather(*(final_result(setup, each) for each in replies))
        names = (f"{form}-{fault}" for fault, form in sent)
        return Course(dict(zip(names, ends, strict=True)), ward.copies())


@pytest.fixture(scope="module")
def courses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Course | BaseException]:
    """Run all cases at once, because each waits for its timeouts."""

    async def all_of_them() -> list[Course | BaseException]:
        folders = [tmp_path_factory.mktemp("conditions") for _ in CASES]
        courses = map(run_case, CASES.values(), folders)
        return await asyncio.gather(*courses, return_exceptions=True)

    return dict(zip(CASES, asyncio.run(all_of_them()), strict=True))


def ends_of(course: Course | BaseException, case: Case) -> set[str]:
    """Return the reports of all writes in doubt; no write may be stored twice."""
    if isinstance(course, BaseException):
        raise course
    ends = course.ends.copy()
    assert set(course.copies.values()) == {1}
    if case.way == "direct":
        # The platform said itself that it has failed; so it is with every write.
        assert {ends.pop(f"{form}-500") for form in ("create", "bundle")} == {"answered 500"}
    return set(ends.values())


@pytest.mark.parametrize("name", IGNORED)
def test_identified_creates_are_verified_where_conditions_are_ignored(courses, name: str) -> None:
    course = courses[name]
    assert ends_of(course, CASES[name]) == {"delivered"}
    assert set(course.copies) == set(course.ends)


@pytest.mark.parametrize("name", UNCLEAR)
def test_creates_that_cannot_be_verified_are_unclear(courses, name: str) -> None:
    assert ends_of(courses[name], CASES[name]) == {"unclear"}


@pytest.mark.parametrize("name", RELIED_ON)
def test_declared_conditional_creates_are_sent_again(courses, name: str) -> None:
    assert ends_of(courses[name], CASES[name]) == {"delivered"}


async def test_a_queued_write_that_the_guard_refuses_has_the_outcome_of_a_direct_one(
    tmp_path: Path,
) -> None:
    blocked = {"platform": PLATFORM, "fhir": {"condition_guard": "block"}}
    async with Platform() as platform, opening(platform, tmp_path, **blocked) as setup:
        platform.respond(StoringPlatform().respond)
        setup.relay.cut()
        queued = await create(setup, "none", "create")
        await setup.relay.restore()
        ended = await setup.final_response(queued.location, Accept_Language="ru")
        direct = await setup.ask(
            "POST", "/Observation", b"{}", If_None_Exist="note=x", Accept_Language="ru"
        )
        response = ended.json["entry"][0]["response"]
        (issue,), (direct_issue,) = response["outcome"]["issue"], direct.json["issue"]
        assert response["status"].startswith(str(direct.status))
        assert issue["code"] == direct_issue["code"] == "not-supported"
        assert issue["details"]["text"] == direct_issue["details"]["text"]
        codes = [coding["code"] for coding in issue["details"]["coding"]]
        assert codes == ["failed", "condition-unsupported"]
        assert "POST" not in {request.method for request in platform.requests}
