"""The CapabilityStatement: made of the same tables that do the work, so that it cannot lie."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.parameters import INTERACTIONS, SEARCH_PARAMETERS
from gateway.sandbox.store import instant

_CODES: Final = {
    "read": "read",
    "vread": "vread",
    "update": "update",
    "delete": "delete",
    "history": "history-instance",
    "create": "create",
    "search": "search-type",
}
_OAUTH: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def capability_statement(base: str, started: datetime) -> JsonObject:
    """What this server can do, with `base` as its absolute URL (FHIR R5 http 3.2.0.12)."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "experimental": True,
        "date": instant(started),
        "kind": "instance",
        "software": {"name": "DHP Gateway sandbox platform"},
        "implementation": {
            "description": "An embedded stand-in for the DHP, synthetic data only",
            "url": base,
        },
        "fhirVersion": "5.0.0",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": False,
                    "service": [{"coding": [{"system": _OAUTH, "code": "OAuth"}]}],
                    "description": "Bearer tokens of the SSO, for every interaction",
                },
                "resource": [_resource(type_) for type_ in sorted(INTERACTIONS)],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }


def _resource(type_: str) -> JsonObject:
    allowed = INTERACTIONS[type_]
    codes = [_CODES[name] for name in allowed]
    if "history" in allowed:
        codes.append("history-type")
    return {
        "type": type_,
        "interaction": [{"code": code} for code in codes],
        "versioning": "versioned-update",
        "readHistory": "history" in allowed,
        "updateCreate": False,
        "conditionalCreate": "create" in allowed,
        "conditionalRead": "not-supported",
        "conditionalUpdate": False,
        "conditionalPatch": False,
        "conditionalDelete": "not-supported",
        "searchParam": [
            {"name": parameter.name, "type": parameter.kind}
            for parameter in SEARCH_PARAMETERS[type_].values()
        ],
        "operation": [
            {
                "name": "validate",
                "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
            }
        ],
    }
