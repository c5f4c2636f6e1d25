"""The outbox's own paths: the state of a queued write, a caller's list, and cancelling.

`{base_path}/_outbox/{id}` follows FHIR's asynchronous pattern (R5 async-bundle.html). A caller sees
its own entries only: for all other callers they do not exist. Resources are plain data. Absolute
URLs in the platform's response are still the platform's. The texts are for the user of the calling
system.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from gateway.errors import METHOD_NOT_ALLOWED, OVERLOADED, REASONS, UNKNOWN_PATH, GatewayError
from gateway.fhir.operation_outcome import CODE_SYSTEM, EmbeddedResource, embed_body, write_resource
from gateway.field_values import parse_http_date
from gateway.guidance import REASON_GUIDANCE
from gateway.http.client.upstream_response import UpstreamResponse
from gateway.i18n import Message
from gateway.outbox.entry import EntryState, FieldLines, OutboxEntry, StoredResponse
from gateway.outbox.store.store_types import EntryStateError, OutboxUnavailableError

if TYPE_CHECKING:
    from gateway.outbox.store.outbox_store import OutboxStore
    from gateway.pipeline.body_worker import SerialExecutor
    from gateway.pipeline.request import RequestContext

OUTBOX_PATH: Final = "/_outbox"
# How often a cancellation looks for the end of an attempt, and the seconds between two looks. An
# attempt begins as soon as a write is queued; where no connection can be made, nothing is sent.
_CANCEL_LOOKS: Final = 30
_CANCEL_PAUSE: Final = 0.1


MESSAGES: Final = {
    "queued": Message(
        "Do not send this write again. The platform cannot accept it now; the gateway has stored "
        "it safely and delivers it once, as soon as it can. The address in Content-Location "
        "reports the result."
    ),
    "waiting": Message(
        "Do not send this write again: it is stored safely and waits for its delivery."
    ),
    "sending": Message("Do not send this write again: it is being delivered."),
    "delivered": Message("This write was delivered already and can no longer be cancelled."),
    "failed": Message(
        "The platform refused this write and saved nothing. Correct the data, cancel this entry "
        "and send the data again."
    ),
    "expired": Message(
        "This write could not be delivered for so long that the gateway has stopped trying. Ask "
        "the gateway's operator, who can still deliver it."
    ),
    "unclear": Message(
        "It is not known whether the platform has saved this write. Look for the data on the "
        "platform first; send it again only if it is not there. The gateway's operator can deliver "
        "this entry or drop it."
    ),
    "locked": Message(
        "This write may have reached the platform and cannot be cancelled now. Ask for the result "
        "later."
    ),
    "cancelled": Message("This write was cancelled by its sender and was not delivered."),
    "cancelling": Message("This write is cancelled and will not be delivered."),
    "dropped": Message("The gateway's operator has dropped this write. It was not delivered."),
}
_STATE_SYSTEM: Final = "urn:dhp-gateway:outbox"
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
    return {
        "resourceType": "OperationOutcome",
        "language": response_format.language,
        "issue": [
            {
                "severity": severity,
                "code": code,
                "details": {
                    "coding": [{"system": _STATE_SYSTEM, "code": word}],
                    "text": MESSAGES[word].in_language(response_format.language),
                },
            }
        ],
    }


def _response(
    entry: OutboxEntry,
    response: StoredResponse,
    response_format: ResponseFormat,
    outcome: EmbeddedResource | None,
) -> Iterator[tuple[str, Any]]:
    yield "status", _reason_phrase(response.status)
    for name, field in (("location", b"location"), ("etag", b"etag")):
        value = first_field_value(response.fields, field)
        if value is not None:
            yield name, value
    modified = parse_http_date(first_field_value(response.fields, b"last-modified") or "")
    if modified is not None:
        yield "lastModified", modified.isoformat()
    if outcome is not None and entry.state is not EntryState.UNCLEAR:
        yield "outcome", outcome
    elif entry.state in (EntryState.FAILED, EntryState.UNCLEAR):
        yield "outcome", _gateway_outcome(entry, response, response_format)


def _gateway_outcome(
    entry: OutboxEntry, response: StoredResponse, response_format: ResponseFormat
) -> dict[str, Any]:
    unclear = entry.state is EntryState.UNCLEAR
    word = "unclear" if unclear else "expired" if entry.cause == "expired" else "failed"
    outcome = entry_outcome(
        word, response_format, severity="error", code="incomplete" if unclear else "processing"
    )
    issue = outcome["issue"][0]
    if (reason := REASONS.get(response.reason)) is not None:
        issue["details"]["coding"].append({"system": CODE_SYSTEM, "code": reason.code})
        guidance = REASON_GUIDANCE[reason.code]
        if word == "failed" and guidance.repeat == "corrected":
            # The gateway has refused the write as it refuses one that is sent directly.
            issue["code"] = reason.issue_code
            issue["details"]["text"] = guidance.text.in_language(response_format.language)
    status = "none" if response.reason else response.status
    facts = f"platform-status={status}; attempts={entry.attempts}"
    issue["diagnostics"] = f"{facts}; {response.note}" if response.note else facts
    return outcome


def _task_bundle(
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
        "businessStatus": {"coding": [{"system": _STATE_SYSTEM, "code": word}]},
        "intent": "order",
        "authoredOn": _fhir_instant(entry.queued_at),
    }
    if entry.finished_at is not None:
        task["lastModified"] = _fhir_instant(entry.finished_at)
    return task


def _fhir_instant(seconds: float) -> str:
    """Return a Unix time as a FHIR instant."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _reason_phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def first_field_value(fields: FieldLines, name: bytes) -> str | None:
    """Return the first value of a field, None where there is none; `name` is in lower case."""
    for key, value in fields:
        if key.lower() == name:
            return value.decode("latin-1")
    return None


_ENTRY_ID: Final = re.compile(r"[A-Za-z0-9\-]{1,64}")
_PAGE_SIZE: Final = 100
_MIN_RETRY_AFTER: Final = 1
_MAX_RETRY_AFTER: Final = 60
_FINISHED_STATES: Final = frozenset({EntryState.DELIVERED, EntryState.FAILED, EntryState.UNCLEAR})
_RETRY_AFTER: Final = 5.0


class OutboxApi:
    """The handler of the outbox's own paths; `clock` returns seconds since 1970."""

    def __init__(
        self,
        store: OutboxStore,
        serial_executor: SerialExecutor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._serial_executor = serial_executor
        self._clock = clock

    def respond(
        self,
        status: int,
        resource: dict[str, Any],
        *,
        xml: bool,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> UpstreamResponse:
        """Return a response of the outbox that contains `resource`."""
        body, content_type = write_resource(resource, xml=xml)
        header_fields = [
            (b"Content-Type", content_type),
            *((name.encode("ascii"), value.encode("latin-1")) for name, value in fields),
        ]
        return UpstreamResponse.synthetic(status, header_fields, body)

    async def handle(
        self, context: RequestContext, base: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        """Return the response to a request. Raises `GatewayError`."""
        # A signed-in user has no entries: the writes of users are not queued.
        if context.caller.user is not None:
            raise _not_found()
        rest = context.target.path.removesuffix("?").removeprefix(OUTBOX_PATH).strip("/")
        method = context.exchange.method
        try:
            if not rest:
                _require(method, "GET", "HEAD")
                return await self._list(context, base + OUTBOX_PATH, response_format)
            _require(method, "GET", "HEAD", "DELETE")
            if not _ENTRY_ID.fullmatch(rest):
                raise _not_found()
            if method == "DELETE":
                return await self._cancel(rest, context.caller.name, response_format)
            return await self._show(rest, context.caller.name, response_format)
        except TimeoutError:
            raise GatewayError(OVERLOADED, retry_after=_RETRY_AFTER) from None
        except OutboxUnavailableError:
            detail = "the outbox cannot be reached"
            raise GatewayError(
                OVERLOADED, detail, retry_after=_RETRY_AFTER, advice_key="queue-away"
            ) from None

    async def _list(
        self, context: RequestContext, base: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        after = parse_qs(context.target.query).get("after", ["0"])[0]
        number = int(after) if re.fullmatch("[0-9]{1,18}", after) else 0
        entries = await self._store.entries(
            caller=context.caller.name, after=number, limit=_PAGE_SIZE + 1
        )
        page = entries[:_PAGE_SIZE]
        following = f"{base}?after={page[-1].number}" if len(entries) > _PAGE_SIZE else None
        return self.respond(
            200, _task_bundle(page, base, following=following), xml=response_format.xml
        )

    async def _show(
        self, entry_id: str, caller: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        entry = await self._store.entry(entry_id, caller)
        if entry is None:
            raise _not_found()
        if entry.state in (EntryState.CANCELLED, EntryState.DROPPED):
            return self._gone(entry.state, response_format)
        response = await self._store.response(entry_id) if entry.state in _FINISHED_STATES else None
        if response is None:
            return self._in_progress(entry, response_format)
        return await self._serial_executor.run(
            len(response.body),
            caller,
            lambda: self._final_response(entry, response, response_format),
        )

    def _in_progress(self, entry: OutboxEntry, response_format: ResponseFormat) -> UpstreamResponse:
        wait = max(_MIN_RETRY_AFTER, min(_MAX_RETRY_AFTER, round(entry.due_at - self._clock())))
        word = "sending" if entry.state is EntryState.SENDING else "waiting"
        return self.respond(
            202,
            entry_outcome(word, response_format),
            xml=response_format.xml,
            fields=(
                ("X-Progress", f"{word}, {entry.attempts} attempts"),
                ("Retry-After", str(wait)),
            ),
        )

    async def _cancel(
        self, entry_id: str, caller: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        try:
            entry = await self._cancel_between_attempts(entry_id, caller)
        except EntryStateError as error:
            if error.state in (EntryState.CANCELLED, EntryState.DROPPED):
                return self._gone(error.state, response_format)
            word = "delivered" if error.state is EntryState.DELIVERED else "locked"
            return self._refusal(409, word, "conflict", response_format)
        if entry is None:
            raise _not_found()
        return self.respond(
            202, entry_outcome("cancelling", response_format), xml=response_format.xml
        )

    async def _cancel_between_attempts(self, entry_id: str, caller: str) -> OutboxEntry | None:
        """Cancel an entry, for a moment also while it is being sent. Raises `EntryStateError`."""
        looks_left = _CANCEL_LOOKS
        while True:
            try:
                return await self._store.apply_action(entry_id, EntryState.CANCELLED, caller=caller)
            except EntryStateError as error:
                if error.state is not EntryState.SENDING or not looks_left:
                    raise
            looks_left -= 1
            await asyncio.sleep(_CANCEL_PAUSE)

    def _final_response(
        self, entry: OutboxEntry, response: StoredResponse, response_format: ResponseFormat
    ) -> UpstreamResponse:
        """Return the Bundle with the outcome of a write.

        It has the format of the platform's response where it contains that.
        """
        content = (
            None
            if response.reason
            else embed_body(response.body, first_field_value(response.fields, b"content-type"))
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
        return self.respond(200, bundle, xml=xml)

    def _gone(self, state: EntryState, response_format: ResponseFormat) -> UpstreamResponse:
        return self._refusal(410, state.value, "deleted", response_format)

    def _refusal(
        self, status: int, word: str, code: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        return self.respond(
            status,
            entry_outcome(word, response_format, severity="error", code=code),
            xml=response_format.xml,
        )


def _require(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise GatewayError(METHOD_NOT_ALLOWED, "outbox", headers=(("Allow", ", ".join(allowed)),))


def _not_found() -> GatewayError:
    return GatewayError(UNKNOWN_PATH, "no such entry of this caller", hint="no such entry")
