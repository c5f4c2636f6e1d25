"""The interface of the delivery to the platform, and the results of an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.outbox.entry import OutboxEntry, QueuedRequest, StoredResponse


class Effect(StrEnum):
    """What an attempt without a response may have done at the platform."""

    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SendFailure:
    """An attempt without a usable response.

    `cause` is a reason of `gateway.errors`, `retry_after` is in seconds. `affects_all_entries`:
    other entries would fail the same way, because the platform or the SSO cannot be reached.
    """

    effect: Effect
    cause: str
    retry_after: float | None = None
    affects_all_entries: bool = True


SendResult = StoredResponse | SendFailure


class VerificationStatus(StrEnum):
    """Whether the platform holds a resource that an earlier attempt may have written.

    `SAFE_TO_RESEND`: that does not matter, because the platform itself prevents a second one.
    """

    PRESENT = "yes"
    ABSENT = "no"
    SAFE_TO_RESEND = "harmless"
    INCONCLUSIVE = "unclear"


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of a verification; several matches are inconclusive.

    `response` is the response for the caller about the resource that was found.
    """

    status: VerificationStatus
    response: StoredResponse | None = None


class Sender(Protocol):
    """Sends requests to the platform with the credential's token. Raises only on cancellation."""

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> SendResult:
        """Make one attempt. A 429 or 503 is returned as a `SendFailure` without effect."""
        ...

    async def probe(self) -> None:
        """Send the platform an inexpensive request; its response is reported like any other."""
        ...

    async def verify(
        self, entry: OutboxEntry, request: QueuedRequest
    ) -> VerificationResult | SendFailure:
        """Return whether the platform has what an earlier attempt may have written."""
        ...
