"""AuditEvents of audit records, judged by the R5 models."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from fhir.resources.auditevent import AuditEvent

from gateway.audit.audit_event import AuditParties, audit_event
from gateway.fhir.vocabulary import INTERACTIONS

PARTIES = AuditParties("gw-01", "https://playground.dhp.uz/fhir", "https://sso.dhp.uz/oauth/token")
RECORD: dict[str, Any] = {
    "event": "exchange",
    "timestamp": "2026-01-01T00:00:00.125Z",
    "request_id": "r-1",
    "traceparent": None,
    "caller": "lab",
    "remote": "10.20.0.7",
    "user": None,
    "credential": "default",
    "method": "GET",
    "interaction": "read",
    "resource": "Patient",
    "resource_id": "42",
    "query_params": [],
    "status": 200,
    "reason": "",
    "upstream_status": 200,
    "attempts": 1,
    "request_bytes": 0,
    "response_bytes": 1700,
    "duration_ms": 1500.4,
    "upstream_ms": 18.0,
    "outcome": "success",
}
ROLES = {"110150": "application", "110152": "destination", "110153": "source", "CST": "custodian"}


def event_of(**changes: Any) -> dict[str, Any]:
    event = audit_event({**RECORD, **changes}, PARTIES)
    assert event is not None
    AuditEvent.model_validate_json(json.dumps(event))
    return event


def code(concept: dict[str, Any]) -> str:
    [coding] = concept["coding"]
    return str(coding["code"])


def test_a_read_has_the_elements_of_balp() -> None:
    event = event_of()
    assert code(event["category"][0]) == "rest"
    assert (code(event["code"]), event["action"]) == ("read", "R")
    assert event["occurredPeriod"] == {
        "start": "2026-01-01T00:00:00.125Z",
        "end": "2026-01-01T00:00:01.625Z",
    }
    assert event["recorded"] == "2026-01-01T00:00:01.625Z"
    assert event["outcome"]["code"]["code"] == "success"
    assert event["outcome"]["detail"] == [{"text": "HTTP 200"}]
    client, server = event["agent"]
    assert client["who"]["identifier"] == {"system": "urn:dhp-gateway:client", "value": "lab"}
    assert (client["requestor"], client["networkString"]) == (True, "10.20.0.7")
    assert server["networkUri"] == "https://playground.dhp.uz/fhir"
    assert event["patient"] == {"reference": "Patient/42"}
    what, request = event["entity"]
    assert (what["what"], code(what["role"])) == ({"reference": "Patient/42"}, "1")
    assert request["what"]["identifier"]["value"] == "r-1"
    assert event["source"]["observer"]["identifier"]["value"] == "gw-01"


@pytest.mark.parametrize(
    ("interaction", "action", "client", "server"),
    [
        ("create", "C", "source", "destination"),
        ("read", "R", "destination", "source"),
        ("vread", "R", "destination", "source"),
        ("update", "U", "source", "destination"),
        ("patch", "U", "source", "destination"),
        ("delete", "D", "application", "custodian"),
        ("search-type", "E", "source", "destination"),
        ("transaction", "E", "source", "destination"),
    ],
)
def test_action_and_roles_follow_the_interaction(
    interaction: str, action: str, client: str, server: str
) -> None:
    event = event_of(interaction=interaction)
    assert event["action"] == action
    assert [ROLES[code(agent["type"])] for agent in event["agent"]] == [client, server]


@pytest.mark.parametrize("interaction", sorted(INTERACTIONS))
@pytest.mark.parametrize("resource", ["Patient", "", "other"])
def test_every_interaction_has_a_valid_event(interaction: str, resource: str) -> None:
    event = event_of(interaction=interaction, resource=resource, resource_id=None)
    assert code(event["code"]) == interaction
    assert "patient" not in event


@pytest.mark.parametrize(
    ("changes", "outcome", "details"),
    [
        ({"status": 404, "outcome": "client-error"}, "error", ["HTTP 404"]),
        (
            {"status": 403, "outcome": "client-error", "reason": "caller-forbidden"},
            "error",
            ["HTTP 403", "caller-forbidden"],
        ),
        ({"status": 502, "outcome": "failure"}, "fatal", ["HTTP 502"]),
        ({"status": 200, "outcome": "aborted"}, "error", ["HTTP 200", "aborted"]),
        ({"status": 0, "outcome": "aborted"}, "fatal", ["HTTP 0", "aborted"]),
    ],
)
def test_outcomes_of_failures(changes: dict[str, Any], outcome: str, details: list[str]) -> None:
    event = event_of(**changes)
    assert event["outcome"]["code"]["code"] == outcome
    assert [detail["text"] for detail in event["outcome"]["detail"]] == details


def test_a_query_has_parameter_names_without_values() -> None:
    event = event_of(interaction="search-type", resource_id=None, query_params=["name", "_count"])
    query, _ = event["entity"]
    assert code(query["role"]) == "24"
    assert "what" not in query
    assert base64.b64decode(query["query"]) == b"GET Patient?name=***&_count=***"


@pytest.mark.parametrize(
    ("record", "category", "what", "outcome"),
    [
        ({"event": "start", "version": "1"}, "110100", "110120", "success"),
        ({"event": "stop", "version": "1"}, "110100", "110121", "success"),
        ({"event": "reload", "outcome": "failed", "problems": 2}, "110113", "110131", "fatal"),
        ({"event": "token", "credential": "default", "outcome": "ok"}, *(
            "110114", "110122", "success")),
        ({"event": "token", "credential": "default", "outcome": "throttled"}, *(
            "110114", "110122", "error")),
        ({"event": "login", "user": "aziza"}, "110114", "110122", "success"),
        ({"event": "logout", "user": "aziza"}, "110114", "110123", "success"),
        ({"event": "logout", "outcome": "sso"}, "110114", "110123", "success"),
        ({"event": "logout", "outcome": "refused"}, "110114", "110123", "success"),
    ],
)  # fmt: skip
def test_other_events_have_dicom_codes(
    record: dict[str, Any], category: str, what: str, outcome: str
) -> None:
    event = audit_event({**record, "timestamp": RECORD["timestamp"]}, PARTIES)
    assert event is not None
    AuditEvent.model_validate_json(json.dumps(event))
    assert (code(event["category"][0]), code(event["code"])) == (category, what)
    assert event["outcome"]["code"]["code"] == outcome


def test_a_user_is_an_agent() -> None:
    users = [a["who"]["identifier"] for a in event_of(user="aziza")["agent"]]
    assert {"system": "urn:dhp-gateway:user", "value": "aziza"} in users


def test_a_user_named_by_the_client_is_marked() -> None:
    said = {"user": "d", "user_asserted": True, "purpose": "ETREAT", "token_id": "t-1"}
    client, _, person = event_of(**said)["agent"]
    assert person["who"]["display"] == "as the client says"
    assert person["authorization"][0]["coding"][0]["code"] == "ETREAT"
    assert (client["policy"], "authorization" in client) == (["t-1"], False)
    client, _ = event_of(purpose="TREAT")["agent"]
    assert client["authorization"][0]["coding"][0]["code"] == "TREAT"
