"""The audit trail: one line of JSON for every exchange and every notable event.

On the request path a record costs one append. A few milliseconds later the collected records are
rendered and passed to a `WriterThread`. Only its thread touches the sink, so that a pipe without an
active reader or a full disk never blocks the event loop. orjson renders a record without structlog,
which would cost more than the rest of the record.

`audit.on_failure` decides what happens while records cannot be written. With `block`,
`is_available` becomes false, the handler rejects new requests, and all accepted records are
retained and written later. With `drop`, requests are served and the records are counted as dropped.
Records that are not rendered yet count towards the writer's limit: a busy loop must not collect
more than a slow sink may.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import orjson

from gateway.audit.audit_writer import WriterThread
from gateway.clock import TimestampFormatter
from gateway.exchange import Exchange
from gateway.telemetry.log_masking import MASK, mask_field, mask_patient_number
from gateway.telemetry.logs import get_logger

Event = Literal["token", "login", "logout", "start", "stop", "reload", "outbox"]
Record = Exchange | dict[str, Any]
# Converts a record to a resource, or returns None if there is none for it.
Translate = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]

# All registered methods match. A caller can send any text as the method.
_METHOD: Final = re.compile(r"[A-Za-z-]{0,20}")
# W3C Trace Context. A caller can send any text, so that only the specified form is recorded.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# A FHIR search parameter with modifiers, chains, `_has`. A long number would be that of a patient.
_PARAMETER: Final = re.compile(r"(?!.*\d{7})[A-Za-z_][A-Za-z0-9_.:-]{0,127}")

# Fields that are never masked: the audit must identify the user and the token in any form.
_NEVER_MASKED: Final = frozenset(("user", "token_id"))

# Seconds for which records are collected. Each hand-over to the thread delays requests: without
# that a read takes 1.07 times the time.
FLUSH_DELAY: Final = 0.01

# Approximate memory of a record in bytes: its line, that of its AuditEvent, and each parameter
# name.
_WEIGHT: Final = 1024
_TRANSLATED: Final = 3 * 1024
_NAME_WEIGHT: Final = 64

_log = get_logger("gateway.audit")


class WriterAuditTrail:
    """The audit trail in front of a writer. All methods are called in the event loop's thread.

    While `is_available` is false, a new request must get a 503 `audit-unavailable` before it is
    forwarded.

    `clock` returns Unix time in seconds, for the events; an exchange has the time of its start. The
    result of `translate` for a record is written as a separate line after that record. If there is
    a second writer, `resources`, the result is passed to that instead, as a bare resource.
    """

    def __init__(
        self,
        writer: WriterThread,
        *,
        translate: Translate | None = None,
        resources: WriterThread | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._translate = translate
        self._resources = resources
        self._clock = clock
        self._timestamp = TimestampFormatter()
        self._pending: list[Record] = []
        self._weight = _WEIGHT if translate is None else _WEIGHT + _TRANSLATED
        self._pending_bytes = 0  # estimated memory of `_pending`
        self._free_bytes = writer.free_bytes  # limit for `_pending_bytes`

    @property
    def is_available(self) -> bool:
        """False while records cannot be written and `on_failure` is `block`."""
        if self._pending_bytes > self._free_bytes and self._writer.on_failure == "block":
            return False
        resources = self._resources
        return self._writer.is_available and (resources is None or resources.is_available)

    def record_exchange(self, exchange: Exchange) -> None:
        """Record a finished request. `exchange` must not change any more."""
        if not self._pending:
            self._schedule_flush()
        elif self._pending_bytes > self._free_bytes and not _must_record(self._writer, exchange):
            self._writer.on_records("dropped", 1)
            return
        self._pending_bytes += self._weight + _NAME_WEIGHT * len(exchange.query_params)
        self._pending.append(exchange)

    def record_event(self, name: Event, /, **fields: object) -> None:
        """Record an event that is not a request. `fields` hold no secret, query value or body."""
        if not self._pending:
            self._schedule_flush()
        record: dict[str, Any] = {"event": name, "timestamp": self._timestamp.format(self._clock())}
        for field, value in fields.items():
            # Events are rare, so that masking costs nothing.
            record[field] = value if field in _NEVER_MASKED else mask_field(field, value)
        self._pending.append(record)

    async def flush(self, timeout: float) -> bool:
        """Return whether all accepted records were written within `timeout` seconds."""
        if self._writer.is_full:
            return False
        lost = self._writer.lost
        self._flush()
        return await self._writer.flush(timeout) and self._writer.lost == lost

    async def close(self, timeout: float) -> int:
        """Write accepted records for at most `timeout` seconds. Return the number of lost ones."""
        self._flush()
        if self._resources is None:
            return await self._writer.close(timeout)
        writers = (self._writer, self._resources)
        return sum(await asyncio.gather(*(writer.close(timeout) for writer in writers)))

    def _schedule_flush(self) -> None:
        # Until the next flush the writer's free space can only increase.
        self._free_bytes = self._writer.free_bytes
        asyncio.get_running_loop().call_later(FLUSH_DELAY, self._flush)

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if retained := _retained_when_full(self._writer, pending):
            self._writer.enqueue(self._rendered(retained))
        if self._resources is None or self._translate is None:
            return
        retained = _retained_when_full(self._resources, pending)
        resources = (_resource(self._fields(record), self._translate) for record in retained)
        if lines := [_render(resource) for resource in resources if resource is not None]:
            self._resources.enqueue(lines)

    def _rendered(self, pending: list[Record]) -> list[bytes]:
        translate = self._translate if self._resources is None else None
        lines = []
        for pending_record in pending:
            record = self._fields(pending_record)
            lines.append(_render(record))
            if translate is None or (resource := _resource(record, translate)) is None:
                continue
            event = {
                "event": "audit-event",
                "timestamp": record["timestamp"],
                "resource": resource,
            }
            lines.append(_render(event))
        return lines

    def _fields(self, record: Record) -> dict[str, Any]:
        if isinstance(record, Exchange):
            return exchange_record(record, self._timestamp.format(record.started_at))
        return record


class NullAuditTrail:
    """The trail of `audit.sink: off`, which discards all records."""

    is_available = True

    def record_exchange(self, exchange: Exchange) -> None:
        """Record nothing."""

    def record_event(self, name: Event, /, **fields: object) -> None:
        """Record nothing."""

    async def flush(self, timeout: float) -> bool:
        """Return False: nothing is written."""
        return False

    async def close(self, timeout: float) -> int:
        """Return 0: nothing is lost, as nothing was accepted."""
        return 0


AuditTrail = WriterAuditTrail | NullAuditTrail


def _retained_when_full(writer: WriterThread, pending: list[Record]) -> list[Record]:
    """Return the records to write: all, or only the mandatory ones if no memory is left for more.

    Mandatory are, with `block`, events and the records of requests that the platform has received.
    Those requests were admitted before the limit was reached, and events are rare, so they are few.
    The records of rejected requests are counted as dropped: retained, they would fill the memory
    for as long as the sink is blocked.
    """
    if writer.free_bytes >= 0:
        return pending
    retained = [record for record in pending if _must_record(writer, record)]
    if len(retained) < len(pending):
        writer.on_records("dropped", len(pending) - len(retained))
    return retained


def _must_record(writer: WriterThread, record: Record) -> bool:
    """Return whether a record must be written even if the backlog is full.

    This holds with `block` for an event and for a request that the platform may have received.
    """
    is_rejected = isinstance(record, Exchange) and not record.attempts
    return writer.on_failure == "block" and not is_rejected


def _resource(record: Mapping[str, Any], translate: Translate) -> Mapping[str, Any] | None:
    try:
        return translate(record)
    except Exception as error:
        # A bug must not lose the record itself. The text of the exception could quote it.
        _log.error("no AuditEvent could be made", error=type(error).__name__)
        return None


def _render(record: Mapping[str, Any]) -> bytes:
    # The concatenation allocates exactly the length of the line; the result of orjson may retain
    # its whole buffer.
    try:
        return orjson.dumps(record, default=str) + b"\n"
    except TypeError:
        # Lone surrogates, from bytes of a request that are not UTF-8. The record must not be lost.
        return orjson.dumps(_json_safe(record)) + b"\n"


def exchange_record(exchange: Exchange, timestamp: str) -> dict[str, Any]:
    """Return the fields of an exchange's record in their order. `timestamp`: when it started.

    `resource_id` is not masked, even if a caller put a patient's number there: the audit must
    identify the record that was accessed, and no other output does.
    """
    traceparent = exchange.traceparent
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    upstream = exchange.upstream_duration
    record = {
        "event": "exchange",
        "timestamp": timestamp,
        "request_id": mask_patient_number(exchange.request_id),
        "traceparent": traceparent,
        "caller": exchange.caller,
        "remote": exchange.remote,
        "user": exchange.user,
        "credential": exchange.credential,
        "method": _method(exchange.method),
        "interaction": exchange.interaction,
        "resource": exchange.resource,
        "resource_id": exchange.resource_id,
        "query_params": [_name(parameter) for parameter in exchange.query_params],
        "status": exchange.status,
        "reason": exchange.reason,
        "upstream_status": exchange.upstream_status,
        "attempts": exchange.attempts,
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "duration_ms": _milliseconds(exchange.duration),
        "upstream_ms": None if upstream is None else _milliseconds(upstream),
        "outcome": exchange.outcome,
    }
    if exchange.is_user_asserted:
        record["user_asserted"] = True
    if exchange.purpose is not None:
        record["purpose"] = exchange.purpose
    if exchange.token_id is not None:
        record["token_id"] = exchange.token_id
    return record


def _milliseconds(seconds: float) -> float:
    """Return milliseconds with three decimals. `round` is slower: it converts to decimal digits."""
    return int(seconds * 1_000_000 + 0.5) / 1000


@lru_cache(maxsize=64)
def _method(method: str) -> str:
    return method if _METHOD.fullmatch(method) else MASK


@lru_cache(maxsize=1024)
def _name(parameter: str) -> str:
    """Return the parameter's name, or the mask if it has no valid form: it may be a value then."""
    return parameter if _PARAMETER.fullmatch(parameter) else MASK


def _json_safe(value: object) -> object:
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and value.bit_length() < 64:
        return value
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    return str(value).encode("utf-8", "backslashreplace").decode()
