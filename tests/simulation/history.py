"""What happened in a run: in words for people, and as facts for the invariants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Issued:
    """A token that the SSO gave; `sent_at` is when its response was sent."""

    token: str
    credential: str
    requested_at: float
    issued_at: float
    expires_at: float
    revoked_at: float | None = None


@dataclass
class TokenRequest:
    """A token request, from its arrival to the end of its response or connection."""

    credential: str
    process: str
    sent_at: float
    begun_at: float
    grant: str = "client_credentials"
    is_valid: bool = True
    ended_at: float | None = None
    token: str | None = None


@dataclass
class Renewal:
    """A use of a refresh token; `of_first` is the token request that used it before."""

    asked: TokenRequest
    of_first: TokenRequest | None


@dataclass
class Arrival:
    """A request that arrived at the platform."""

    at: float
    sent_at: float
    process: str
    method: str
    target: str
    request_id: str
    token: str | None
    status: int = 0


@dataclass
class Effect:
    """A write that took effect at the platform."""

    at: float
    resource: str
    content: str
    request_id: str


@dataclass
class Outcome:
    """What a caller sent and got. `status` is 0 without a complete response."""

    lane: int
    credential: str
    kind: str
    resource: str
    content: str
    request_id: str
    is_async: bool
    manner: str
    process: str
    sent_at: float
    is_signed_in: bool = False
    ended_at: float = 0.0
    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    # What the status URL of an accepted write said at the end of the run.
    final: str = ""


@dataclass
class History:
    """The facts of a run, and its story."""

    story: list[tuple[float, str]] = field(default_factory=list)
    tokens: dict[str, Issued] = field(default_factory=dict)
    token_requests: list[TokenRequest] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    # Begin and end of each fault, and of the times without a gateway.
    disturbed: list[tuple[float, float]] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)
    # When each process ended.
    ends: dict[str, float] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    audit_problems: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    readiness: list[tuple[float, bool, str]] = field(default_factory=list)
    idle_after: float | None = None
    # Entries of the outbox that wait for a person at the end.
    unclear: int = 0
    faults_end: float = 0.0

    def tell(self, now: float, text: str) -> None:
        """Add a sentence to the story."""
        self.story.append((now, text))

    def lines(self) -> list[str]:
        """Return the story, a line for each sentence."""
        return [f"{moment - 1000:10.4f}  {text}" for moment, text in self.story]
