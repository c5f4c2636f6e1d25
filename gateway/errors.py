"""All failures that the gateway answers itself, in one table, and the exceptions of the gateway.

`REASONS` is the source of the outcomes for callers, of the metric label `reason` and of
`docs/errors.md`, which has more details. Its texts are for users of the calling system. They are
English; the translations are in the catalogue `callers`. `REMEDIES` says what operators do about a
reason among the last errors.

    Exception
     ├─ GatewayError        a response of the gateway in place of the platform's
     ├─ StartError          the gateway could not start; the text is for the operator
     └─ ValueError
         └─ ClientKeyError  a text contains no usable client secret or key
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.i18n import LANGUAGES, Message

if TYPE_CHECKING:
    from gateway.exchange import Delivery


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table: the response to a caller for one kind of failure.

    `code` is the public reason code, `status` the HTTP status. `issue_code` is from the value set
    issue-type of FHIR R5, `severity` from issue-severity.

    `text` is for the user of the calling system: what happened, whether data may have arrived, and
    what to do next. `read_text` replaces it for requests that only read, if `text` describes a
    write whose outcome is unknown: systems often show an outcome without its request. For a reason
    that may follow an earlier attempt, a text says what was delivered by `{delivery}` or, where no
    attempt could be made, `{sending}`. `remedy` is for operators.
    """

    code: str
    status: int
    issue_code: str
    text: Message
    remedy: Message
    read_text: Message | None = None
    severity: str = "error"


BAD_REQUEST: Final = Reason(
    "bad-request",
    400,
    "value",
    text=Message(
        "The gateway refused this request and did not deliver it to the platform. The "
        "address, a header or the body breaks a rule that the diagnostics name. The vendor "
        "of your system must correct it before it is sent again."
    ),
    remedy=Message("Nothing here. Pass the `diagnostics` on to the vendor of the calling system."),
)
UNKNOWN_PATH: Final = Reason(
    "unknown-path",
    404,
    "not-found",
    text=Message(
        "There is nothing at this address of the gateway, so nothing was sent to the "
        "platform. Check the base address in the settings of your system."
    ),
    remedy=Message("Compare the caller's base URL with `listen.base_path`."),
)
LOOP: Final = Reason(
    "loop",
    508,
    "processing",
    text=Message(
        "This request has already passed through this gateway once and was stopped. Nothing "
        "was delivered. The gateway's operator must make sure that the platform's address in "
        "its settings does not lead back to the gateway."
    ),
    remedy=Message("Run `dhp-gateway doctor`, then correct `platform.fhir_base_url` or its proxy."),
)
MISDIRECTED: Final = Reason(
    "misdirected",
    421,
    "not-supported",
    text=Message(
        "This request is addressed to another host, as if the gateway were its HTTP proxy, "
        "so nothing was sent to the platform. Set the gateway's own address as the base "
        "address in your system. If that other name is the gateway's, its operator enters it "
        "as listen.public_url."
    ),
    remedy=Message(
        "The caller uses the gateway as an HTTP proxy, by a name that is not known: set "
        "`listen.public_url`, or correct its base URL."
    ),
)
METHOD_NOT_ALLOWED: Final = Reason(
    "method-not-allowed",
    405,
    "not-supported",
    text=Message(
        "The gateway does not accept this HTTP method here, so nothing was sent to the "
        "platform. The vendor of your system must use one of the methods named in the Allow "
        "header."
    ),
    remedy=Message("Nothing here. The vendor of the calling system has to correct it."),
)
CALLER_UNAUTHENTICATED: Final = Reason(
    "caller-unauthenticated",
    401,
    "login",
    text=Message(
        "The gateway does not know who is calling, so nothing was sent to the platform. Set "
        "the API key or the user name and password for the gateway in your system, or sign "
        "in again in the browser. Then send the request again."
    ),
    remedy=Message("Give the caller its key, or add its network to `callers`."),
)
CALLER_UNKNOWN: Final = Reason(
    "caller-unknown",
    401,
    "unknown",
    text=Message(
        "The gateway does not accept this API key or this password, so nothing was sent to "
        "the platform. Compare it with the one that the gateway's operator issued, correct "
        "it, then send the request again."
    ),
    remedy=Message(
        "Compare the caller's key with the settings. Failures from an unknown address: look "
        "at the audit."
    ),
)
CALLER_FORBIDDEN: Final = Reason(
    "caller-forbidden",
    403,
    "forbidden",
    text=Message(
        "Your system may not make this request through the gateway, so nothing was sent to "
        "the platform. Sending it again does not help: ask the gateway's operator for the "
        "permission."
    ),
    remedy=Message(
        "Look up the audit record; extend `allow` or `networks` if the caller should have it."
    ),
)
HEADER_TIMEOUT: Final = Reason(
    "header-timeout",
    408,
    "timeout",
    text=Message(
        "The gateway waited too long for the header of this request, so nothing was sent to "
        "the platform. Check the network between your system and the gateway, then send the "
        "request again."
    ),
    remedy=Message("Check the line between the caller and the gateway."),
)
BODY_TIMEOUT: Final = Reason(
    "body-timeout",
    408,
    "timeout",
    text=Message(
        "The data of this request arrived too slowly, so the gateway stopped waiting. The "
        "platform did not receive the whole request. Check the network between your system "
        "and the gateway, then send the request again."
    ),
    remedy=Message("Check the line between the caller and the gateway."),
)
PAYLOAD_TOO_LARGE: Final = Reason(
    "payload-too-large",
    413,
    "too-long",
    text=Message(
        "This request carries more data than the gateway accepts and was not delivered in "
        "full. Send the data in smaller parts, or ask the gateway's operator to raise the "
        "limit."
    ),
    remedy=Message("Raise `limits.max_body_bytes` if the platform takes such bodies."),
)
URL_TOO_LONG: Final = Reason(
    "url-too-long",
    414,
    "too-long",
    text=Message(
        "The address of this request is too long, so nothing was sent to the platform. For a "
        "long search use POST with _search, or ask the gateway's operator to raise the limit."
    ),
    remedy=Message("Have the caller search with POST, or raise `limits.max_url_bytes`."),
)
HEADER_TOO_LARGE: Final = Reason(
    "header-too-large",
    431,
    "too-long",
    text=Message(
        "The headers of this request are too large, so nothing was sent to the platform. The "
        "vendor of your system must send smaller or fewer headers, or the gateway's operator "
        "must raise the limit."
    ),
    remedy=Message("Look for a large cookie or token that the caller need not send."),
)
RATE_LIMITED: Final = Reason(
    "rate-limited",
    429,
    "throttled",
    text=Message(
        "Your system has sent too many requests in a short time. This one was not sent to "
        "the platform. Wait for the number of seconds in the Retry-After header, then send "
        "it again."
    ),
    remedy=Message(
        "Nothing, if it is rare. Else raise the caller's `rate_limit`; where no caller is "
        "named, look in the audit for wrong keys and addresses."
    ),
)
OVERLOADED: Final = Reason(
    "overloaded",
    503,
    "throttled",
    text=Message(
        "The gateway is handling as many requests as it may at the same time. {sending} Wait "
        "for the number of seconds in the Retry-After header, then send the request again."
    ),
    remedy=Message("If the platform is fast, raise the limit or add a replica."),
)
TOKEN_REFUSED: Final = Reason(
    "token-refused",
    502,
    "security",
    text=Message(
        "The sign-in service (SSO) did not accept the gateway's client_id and client secret "
        "(or key). {sending} Sending again does not help. The gateway's operator must check "
        "the client_id and the client secret (or key) with the SSO."
    ),
    remedy=Message("Run `dhp-gateway token`; compare `client_id` and secret with those issued."),
)
SSO_UNAVAILABLE: Final = Reason(
    "sso-unavailable",
    503,
    "transient",
    text=Message(
        "The sign-in service (SSO) cannot be used at the moment. {sending} Send the request "
        "again later. If this lasts longer than 15 minutes, tell the gateway's operator."
    ),
    remedy=Message(
        "Run `dhp-gateway doctor`. If only the sign-in service fails, tell the platform's support."
    ),
)
TOKEN_REJECTED: Final = Reason(
    "token-rejected",
    502,
    "security",
    text=Message(
        "The platform refused the gateway's access token, although the token is fresh. It "
        "did not process this request. Send the request again; if it fails again, the "
        "gateway's operator must ask the platform's support whether this client_id may use "
        "the platform."
    ),
    remedy=Message(
        "Check that `sso` and `platform` are of one environment and the clock is right; then "
        "ask the platform's support."
    ),
)
UPSTREAM_UNREACHABLE: Final = Reason(
    "upstream-unreachable",
    503,
    "transient",
    text=Message(
        "The gateway could not connect to the platform. {delivery} Send the request again "
        "later; if this lasts longer than 15 minutes, tell the gateway's operator, who must "
        "check the line to the platform."
    ),
    remedy=Message("Run `dhp-gateway doctor`; check line, firewall and proxy."),
)
UPSTREAM_FAILED: Final = Reason(
    "upstream-failed",
    502,
    "incomplete",
    text=Message(
        "The connection to the platform broke before its answer was complete. It is not "
        "known whether the data was saved: find and read the record before you send it again."
    ),
    read_text=Message(
        "The connection to the platform broke before its answer was complete. This request "
        "only reads, so it can be sent again at once. If this happens often, tell the "
        "gateway's operator."
    ),
    remedy=Message(
        "If it is frequent, check time-outs of firewalls on the way and tell the platform's "
        "support."
    ),
)
UPSTREAM_BUSY: Final = Reason(
    "upstream-busy",
    503,
    "throttled",
    text=Message(
        "All connections of the gateway to the platform are in use. {delivery} Send the "
        "request again later. If this happens often, tell the gateway's operator."
    ),
    remedy=Message("If the platform is fast, raise `platform.max_connections`."),
)
UPSTREAM_TLS: Final = Reason(
    "upstream-tls",
    502,
    "security",
    text=Message(
        "A secure connection to the platform could not be made. {delivery} Sending again does "
        "not help. The gateway's operator must check the platform's certificate, the trusted "
        "certificates and the gateway's clock."
    ),
    severity="fatal",
    remedy=Message(
        "Run `dhp-gateway doctor`; behind an inspecting proxy set `platform.ca_file`. Never "
        "switch the check off."
    ),
)
UPSTREAM_TIMEOUT: Final = Reason(
    "upstream-timeout",
    504,
    "timeout",
    text=Message(
        "The platform did not answer in time. It is not known whether the data was saved: "
        "find and read the record before you send it again."
    ),
    read_text=Message(
        "The platform did not answer in time. This request only reads, so it can be sent "
        "again later. If this lasts longer than 15 minutes, tell the gateway's operator."
    ),
    remedy=Message(
        "See whether everything is slow or only some searches; tell the platform's support "
        "if it lasts."
    ),
)
UPSTREAM_REDIRECT: Final = Reason(
    "upstream-redirect",
    502,
    "processing",
    text=Message(
        "The platform sent the gateway to another address, which the gateway does not "
        "follow. Sending again does not help. The data was probably not saved: find and read "
        "the record to be sure. The gateway's operator must check the platform's address in "
        "its settings."
    ),
    read_text=Message(
        "The platform sent the gateway to another address, which the gateway does not "
        "follow. Sending again does not help. The gateway's operator must check the "
        "platform's address in its settings."
    ),
    remedy=Message(
        "Set `platform.fhir_base_url` to the documented address; look for a portal or proxy "
        "on the line."
    ),
)
# Status and issue code follow the platform's status: see `non_fhir_issue_code`.
UPSTREAM_NON_FHIR: Final = Reason(
    "upstream-non-fhir",
    502,
    "processing",
    text=Message(
        "The platform's answer is not in the FHIR format, and the gateway did not pass it "
        "on. It is not certain whether the data was saved: find and read the record before "
        "you send it again. If this lasts, tell the gateway's operator."
    ),
    read_text=Message(
        "The platform's answer is not in the FHIR format, and the gateway did not pass it "
        "on. Send the request again later. If this lasts, tell the gateway's operator."
    ),
    remedy=Message(
        "502 to 504 usually pass. Otherwise check `platform.fhir_base_url` with `dhp-gateway "
        "doctor`; look for a proxy or portal on the line."
    ),
)
CIRCUIT_OPEN: Final = Reason(
    "circuit-open",
    503,
    "transient",
    text=Message(
        "The platform has been failing, so the gateway is giving it a short pause. {delivery} "
        "Send the request again later, after the number of seconds in the Retry-After header. "
        "If this lasts longer than 15 minutes, tell the gateway's operator."
    ),
    remedy=Message(
        "Look at the other errors here: they name the cause. The gateway tries again by itself."
    ),
)
AUDIT_UNAVAILABLE: Final = Reason(
    "audit-unavailable",
    503,
    "no-store",
    text=Message(
        "The gateway cannot write its audit record, and without one it sends nothing to the "
        "platform. Tell the gateway's operator, who must check the audit storage. Send the "
        "request again after that."
    ),
    remedy=Message("Free the disk or mend the audit's server."),
)
SEARCH_PARAMETER_IGNORED: Final = Reason(
    "search-parameter-ignored",
    400,
    "not-supported",
    text=Message(
        "The platform ignored at least one search parameter, so its answer could hold "
        "records that do not belong to this search. The gateway held the answer back. The "
        "vendor of your system must use only search parameters that the platform supports."
    ),
    remedy=Message("Pass the `diagnostics` on to the vendor of the calling system."),
)
CONDITION_UNSUPPORTED: Final = Reason(
    "condition-unsupported",
    400,
    "not-supported",
    text=Message(
        "This write was to be done only under a condition, and the platform does not declare "
        "that it keeps such conditions: the record could be there twice. Nothing was sent to "
        "the platform. The vendor of your system must search first and then write without a "
        "condition."
    ),
    remedy=Message("Pass the `diagnostics` on to the vendor of the calling system."),
)
CONDITION_UNKNOWN: Final = Reason(
    "condition-unknown",
    503,
    "transient",
    text=Message(
        "This write was to be done only under a condition, and the gateway could not find out "
        "yet whether the platform keeps such conditions: the record could be there twice. "
        "Nothing was sent to the platform. Send the request again after the number of seconds "
        "in the Retry-After header. If this lasts longer than 15 minutes, tell the gateway's "
        "operator."
    ),
    remedy=Message(
        "The platform's CapabilityStatement could not be had. Run `dhp-gateway doctor`; the "
        "gateway asks again by itself."
    ),
)
OUTBOX_FULL: Final = Reason(
    "outbox-full",
    503,
    "no-store",
    text=Message(
        "The platform cannot be reached and the gateway's queue for writes is full. This "
        "write was not taken, so keep it and send it again later. Tell the gateway's "
        "operator, who must check the queue and the line to the platform."
    ),
    remedy=Message("Mend the line to the platform; raise the outbox's limits if there is space."),
)
SHUTTING_DOWN: Final = Reason(
    "shutting-down",
    503,
    "transient",
    text=Message(
        "The gateway is stopping or restarting. {sending} Send the request again in one minute."
    ),
    remedy=Message("Nothing."),
)
INTERNAL: Final = Reason(
    "internal",
    500,
    "exception",
    text=Message(
        "Something went wrong inside the gateway. It is not known whether the data was "
        "saved: find and read the record before you send it again. Give the request id to "
        "the gateway's operator."
    ),
    severity="fatal",
    read_text=Message(
        "Something went wrong inside the gateway. This request only reads, so it can be sent "
        "again at once. Give the request id to the gateway's operator."
    ),
    remedy=Message("Find the `Traceback` in the log and report it with the version."),
)

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
        "A page asked in a way that the gateway takes from no page, so nothing was sent to "
        "the platform. The page's programmer must add the header X-Requested-With, and send "
        "requests from an origin that the gateway knows."
    ),
    "surplus-slash": Message(
        "The address of this request has two slashes in a row, so nothing was sent to the "
        "platform. Does the base URL in the settings of your system end in a slash? Remove "
        "it, or ask the vendor of your system to."
    ),
    "raw-bytes": Message(
        "The address of this request holds letters, such as Cyrillic ones, as they are; "
        "nothing was sent to the platform. The vendor of your system must write them as "
        "percent-encoded UTF-8: the letter \N{CYRILLIC CAPITAL LETTER SHA} is %D0%A8."
    ),
    "not-utf-8": Message(
        "The address of this request holds letters in another encoding than UTF-8, probably "
        "windows-1251. A search would have found no patient, so nothing was sent to the "
        "platform. The vendor of your system must write them as percent-encoded UTF-8: the "
        "letter \N{CYRILLIC CAPITAL LETTER SHA} is %D0%A8, not %D8."
    ),
    "foreign-page": Message(
        "A web page of another origin asked, or a program that sends the header Origin as if "
        "it were one, so nothing was sent to the platform. The program leaves the header "
        "out, or the gateway's operator gives it a key in callers. A page's origin belongs "
        "in login.cors_origins."
    ),
    "bundle": Message(
        "Your system may not send this Bundle through the gateway: one of its entries asks for "
        "something that is not permitted, or could be read in more than one way. Nothing of it "
        "was sent to the platform. The diagnostics name the entry by its number, and what it "
        "asks for. Take it out, or ask the gateway's operator for the permission."
    ),
    "bundle-size": Message(
        "This Bundle is larger than the gateway can check for a system with limited "
        "permissions, so nothing of it was sent to the platform. Send it in smaller parts."
    ),
    "body-gone": Message(
        "The platform refused the gateway's access token and did not process this request. A "
        "new token takes its place, but the gateway had not kept all of the request to send "
        "it a second time. Send it again; if that fails, too, the gateway's operator must "
        "ask the platform's support whether this client_id may use the platform."
    ),
    "held-off": Message(
        "Requests of this kind from your system have been failing at the platform, so the gateway "
        "holds this kind back for a short while, for your system alone. Nothing was delivered. "
        "Send the request again after the number of seconds in the Retry-After header. The "
        "diagnostics name the kind. If this lasts longer than 15 minutes, tell the gateway's "
        "operator."
    ),
    "media-type": Message(
        "The platform does not accept the type of data that this request names, and did not "
        "process it. Your system must send Content-Type: application/fhir+json, or the one "
        "for XML. If it cannot, the gateway's operator sets content_type for it in callers."
    ),
}


# What the platform got of a request that failed, by `Exchange.delivery`; the second is for reads.
_DELIVERY: Final = {
    "none": (Message("Nothing was delivered."),) * 2,
    "refused": (
        Message("The platform got an earlier attempt, refused it and saved nothing."),
        Message("The platform got an earlier attempt and refused it."),
    ),
    "unclear": (
        Message(
            "An earlier attempt was sent and got no usable answer: it is not known whether the "
            "data was saved, so find and read the record before you send it again."
        ),
        Message("An earlier attempt was sent and got no usable answer."),
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
    record = REASONS[reason]
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

    `problem` is a predicate for the operator ("is empty"), which contains nothing of the text.
    """

    def __init__(self, why: Message) -> None:
        super().__init__(why)
        self.problem = why


class StartError(Exception):
    """The gateway could not start. The text is for the operator and has one or several lines."""

    def __init__(self, why: Message) -> None:
        super().__init__(why)


REMEDIES: Final = {
    **{code: reason.remedy for code, reason in REASONS.items()},
    "platform-error": Message("Nothing here. If it lasts, tell the platform's support."),
    "platform-refusal": Message(
        "404 and 422 are as a rule the caller's mistake: the answer says which. With 401 and "
        "403 run `dhp-gateway doctor`, then ask the platform's support."
    ),
}
