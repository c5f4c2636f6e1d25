"""How the delivery sees the platform, and what an attempt can come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.outbox.entry import OutboxEntry, QueuedRequest, StoredResponse


class Effect(StrEnum):
    """What an attempt without an answer may have done at the platform."""

    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SendFailure:
    """No answer. `cause` is a reason of `gateway.errors`, `retry_after` seconds.

    `affects_all_entries`: other entries would fare the same, as the line is down or the SSO is.
    """

    effect: Effect
    cause: str
    retry_after: float | None = None
    affects_all_entries: bool = True


SendResult = StoredResponse | SendFailure


class VerificationStatus(StrEnum):
    """The platform's answer to the question whether it has a resource.

    `harmless`: that does not matter, for the platform itself sees to it that there are not two.
    """

    PRESENT = "yes"
    ABSENT = "no"
    SAFE_TO_RESEND = "harmless"
    INCONCLUSIVE = "unclear"


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """`response` is what was found, for the caller; with several matches it is unclear."""

    status: VerificationStatus
    response: StoredResponse | None = None


class Sender(Protocol):
    """Brings requests to the platform with the credential's token. Never raises but on cancel."""

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> SendResult:
        """One attempt; a status of 429 or 503 comes back as a `SendFailure` with no effect."""
        ...

    async def probe(self) -> None:
        """Ask the platform something light; whoever wants to know of answers learns of this one."""
        ...

    async def verify(
        self, entry: OutboxEntry, request: QueuedRequest
    ) -> VerificationResult | SendFailure:
        """Whether the platform has what an earlier attempt may have written."""
        ...
