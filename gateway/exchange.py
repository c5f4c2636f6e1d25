"""The one record that travels with a request; metrics and audit read it once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ExchangeOutcome = Literal["success", "client-error", "failure", "aborted"]


@dataclass(slots=True)
class Exchange:
    """What happened to one request, filled in step by step by the handler.

    Times are seconds: `started_at` of the wall clock, `started_monotonic` of the monotonic clock.
    Byte counts are those of the bodies. `query_params` holds names only; values never reach this
    record. `is_user_asserted`: nobody signed in, the old system named its user; `purpose` is of the
    national list, `token_id` the `jti` of the access token that went out. `interaction` and
    `resource` come from closed sets (`gateway.fhir.interaction`). `is_audit_skipped`: one of so
    many by strangers that it is counted and has no record of its own. `half_closed`: a read whose
    caller closed its sending side before it was over, which tells nothing bad of the platform.
    """

    request_id: str
    started_at: float
    started_monotonic: float
    method: str = ""
    remote: str = ""
    caller: str = "anonymous"
    user: str | None = None
    is_user_asserted: bool = False
    purpose: str | None = None
    token_id: str | None = None
    credential: str | None = None
    traceparent: str | None = None
    interaction: str = "other"
    resource: str = ""
    resource_id: str | None = None
    query_params: tuple[str, ...] = ()
    status: int = 0
    reason: str = ""
    upstream_status: int | None = None
    attempts: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    duration: float = 0.0
    upstream_duration: float | None = None
    is_aborted: bool = False
    half_closed: bool = False
    is_audit_skipped: bool = False
    # When it began and ceased to wait for a token, monotonic; None when one was at hand.
    token_wait: tuple[float, float] | None = None
    trace: object | None = None  # `gateway.telemetry.tracing`'s own, while tracing is on

    def log_fields(self) -> dict[str, str]:
        """What a line of the log has as fields, of what is known."""
        named = {
            "reason": self.reason,
            "request_id": self.request_id,
            "caller": self.caller,
            "credential": self.credential or "",
        }
        return {name: value for name, value in named.items() if value}

    @property
    def outcome(self) -> ExchangeOutcome:
        """How it ended: an abort outranks the status, which by then was already sent."""
        if self.is_aborted:
            return "aborted"
        if self.status >= 500 or self.status == 0:
            return "failure"
        return "client-error" if self.status >= 400 else "success"
