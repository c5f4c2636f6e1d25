"""The audit trail: one JSON object a line for every exchange and every notable event.

On the request's path a record costs one append. A few milliseconds later what came together is
rendered and handed to a `WriterThread`, whose thread is the only one that touches the sink: a pipe
that nobody reads or a full disk never blocks the loop.

`audit.on_failure` decides what happens while records cannot be written. With `block`,
`is_available` turns false, the handler refuses new requests, and whatever was accepted is kept and
written later. With `drop`, requests go on and the records are counted as dropped. What waits to be
rendered counts towards the writer's limit: a loop that is busy must not gather more than a sink
that is slow.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

import orjson

from gateway.audit.writer import WriterThread
from gateway.exchange import Exchange
from gateway.telemetry.logs import get_logger
from gateway.telemetry.masking import MASK, mask_field, mask_patient_number
from gateway.telemetry.timestamp import TimestampFormatter

Event = Literal["token", "login", "logout", "start", "stop", "reload", "outbox"]
Record = Exchange | dict[str, Any]
# Makes a resource of a record, or nothing.
Translate = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]

# All registered methods look like this; a caller can write anything there.
_METHOD: Final = re.compile(r"[A-Za-z-]{0,20}")
# W3C Trace Context: a caller can write anything into it, so only its own form is kept.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# A FHIR search parameter with modifiers, chains, `_has`. Long digits would be a patient's number.
_PARAMETER: Final = re.compile(r"(?!.*\d{7})[A-Za-z_][A-Za-z0-9_.:-]{0,127}")

# The audit must tell who signed in, and which token that was, whatever it looks like.
_WHOLE: Final = frozenset(("user", "token_id"))

FLUSH_DELAY: Final = 0.01
"""For how long, in seconds, records are gathered: each hand-over takes the loop from requests."""

# What a record takes of the memory, about, in bytes: its line, that of its AuditEvent, each name.
_WEIGHT: Final = 1024
_TRANSLATED: Final = 3 * 1024
_NAME_WEIGHT: Final = 64

_log = get_logger("gateway.audit")


class AuditTrail(Protocol):
    """What the request path and the application need of an audit."""

    @property
    def is_available(self) -> bool:
        """False: a new request must be answered 503 `audit-unavailable`, before forwarding."""
        ...

    def record_exchange(self, exchange: Exchange) -> None:
        """Record a finished request; `exchange` must not change any more."""
        ...

    def record_event(self, name: Event, /, **fields: object) -> None:
        """Record what is no request; `fields` hold no secret, no query value, no body."""
        ...

    async def flush(self, timeout: float) -> bool:
        """Whether all that was accepted is written, within `timeout` seconds."""
        ...

    async def close(self, timeout: float) -> int:
        """Write all that was accepted, for at most `timeout` seconds; how many records are lost."""
        ...


class WriterAuditTrail:
    """The audit trail in front of a writer; all methods belong to the loop's thread.

    `clock` gives seconds since 1970, for the events; an exchange brings the time it started.
    What `translate` makes of a record follows it as a line of its own; with `resources`, a second
    writer, it goes there instead, as it is.
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
        self._pending_bytes = 0  # what those weigh
        self._free_bytes = writer.free_bytes  # for that

    @property
    def is_available(self) -> bool:
        """False while records cannot be written and `on_failure` is `block`."""
        if self._pending_bytes > self._free_bytes and self._writer.on_failure == "block":
            return False
        resources = self._resources
        return self._writer.is_available and (resources is None or resources.is_available)

    def record_exchange(self, exchange: Exchange) -> None:
        """Record a finished request; `exchange` must not change any more."""
        if not self._pending:
            self._schedule_flush()
        elif self._pending_bytes > self._free_bytes and not _must_record(self._writer, exchange):
            self._writer.on_records("dropped", 1)
            return
        self._pending_bytes += self._weight + _NAME_WEIGHT * len(exchange.query_params)
        self._pending.append(exchange)

    def record_event(self, name: Event, /, **fields: object) -> None:
        """Record what is no request; `fields` hold no secret, no query value, no body."""
        if not self._pending:
            self._schedule_flush()
        record: dict[str, Any] = {"event": name, "timestamp": self._timestamp.format(self._clock())}
        for field, value in fields.items():
            # Rare, so the check costs nothing.
            record[field] = value if field in _WHOLE else mask_field(field, value)
        self._pending.append(record)

    async def flush(self, timeout: float) -> bool:
        """Whether all that was accepted is written, within `timeout` seconds."""
        if self._writer.is_full:
            return False
        lost = self._writer.lost
        self._flush()
        return await self._writer.flush(timeout) and self._writer.lost == lost

    async def close(self, timeout: float) -> int:
        """Write all that was accepted, for at most `timeout` seconds; how many records are lost."""
        self._flush()
        if self._resources is None:
            return await self._writer.close(timeout)
        writers = (self._writer, self._resources)
        return sum(await asyncio.gather(*(writer.close(timeout) for writer in writers)))

    def _schedule_flush(self) -> None:
        # Until the hand-over there can only be more.
        self._free_bytes = self._writer.free_bytes
        asyncio.get_running_loop().call_later(FLUSH_DELAY, self._flush)

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if kept := _retained_when_full(self._writer, pending):
            self._writer.enqueue(self._rendered(kept))
        if self._resources is None or self._translate is None:
            return
        kept = _retained_when_full(self._resources, pending)
        resources = (_resource(self._fields(record), self._translate) for record in kept)
        if lines := [_render(resource) for resource in resources if resource is not None]:
            self._resources.enqueue(lines)

    def _rendered(self, pending: list[Record]) -> list[bytes]:
        translate = self._translate if self._resources is None else None
        lines = []
        for each in pending:
            record = self._fields(each)
            lines.append(_render(record))
            if translate is not None:
                lines += _translated(record, translate)
        return lines

    def _fields(self, record: Record) -> dict[str, Any]:
        if isinstance(record, Exchange):
            return exchange_record(record, self._timestamp.format(record.started_at))
        return record


class NullAuditTrail:
    """`audit.sink: off`."""

    is_available = True

    def record_exchange(self, exchange: Exchange) -> None:
        """Record nothing."""

    def record_event(self, name: Event, /, **fields: object) -> None:
        """Record nothing."""

    async def flush(self, timeout: float) -> bool:
        """Nothing is written."""
        return False

    async def close(self, timeout: float) -> int:
        """Nothing to write, nothing lost."""
        return 0


def _retained_when_full(writer: WriterThread, pending: list[Record]) -> list[Record]:
    """What is accepted; beyond the backlog's limit, with `block`, what the platform has seen.

    Those requests were let in before the limit was reached, so they are few. The records of
    refused ones are not: kept, they would fill the memory for as long as the sink is blocked.
    """
    if not writer.is_full:
        return pending
    kept: list[Record] = [
        record
        for record in pending
        if isinstance(record, Exchange) and _must_record(writer, record)
    ]
    if len(kept) < len(pending):
        writer.on_records("dropped", len(pending) - len(kept))
    return kept


def _must_record(writer: WriterThread, exchange: Exchange) -> bool:
    """Whether there has to be a record of it whatever is full: the platform has seen it."""
    return writer.on_failure == "block" and exchange.attempts > 0


def _resource(record: Mapping[str, Any], translate: Translate) -> Mapping[str, Any] | None:
    try:
        return translate(record)
    except Exception as error:
        # A bug must not cost the record itself. The message could quote it.
        _log.error("no AuditEvent could be made", error=type(error).__name__)
        return None


def _translated(record: Mapping[str, Any], translate: Translate) -> list[bytes]:
    resource = _resource(record, translate)
    if resource is None:
        return []
    head = {"event": "audit-event", "timestamp": record["timestamp"]}
    return [_render({**head, "resource": resource})]


def _render(record: Mapping[str, Any]) -> bytes:
    # Joined, a line takes the memory of its length; what orjson returns may keep all of its buffer.
    try:
        return orjson.dumps(record, default=str) + b"\n"
    except TypeError:
        # Lone surrogates: bytes of a request that are not UTF-8. The record must not be lost.
        return orjson.dumps(_json_safe(record)) + b"\n"


def exchange_record(exchange: Exchange, timestamp: str) -> dict[str, Any]:
    """The fields of an exchange's record, in their order; `timestamp` is when it started.

    `resource_id` stays whole even where a caller put a patient's number there: the audit must tell
    whose record was touched, and this is the one place that does.
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
    """With three digits; `round` would go through the number's decimal digits for that."""
    return int(seconds * 1_000_000 + 0.5) / 1000


@lru_cache(maxsize=64)
def _method(method: str) -> str:
    return method if _METHOD.fullmatch(method) else MASK


@lru_cache(maxsize=1024)
def _name(parameter: str) -> str:
    """The parameter's name, masked when it has not the form of one: then it may be a value."""
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
