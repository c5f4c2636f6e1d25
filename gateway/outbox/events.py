"""The steps of an entry, as reported to the audit trail and the metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from gateway.outbox.entry import EntryState, OutboxEntry


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


STEP_OF_ACTION: Final = {
    EntryState.WAITING: OutboxStep.RETRIED,
    EntryState.CANCELLED: OutboxStep.CANCELLED,
    EntryState.DROPPED: OutboxStep.DROPPED,
}
"""The step that an operator's or caller's decision causes, by the new state of the entry."""


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
        facts = {"step": self.step.value, "entry": self.entry, "caller": self.caller}
        actor_fields = {
            "by": self.actor.channel,
            "operator": self.actor.operator,
            "reason": self.actor.reason,
        }
        return {
            **facts,
            **{key: value for key, value in actor_fields.items() if value},
            "at": format_time(self.at),
        }


RecordPending = Callable[[Sequence[PendingAuditRecord]], Awaitable[bool]]
"""Record all of them in an audit trail; False: they stay pending."""


class OutboxObserver(Protocol):
    """Called for every step, at once and in order. It must neither raise nor block."""

    def __call__(self, event: OutboxEvent) -> None:
        """Process one event."""
        ...
