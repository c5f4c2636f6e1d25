"""The record that accompanies a request; metrics and audit read it once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ExchangeOutcome = Literal["success", "client-error", "failure", "aborted"]
Delivery = Literal["none", "refused", "unclear"]


@dataclass(slots=True)
class Exchange:
    """What happened to one request, filled in step by step by the handler.

    * `started_at` is Unix time, `started_monotonic` monotonic time; all durations are in seconds.
    * Byte counts are those of the bodies.
    * `query_params` holds names only; values never reach this record.
    * `user`: the signed-in user or, with `is_user_asserted`, the one that the caller named without
      a sign-in.
    * `purpose` is of the national value set.
    * `token_id` is the `jti` of the access token that was sent.
    * `interaction` and `resource` come from closed sets (`gateway.fhir.interaction`).
    * `unforwarded_fields` are names of fields of the request that do not go to the platform.
    * `is_audit_skipped`: the request exceeded a rate limit of unidentified clients, so that it is
      counted and has no audit record.
    * `delivery`: what the attempts so far have delivered: `none` of them anything, only such as the
      platform `refused` without processing them, or one whose effect is `unclear`.
    * `half_closed`: a safe request whose caller closed its sending side before the end; its failure
      shows nothing about the platform.
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
    unforwarded_fields: tuple[bytes, ...] = ()
    status: int = 0
    reason: str = ""
    upstream_status: int | None = None
    attempts: int = 0
    delivery: Delivery = "none"
    request_bytes: int = 0
    response_bytes: int = 0
    duration: float = 0.0
    upstream_duration: float | None = None
    is_aborted: bool = False
    half_closed: bool = False
    is_audit_skipped: bool = False
    # Monotonic times at which waiting for a token began and ended; None without a wait.
    token_wait: tuple[float, float] | None = None
    trace: object | None = None  # of `gateway.telemetry.tracing`, while tracing is on

    def log_fields(self) -> dict[str, str]:
        """Return the fields of a log line about this exchange; empty ones are left out."""
        named = {
            "reason": self.reason,
            "request_id": self.request_id,
            "caller": self.caller,
            "credential": self.credential or "",
        }
        return {name: value for name, value in named.items() if value}

    @property
    def outcome(self) -> ExchangeOutcome:
        """How the exchange ended. An abort outranks the status, which had been sent before it."""
        if self.is_aborted:
            return "aborted"
        if self.status >= 500 or self.status == 0:
            return "failure"
        return "client-error" if self.status >= 400 else "success"
