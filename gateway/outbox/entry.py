"""What the outbox keeps of one write.

    waiting ──claim──▶ sending ──▶ delivered
       ▲                 │ ├────▶ failed     refused by the platform, or too old
       └──not delivered──┘ └────▶ unclear    it may have been done, and must not be done twice
    waiting in doubt, unclear ──▶ delivered   the answer came after the lease had ended
    failed, unclear ──retry──▶ waiting        (a person)
    waiting, failed ──cancel─▶ cancelled      (the caller)
    waiting, failed, unclear ──drop──▶ dropped (a person)

An entry blocks what comes after it in its orders until it is delivered, cancelled or dropped.
Times are seconds since 1970. `OutboxEntry` shows nothing of a patient; `QueuedRequest` and
`StoredResponse` are encrypted wherever they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.phrases import EMPTY_PHRASE, Phrase

# Instead of the keys of its orders, for what has too many: it waits for all of its caller's that
# came earlier, and all of its caller's that comes later waits for it.
ALL_KEYS: Final = frozenset({"*"})

FieldLines = tuple[tuple[bytes, bytes], ...]


class EntryState(StrEnum):
    """Where an entry is; the values of the metric label `state`."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


# These stand in the way of later entries of the same order, and count towards the limits.
BLOCKING: Final = frozenset(
    {EntryState.WAITING, EntryState.SENDING, EntryState.FAILED, EntryState.UNCLEAR}
)
# These get no further by themselves; the rest of BLOCKING does.
NEEDS_OPERATOR: Final = frozenset({EntryState.FAILED, EntryState.UNCLEAR})


class RecoveryMode(StrEnum):
    """What may be done after an attempt that may or may not have had its effect.

    `repeat`: send it again, it has its id. `ask`: the platform may keep the write's own condition,
    or can be asked whether it has it. `park`: neither; a person has to look.
    """

    RESEND = "repeat"
    VERIFY = "ask"
    HOLD = "park"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One write as everybody may see it.

    `number` gives the order of arrival; `id` is random and part of the status URL. `due_at` is the
    moment before which it is not tried again. `in_doubt`: an earlier attempt may have had its
    effect. `cause` is the reason (of `gateway.errors`, or `expired`) why it is not delivered, or
    `platform-status` with the status by which the platform refused it; "" for none. `size` counts
    the bytes of the request and of the rows of its orders, `attempts` how often it was sent.
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


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """The write itself, as the platform gets it but for the token.

    `target_suffix` follows the platform's base URL: path and query, raw. `fields` are those that
    pass, without `Prefer: respond-async`. `gateway_base` is the base URL by which the caller knows
    the gateway, for the links in the answer. `request_id` is that of the caller's request.
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
    gateway_base: str

    def __repr__(self) -> str:
        """Leaves out what may be about a patient."""
        size = f"{len(self.body)} bytes"
        return f"QueuedRequest({self.method} {self.interaction} {self.resource}, {size})"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """How it ended: the platform's answer, or an outcome of the gateway's own.

    With a `reason` (of `gateway.errors`, or `expired`) the outcome is the gateway's: the status is
    that of the reason and `note` says, without data of a patient, what is known. Otherwise
    status, fields and body are the platform's, with its own URLs. `is_verified`: the platform was
    asked and had it; the answer is then to that question.
    """

    status: int
    fields: FieldLines = ()
    body: bytes = b""
    reason: str = ""
    note: Phrase = EMPTY_PHRASE
    is_verified: bool = False

    def __repr__(self) -> str:
        """Leaves out what may be about a patient."""
        return f"StoredResponse({self.status}, {self.reason!r}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is put into the outbox. `ordering_keys` are keys, not yet hashed, or ALL_KEYS.

    `delay` is how long, in seconds, it is not tried. `in_doubt` and `cause` are of an attempt that
    was made already.
    """

    caller: str
    request: QueuedRequest
    ordering_keys: frozenset[str]
    recovery: RecoveryMode
    in_doubt: bool = False
    cause: str = ""
    delay: float = 0.0

    def __repr__(self) -> str:
        """Leaves out what may be about a patient."""
        return f"NewEntry({self.caller!r}, {self.request!r}, {self.recovery})"
