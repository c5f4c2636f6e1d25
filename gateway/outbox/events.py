"""Every step of an entry, for audit and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from gateway.outbox.entry import EntryState, OutboxEntry


class OutboxStep(StrEnum):
    """What happened; the audit's event is `outbox` with this as its `step`."""

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
"""The step that brought an entry there by somebody's decision."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A step of one entry; `cause` is a reason, `status` the platform's where it answered.

    `is_audit_pending`: it stands in the store until the audit has it, see `PendingAuditRecord`.
    """

    step: OutboxStep
    entry: OutboxEntry
    cause: str = ""
    status: int | None = None
    is_audit_pending: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """Who decides: in which `channel`, as which `operator` where somebody signed in, and why."""

    channel: str
    operator: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PendingAuditRecord:
    """A step that stands in the store until an audit has it; `actor` took it, at Unix time `at`."""

    step: OutboxStep
    entry: str
    caller: str
    actor: Actor
    at: float

    def record_fields(self, spell: Callable[[float], str]) -> dict[str, str]:
        """The fields of its record; `spell` writes a moment down."""
        facts = {"step": self.step.value, "entry": self.entry, "caller": self.caller}
        told = {
            "by": self.actor.channel,
            "operator": self.actor.operator,
            "reason": self.actor.reason,
        }
        return {
            **facts,
            **{key: value for key, value in told.items() if value},
            "at": spell(self.at),
        }


RecordPending = Callable[[Sequence[PendingAuditRecord]], Awaitable[bool]]
"""Has an audit take all of them; False: they are to stay noted."""


class OutboxObserver(Protocol):
    """Told of every step, at once and in order; must not raise and must not wait."""

    def __call__(self, event: OutboxEvent) -> None:
        """Take note."""
        ...
