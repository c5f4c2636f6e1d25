"""AuditEvents in the platform's profile, `uz-core-auditevent`, where it can be claimed.

The profile covers read, create, update, delete, search, sign-in and sign-out. Its agents are
persons and applications. Records without a user and those of other interactions (batch, operation,
…) therefore stay the base resource. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.audit.audit_event import AuditParties, audit_event, purpose_of_use, user_reference

Json = dict[str, Any]

PROFILE: Final = "https://dhp.uz/fhir/core/StructureDefinition/uz-core-auditevent"

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_INTERACTION: Final = "http://hl7.org/fhir/restful-interaction"
_HUMAN: Final = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/extra-security-role-type",
            "code": "humanuser",
        }
    ]
}
_APPLICATION: Final = {"coding": [{"system": _DCM, "code": "110150", "display": "Application"}]}
_REPOSITORY: Final = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/object-role",
            "code": "17",
            "display": "Data Repository",
        }
    ]
}
_FOLDED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("read", "vread"), "read"),
    **dict.fromkeys(("history-instance", "history-type", "history-system"), "read"),
    "create": "create",
    **dict.fromkeys(("update", "patch"), "update"),
    "delete": "delete",
    **dict.fromkeys(("search-type", "search-system"), "search"),
}
_ACTIONS: Final[Mapping[str, str]] = {
    "read": "R",
    "create": "C",
    "update": "U",
    "delete": "D",
    # As in the profile's own example; BALP has E.
    "search": "R",
}


def national_event(record: Mapping[str, Any], parties: AuditParties) -> Json | None:
    """Return the AuditEvent of an audit record, in the profile if it can be claimed.

    Return None for events that have no AuditEvent.
    """
    event = audit_event(record, parties)
    if event is None or not record.get("user"):
        return event
    if record["event"] in ("login", "logout"):
        return _with_profile({**event, "agent": [_person(record)]})
    folded = _FOLDED.get(record.get("interaction", ""))
    return event if folded is None else _with_profile(_exchange(event, record, folded, parties))


def _exchange(event: Json, record: Mapping[str, Any], folded: str, parties: AuditParties) -> Json:
    changed = {key: value for key, value in event.items() if key != "occurredPeriod"}
    changed["category"] = [_category(record, folded, event["category"][0])]
    changed["code"] = {"coding": [{"system": _INTERACTION, "code": folded, "display": folded}]}
    changed["action"] = _ACTIONS[folded]
    changed["occurredDateTime"] = record["timestamp"]
    application = {**event["agent"][0], "type": _APPLICATION, "requestor": False}
    changed["agent"] = [_person(record), application]
    # The profile has no agent for a server, so that the platform becomes an entity.
    url = {"system": "urn:ietf:rfc:3986", "value": parties.platform_url}
    changed["entity"] = [*event["entity"], {"what": {"identifier": url}, "role": _REPOSITORY}]
    return changed


def _category(record: Mapping[str, Any], folded: str, balp: Json) -> Json:
    """Return the profile's category together with that of BALP."""
    coding = {"code": "110100", "display": "Application Activity"}
    if record["resource"] == "Patient":
        coding = {"code": "110110", "display": "Patient Record"}
    if folded == "search":
        coding = {"code": "110112", "display": "Query"}
    return {"coding": [{"system": _DCM, **coding}, *balp["coding"]]}


def _person(record: Mapping[str, Any]) -> Json:
    """Return the agent of the user, signed in or named by the caller.

    The resource type of the user (Practitioner, Person, …) is not known here.
    """
    return {
        "type": _HUMAN,
        "who": user_reference(record),
        "requestor": True,
        **purpose_of_use(record),
    }


def _with_profile(event: Json) -> Json:
    head = {key: event[key] for key in ("resourceType", "id")}
    return {**head, "meta": {"profile": [PROFILE]}, **event}
