"""Renders local error responses: FHIR R5 OperationOutcomes, in JSON or XML.

Each has one issue: the reason's code for programs, a text for users, and in `diagnostics` the data
by which support finds the request. It never holds a value of the request or of the platform's
response.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import GatewayError, outcome_text
from gateway.fhir import writing
from gateway.fhir.negotiation import choose_language, wants_xml
from gateway.fhir.writing import JSON, XML
from gateway.i18n import LANGUAGES

__all__ = ["CODE_SYSTEM", "JSON", "XML", "choose_language", "render_outcome", "wants_xml"]

CODE_SYSTEM: Final = "urn:dhp-gateway:error"
_UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufffe\\uffff]")


def render_outcome(
    error: GatewayError,
    *,
    request_id: str,
    language: str,
    xml: bool,
    attempts: int = 0,
    write: bool = True,
) -> tuple[bytes, bytes]:
    """Return the body and its Content-Type. `language` is en, ru or uz; any other gives English.

    `write`: the request may have changed something.

    The outcome's id is the unchanged request id, although FHIR ids allow no `_` and `:` and at most
    64 characters: callers rely on both being equal, and an id that is not a FHIR id was chosen by
    the caller. The diagnostics repeat it.
    """
    if language not in LANGUAGES:
        language = "en"
    reason = error.reason
    issue = {
        "severity": reason.severity,
        "code": error.issue_code,
        "details": {
            "coding": [{"system": CODE_SYSTEM, "code": reason.code}],
            "text": outcome_text(reason.code, language, write=write, advice=error.advice_key),
        },
        "diagnostics": _diagnostics(error, request_id, attempts),
    }
    outcome = {
        "resourceType": "OperationOutcome",
        "id": _printable_line(request_id),
        "language": language,
        "issue": [issue],
    }
    return writing.write_resource(outcome, xml=xml)


def _diagnostics(error: GatewayError, request_id: str, attempts: int) -> str:
    status = "none" if error.upstream_status is None else error.upstream_status
    facts = [f"request-id={request_id}", f"attempts={attempts}", f"platform-status={status}"]
    if error.hint:
        facts.append(error.hint)
    return _printable_line("; ".join(facts))


def _printable_line(value: str) -> str:
    """Return one line without the characters that XML 1.0 or UTF-8 cannot represent."""
    return " ".join(_UNPRINTABLE.sub(" ", value).split())
