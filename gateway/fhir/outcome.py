"""The answers that the gateway makes itself: FHIR R5 OperationOutcomes, in JSON or XML.

One issue each: the reason's code for programs, a text for people, and in `diagnostics` what support
needs to find the request again. Never a value of the request or of the platform's answer.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import GatewayError
from gateway.fhir import writing
from gateway.fhir.negotiation import choose_language, wants_xml
from gateway.fhir.texts import LANGUAGES, text
from gateway.fhir.writing import JSON, XML

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
    """The body and its Content-Type. `language` is one of en, ru, uz; any other gives English.

    `write` says that the request may have changed something.

    The outcome's id is the request id as it is, although FHIR ids know no `_` and `:` and end at 64
    characters: that both are equal is what a caller relies on, and an id that is not FHIR's is the
    caller's own choice. The diagnostics repeat it.
    """
    if language not in LANGUAGES:
        language = "en"
    reason = error.reason
    issue = {
        "severity": reason.severity,
        "code": error.issue_code,
        "details": {
            "coding": [{"system": CODE_SYSTEM, "code": reason.code}],
            "text": text(reason.code, language, write=write, advice=error.advice_key),
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
    """One line without what neither XML 1.0 nor UTF-8 can hold."""
    return " ".join(_UNPRINTABLE.sub(" ", value).split())
