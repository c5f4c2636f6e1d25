"""AuditEvents by the platform's profile, judged by the R5 models and by what the profile adds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhir.resources.auditevent import AuditEvent

from gateway.audit.audit_event import PROFILE, audit_event, national_event
from gateway.fhir.vocabulary import INTERACTIONS
from tests.audit.test_audit_event import PARTIES, RECORD

DCM = "http://dicom.nema.org/resources/ontology/DCM"
REST = "http://hl7.org/fhir/restful-interaction"
HUMAN = "http://terminology.hl7.org/CodeSystem/extra-security-role-type"
CATEGORIES = {
    *("110100", "110101", "110106", "110107", "110110", "110112", "110114", "110121"),
}
CODES = {
    *((REST, code) for code in ("read", "update", "create", "delete", "search")),
    *((DCM, code) for code in ("110122", "110123")),
}
AGENT_TYPES = {(HUMAN, "humanuser"), (DCM, "110150")}
ENTITY_ROLES = {"1", "3", "4", "6", "8", "9", "15", "17", "24"}
OUTCOMES = {"fatal", "error", "warning", "information", "success"}
FOLDED = {
    "read": "read",
    "vread": "read",
    "history-instance": "read",
    "history-type": "read",
    "history-system": "read",
    "create": "create",
    "update": "update",
    "patch": "update",
    "delete": "delete",
    "search-type": "search",
    "search-system": "search",
}


def event_of(**changes: Any) -> dict[str, Any]:
    """Return the event of an exchange of a user, valid by the R5 models."""
    event = national_event({**RECORD, "user": "aziza", **changes}, PARTIES)
    assert event is not None
    AuditEvent.model_validate_json(json.dumps(event))
    return event


def codings(concept: dict[str, Any]) -> set[tuple[str, str]]:
    return {(coding["system"], coding["code"]) for coding in concept["coding"]}


def require_profile(event: dict[str, Any]) -> None:
    """The constraints that the profile adds to the base resource."""
    assert event["meta"] == {"profile": [PROFILE]}
    categories = {code for concept in event["category"] for code in codings(concept)}
    assert {code for system, code in categories if system == DCM} & CATEGORIES
    assert {code for system, code in categories if system == DCM} <= CATEGORIES
    assert len(codings(event["code"])) == 1
    assert codings(event["code"]) <= CODES
    assert event["action"] in set("CRUDE")
    assert "occurredPeriod" not in event
    assert event["occurredDateTime"]
    assert event["recorded"]
    assert event["outcome"]["code"]["code"] in OUTCOMES
    assert event["source"]["observer"]
    assert event["agent"]
    for agent in event["agent"]:
        assert codings(agent["type"]) <= AGENT_TYPES
        # A logical reference without a type points at none of the kinds that are forbidden.
        assert set(agent["who"]) == {"identifier"}
    for entity in event.get("entity", []):
        if "role" in entity:
            assert {code for _, code in codings(entity["role"])} <= ENTITY_ROLES


@pytest.mark.parametrize("interaction", sorted(INTERACTIONS))
@pytest.mark.parametrize("resource", ["Patient", "Observation", "", "other"])
def test_the_profile_is_claimed_for_interactions_that_it_allows(
    interaction: str, resource: str
) -> None:
    event = event_of(interaction=interaction, resource=resource, query_params=["name"])
    if interaction in FOLDED:
        require_profile(event)
        assert codings(event["code"]) == {(REST, FOLDED[interaction])}
        return
    assert "meta" not in event
    base = audit_event({**RECORD, "user": "aziza", "interaction": interaction,
                        "resource": resource, "query_params": ["name"]}, PARTIES)  # fmt: skip
    assert base is not None
    assert {**event, "id": ""} == {**base, "id": ""}


@pytest.mark.parametrize("user", [None, ""])
def test_without_a_user_the_profile_is_not_claimed(user: str | None) -> None:
    assert "meta" not in event_of(user=user)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 404, "outcome": "client-error"},
        {"status": 502, "outcome": "failure", "reason": "upstream-unreachable"},
        {"status": 0, "outcome": "aborted"},
    ],
)
def test_failures_conform_to_the_profile(changes: dict[str, Any]) -> None:
    require_profile(event_of(**changes))


@pytest.mark.parametrize(
    ("interaction", "resource", "category"),
    [
        ("search-type", "Patient", "110112"),
        ("read", "Patient", "110110"),
        ("update", "Observation", "110100"),
    ],
)
def test_the_category_is_one_of_the_profile(interaction: str, resource: str, category: str) -> None:
    found = codings(event_of(interaction=interaction, resource=resource)["category"][0])
    assert (DCM, category) in found
    assert ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest") in found


def test_user_application_and_platform_are_named() -> None:
    event = event_of()
    person, application = event["agent"]
    assert (person["who"]["identifier"]["value"], person["requestor"]) == ("aziza", True)
    assert application["who"]["identifier"]["value"] == "lab"
    assert application["networkString"] == "10.20.0.7"
    assert event["entity"][-1]["what"]["identifier"]["value"] == PARTIES.platform_url
    assert event["patient"] == {"reference": "Patient/42"}


@pytest.mark.parametrize("name", ["login", "logout"])
def test_sign_ins_conform_to_the_profile(name: str) -> None:
    record = {"event": name, "timestamp": RECORD["timestamp"], "user": "aziza"}
    event = national_event(record, PARTIES)
    assert event is not None
    AuditEvent.model_validate_json(json.dumps(event))
    require_profile(event)
    nobody = national_event({**record, "user": None}, PARTIES)
    assert nobody is not None
    assert "meta" not in nobody


@pytest.mark.parametrize("name", ["start", "stop", "reload", "token"])
def test_events_without_a_user_do_not_claim_the_profile(name: str) -> None:
    event = national_event({"event": name, "timestamp": RECORD["timestamp"]}, PARTIES)
    assert event is not None
    assert "meta" not in event


def test_records_of_files_have_no_event() -> None:
    record = {"event": "rotation", "timestamp": RECORD["timestamp"]}
    assert audit_event(record, PARTIES) is national_event(record, PARTIES) is None
