"""The text of each reason for callers, in English."""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, str]] = {
    "bad-request": (
        "The gateway refused this request and did not deliver it to the platform. The address, "
        "a header or the body breaks a rule that the diagnostics name. The vendor of your "
        "system must correct it before it is sent again."
    ),
    "unknown-path": (
        "There is nothing at this address of the gateway, so nothing was sent to the platform. "
        "Check the base address in the settings of your system."
    ),
    "loop": (
        "This request has already passed through this gateway once and was stopped. Nothing was "
        "delivered. The gateway's operator must make sure that the platform's address in its "
        "settings does not lead back to the gateway."
    ),
    "misdirected": (
        "This request is addressed to another host, as if the gateway were its HTTP proxy, so "
        "nothing was sent to the platform. Set the gateway's own address as the base address in "
        "your system. If that other name is the gateway's, its operator enters it as "
        "listen.public_url."
    ),
    "method-not-allowed": (
        "The gateway does not accept this HTTP method here, so nothing was sent to the "
        "platform. The vendor of your system must use one of the methods named in the Allow "
        "header."
    ),
    "caller-unauthenticated": (
        "The gateway does not know who is calling, so nothing was sent to the platform. Set the "
        "API key or the user name and password for the gateway in your system, or sign in again "
        "in the browser. Then send the request again."
    ),
    "caller-unknown": (
        "The gateway does not accept this API key or this password, so nothing was sent to the "
        "platform. Compare it with the one that the gateway's operator issued, correct it, then "
        "send the request again."
    ),
    "caller-forbidden": (
        "Your system may not make this request through the gateway, so nothing was sent to the "
        "platform. Sending it again does not help: ask the gateway's operator for the "
        "permission."
    ),
    "header-timeout": (
        "The gateway waited too long for the header of this request, so nothing was sent to the "
        "platform. Check the network between your system and the gateway, then send the request "
        "again."
    ),
    "body-timeout": (
        "The data of this request arrived too slowly, so the gateway stopped waiting. The "
        "platform did not receive the whole request. Check the network between your system and "
        "the gateway, then send the request again."
    ),
    "payload-too-large": (
        "This request carries more data than the gateway accepts and was not delivered in full. "
        "Send the data in smaller parts, or ask the gateway's operator to raise the limit."
    ),
    "url-too-long": (
        "The address of this request is too long, so nothing was sent to the platform. For a "
        "long search use POST with _search, or ask the gateway's operator to raise the limit."
    ),
    "header-too-large": (
        "The headers of this request are too large, so nothing was sent to the platform. The "
        "vendor of your system must send smaller or fewer headers, or the gateway's operator "
        "must raise the limit."
    ),
    "rate-limited": (
        "Your system has sent too many requests in a short time. This one was not sent to the "
        "platform. Wait for the number of seconds in the Retry-After header, then send it "
        "again."
    ),
    "overloaded": (
        "The gateway is handling as many requests as it may at the same time. This one was not "
        "sent to the platform. Wait for the number of seconds in the Retry-After header, then "
        "send it again."
    ),
    "token-refused": (
        "The sign-in service (SSO) did not accept the gateway's client_id and client secret (or "
        "key), so nothing was sent to the platform. Sending again does not help. The gateway's "
        "operator must check the client_id and the client secret (or key) with the SSO."
    ),
    "sso-unavailable": (
        "The sign-in service (SSO) cannot be used at the moment, so nothing was sent to the "
        "platform. Send the request again later. If this lasts longer than 15 minutes, tell the "
        "gateway's operator."
    ),
    "token-rejected": (
        "The platform refused the gateway's access token, although the token is fresh. It did "
        "not process this request. Send the request again; if it fails again, the gateway's "
        "operator must ask the platform's support whether this client_id may use the platform."
    ),
    "upstream-unreachable": (
        "The gateway could not connect to the platform. Nothing was delivered. Send the request "
        "again later; if this lasts longer than 15 minutes, tell the gateway's operator, who "
        "must check the line to the platform."
    ),
    "upstream-failed": (
        "The connection to the platform broke before its answer was complete. It is not known "
        "whether the data was saved: find and read the record before you send it again."
    ),
    "upstream-busy": (
        "All connections of the gateway to the platform are in use. Nothing was delivered. Send "
        "the request again later. If this happens often, tell the gateway's operator."
    ),
    "upstream-tls": (
        "A secure connection to the platform could not be made, so nothing was delivered. "
        "Sending again does not help. The gateway's operator must check the platform's "
        "certificate, the trusted certificates and the gateway's clock."
    ),
    "upstream-timeout": (
        "The platform did not answer in time. It is not known whether the data was saved: find "
        "and read the record before you send it again."
    ),
    "upstream-redirect": (
        "The platform sent the gateway to another address, which the gateway does not follow. "
        "Sending again does not help. The data was probably not saved: find and read the record "
        "to be sure. The gateway's operator must check the platform's address in its settings."
    ),
    "upstream-non-fhir": (
        "The platform's answer is not in the FHIR format, and the gateway did not pass it on. "
        "It is not certain whether the data was saved: find and read the record before you send "
        "it again. If this lasts, tell the gateway's operator."
    ),
    "circuit-open": (
        "The platform has been failing, so the gateway is giving it a short pause. Nothing was "
        "delivered. Send the request again later, after the number of seconds in the "
        "Retry-After header. If this lasts longer than 15 minutes, tell the gateway's operator."
    ),
    "audit-unavailable": (
        "The gateway cannot write its audit record, and without one it sends nothing to the "
        "platform. Tell the gateway's operator, who must check the audit storage. Send the "
        "request again after that."
    ),
    "search-parameter-ignored": (
        "The platform ignored at least one search parameter, so its answer could hold records "
        "that do not belong to this search. The gateway held the answer back. The vendor of "
        "your system must use only search parameters that the platform supports."
    ),
    "condition-unsupported": (
        "This write was to be done only under a condition, and the platform does not declare that "
        "it keeps such conditions: the record could be there twice. Nothing was sent to the "
        "platform. The vendor of your system must search first and then write without a condition."
    ),
    "outbox-full": (
        "The platform cannot be reached and the gateway's queue for writes is full. This write "
        "was not taken, so keep it and send it again later. Tell the gateway's operator, who "
        "must check the queue and the line to the platform."
    ),
    "shutting-down": (
        "The gateway is stopping or restarting and did not send this request to the platform. "
        "Send it again in one minute."
    ),
    "internal": (
        "Something went wrong inside the gateway. It is not known whether the data was saved: "
        "find and read the record before you send it again. Give the request id to the "
        "gateway's operator."
    ),
}

# For requests that only read, where `TEXTS` describes a write whose outcome is unknown.
READS: Final[dict[str, str]] = {
    "upstream-failed": (
        "The connection to the platform broke before its answer was complete. This request only "
        "reads, so it can be sent again at once. If this happens often, tell the gateway's "
        "operator."
    ),
    "upstream-timeout": (
        "The platform did not answer in time. This request only reads, so it can be sent again "
        "later. If this lasts longer than 15 minutes, tell the gateway's operator."
    ),
    "upstream-redirect": (
        "The platform sent the gateway to another address, which the gateway does not follow. "
        "Sending again does not help. The gateway's operator must check the platform's address "
        "in its settings."
    ),
    "upstream-non-fhir": (
        "The platform's answer is not in the FHIR format, and the gateway did not pass it on. "
        "Send the request again later. If this lasts, tell the gateway's operator."
    ),
    "internal": (
        "Something went wrong inside the gateway. This request only reads, so it can be sent "
        "again at once. Give the request id to the gateway's operator."
    ),
}

# By `GatewayError.advice_key`.
ADVICE: Final[dict[str, str]] = {
    "page": (
        "A page asked in a way that the gateway takes from no page, so nothing was sent to the "
        "platform. The page's programmer must add the header X-Requested-With, and send requests "
        "from an origin that the gateway knows."
    ),
    "surplus-slash": (
        "The address of this request has two slashes in a row, so nothing was sent to the "
        "platform. Does the base URL in the settings of your system end in "
        "a slash? Remove it, or ask the vendor of your system to."
    ),
    "raw-bytes": (
        "The address of this request holds letters, such as Cyrillic ones, as they are; nothing "
        "was sent to the platform. The vendor of your system must write them as percent-encoded "
        "UTF-8: the letter Ш is %D0%A8."
    ),
    "not-utf-8": (
        "The address of this request holds letters in another encoding than UTF-8, probably "
        "windows-1251. A search would have found nobody, so nothing was sent to the platform. The "
        "vendor of your system must write them as percent-encoded UTF-8: the letter Ш is %D0%A8, "
        "not %D8."
    ),
    "foreign-page": (
        "A web page of another origin asked, or a program that sends the header Origin as if it "
        "were one, so nothing was sent to the platform. The program leaves the header out, or the "
        "gateway's operator gives it a key in callers. A page's origin belongs in "
        "login.cors_origins."
    ),
    "body-gone": (
        "The platform refused the gateway's access token and did not process this request. A new "
        "token takes its place, but the gateway had not kept all of the request to send it a "
        "second time. Send it again; if that fails, too, the gateway's operator must ask the "
        "platform's support whether this client_id may use the platform."
    ),
    "media-type": (
        "The platform does not accept the type of data that this request names, and did not "
        "process it. Your system must send Content-Type: application/fhir+json, or the one for "
        "XML. If it cannot, the gateway's operator sets content_type for it in callers."
    ),
}
