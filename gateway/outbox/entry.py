"""An entry of the outbox: one write, its request and its outcome, its steps and its public view.

    waiting ──claim──▶ sending ──▶ delivered
       ▲                 │ ├────▶ failed     refused by the platform, or too old
       └──not delivered──┘ └────▶ unclear    it may have taken effect, and must not be repeated
    waiting in doubt, unclear ──▶ delivered   the response came after the lease had ended
    failed, unclear ──retry──▶ waiting        (an operator)
    waiting, failed ──cancel─▶ cancelled      (the caller)
    waiting, failed, unclear ──drop──▶ dropped (an operator)

An entry blocks later entries with the same ordering keys until it is delivered, cancelled or
dropped. Times are seconds since 1970. `OutboxEntry` contains no data of a patient; `QueuedRequest`
and `StoredResponse` are encrypted wherever they are stored. The steps of an entry are reported to
the audit trail and the metrics.

Commands and pages show an entry to operators by a view, which is plain data. A patient's data is in
it only on request. A note beside an outcome that the gateway determined is a message of the
catalogues. It is stored as its English text, which also stands in the outcome for the caller.
Operators see it in their language.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from gateway.i18n import EMPTY_MESSAGE, Message
from gateway.telemetry.log_masking import mask_patient_number

# The ordering keys of a write that has too many. Its entry waits for all earlier entries of its
# caller, and all later entries of its caller wait for it.
ALL_KEYS: Final = frozenset({"*"})

FieldLines = tuple[tuple[bytes, bytes], ...]


class EntryState(StrEnum):
    """The state of an entry; the values are also those of the metric label `state`."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


# The names of the states for operators.
STATE_NAMES: Final = {
    EntryState.WAITING: Message.within("entry", "waiting"),
    EntryState.SENDING: Message.within("entry", "sending"),
    EntryState.DELIVERED: Message.within("entry", "delivered"),
    EntryState.FAILED: Message.within("entry", "failed"),
    EntryState.UNCLEAR: Message.within("entry", "unclear"),
    EntryState.CANCELLED: Message.within("entry", "cancelled"),
    EntryState.DROPPED: Message.within("entry", "dropped"),
}

# Entries in these states block later entries with the same ordering key, and count towards the
# limits.
BLOCKING: Final = frozenset(
    {EntryState.WAITING, EntryState.SENDING, EntryState.FAILED, EntryState.UNCLEAR}
)
# Entries in these states need an operator or the caller; those in the other states of BLOCKING do
# not.
NEEDS_OPERATOR: Final = frozenset({EntryState.FAILED, EntryState.UNCLEAR})


class RecoveryMode(StrEnum):
    """What may be done after an attempt that may have taken effect.

    `RESEND`: send the write again, because it contains the logical id. `VERIFY`: the platform
    enforces the write's condition, or can be asked whether it holds the resource. `HOLD`: neither
    is possible, an operator has to decide.
    """

    RESEND = "repeat"
    VERIFY = "ask"
    HOLD = "park"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One write, without its content.

    `number` gives the order of arrival. `id` is random and part of the status URL. Before `due_at`
    there is no attempt. `in_doubt`: an earlier attempt may have taken effect. `cause` is the reason
    (of `gateway.errors`, `expired` or `collision`) why the write is not delivered, or
    `platform-status` with the status by which the platform refused it; "" for none. `attempts` is
    the number of attempts.
    `size` is the bytes of the request and of the rows of its ordering keys. `collisions` is how
    often the platform answered that it had another write at the same moment.
    """

    number: int
    id: str
    caller: str
    state: EntryState
    recovery: RecoveryMode
    in_doubt: bool
    queued_at: float
    due_at: float
    finished_at: float | None
    attempts: int
    size: int
    cause: str
    collisions: int = 0


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """The write as it is sent to the platform, without the access token.

    `target_suffix` follows the platform's base URL: path and query, raw. `fields` are the forwarded
    fields, without `Prefer: respond-async`. `request_id` is that of the caller's request.
    """

    method: str
    target_suffix: str
    fields: FieldLines
    body: bytes
    credential: str
    interaction: str
    resource: str
    resource_id: str | None
    request_id: str

    def __repr__(self) -> str:
        """Leave out everything that may be data of a patient."""
        return (
            f"QueuedRequest({self.method} {self.interaction} {self.resource}, "
            f"{len(self.body)} bytes)"
        )


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The outcome of a write: the platform's response, or an outcome that the gateway determined.

    With a `reason` (of `gateway.errors`, or `expired`) the outcome is the gateway's: `status` is
    that of the reason, and `note` says what is known, without data of a patient. Otherwise status,
    fields and body are the platform's, with the platform's URLs. Where a verification has found the
    write at the platform, the response is that to the verification.
    """

    status: int
    fields: FieldLines = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    reason: str = ""
    note: Message = EMPTY_MESSAGE


@dataclass(frozen=True, slots=True)
class EntryContent:
    """All of an entry; None stands for a part that was erased or does not exist yet."""

    entry: OutboxEntry
    request: QueuedRequest | None
    response: StoredResponse | None = None


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry that is not stored yet.

    `ordering_keys` are plain-text keys, or ALL_KEYS. `delay` is the time until the first attempt,
    in seconds. `in_doubt` and `cause` describe an attempt that was made already.
    """

    caller: str
    request: QueuedRequest
    ordering_keys: frozenset[str] = field(repr=False)
    recovery: RecoveryMode
    in_doubt: bool = False
    cause: str = ""
    delay: float = 0.0


SENT_NOTE: Final = Message("it was sent; whether the platform has it is not known")
UNREADABLE_NOTE: Final = Message("its stored content cannot be read")
INTERRUPTED_NOTE: Final = Message("the gateway stopped while it sent this; outcome unknown")
NEVER_DELIVERED_NOTE: Final = Message("given up after outbox.max_age; never delivered")
OUTCOME_UNKNOWN_NOTE: Final = Message("given up after outbox.max_age; outcome unknown")
_UNKNOWN_NOTE: Final = Message("a note of another version of the gateway")
_STATUS: Final = "the platform's status was "


def platform_status_note(status: int) -> Message:
    """Return the note for a response that a server other than the platform's sent."""
    return Message("the platform's status was {status}", status=status)


def note_of(text: str) -> Message:
    """Return the note that was stored as this text."""
    status = text.removeprefix(_STATUS)
    if status != text and status.isdecimal():
        return platform_status_note(int(status))
    return Message.external(text, _UNKNOWN_NOTE) if text else Message("")


# The cause of an entry that met another write at the platform and is sent again.
COLLISION: Final = "collision"
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
    return {
        **known,
        "fields": {name.decode("latin-1"): text.decode("latin-1") for name, text in request.fields},
        "body": request.body.decode("utf-8", "replace"),
    }


def _response(response: StoredResponse, *, reveal: bool) -> dict[str, Any]:
    known = {"status": response.status, "reason": response.reason, "note": response.note}
    body = response.body.decode("utf-8", "replace") if reveal else MASK if response.body else ""
    return {**known, "body": body}


class OutboxStep(StrEnum):
    """What happened to an entry. The audit event is `outbox` with this value as its `step`."""

    QUEUED = "queued"
    SENT = "sent"
    POSTPONED = "postponed"
    BECAME_IN_DOUBT = "doubted"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    EXPIRED = "expired"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    REVEALED = "revealed"


# The step that an operator's or caller's decision causes, by the new state of the entry.
STEP_OF_ACTION: Final = {
    EntryState.WAITING: OutboxStep.RETRIED,
    EntryState.CANCELLED: OutboxStep.CANCELLED,
    EntryState.DROPPED: OutboxStep.DROPPED,
}


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A step of one entry.

    `cause` is a reason, `status` the platform's status where it responded. `is_audit_pending`: the
    step is stored as a `PendingAuditRecord` until the audit trail has recorded it.
    """

    step: OutboxStep
    entry: OutboxEntry
    cause: str = ""
    status: int | None = None
    is_audit_pending: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """The origin of a decision.

    `channel` is the interface by which it was made, `operator` the signed-in operator, `reason` the
    operator's reason; "" where there is none.
    """

    channel: str
    operator: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PendingAuditRecord:
    """A step that is stored until an audit trail has recorded it.

    `entry` is the entry's id. `actor` took the step at the Unix time `at`.
    """

    step: OutboxStep
    entry: str
    caller: str
    actor: Actor
    at: float

    def record_fields(self, format_time: Callable[[float], str]) -> dict[str, str]:
        """Return the fields of the audit record; `format_time` formats a Unix time."""
        actor_fields = {
            "by": self.actor.channel,
            "operator": self.actor.operator,
            "reason": self.actor.reason,
        }
        return {
            "step": self.step.value,
            "entry": self.entry,
            "caller": self.caller,
            **{key: value for key, value in actor_fields.items() if value},
            "at": format_time(self.at),
        }


# Records all of them in an audit trail; False: they stay pending.
RecordPending = Callable[[Sequence[PendingAuditRecord]], Awaitable[bool]]


# Called for every step, at once and in order. It must neither raise nor block.
OutboxObserver = Callable[[OutboxEvent], None]
