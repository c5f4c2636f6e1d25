"""The outbox's own paths: the state of a queued write, a caller's list, and cancelling.

`{base_path}/_outbox/{id}` follows FHIR's asynchronous pattern (R5 async-bundle.html). A caller sees
its own entries only: for all other callers they do not exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.client.response import UpstreamResponse
from gateway.outbox.entry import EntryState, OutboxEntry, StoredResponse
from gateway.outbox.intake import OUTBOX_PATH, resource_response
from gateway.outbox.one_by_one import SerialExecutor
from gateway.outbox.queue import Outbox
from gateway.outbox.status import ResponseFormat, batch_response, entry_outcome, task_bundle
from gateway.outbox.store import EntryStateError, OutboxUnavailableError
from gateway.pipeline.request_context import RequestContext

_ID: Final = re.compile(r"[A-Za-z0-9\-]{1,64}")
_PAGE_SIZE: Final = 100
_MIN_RETRY_AFTER: Final = 1
_MAX_RETRY_AFTER: Final = 60
_FINISHED_STATES: Final = frozenset({EntryState.DELIVERED, EntryState.FAILED, EntryState.UNCLEAR})
_RETRY_AFTER: Final = 5.0


class OutboxApi:
    """The handler of the outbox's own paths; `clock` returns seconds since 1970."""

    def __init__(
        self,
        outbox: Outbox,
        serial_executor: SerialExecutor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._serial_executor = serial_executor
        self._clock = clock

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
            if not _ID.fullmatch(rest):
                raise _not_found()
            if method == "DELETE":
                return await self._cancel(rest, context.caller.name, response_format)
            return await self._show(rest, context.caller.name, response_format)
        except TimeoutError:
            raise GatewayError(errors.OVERLOADED, retry_after=_RETRY_AFTER) from None
        except OutboxUnavailableError:
            raise GatewayError(
                errors.OVERLOADED, "the outbox cannot be reached", retry_after=_RETRY_AFTER
            ) from None

    async def _list(
        self, context: RequestContext, base: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        after = parse_qs(context.target.query).get("after", ["0"])[0]
        number = int(after) if re.fullmatch("[0-9]{1,18}", after) else 0
        entries = await self._outbox.entries(
            caller=context.caller.name, after=number, limit=_PAGE_SIZE + 1
        )
        page = entries[:_PAGE_SIZE]
        following = f"{base}?after={page[-1].number}" if len(entries) > _PAGE_SIZE else None
        return resource_response(
            200, task_bundle(page, base, following=following), xml=response_format.xml
        )

    async def _show(
        self, entry_id: str, caller: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        entry = await self._outbox.entry(entry_id, caller)
        if entry is None:
            raise _not_found()
        if entry.state in (EntryState.CANCELLED, EntryState.DROPPED):
            return _gone(entry, response_format)
        response = (
            await self._outbox.response(entry_id) if entry.state in _FINISHED_STATES else None
        )
        if response is None:
            return self._in_progress(entry, response_format)
        return await self._serial_executor.run(
            len(response.body), caller, lambda: _final_response(entry, response, response_format)
        )

    def _in_progress(self, entry: OutboxEntry, response_format: ResponseFormat) -> UpstreamResponse:
        wait = max(_MIN_RETRY_AFTER, min(_MAX_RETRY_AFTER, round(entry.due_at - self._clock())))
        word = "sending" if entry.state is EntryState.SENDING else "waiting"
        fields = (
            ("X-Progress", f"{word}, {entry.attempts} attempts"),
            ("Retry-After", str(wait)),
        )
        return resource_response(
            202, entry_outcome(word, response_format), xml=response_format.xml, fields=fields
        )

    async def _cancel(
        self, entry_id: str, caller: str, response_format: ResponseFormat
    ) -> UpstreamResponse:
        try:
            entry = await self._outbox.cancel(entry_id, caller)
        except EntryStateError as error:
            return _cancel_conflict(error.state, response_format)
        if entry is None:
            raise _not_found()
        return resource_response(
            202, entry_outcome("cancelling", response_format), xml=response_format.xml
        )


def _final_response(
    entry: OutboxEntry, response: StoredResponse, response_format: ResponseFormat
) -> UpstreamResponse:
    bundle, xml = batch_response(entry, response, response_format)
    return resource_response(200, bundle, xml=xml)


def _cancel_conflict(state: EntryState, response_format: ResponseFormat) -> UpstreamResponse:
    if state in (EntryState.CANCELLED, EntryState.DROPPED):
        word, status, code = state.value, 410, "deleted"
    else:
        word = "delivered" if state is EntryState.DELIVERED else "locked"
        status, code = 409, "conflict"
    return resource_response(
        status,
        entry_outcome(word, response_format, severity="error", code=code),
        xml=response_format.xml,
    )


def _gone(entry: OutboxEntry, response_format: ResponseFormat) -> UpstreamResponse:
    resource = entry_outcome(entry.state.value, response_format, severity="error", code="deleted")
    return resource_response(410, resource, xml=response_format.xml)


def _require(method: str, *allowed: str) -> None:
    if method not in allowed:
        allow = (("Allow", ", ".join(allowed)),)
        raise GatewayError(errors.METHOD_NOT_ALLOWED, "outbox", headers=allow)


def _not_found() -> GatewayError:
    return GatewayError(errors.UNKNOWN_PATH, "no such entry of this caller", hint="no such entry")
