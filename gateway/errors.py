"""All failures that the gateway answers itself, in one table, and the exception that carries one.

`REASONS` is the source of the outcomes for callers, of the metric label `reason` and of
`docs/errors.md`. The texts in three languages are in `gateway.fhir.texts`.

    Exception
     └─ GatewayError        a response of the gateway in place of the platform's
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table: the response to a caller for one kind of failure.

    `code` is the public reason code, `status` the HTTP status. `issue_code` is from the value set
    issue-type of FHIR R5, `severity` from issue-severity.
    """

    code: str
    status: int
    severity: str
    issue_code: str


BAD_REQUEST: Final = Reason("bad-request", 400, "error", "value")
UNKNOWN_PATH: Final = Reason("unknown-path", 404, "error", "not-found")
LOOP: Final = Reason("loop", 508, "error", "processing")
MISDIRECTED: Final = Reason("misdirected", 421, "error", "not-supported")
METHOD_NOT_ALLOWED: Final = Reason("method-not-allowed", 405, "error", "not-supported")
CALLER_UNAUTHENTICATED: Final = Reason("caller-unauthenticated", 401, "error", "login")
CALLER_UNKNOWN: Final = Reason("caller-unknown", 401, "error", "unknown")
CALLER_FORBIDDEN: Final = Reason("caller-forbidden", 403, "error", "forbidden")
HEADER_TIMEOUT: Final = Reason("header-timeout", 408, "error", "timeout")
BODY_TIMEOUT: Final = Reason("body-timeout", 408, "error", "timeout")
PAYLOAD_TOO_LARGE: Final = Reason("payload-too-large", 413, "error", "too-long")
URL_TOO_LONG: Final = Reason("url-too-long", 414, "error", "too-long")
HEADER_TOO_LARGE: Final = Reason("header-too-large", 431, "error", "too-long")
RATE_LIMITED: Final = Reason("rate-limited", 429, "error", "throttled")
OVERLOADED: Final = Reason("overloaded", 503, "error", "throttled")
TOKEN_REFUSED: Final = Reason("token-refused", 502, "error", "security")
SSO_UNAVAILABLE: Final = Reason("sso-unavailable", 503, "error", "transient")
TOKEN_REJECTED: Final = Reason("token-rejected", 502, "error", "security")
UPSTREAM_UNREACHABLE: Final = Reason("upstream-unreachable", 503, "error", "transient")
UPSTREAM_FAILED: Final = Reason("upstream-failed", 502, "error", "incomplete")
UPSTREAM_BUSY: Final = Reason("upstream-busy", 503, "error", "throttled")
UPSTREAM_TLS: Final = Reason("upstream-tls", 502, "fatal", "security")
UPSTREAM_TIMEOUT: Final = Reason("upstream-timeout", 504, "error", "timeout")
UPSTREAM_REDIRECT: Final = Reason("upstream-redirect", 502, "error", "processing")
# Status and issue code follow the platform's status: see `non_fhir_issue_code`.
UPSTREAM_NON_FHIR: Final = Reason("upstream-non-fhir", 502, "error", "processing")
CIRCUIT_OPEN: Final = Reason("circuit-open", 503, "error", "transient")
AUDIT_UNAVAILABLE: Final = Reason("audit-unavailable", 503, "error", "no-store")
SEARCH_PARAMETER_IGNORED: Final = Reason("search-parameter-ignored", 400, "error", "not-supported")
CONDITION_UNSUPPORTED: Final = Reason("condition-unsupported", 400, "error", "not-supported")
OUTBOX_FULL: Final = Reason("outbox-full", 503, "error", "no-store")
SHUTTING_DOWN: Final = Reason("shutting-down", 503, "error", "transient")
INTERNAL: Final = Reason("internal", 500, "fatal", "exception")

REASONS: Final[dict[str, Reason]] = {
    reason.code: reason
    for reason in (
        BAD_REQUEST,
        UNKNOWN_PATH,
        LOOP,
        MISDIRECTED,
        METHOD_NOT_ALLOWED,
        CALLER_UNAUTHENTICATED,
        CALLER_UNKNOWN,
        CALLER_FORBIDDEN,
        HEADER_TIMEOUT,
        BODY_TIMEOUT,
        PAYLOAD_TOO_LARGE,
        URL_TOO_LONG,
        HEADER_TOO_LARGE,
        RATE_LIMITED,
        OVERLOADED,
        TOKEN_REFUSED,
        SSO_UNAVAILABLE,
        TOKEN_REJECTED,
        UPSTREAM_UNREACHABLE,
        UPSTREAM_FAILED,
        UPSTREAM_BUSY,
        UPSTREAM_TLS,
        UPSTREAM_TIMEOUT,
        UPSTREAM_REDIRECT,
        UPSTREAM_NON_FHIR,
        CIRCUIT_OPEN,
        AUDIT_UNAVAILABLE,
        SEARCH_PARAMETER_IGNORED,
        CONDITION_UNSUPPORTED,
        OUTBOX_FULL,
        SHUTTING_DOWN,
        INTERNAL,
    )
}

_NON_FHIR_ISSUE_CODES: Final = {
    404: "not-found",
    408: "timeout",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    422: "processing",
    429: "throttled",
    500: "exception",
    502: "transient",
    503: "transient",
    504: "timeout",
}


def non_fhir_issue_code(platform_status: int) -> str:
    """Return the issue code for a platform response that is not FHIR, by its status."""
    return _NON_FHIR_ISSUE_CODES.get(platform_status, "processing")


@dataclass(slots=True, eq=False)
class GatewayError(Exception):
    """Ends a request with an OperationOutcome of the gateway.

    * `detail` is only logged; it must not contain secrets, tokens, query values or bodies.
    * `hint` is sent to the caller in the outcome's diagnostics and must not contain them either.
    * `retry_after` is in seconds.
    * `upstream_status` is the platform's status, if it responded.
    * `headers` are further fields of the response.
    * `close_connection`: the caller's connection cannot be used again.
    * `is_retryable`: the platform cannot have acted, and another attempt at once may succeed.
    * `advice_key`: the key of a text in `gateway.fhir.texts.ADVICE` that says more than the
      reason's own.
    """

    reason: Reason
    detail: str = ""
    hint: str = ""
    retry_after: float | None = None
    upstream_status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    close_connection: bool = False
    is_retryable: bool = False
    advice_key: str = ""
    status: int = field(init=False)
    issue_code: str = field(init=False)

    def __post_init__(self) -> None:
        Exception.__init__(self, self.reason.code, self.detail)
        self.status = self.reason.status
        self.issue_code = self.reason.issue_code
        if self.reason is UPSTREAM_NON_FHIR and self.upstream_status is not None:
            self.issue_code = non_fhir_issue_code(self.upstream_status)
            if self.upstream_status >= 400:
                self.status = self.upstream_status

    def __str__(self) -> str:
        return f"{self.reason.code}: {self.detail}" if self.detail else self.reason.code
