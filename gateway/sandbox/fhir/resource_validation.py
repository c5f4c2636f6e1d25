"""Validation of resources to be written: the R5 models of fhir.resources, and additional checks.

The models are slow to import. They are imported for the first write only, in a worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

from gateway.sandbox.fhir.errors import FhirError, Issue
from gateway.sandbox.fhir.json_codec import JsonObject

_MAX_ISSUES: Final = 20
_ISSUE_CODES: Final = {
    "missing": "required",
    "extra_forbidden": "structure",
    "list_type": "structure",
    "dict_type": "structure",
}

# Codes with required bindings; the models accept any text.
_CODES: Final = {
    "Patient.gender": "male female other unknown",
    "Practitioner.gender": "male female other unknown",
    "Observation.status": "registered preliminary final amended corrected cancelled "
    "entered-in-error unknown",
    "DiagnosticReport.status": "registered partial preliminary modified final amended corrected "
    "appended cancelled entered-in-error unknown",
    "Encounter.status": "planned in-progress on-hold discharged completed cancelled discontinued "
    "entered-in-error unknown",
    "EpisodeOfCare.status": "planned waitlist active onhold finished cancelled entered-in-error",
    "ServiceRequest.status": "draft active on-hold revoked completed entered-in-error unknown",
    "Consent.status": "draft active inactive not-done entered-in-error unknown",
    "Specimen.status": "available unavailable unsatisfactory entered-in-error",
    "DocumentReference.status": "current superseded entered-in-error",
}


class Validator:
    """Validates resources; without the models, only what the additional checks find."""

    async def require_valid(self, resource: JsonObject, expression: str | None = None) -> None:
        """Raise FhirError 422 for an invalid resource, at `expression` of a Bundle."""
        issues = await self.issues(resource)
        if issues and expression is not None:
            issues = [issue.below(expression) for issue in issues]
        if issues:
            raise FhirError(422, *issues)

    async def issues(self, resource: JsonObject) -> list[Issue]:
        """Return the problems of a resource, at most twenty."""
        try:
            found = await asyncio.to_thread(_model_issues, resource)
        except ImportError:
            found = []
        type_ = resource["resourceType"]
        if not isinstance(resource.get("meta", {}), dict):
            found.append(Issue("structure", "an object is needed", f"{type_}.meta"))
        found += [issue for issue in _json_issues(resource, type_) if issue not in found]
        return (found + list(_code_issues(resource, type_)))[:_MAX_ISSUES]


def has_models() -> bool:
    """Return whether the R5 models are installed, which need an extra."""
    try:
        return find_spec("fhir.resources") is not None
    except ModuleNotFoundError:
        return False


def _model_issues(resource: JsonObject) -> list[Issue]:
    from fhir.resources import get_fhir_model_class
    from pydantic import ValidationError

    type_ = resource["resourceType"]
    try:
        get_fhir_model_class(type_).model_validate(resource)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return [_issue(type_, detail["type"], detail["loc"], detail["msg"]) for detail in details]
    except (LookupError, TypeError, ValueError, AttributeError):
        # The models raise these for a contained resource whose type does not exist.
        return [Issue("structure", "the resource cannot be understood", type_)]
    return []


def _issue(type_: str, kind: str, loc: tuple[int | str, ...], message: str) -> Issue:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    text = " ".join(message.removeprefix("Value error, ").split())
    return Issue(_ISSUE_CODES.get(kind, "value"), text, type_ + "".join(steps))


def _json_issues(value: Any, path: str) -> Iterator[Issue]:
    """Yield issues of empty elements, and of null outside of arrays (FHIR R5, json 2.1.1)."""
    if value is None or value == {} or value == [] or value == "":
        yield Issue("structure", "an element must not be empty or null", path)
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _json_issues(child, f"{path}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            if child is not None:
                yield from _json_issues(child, f"{path}[{index}]")


def _code_issues(resource: JsonObject, type_: str) -> Iterator[Issue]:
    for name, value in resource.items():
        codes = _CODES.get(f"{type_}.{name}")
        if codes is not None and isinstance(value, str) and value not in codes.split():
            text = f"one of {', '.join(codes.split())} is needed"
            yield Issue("code-invalid", text, f"{type_}.{name}")
