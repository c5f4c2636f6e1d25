"""All failures that the gateway answers itself, in one table, and the exceptions of the gateway.

`REASONS` is the source of the outcomes for callers, of the metric label `reason` and of
`docs/errors.md`. What a reason means, and what its caller and operators do about it, is in
`gateway.guidance`.

    Exception
     ├─ GatewayError        a response of the gateway in place of the platform's
     ├─ StartError          the gateway could not start; the text is for the operator
     └─ ValueError
         └─ ClientKeyError  a text contains no usable client secret or key
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.guidance import REASON_GUIDANCE
from gateway.i18n import LANGUAGES, Message

if TYPE_CHECKING:
    from gateway.exchange import Delivery


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table: the response to a caller for one kind of failure.

    `code` is the public reason code, `status` the HTTP status. `issue_code` is from the value set
    issue-type of FHIR R5, `severity` from issue-severity.
    """

    code: str
    status: int
    issue_code: str
    severity: str = "error"


BAD_REQUEST: Final = Reason("bad-request", 400, "value")
UNKNOWN_PATH: Final = Reason("unknown-path", 404, "not-found")
LOOP: Final = Reason("loop", 508, "processing")
MISDIRECTED: Final = Reason("misdirected", 421, "not-supported")
METHOD_NOT_ALLOWED: Final = Reason("method-not-allowed", 405, "not-supported")
CALLER_UNAUTHENTICATED: Final = Reason("caller-unauthenticated", 401, "login")
CALLER_UNKNOWN: Final = Reason("caller-unknown", 401, "unknown")
CALLER_FORBIDDEN: Final = Reason("caller-forbidden", 403, "forbidden")
HEADER_TIMEOUT: Final = Reason("header-timeout", 408, "timeout")
BODY_TIMEOUT: Final = Reason("body-timeout", 408, "timeout")
PAYLOAD_TOO_LARGE: Final = Reason("payload-too-large", 413, "too-long")
URL_TOO_LONG: Final = Reason("url-too-long", 414, "too-long")
HEADER_TOO_LARGE: Final = Reason("header-too-large", 431, "too-long")
RATE_LIMITED: Final = Reason("rate-limited", 429, "throttled")
OVERLOADED: Final = Reason("overloaded", 503, "throttled")
TOKEN_REFUSED: Final = Reason("token-refused", 502, "security")
SSO_UNAVAILABLE: Final = Reason("sso-unavailable", 503, "transient")
TOKEN_REJECTED: Final = Reason("token-rejected", 502, "security")
UPSTREAM_UNREACHABLE: Final = Reason("upstream-unreachable", 503, "transient")
UPSTREAM_FAILED: Final = Reason("upstream-failed", 502, "incomplete")
UPSTREAM_BUSY: Final = Reason("upstream-busy", 503, "throttled")
UPSTREAM_TLS: Final = Reason("upstream-tls", 502, "security", severity="fatal")
UPSTREAM_TIMEOUT: Final = Reason("upstream-timeout", 504, "timeout")
UPSTREAM_REDIRECT: Final = Reason("upstream-redirect", 502, "processing")
# Status and issue code follow the platform's status: see `non_fhir_issue_code`.
UPSTREAM_NON_FHIR: Final = Reason("upstream-non-fhir", 502, "processing")
CIRCUIT_OPEN: Final = Reason("circuit-open", 503, "transient")
AUDIT_UNAVAILABLE: Final = Reason("audit-unavailable", 503, "no-store")
SEARCH_PARAMETER_IGNORED: Final = Reason("search-parameter-ignored", 400, "not-supported")
CONDITION_UNSUPPORTED: Final = Reason("condition-unsupported", 400, "not-supported")
CONDITION_UNKNOWN: Final = Reason("condition-unknown", 503, "transient")
OUTBOX_FULL: Final = Reason("outbox-full", 503, "no-store")
SHUTTING_DOWN: Final = Reason("shutting-down", 503, "transient")
INTERNAL: Final = Reason("internal", 500, "exception", severity="fatal")

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
        CONDITION_UNKNOWN,
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


# Texts that say what the caller must change in the request, by `GatewayError.advice_key`.
ADVICE: Final = {
    "page": Message(
        "A web page sent this request in a way that the gateway does not accept from web pages, "
        "so nothing was sent to the platform. The page's programmer must add the header "
        "X-Requested-With, and send requests from an origin that the gateway knows."
    ),
    "surplus-slash": Message(
        "The address of this request has two slashes in a row, so nothing was sent to the "
        "platform. Does the base URL in the settings of your system end in a slash? Remove "
        "it, or ask the vendor of your system to."
    ),
    "raw-bytes": Message(
        "The address of this request contains letters, such as Cyrillic ones, that are not "
        "encoded, so nothing was sent to the platform. The vendor of your system must write them "
        "as percent-encoded UTF-8: the letter \N{CYRILLIC CAPITAL LETTER SHA} is %D0%A8."
    ),
    "not-utf-8": Message(
        "The address of this request contains letters in an encoding other than UTF-8, probably "
        "windows-1251. A search would have found no patient, so nothing was sent to the platform. "
        "The vendor of your system must write them as percent-encoded UTF-8: the "
        "letter \N{CYRILLIC CAPITAL LETTER SHA} is %D0%A8, not %D8."
    ),
    "foreign-page": Message(
        "This request came from a web page of another origin, or from a program that sends the "
        "header Origin as a page does, so nothing was sent to the platform. Remove the header "
        "from the program, or ask the gateway's operator for a key in callers. A page's origin "
        "belongs in login.cors_origins."
    ),
    "bundle": Message(
        "Your system may not send this Bundle through the gateway: one of its entries requests "
        "something that is not permitted, or could be read in more than one way. Nothing of it was "
        "sent to the platform. The diagnostics name the entry by its number, and what it requests. "
        "Remove the entry, or ask the gateway's operator for permission."
    ),
    "bundle-size": Message(
        "This Bundle is larger than the gateway can check for a system with limited "
        "permissions, so nothing of it was sent to the platform. Send it in smaller parts."
    ),
    "body-gone": Message(
        "The platform refused the gateway's access token and did not process this request. The "
        "gateway fetches a new token, but has not stored the whole request and cannot send it a "
        "second time. Send it again. If that fails too, the gateway's operator must ask the "
        "platform's support whether this client_id may use the platform."
    ),
    "held-off": Message(
        "Requests of this kind from your system have been failing on the platform, so the gateway "
        "has paused this kind for your system. Nothing was delivered. Send the request again after "
        "the number of seconds in the Retry-After header. The diagnostics name the kind. If this "
        "lasts longer than 15 minutes, report it to the gateway's operator."
    ),
    "queue-away": Message(
        "The gateway's queue for writes cannot be reached at the moment, so this request could not "
        "be completed. {sending} Send it again after the number of seconds in the Retry-After "
        "header. If this lasts longer than 15 minutes, report it to the gateway's operator."
    ),
    "media-type": Message(
        "The platform does not accept the type of data that this request names, and did not "
        "process it. Your system must send Content-Type: application/fhir+json, or the one for "
        "XML. If it cannot, ask the gateway's operator to set content_type for it in callers."
    ),
    "unprocessed": Message(
        "The platform, or a server in front of it, refused this request and did not process it. "
        "The diagnostics name the status. After 413, 414 or 431 the request is too large: send "
        "less data at once. After 408, 425 or 429 send it again later. Otherwise report it to the "
        "gateway's operator."
    ),
}


# What the platform got of a request that failed, by `Exchange.delivery`; the second is for reads.
_DELIVERY: Final = {
    "none": (Message("Nothing was delivered."),) * 2,
    "refused": (
        Message("The platform received an earlier attempt, refused it and saved nothing."),
        Message("The platform received an earlier attempt and refused it."),
    ),
    "unclear": (
        Message(
            "An earlier attempt was sent and got no usable response. It is not known whether the "
            "data was saved. Look for it on the platform first; send it again only if it is not "
            "there."
        ),
        Message("An earlier attempt was sent and got no usable response."),
    ),
}
_NOTHING_SENT: Final = Message("Therefore nothing was sent to the platform.")


def outcome_text(
    reason: str,
    language: str,
    *,
    write: bool = True,
    advice: str = "",
    delivery: Delivery = "none",
) -> str:
    """Return the text of a reason for the user of the calling system; in English if unavailable.

    `write`: the request may have changed data, or the gateway does not know its interaction.
    `advice` is the `advice_key` of a `GatewayError`; its text replaces that of the reason.
    `delivery` is that of the `Exchange`.
    """
    record = REASON_GUIDANCE[reason]
    message = record.text if write or record.read_text is None else record.read_text
    message = ADVICE[advice] if advice else message
    delivered = _DELIVERY[delivery][not write]
    sent = _NOTHING_SENT if delivery == "none" else delivered
    message = Message(message.msgid, delivery=delivered, sending=sent)
    return message.in_language(language if language in LANGUAGES else "en")


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
    * `advice_key`: the key of a text in `ADVICE` that says more than the reason's own.
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


class ClientKeyError(ValueError):
    """A text contains no usable client secret or key.

    The message is a predicate for the operator ("is empty"), which contains nothing of the text.
    """


class StartError(Exception):
    """The gateway could not start, or a command could not do its work.

    The text is for the operator and has one or several lines.
    """

    def __init__(self, why: Message) -> None:
        super().__init__(why)
