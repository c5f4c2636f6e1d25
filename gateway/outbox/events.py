"""Every step of an entry, for audit and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.outbox.entry import Entry


class Step(StrEnum):
    """What happened; the audit's event is `outbox` with this as its `step`."""

    QUEUED = "queued"
    SENT = "sent"
    POSTPONED = "postponed"
    DOUBTED = "doubted"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    EXPIRED = "expired"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Event:
    """A step of one entry; `cause` is a reason, `status` the platform's where it answered."""

    step: Step
    entry: Entry
    cause: str = ""
    status: int | None = None


class Observer(Protocol):
    """Told of every step, at once and in order; must not raise and must not wait."""

    def __call__(self, event: Event) -> None:
        """Take note."""
        ...
