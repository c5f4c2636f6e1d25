"""The CapabilityStatement, generated from the declarations that the server itself uses.

As on the national platform it declares neither which parameters do not filter, nor that Bundles are
accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.sandbox.codec import JsonObject
from gateway.sandbox.declared import Declared, DeclaredType
from gateway.sandbox.store import instant

_OAUTH: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The statement, and whether it is sent in gzip even if Accept-Encoding does not allow it."""

    statement: JsonObject
    gzipped: bool


def capability_statement(
    base: str, started: datetime, types: Declared, *, lenient: bool
) -> JsonObject:
    """Return what this server supports; `base` is its absolute URL (FHIR R5 http 3.2.0.12)."""
    system = [{"code": "transaction"}, {"code": "batch"}]
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
                "resource": [
                    _resource(name, types[name], lenient=lenient) for name in sorted(types)
                ],
                **({"interaction": system} if lenient else {}),
            }
        ],
    }


def _resource(name: str, type_: DeclaredType, *, lenient: bool) -> JsonObject:
    allowed = type_.interactions
    resource: JsonObject = {
        "type": name,
        "interaction": [{"code": code} for code in allowed],
        "versioning": "versioned-update",
        "readHistory": "history-instance" in allowed,
        "updateCreate": False,
        "conditionalCreate": lenient and "create" in allowed,
        "conditionalRead": "not-supported",
        "conditionalUpdate": False,
        "conditionalPatch": False,
        "conditionalDelete": "not-supported",
        "searchParam": [
            {"name": parameter.name, "type": parameter.kind}
            for parameter in type_.parameters.values()
        ],
    }
    operations = [_operation(name, operation) for operation in type_.operations]
    return resource | ({"operation": operations} if operations else {})


def _operation(type_: str, name: str) -> JsonObject:
    holder = "Resource" if name == "validate" else type_
    definition = f"http://hl7.org/fhir/OperationDefinition/{holder}-{name}"
    return {"name": name, "definition": definition}
