"""AuditEvents by the platform's own profile, `uz-core-auditevent`, where it can be claimed.

It knows read, create, update, delete and search, sign-ins and sign-outs; its agents are people and
applications. So what nobody in person has asked for, a batch, an operation and the like stay the
base resource. Pure functions.
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
    # As the profile's own example has it, other than BALP.
    "search": "R",
}


def national_event(record: Mapping[str, Any], parties: AuditParties) -> Json | None:
    """The AuditEvent of an audit record, by the profile where that can be claimed."""
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
    # The profile has no agent that is a server.
    url = {"system": "urn:ietf:rfc:3986", "value": parties.platform_url}
    changed["entity"] = [*event["entity"], {"what": {"identifier": url}, "role": _REPOSITORY}]
    return changed


def _category(record: Mapping[str, Any], folded: str, balp: Json) -> Json:
    """The profile's category beside that of BALP."""
    coding = {"code": "110100", "display": "Application Activity"}
    if record["resource"] == "Patient":
        coding = {"code": "110110", "display": "Patient Record"}
    if folded == "search":
        coding = {"code": "110112", "display": "Query"}
    return {"coding": [{"system": _DCM, **coding}, *balp["coding"]]}


def _person(record: Mapping[str, Any]) -> Json:
    """The one who is signed in, or was named; as what kind of resource is not known here."""
    return {
        "type": _HUMAN,
        "who": user_reference(record),
        "requestor": True,
        **purpose_of_use(record),
    }


def _with_profile(event: Json) -> Json:
    head = {key: event[key] for key in ("resourceType", "id")}
    return {**head, "meta": {"profile": [PROFILE]}, **event}
