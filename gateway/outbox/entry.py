"""An entry of the outbox: one write, its request and its outcome.

    waiting ──claim──▶ sending ──▶ delivered
       ▲                 │ ├────▶ failed     refused by the platform, or too old
       └──not delivered──┘ └────▶ unclear    it may have taken effect, and must not be repeated
    waiting in doubt, unclear ──▶ delivered   the response came after the lease had ended
    failed, unclear ──retry──▶ waiting        (an operator)
    waiting, failed ──cancel─▶ cancelled      (the caller)
    waiting, failed, unclear ──drop──▶ dropped (an operator)

An entry blocks later entries with the same ordering keys until it is delivered, cancelled or
dropped. Times are seconds since 1970. `OutboxEntry` contains no data of a patient; `QueuedRequest`
and `StoredResponse` are encrypted wherever they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.i18n import EMPTY_MESSAGE, Message

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
    (of `gateway.errors`, or `expired`) why the write is not delivered, or `platform-status` with
    the status by which the platform refused it; "" for none. `attempts` is the number of attempts.
    `size` is the bytes of the request and of the rows of its ordering keys.
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
    """The write as it is sent to the platform, without the access token.

    `target_suffix` follows the platform's base URL: path and query, raw. `fields` are the forwarded
    fields, without `Prefer: respond-async`. `gateway_base` is the base URL by which the caller
    knows the gateway, for the links in the response. `request_id` is that of the caller's request.
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
        """Leave out everything that may be data of a patient."""
        size = f"{len(self.body)} bytes"
        return f"QueuedRequest({self.method} {self.interaction} {self.resource}, {size})"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The outcome of a write: the platform's response, or an outcome that the gateway determined.

    With a `reason` (of `gateway.errors`, or `expired`) the outcome is the gateway's: `status` is
    that of the reason, and `note` says what is known, without data of a patient. Otherwise status,
    fields and body are the platform's, with the platform's URLs. `is_verified`: a verification has
    found the write at the platform; the response is then that to the verification.
    """

    status: int
    fields: FieldLines = ()
    body: bytes = b""
    reason: str = ""
    note: Message = EMPTY_MESSAGE
    is_verified: bool = False

    def __repr__(self) -> str:
        """Leave out everything that may be data of a patient."""
        return f"StoredResponse({self.status}, {self.reason!r}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry that is not stored yet.

    `ordering_keys` are plain-text keys, or ALL_KEYS. `delay` is the time until the first attempt,
    in seconds. `in_doubt` and `cause` describe an attempt that was made already.
    """

    caller: str
    request: QueuedRequest
    ordering_keys: frozenset[str]
    recovery: RecoveryMode
    in_doubt: bool = False
    cause: str = ""
    delay: float = 0.0

    def __repr__(self) -> str:
        """Leave out everything that may be data of a patient."""
        return f"NewEntry({self.caller!r}, {self.request!r}, {self.recovery})"
