"""The parameters, results and errors of the store (`outbox_store`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.i18n import Message
from gateway.outbox.entry import STATE_NAMES, EntryState


class OutboxError(Exception):
    """Base class of the outbox's exceptions; their texts contain no data of a patient."""

    def __init__(self, why: Message) -> None:
        super().__init__(why)


class OutboxConfigurationError(OutboxError):
    """The store cannot be opened: wrong key, newer schema, missing extra. An operator must act."""


class OutboxUnavailableError(OutboxError):
    """The store cannot be reached now, or its disk is full."""


class OutboxDiskFullError(OutboxUnavailableError):
    """The disk has no space for a change that adds nothing. A smaller change may succeed."""


class OutboxInUseError(OutboxUnavailableError):
    """Another gateway uses the file."""


class NotRecordedError(OutboxError):
    """The audit trail cannot be written now, so that access to an entry is not recorded."""


class OutboxFullError(OutboxError):
    """The entry would exceed a limit, which the text names; nothing was stored."""


class EntryStateError(OutboxError):
    """The entry is in a `state` that does not allow the action."""

    def __init__(self, state: EntryState) -> None:
        super().__init__(Message("not possible, it is {state}", state=STATE_NAMES[state]))
        self.state = state


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """The number of entries by state, and the size and age of those that block.

    `size` is in bytes; `oldest` is a Unix time, None if no entry blocks. `is_deliverable`: an entry
    waits or is being sent that no other one blocks. `last_end` is the Unix time when an entry last
    ended, by any gateway, None if none has.
    """

    counts: dict[EntryState, int] = field(default_factory=dict)
    size: int = 0
    oldest: float | None = None
    is_deliverable: bool = False
    last_end: float | None = None


@dataclass(frozen=True, slots=True)
class EntryGroup:
    """The number of entries with a state, cause and caller, and the Unix time of the oldest."""

    state: EntryState
    cause: str
    caller: str
    entries: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of entry `number` for its attempt number `attempts`; renewed, it is another one."""

    number: int
    attempts: int
    until: float
    owner: str
