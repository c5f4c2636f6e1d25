"""What the outbox needs of a place to keep its entries; see `sql_store` for the one there is.

Several processes may share a store. An entry that is being sent is leased to one of them; a lease
that is not renewed ends, and the entry is then judged as after an unclear failure. As the store's
clock may be set, whoever has it judged must have seen for itself that it was not renewed.

Every method is atomic and, when it returns, on the disk. All raise `OutboxUnavailable` when the
place is out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.outbox.entry import Draft, Entry, Request, Response, State
from gateway.outbox.events import By, RecordNotes
from gateway.outbox.judging import Verdict


class OutboxError(Exception):
    """Base of what the outbox raises; texts hold nothing of a patient."""


class OutboxUnusable(OutboxError):  # noqa: N818 - a state, not a mistake
    """It cannot be opened: wrong key, newer schema, missing extra. An operator must act."""


class OutboxUnavailable(OutboxError):  # noqa: N818 - a state, not a mistake
    """It cannot be reached now, or its disk is full."""


class OutboxFull(OutboxError):  # noqa: N818 - a state, not a mistake
    """The entry would exceed a limit, which the text names; nothing was kept."""


class NotPossible(OutboxError):  # noqa: N818 - says what is, not what went wrong
    """The entry is in a state in which this cannot be done; `state` is that state."""

    def __init__(self, state: State) -> None:
        super().__init__(f"not possible while {state}")
        self.state = state


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of what blocks: number of entries, bytes of their requests and of their orders' rows.

    `share` of each is the most that one caller may have.
    """

    max_entries: int
    max_bytes: int
    share: float = 1.0

    def check(self, size: int, used: Used) -> None:
        """Whether one more of that size fits. Raises `OutboxFull`."""
        if used.entries >= self.max_entries or used.size + size > self.max_bytes:
            raise OutboxFull("the outbox is full")
        most, bytes_most = int(self.max_entries * self.share), self.max_bytes * self.share
        beyond = used.of_caller >= most or used.size_of_caller + size > bytes_most
        # One entry is anybody's share.
        if used.of_caller and beyond:
            raise OutboxFull("the caller's share of the outbox is full")


@dataclass(frozen=True, slots=True)
class Used:
    """Number and bytes of what blocks: of everybody, and of one caller."""

    entries: int
    size: int
    of_caller: int
    size_of_caller: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How full it is. `counts` by state; `size` in bytes and `oldest` are of what blocks."""

    counts: dict[State, int] = field(default_factory=dict)
    size: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """How many entries of a state, cause and caller there are, and since when the oldest."""

    state: State
    cause: str
    caller: str
    entries: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Content:
    """All of an entry; None stands for what was erased, or is not there yet."""

    entry: Entry
    request: Request | None
    response: Response | None


@dataclass(frozen=True, slots=True)
class Lease:
    """That entry `number` is being sent for the `attempts`th time; renewed, it is another one."""

    number: int
    attempts: int
    until: float
    owner: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt at an entry came to; one that is put back is due after `delay`."""

    entry: Entry
    verdict: Verdict
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """An entry to be sent; without a request where what was kept of it cannot be read."""

    entry: Entry
    request: Request | None


@dataclass(frozen=True, slots=True)
class Progress:
    """`written` tells for each outcome whether it was: not where the lease was lost."""

    written: Sequence[bool]
    claimed: Sequence[Claimed]


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry that the store itself moved on: its lease ended, or it grew too old."""

    entry: Entry
    why: str


Confirm = Callable[[], None]


def certain() -> None:
    """What is to be kept in any case needs no confirmation."""


class Store(Protocol):
    """Keeps entries. `owner` names one process; durations are seconds."""

    async def prepare(self) -> None:
        """Make it ready, at once if it is; before that all else raises `OutboxUnavailable`.

        Raises `OutboxUnusable`.
        """
        ...

    def surely_empty(self) -> bool:
        """Whether nothing blocks anything, as far as can be told at once and for sure."""
        ...

    async def put(self, draft: Draft, limits: OutboxLimits, confirm: Confirm = certain) -> Entry:
        """Keep a write. Raises `OutboxFull`.

        `confirm` is asked when the waiting is over and nobody else can put anything in, and again
        at the very end. What it raises is raised here, and nothing is kept.
        """
        ...

    async def blocked(self, caller: str, orders: Collection[str]) -> bool:
        """Whether anything of one of these orders, or of everything, is not delivered yet."""
        ...

    async def proceed(
        self,
        owner: str,
        outcomes: Sequence[Outcome],
        *,
        most: int,
        size: int = 0,
        lease: float = 0.0,
        cautious: bool = False,
    ) -> Progress:
        """Write down what attempts came to, and take up to `most` due entries in hand.

        Each of these is leased and counts an attempt, and nothing earlier blocks it. Together they
        have at most `size` bytes, or it is one. `cautious`: rather those that do not end as unclear
        when the line breaks. What was delivered counts also when its lease was lost, unless
        somebody has claimed it or decided about it.
        """
        ...

    async def renew(self, owner: str, ids: Collection[str], *, lease: float) -> Collection[str]:
        """Prolong those leases of this owner that have not ended; the ids that it still has."""
        ...

    async def hasten(self, ids: Collection[str]) -> None:
        """Let these of them that wait be due at once, but for those to be asked about first."""
        ...

    async def leases(self) -> Collection[Lease]:
        """All there are, of whichever process, ended or not."""
        ...

    def surely_dead(self, owner: str) -> bool:
        """Whether the process of that name has ended, as far as can be told from here."""
        ...

    async def recover(self, standing: Collection[Lease], *, settle: float) -> Sequence[Changed]:
        """Judge entries with one of these leases, by their `recovery`, if it has ended or its
        owner is dead.

        Those that the platform is to be asked about are due after `settle`.
        """
        ...

    async def expire(self, max_age: float) -> Sequence[Changed]:
        """Give up what has waited for longer: `failed`, or `unclear` where there is doubt."""
        ...

    async def purge(self, retention: float) -> int:
        """Forget some of what was delivered, cancelled or dropped so long ago; how many."""
        ...

    async def shrink(self) -> bool:
        """Give some of the room back to the disk that nothing needs any more; whether it did."""
        ...

    async def move(
        self, entry_id: str, to: State, *, caller: str | None = None, by: By | None = None
    ) -> Entry | None:
        """Retry (`waiting`), cancel or drop. None: there is no such entry (of this caller).

        With `by` the step is noted for an audit, see `take_notes`. Raises `NotPossible`. Cancelling
        and dropping erase the request.
        """
        ...

    async def retry_failed(
        self, cause: str | None, *, after: int = 0, by: By | None = None
    ) -> Sequence[Entry]:
        """Retry the first that have failed, of one cause or of any, with numbers above `after`.

        None are left when it is empty. With `by` it is noted as by `move`.
        """
        ...

    async def reveal(self, entry_id: str, by: By) -> Content | None:
        """All of an entry, in clear, once it is noted who wanted to see it. None: no such entry."""
        ...

    async def take_notes(self, record: RecordNotes) -> int:
        """Have the oldest noted steps recorded, by one process only; how many are forgotten.

        Others wait with their writes, so `record` must be quick. What it cannot stays noted.
        """
        ...

    async def entry(self, entry_id: str) -> Entry | None:
        """One entry."""
        ...

    async def entries(
        self,
        *,
        caller: str | None = None,
        states: Collection[State] = (),
        cause: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Entry]:
        """Entries in the order of arrival, with numbers above `after`; no states: all."""
        ...

    async def groups(self) -> Sequence[Group]:
        """What blocks, by state, cause and caller."""
        ...

    async def request(self, entry_id: str) -> Request | None:
        """The write itself; None when it was erased."""
        ...

    async def response(self, entry_id: str) -> Response | None:
        """How it ended; None while it has not."""
        ...

    async def depth(self) -> Depth:
        """How full it is."""
        ...

    async def close(self) -> None:
        """Let go of the place."""
        ...
