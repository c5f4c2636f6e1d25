"""What the store is given and gives (`sql_store`), and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.outbox.entry import EntryState, OutboxEntry, QueuedRequest, StoredResponse
from gateway.outbox.judging import EntryTransition
from gateway.phrases import Phrase


class OutboxError(Exception):
    """Base of what the outbox raises; `cause` holds nothing of a patient."""

    def __init__(self, why: Phrase) -> None:
        super().__init__(why)


class OutboxConfigurationError(OutboxError):
    """It cannot be opened: wrong key, newer schema, missing extra. An operator must act."""


class OutboxUnavailableError(OutboxError):
    """It cannot be reached now, or its disk is full."""


class NotRecordedError(OutboxError):
    """The audit cannot be written now, so that nobody would know who saw an entry."""


class OutboxFullError(OutboxError):
    """The entry would exceed a limit, which the text names; nothing was kept."""


class EntryStateError(OutboxError):
    """The entry is in a state in which this cannot be done; `state` is that state."""

    def __init__(self, state: EntryState) -> None:
        super().__init__(Phrase("not possible, it is {state}", state=Phrase(state.value)))
        self.state = state


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of what blocks: number of entries, bytes of their requests and of their orders' rows.

    `max_caller_share` of each is the most that one caller may have.
    """

    max_entries: int
    max_bytes: int
    max_caller_share: float = 1.0

    def check(self, size: int, used: QueueUsage) -> None:
        """Whether one more of that size fits. Raises `OutboxFullError`."""
        if used.entries >= self.max_entries or used.total_bytes + size > self.max_bytes:
            raise OutboxFullError(Phrase("the outbox is full"))
        most, bytes_most = (
            int(self.max_entries * self.max_caller_share),
            self.max_bytes * self.max_caller_share,
        )
        beyond = used.caller_entries >= most or used.caller_bytes + size > bytes_most
        # One entry is anybody's share.
        if used.caller_entries and beyond:
            raise OutboxFullError(Phrase("the caller's share of the outbox is full"))


@dataclass(frozen=True, slots=True)
class QueueUsage:
    """Number and bytes of what blocks: of everybody, and of one caller."""

    entries: int
    total_bytes: int
    caller_entries: int
    caller_bytes: int


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How full it is. `counts` by state; `size` in bytes and `oldest` are of what blocks."""

    counts: dict[EntryState, int] = field(default_factory=dict)
    size: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class EntryGroup:
    """How many entries of a state, cause and caller there are, and since when the oldest."""

    state: EntryState
    cause: str
    caller: str
    entries: int
    oldest: float


@dataclass(frozen=True, slots=True)
class EntryContent:
    """All of an entry; None stands for what was erased, or is not there yet."""

    entry: OutboxEntry
    request: QueuedRequest | None
    response: StoredResponse | None


@dataclass(frozen=True, slots=True)
class Lease:
    """That entry `number` is being sent for the `attempts`th time; renewed, it is another one."""

    number: int
    attempts: int
    until: float
    owner: str


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What an attempt at an entry came to; one that is put back is due after `delay`."""

    entry: OutboxEntry
    transition: EntryTransition
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    """An entry to be sent; without a request where what was kept of it cannot be read."""

    entry: OutboxEntry
    request: QueuedRequest | None


@dataclass(frozen=True, slots=True)
class StoreStepResult:
    """`recorded` tells for each outcome whether it was: not where the lease was lost."""

    recorded: Sequence[bool]
    claimed: Sequence[ClaimedEntry]


@dataclass(frozen=True, slots=True)
class EntryChange:
    """An entry that the store itself moved on: its lease ended, or it grew too old."""

    entry: OutboxEntry
    cause: str


Confirm = Callable[[], None]


def always_confirm() -> None:
    """What is to be kept in any case needs no confirmation."""
