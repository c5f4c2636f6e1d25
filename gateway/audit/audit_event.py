"""Conversion of audit records to FHIR R5 AuditEvents; all functions are pure.

The base resource has codes of IHE BALP. There is no R5 edition of BALP
(https://profiles.ihe.net/ITI/BALP), so that its profile is not claimed. The only patient data in
the result is `Type/id`.

The platform's profile, `uz-core-auditevent` of UZ Core, is claimed where it can be. It covers read,
create, update, delete, search, sign-in and sign-out, and its agents are persons and applications.
Records without a user and those of other interactions (batch, operation, …) therefore stay the base
resource.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.fhir.vocabulary import HISTORIES, SEARCHES, SYSTEM

Json = dict[str, Any]

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_REST: Final = ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest")
_INTERACTION: Final = "http://hl7.org/fhir/restful-interaction"
_SEVERITY: Final = "http://hl7.org/fhir/issue-severity"
_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
_CUSTODIAN: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_BALP_ENTITY: Final = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_URI: Final = "urn:ietf:rfc:3986"

_DISPLAY_NAMES: Final[Mapping[str, str]] = {
    "rest": "RESTful Operation",
    "110100": "Application Activity",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110131": "Security Configuration",
    "110150": "Application",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "CST": "custodian",
}
_APPLICATION: Final = (_DCM, "110150")
_DESTINATION: Final = (_DCM, "110152")
_SOURCE: Final = (_DCM, "110153")

# The value of `action` that BALP defines for an interaction: C, R, U or D. Queries and all other
# interactions have E.
_ACTIONS: Final[Mapping[str, str]] = {
    "create": "C",
    "read": "R",
    "vread": "R",
    **dict.fromkeys(HISTORIES, "R"),
    "capabilities": "R",
    "update": "U",
    "patch": "U",
    "delete": "D",
}
# Codes of FHIR's value set of RESTful interactions. All other values of `interaction` are names
# that the gateway defines for requests that it cannot classify; they are coded in `_OWN_CODES`.
_CODES: Final = SEARCHES | frozenset(_ACTIONS) | {"batch", "transaction", "operation"}
_OWN_CODES: Final = "urn:dhp-gateway:interaction"
# Category and code of each event that is not an exchange.
_EVENT_CODES: Final[Mapping[str, tuple[str, str]]] = {
    "token": ("110114", "110122"),
    "login": ("110114", "110122"),
    "logout": ("110114", "110123"),
    "start": ("110100", "110120"),
    "stop": ("110100", "110121"),
    "reload": ("110113", "110131"),
}
_OUTCOMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("success", "ok"), "success"),
    **dict.fromkeys(("client-error", "aborted", "throttled"), "error"),
    **dict.fromkeys(("failure", "failed", "refused", "transient"), "fatal"),
}


@dataclass(frozen=True, slots=True)
class AuditParties:
    """The parties that events name besides the caller: this gateway, the platform and the SSO."""

    instance: str
    platform_url: str
    sso_url: str


def audit_event(record: Mapping[str, Any], parties: AuditParties) -> Json | None:
    """Return the FHIR R5 AuditEvent of an audit record, or None for events that have none."""
    if record["event"] == "exchange":
        return _exchange(record, parties)
    codes = _EVENT_CODES.get(record["event"])
    return None if codes is None else _event_resource(record, codes, parties)


def _exchange(record: Mapping[str, Any], parties: AuditParties) -> Json:
    interaction = record["interaction"]
    start = record["timestamp"]
    end = _plus_milliseconds(start, record["duration_ms"])
    system = _INTERACTION if interaction in _CODES else _OWN_CODES
    patient = _target(record) if record["resource"] == "Patient" else None
    return {
        **_event(record, end, parties),
        "category": [_concept(*_REST)],
        "code": _concept(system, interaction, interaction),
        "action": _ACTIONS.get(interaction, "E"),
        "occurredPeriod": {"start": start, "end": end},
        **({"patient": {"reference": patient}} if patient else {}),
        "agent": _agents(record, parties),
        "entity": _entities(record),
    }


def _event_resource(
    record: Mapping[str, Any], codes: tuple[str, str], parties: AuditParties
) -> Json:
    category, code = codes
    event = {
        **_event(record, record["timestamp"], parties),
        "category": [_concept(_DCM, category)],
        "code": _concept(_DCM, code),
        "action": "E",
        "occurredDateTime": record["timestamp"],
    }
    agents = [_agent(_APPLICATION, _identified("instance", parties.instance), requestor=True)]
    if record.get("user"):
        agents = [_agent(None, _user_reference(record), requestor=True)]
    if record["event"] == "token":
        agents.append(_server(_DESTINATION, parties.sso_url))
        event["entity"] = [
            {
                "what": _identified("credential", str(record.get("credential"))),
                "role": _concept(_ROLE, "12", "Data Repository"),
            }
        ]
    return {**event, "agent": agents}


def _event(record: Mapping[str, Any], recorded: str, parties: AuditParties) -> Json:
    """Return the elements that all events have."""
    outcome = _OUTCOMES.get(record.get("outcome", "success"), "error")
    if record["event"] == "exchange" and not record["status"]:
        outcome = "fatal"
    if record["event"] == "logout":
        # A logout event always means that the session ended; `outcome` names the initiator instead.
        outcome = "success"
    return {
        "resourceType": "AuditEvent",
        "id": str(uuid.uuid4()),
        "recorded": recorded,
        "outcome": {"code": _coding(_SEVERITY, outcome), "detail": _details(record)},
        "source": {
            "observer": {
                **_identified("instance", parties.instance),
                "display": "DHP Gateway",
            },
            "type": [_concept(_SOURCE_TYPE, "3", "Web Server")],
        },
    }


def _details(record: Mapping[str, Any]) -> list[Json]:
    texts = []
    if record["event"] == "exchange":
        texts.append(f"HTTP {record['status']}")
        texts += ["aborted"] if record["outcome"] == "aborted" else []
    elif "outcome" in record:
        texts.append(str(record["outcome"]))
    if reason := record.get("reason"):
        texts.append(str(reason))
    return [{"text": text} for text in texts or ["success"]]


def _agents(record: Mapping[str, Any], parties: AuditParties) -> list[Json]:
    """Return the agents of an exchange: caller, platform and, if known, the user.

    The roles "source" and "destination" follow the direction in which the data flow.
    """
    client, server = _SOURCE, _DESTINATION
    if _ACTIONS.get(record["interaction"]) == "R":
        client, server = _DESTINATION, _SOURCE
    if record["interaction"] == "delete":
        client, server = _APPLICATION, (_CUSTODIAN, "CST")
    caller = _agent(client, _identified("client", record["caller"]), requestor=True)
    if record["remote"]:
        caller["networkString"] = record["remote"]
    if token := record.get("token_id"):
        # IHE BALP (Minimal.oUa) puts the identifier of the token here, not the token.
        caller["policy"] = [token]
    agents = [caller, _server(server, parties.platform_url)]
    if record["user"]:
        agents.append(
            {"who": _user_reference(record), "requestor": True, **_purpose_of_use(record)}
        )
    else:
        caller |= _purpose_of_use(record)
    return agents


def _user_reference(record: Mapping[str, Any]) -> Json:
    """Return the reference to the user. A user that only the caller named is marked as such."""
    who = _identified("user", str(record["user"]))
    return {**who, "display": "as the client says"} if record.get("user_asserted") else who


def _purpose_of_use(record: Mapping[str, Any]) -> Json:
    """Return the purpose of use as an element of an agent, or an empty dict if there is none."""
    code = record.get("purpose")
    return {"authorization": [_concept(SYSTEM, code)]} if code else {}


def _server(role: tuple[str, str], url: str) -> Json:
    who: Json = {"identifier": {"system": _URI, "value": url}}
    return {**_agent(role, who, requestor=False), "networkUri": url}


def _agent(role: tuple[str, str] | None, who: Json, *, requestor: bool) -> Json:
    agent: Json = {} if role is None else {"type": _concept(*role)}
    return {**agent, "who": who, "requestor": requestor}


def _entities(record: Mapping[str, Any]) -> list[Json]:
    entities: list[Json] = []
    if target := _target(record):
        is_patient = record["resource"] == "Patient"
        role = ("1", "Patient") if is_patient else ("4", "Domain Resource")
        entities.append({"what": {"reference": target}, "role": _concept(_ROLE, *role)})
    if record["query_params"]:
        # Only parameter names: BALP has the complete request here, but the gateway stores no value
        # of a query.
        query = "&".join(f"{name}=***" for name in record["query_params"])
        text = f"{record['method']} {record['resource']}?{query}"
        encoded = base64.b64encode(text.encode()).decode("ascii")
        entities.append({"role": _concept(_ROLE, "24", "Query"), "query": encoded})
    request_id = {
        "type": _concept(_BALP_ENTITY, "XrequestId"),
        "value": record["request_id"],
    }
    return [*entities, {"what": {"identifier": request_id}}]


def _target(record: Mapping[str, Any]) -> str | None:
    """Return `Type/id` if the request target names a resource."""
    resource, resource_id = record["resource"], record["resource_id"]
    return f"{resource}/{resource_id}" if resource_id and resource not in ("", "other") else None


def _identified(kind: str, value: str) -> Json:
    return {"identifier": {"system": f"urn:dhp-gateway:{kind}", "value": value}}


def _concept(system: str, code: str, display: str | None = None) -> Json:
    return {"coding": [_coding(system, code, display)]}


def _coding(system: str, code: str, display: str | None = None) -> Json:
    name = display or _DISPLAY_NAMES.get(code)
    return {"system": system, "code": code, **({"display": name} if name else {})}


def _plus_milliseconds(start: str, milliseconds: float) -> str:
    end = datetime.fromisoformat(start) + timedelta(milliseconds=milliseconds)
    return end.isoformat(timespec="milliseconds").replace("+00:00", "Z")


PROFILE: Final = "https://dhp.uz/fhir/core/StructureDefinition/uz-core-auditevent"
_HUMAN_USER: Final = _concept(
    "http://terminology.hl7.org/CodeSystem/extra-security-role-type", "humanuser"
)
_PROFILE_INTERACTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("read", "vread"), "read"),
    **dict.fromkeys(HISTORIES, "read"),
    "create": "create",
    **dict.fromkeys(("update", "patch"), "update"),
    "delete": "delete",
    **dict.fromkeys(SEARCHES, "search"),
}
_PROFILE_ACTIONS: Final[Mapping[str, str]] = {
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
    folded = _PROFILE_INTERACTIONS.get(record.get("interaction", ""))
    return (
        event
        if folded is None
        else _with_profile(_profiled_exchange(event, record, folded, parties))
    )


def _profiled_exchange(
    event: Json, record: Mapping[str, Any], folded: str, parties: AuditParties
) -> Json:
    application = {**event["agent"][0], "type": _concept(*_APPLICATION), "requestor": False}
    # The profile has no agent for a server or a Device, so that the platform becomes an entity.
    platform = {
        "what": {"identifier": {"system": _URI, "value": parties.platform_url}},
        "role": _concept(_ROLE, "17", "Data Repository"),
    }
    return {
        **{key: value for key, value in event.items() if key != "occurredPeriod"},
        "category": [_category(record, folded, event["category"][0])],
        "code": _concept(_INTERACTION, folded, folded),
        "action": _PROFILE_ACTIONS[folded],
        "occurredDateTime": record["timestamp"],
        "agent": [_person(record), application],
        "entity": [*event["entity"], platform],
    }


def _category(record: Mapping[str, Any], folded: str, balp: Json) -> Json:
    """Return the profile's category together with that of BALP."""
    coding = _coding(_DCM, "110100", "Application Activity")
    if record["resource"] == "Patient":
        coding = _coding(_DCM, "110110", "Patient Record")
    if folded == "search":
        coding = _coding(_DCM, "110112", "Query")
    return {"coding": [coding, *balp["coding"]]}


def _person(record: Mapping[str, Any]) -> Json:
    """Return the agent of the user, signed in or named by the caller.

    The resource type of the user (Practitioner, Person, …) is not known here.
    """
    return {
        "type": _HUMAN_USER,
        "who": _user_reference(record),
        "requestor": True,
        **_purpose_of_use(record),
    }


def _with_profile(event: Json) -> Json:
    return {
        **{key: event[key] for key in ("resourceType", "id")},
        "meta": {"profile": [PROFILE]},
        **event,
    }
