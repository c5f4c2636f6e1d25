"""Entries as operators see them, in commands and pages. A patient's data is shown only on request.

The result is plain data, so that it can be passed from one process to another.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from gateway.outbox.entry import EntryState, OutboxEntry, QueuedRequest, StoredResponse
from gateway.outbox.store import EntryContent
from gateway.telemetry.masking import mask_patient_number

MASK: Final = "***"


def entry_view(entry: OutboxEntry) -> dict[str, Any]:
    """Return what every operator may see of an entry."""
    return {
        "id": entry.id,
        "state": entry.state.value,
        "caller": entry.caller,
        "queued_at": format_time(entry.queued_at),
        "due_at": format_time(entry.due_at) if entry.state is EntryState.WAITING else None,
        "finished_at": None if entry.finished_at is None else format_time(entry.finished_at),
        "attempts": entry.attempts,
        "bytes": entry.size,
        "in_doubt": entry.in_doubt,
        "after_doubt": entry.recovery.value,
        "cause": entry.cause,
    }


def content_view(content: EntryContent, *, reveal: bool) -> dict[str, Any]:
    """Return all of one entry, with data of a patient masked unless `reveal` is set."""
    request, response = content.request, content.response
    return {
        **entry_view(content.entry),
        "request": None if request is None else _request(request, reveal=reveal),
        "answer": None if response is None else _response(response, reveal=reveal),
    }


def format_time(seconds: float) -> str:
    """Return a Unix time as an ISO 8601 text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _request(request: QueuedRequest, *, reveal: bool) -> dict[str, Any]:
    known = {
        "method": request.method,
        "interaction": request.interaction,
        "resource": request.resource,
        # The caller chose it, and may have used a patient's number.
        "request_id": request.request_id if reveal else mask_patient_number(request.request_id),
        "credential": request.credential,
        "address": request.target_suffix if reveal else MASK,
    }
    if not reveal:
        return {**known, "body": MASK if request.body else ""}
    fields = {name.decode("latin-1"): text.decode("latin-1") for name, text in request.fields}
    return {**known, "fields": fields, "body": request.body.decode("utf-8", "replace")}


def _response(response: StoredResponse, *, reveal: bool) -> dict[str, Any]:
    known = {"status": response.status, "reason": response.reason, "note": response.note}
    body = response.body.decode("utf-8", "replace") if reveal else MASK if response.body else ""
    return {**known, "body": body}
