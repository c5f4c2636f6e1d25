"""The state of queued writes for their callers: FHIR's asynchronous pattern, and a list.

Resources are plain data. Absolute URLs in the platform's response are still the platform's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

from gateway.errors import REASONS
from gateway.fhir.outcome import CODE_SYSTEM
from gateway.fhir.writing import EmbeddedResource, embed_body
from gateway.outbox.entry import EntryState, FieldLines, OutboxEntry, StoredResponse
from gateway.outbox.texts import outbox_text

STATE_SYSTEM: Final = "urn:dhp-gateway:outbox"
# Task.status by state; an operator has to resolve failed and unclear entries.
_TASK_STATUSES: Final = {
    EntryState.WAITING: "accepted",
    EntryState.SENDING: "in-progress",
    EntryState.DELIVERED: "completed",
    EntryState.FAILED: "failed",
    EntryState.UNCLEAR: "on-hold",
    EntryState.CANCELLED: "cancelled",
    EntryState.DROPPED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The format that a caller asks for: the language, and whether XML where there is a choice."""

    language: str
    xml: bool


def entry_outcome(
    word: str,
    response_format: ResponseFormat,
    *,
    severity: str = "information",
    code: str = "informational",
) -> dict[str, Any]:
    """Return an OperationOutcome about the state of an entry."""
    details = {
        "coding": [{"system": STATE_SYSTEM, "code": word}],
        "text": outbox_text(word, response_format.language),
    }
    return {
        "resourceType": "OperationOutcome",
        "language": response_format.language,
        "issue": [{"severity": severity, "code": code, "details": details}],
    }


def batch_response(
    entry: OutboxEntry, response: StoredResponse, response_format: ResponseFormat
) -> tuple[dict[str, Any], bool]:
    """Return the Bundle with the outcome of a write, and whether the Bundle has to be XML.

    It has the format of the platform's response where it contains that.
    """
    content = (
        None if response.reason else embed_body(response.body, _field(response, b"content-type"))
    )
    xml = response_format.xml if content is None else content.xml
    part: dict[str, Any] = {}
    is_outcome = content is not None and content.kind == "OperationOutcome"
    if content is not None and not is_outcome:
        part["resource"] = content
    part["response"] = dict(
        _response(entry, response, response_format, content if is_outcome else None)
    )
    bundle = {"resourceType": "Bundle", "type": "batch-response", "entry": [part]}
    return bundle, xml


def _response(
    entry: OutboxEntry,
    response: StoredResponse,
    response_format: ResponseFormat,
    outcome: EmbeddedResource | None,
) -> Iterator[tuple[str, Any]]:
    yield "status", _reason_phrase(response.status)
    for name, field in (("location", b"location"), ("etag", b"etag")):
        value = _field(response, field)
        if value is not None:
            yield name, value
    modified = _instant(_field(response, b"last-modified"))
    if modified is not None:
        yield "lastModified", modified
    if outcome is not None and entry.state is not EntryState.UNCLEAR:
        yield "outcome", outcome
    elif entry.state in (EntryState.FAILED, EntryState.UNCLEAR):
        yield "outcome", _gateway_outcome(entry, response, response_format)


def _gateway_outcome(
    entry: OutboxEntry, response: StoredResponse, response_format: ResponseFormat
) -> dict[str, Any]:
    unclear = entry.state is EntryState.UNCLEAR
    word = "unclear" if unclear else "expired" if response.reason == "expired" else "failed"
    outcome = entry_outcome(
        word, response_format, severity="error", code="incomplete" if unclear else "processing"
    )
    issue = outcome["issue"][0]
    if response.reason in REASONS:
        issue["details"]["coding"].append({"system": CODE_SYSTEM, "code": response.reason})
    status = "none" if response.reason else response.status
    facts = f"platform-status={status}; attempts={entry.attempts}"
    issue["diagnostics"] = f"{facts}; {response.note}" if response.note else facts
    return outcome


def task_bundle(
    entries: Sequence[OutboxEntry], base: str, *, following: str | None = None
) -> dict[str, Any]:
    """Return the caller's entries as Tasks, in the order of arrival."""
    links = [{"relation": "self", "url": base}]
    if following is not None:
        links.append({"relation": "next", "url": following})
    tasks = [{"fullUrl": f"{base}/{entry.id}", "resource": _task(entry)} for entry in entries]
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "collection", "link": links}
    return {**bundle, "entry": tasks} if tasks else bundle


def _task(entry: OutboxEntry) -> dict[str, Any]:
    word = "expired" if entry.cause == "expired" else entry.state.value
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": entry.id,
        "status": _TASK_STATUSES[entry.state],
        "businessStatus": {"coding": [{"system": STATE_SYSTEM, "code": word}]},
        "intent": "order",
        "authoredOn": fhir_instant(entry.queued_at),
    }
    if entry.finished_at is not None:
        task["lastModified"] = fhir_instant(entry.finished_at)
    return task


def fhir_instant(seconds: float) -> str:
    """Return a Unix time as a FHIR instant."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _reason_phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _instant(value: str | None) -> str | None:
    try:
        return None if value is None else parsedate_to_datetime(value).isoformat()
    except ValueError:
        return None


def _field(response: StoredResponse, name: bytes) -> str | None:
    return first_field_value(response.fields, name)


def first_field_value(fields: FieldLines, name: bytes) -> str | None:
    """Return the first value of a field, None where there is none; `name` is in lower case."""
    for key, value in fields:
        if key.lower() == name:
            return value.decode("latin-1")
    return None
