"""What each reason and cause means and what to do about it: one record each, and no other text.

A record says what has happened and what operators do. That of a reason of `gateway.errors` says
what its caller does, too. Outcomes, status page, alert messages, commands, log and `docs/errors.md`
show these texts, and the runbook links to them; none has words of its own for a cause.
`tests/test_guidance.py` finds a second text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.i18n import EMPTY_MESSAGE, Message

# When the same request may be sent again: after a correction, after the operator, at once, after
# `Retry-After`, once before the operator; reads at once or later, where a write may have arrived.
Repeat = Literal["corrected", "operator", "now", "retry-after", "once", "read-now", "read-later"]


@dataclass(frozen=True, slots=True)
class Guidance:
    """The record of a cause: what it means, and what operators do, empty if there is nothing."""

    meaning: Message
    remedy: Message = EMPTY_MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonGuidance(Guidance):
    """The record of a reason of `gateway.errors`.

    `text` is for the user of the calling system: what happened, whether data may have arrived, and
    what to do next. `read_text` replaces it for requests that only read, if `text` describes a
    write whose outcome is unknown: systems often show an outcome without its request. For a reason
    that may follow an earlier attempt, a text says what was delivered by `{delivery}` or, where no
    attempt could be made, `{sending}`.
    """

    text: Message
    repeat: Repeat
    read_text: Message | None = None


# By the code of the reason, in the order of `errors.REASONS`.
REASON_GUIDANCE: Final[dict[str, ReasonGuidance]] = {
    "bad-request": ReasonGuidance(
        meaning=Message(
            "The request is invalid, ambiguous or unsafe: for example an illegal character in a "
            "header or the URL, an empty or dot segment in the path (`//`, `..`), letters in the "
            "URL that are not percent-encoded UTF-8, TLS on a plain HTTP port."
        ),
        text=Message(
            "The gateway refused this request and did not deliver it to the platform. The address, "
            "a header or the body breaks a rule that the diagnostics name. The vendor of your "
            "system must correct it before it is sent again."
        ),
        repeat="corrected",
        remedy=Message(
            "Nothing on the gateway. Pass the rule in the diagnostics to the vendor of the calling "
            "system."
        ),
    ),
    "unknown-path": ReasonGuidance(
        meaning=Message(
            "The path begins neither with `listen.base_path` nor, with the sign-in enabled, with "
            "`/auth`."
        ),
        text=Message(
            "There is nothing at this address of the gateway, so nothing was sent to the platform. "
            "Check the base address in the settings of your system."
        ),
        repeat="corrected",
        remedy=Message(
            "Compare the caller's base URL with `listen.base_path`, which the diagnostics name. "
            "Usual causes: it is missing, is there twice (`/fhir/fhir/Patient`), or is in capitals "
            "(`/FHIR`)."
        ),
    ),
    "loop": ReasonGuidance(
        meaning=Message(
            "The request carries this gateway's own `Via`: `platform.fhir_base_url`, or a proxy "
            "behind it, leads back here."
        ),
        text=Message(
            "This request has already passed through this gateway once and was stopped. Nothing "
            "was delivered. The gateway's operator must make sure that the platform's address in "
            "its settings does not lead back to the gateway."
        ),
        repeat="operator",
        remedy=Message(
            "Run `dhp-gateway doctor`, then correct `platform.fhir_base_url` or "
            "`platform.proxy_url`."
        ),
    ),
    "misdirected": ReasonGuidance(
        meaning=Message(
            "The target is a complete URL (`GET http://HOST/fhir/…`), as programs send it to an "
            "HTTP proxy. HOST is neither the address of the connection nor the host of "
            "`listen.public_url`."
        ),
        text=Message(
            "This request is addressed to another host, as if the gateway were its HTTP proxy, so "
            "nothing was sent to the platform. Set the gateway's own address as the base address "
            "in your system. If that other name is the gateway's, ask its operator to set it as "
            "listen.public_url."
        ),
        repeat="corrected",
        remedy=Message(
            "If HOST is a name of the gateway, set `listen.public_url`. Otherwise the calling "
            "system uses the gateway as a proxy to another host: its base URL must be the "
            "gateway's."
        ),
    ),
    "method-not-allowed": ReasonGuidance(
        meaning=Message("`CONNECT`, `TRACE`, or another method that FHIR does not use."),
        text=Message(
            "The gateway does not accept this HTTP method here, so nothing was sent to the "
            "platform. The vendor of your system must use one of the methods named in the Allow "
            "header."
        ),
        repeat="corrected",
        remedy=Message(
            "Nothing on the gateway. Ask the caller's vendor to use a method from `Allow`."
        ),
    ),
    "caller-unauthenticated": ReasonGuidance(
        meaning=Message(
            "The request has no API key, password, client certificate or browser session, and the "
            "settings require one."
        ),
        text=Message(
            "The gateway does not know who is calling, so nothing was sent to the platform. Set "
            "the API key or the user name and password for the gateway in your system, or sign in "
            "again in the browser. Then send the request again."
        ),
        repeat="corrected",
        remedy=Message(
            "Give the caller its key, or add its network to `callers`. If a browser session ended, "
            "the user signs in again."
        ),
    ),
    "caller-unknown": ReasonGuidance(
        meaning=Message(
            "The API key or password belongs to no caller, for instance after a change on one side "
            "only."
        ),
        text=Message(
            "The gateway does not accept this API key or this password, so nothing was sent to the "
            "platform. Compare it with the one that the gateway's operator issued, correct it, "
            "then send the request again."
        ),
        repeat="corrected",
        remedy=Message(
            "Compare the key with the file of `api_key_file` or `password_file`; look for a "
            "trailing line break. If it comes again and again from an unknown address, look at the "
            "audit."
        ),
    ),
    "caller-forbidden": ReasonGuidance(
        meaning=Message(
            "The caller is known, but its `callers` entry does not permit its network or its "
            "request (interaction, resource type, operation, or a search parameter that leads to "
            "other types). For a Bundle the diagnostics name the first entry that is not permitted "
            "or is ambiguous. Or a web page sent a request without `X-Requested-With`, or from "
            "another origin."
        ),
        text=Message(
            "Your system may not make this request through the gateway, so nothing was sent to the "
            "platform. Sending it again does not help: ask the gateway's operator for permission."
        ),
        repeat="operator",
        remedy=Message(
            "Find the audit record by the request id; it names interaction and resource. If the "
            "caller should have access, extend `allow` or `networks`. A page of your own must send "
            "`X-Requested-With`, from an origin in `login.cors_origins`."
        ),
    ),
    "header-timeout": ReasonGuidance(
        meaning=Message(
            "The header did not arrive within `limits.header_timeout`: the network is slow or "
            "broken, or the connection is open but carries no data."
        ),
        text=Message(
            "The gateway waited too long for the header of this request, so nothing was sent to "
            "the platform. Check the network between your system and the gateway, then send the "
            "request again."
        ),
        repeat="now",
        remedy=Message(
            "Check the network between the caller and the gateway. Raise `limits.header_timeout` "
            "only if the network is known to be slow."
        ),
    ),
    "body-timeout": ReasonGuidance(
        meaning=Message("The body stopped, or stayed below `limits.min_body_rate`."),
        text=Message(
            "The data of this request arrived too slowly, so the gateway stopped waiting. The "
            "platform did not receive the whole request. Check the network between your system and "
            "the gateway, then send the request again."
        ),
        repeat="now",
        remedy=Message(
            "Check the network between the caller and the gateway. Lower `limits.min_body_rate` "
            "only if the network is known to be slow."
        ),
    ),
    "payload-too-large": ReasonGuidance(
        meaning=Message(
            "The body is larger than `limits.max_body_bytes`. Or a caller that `allow` limits sent "
            "a Bundle of requests that is larger than 16 MiB or has too many elements."
        ),
        text=Message(
            "This request carries more data than the gateway accepts and was not delivered in "
            "full. Send the data in smaller parts, or ask the gateway's operator to raise the "
            "limit."
        ),
        repeat="corrected",
        remedy=Message(
            "If the platform accepts such bodies, raise `limits.max_body_bytes`. Otherwise, and "
            "for such a Bundle, the caller must split the data."
        ),
    ),
    "url-too-long": ReasonGuidance(
        meaning=Message(
            "The URL is longer than `limits.max_url_bytes`, nearly always because of a long search."
        ),
        text=Message(
            "The address of this request is too long, so nothing was sent to the platform. For a "
            "long search use POST with _search, or ask the gateway's operator to raise the limit."
        ),
        repeat="corrected",
        remedy=Message(
            "Advise the caller's vendor to search with `POST …/_search`, or raise "
            "`limits.max_url_bytes`."
        ),
    ),
    "header-too-large": ReasonGuidance(
        meaning=Message(
            "One header field is larger than `limits.max_header_bytes`, all together are larger "
            "than four times that, or there are more than `limits.max_headers`."
        ),
        text=Message(
            "The headers of this request are too large, so nothing was sent to the platform. The "
            "vendor of your system must send smaller or fewer headers, or the gateway's operator "
            "must raise the limit."
        ),
        repeat="corrected",
        remedy=Message(
            "Look for a large cookie or token that the caller does not need to send; otherwise "
            "raise the limit."
        ),
    ),
    "rate-limited": ReasonGuidance(
        meaning=Message(
            "The caller exceeded its `rate_limit`. If audit and metrics name no caller, one "
            "address sent too many requests of unidentified systems: broken ones, unknown paths, "
            "wrong keys (`limits.unidentified_rate`)."
        ),
        text=Message(
            "Your system has sent too many requests in a short time. This one was not sent to the "
            "platform. Wait for the number of seconds in the Retry-After header, then send it "
            "again."
        ),
        repeat="retry-after",
        remedy=Message(
            "If it is rare, nothing. Otherwise raise the caller's `rate_limit`, or ask its vendor "
            "to spread the requests. Without a caller: the audit has the first requests, with "
            "address and fault; give a system with an old key the new one. Requests with a right "
            "key are not affected."
        ),
    ),
    "overloaded": ReasonGuidance(
        meaning=Message(
            "`limits.max_concurrent_requests` or the caller's `max_concurrent` is reached, often "
            "because the platform has become slow."
        ),
        text=Message(
            "The gateway is handling as many requests as it may at the same time. {sending} Wait "
            "for the number of seconds in the Retry-After header, then send the request again."
        ),
        repeat="retry-after",
        remedy=Message(
            "If the platform has become slow (`dhp_gateway_upstream_duration_seconds`), report it "
            "to its support: a higher limit would only make all callers wait longer. If one caller "
            "sends far more than usual, ask its administrator, and set a `rate_limit` or "
            "`max_concurrent` for it, which needs no restart. If the load is real, raise the limit "
            "or add a replica."
        ),
    ),
    "token-refused": ReasonGuidance(
        meaning=Message(
            "The sign-in service (SSO) does not accept the gateway's client_id or secret: it "
            "answered the token request with 400, 401 or 403 and an OAuth error. The client secret "
            "is wrong or has expired, `client_id` is of another environment, the public half of "
            "the private key is not registered, or the scope is unknown."
        ),
        text=Message(
            "The sign-in service (SSO) did not accept the gateway's client_id and client secret "
            "(or key). {sending} Sending again does not help. The gateway's operator must check "
            "the client_id and the client secret (or key) with the SSO."
        ),
        repeat="operator",
        remedy=Message(
            "Run `dhp-gateway token`, which prints the SSO's error and what to do about it. "
            "Compare `client_id` and the client secret with those that the SSO issued. With a "
            "private key, register the keys of `/.well-known/jwks.json` there with their `kid`; "
            "the clock must be right to two minutes. A corrected file is loaded within seconds; "
            "with the systemd unit as shipped, run `systemctl restart dhp-gateway` once "
            "`dhp-gateway token` prints an expiry. If all of "
            "these match, give the SSO's support the `client_id`, the time and the error code, "
            "never the secret."
        ),
    ),
    "sso-unavailable": ReasonGuidance(
        meaning=Message(
            "The SSO cannot be reached, is too slow, answers 5xx or 429, redirects, or sends "
            "something that is not a token, and no valid token is left. A 400, 401 or 403 without "
            "an OAuth error comes from a firewall in front of the SSO or from a wrong address. "
            "Some SSOs also refuse a wrong `client_id` or secret in this way."
        ),
        text=Message(
            "The sign-in service (SSO) cannot be used at the moment. {sending} Send the request "
            "again later. If this lasts longer than 15 minutes, report it to the gateway's "
            "operator."
        ),
        repeat="retry-after",
        remedy=Message(
            "Do not restart the gateway: it tries again by itself. Run `dhp-gateway doctor`, which "
            "tests name, connection, TLS and response of the SSO, and then of the platform, and "
            "says what to do. If both fail, repair the network, the firewall, DNS or "
            "`sso.proxy_url`. If only the SSO fails, give its support the time and this machine's "
            "public address."
        ),
    ),
    "token-rejected": ReasonGuidance(
        meaning=Message(
            "The platform answered 401 to a new token, or to a request whose body could not be "
            "sent again."
        ),
        text=Message(
            "The platform refused the gateway's access token, although the token is new. It did "
            "not process this request. Send the request again. If it fails again, the gateway's "
            "operator must ask the platform's support whether this client_id may use the platform."
        ),
        repeat="once",
        remedy=Message(
            "Undo recent changes of the settings. Check that `sso` and `platform` belong to the "
            "same environment (playground or production), and that the clock is right: "
            "`dhp-gateway doctor` prints the difference. Then ask the platform's support whether "
            "the `client_id` may use the FHIR API, with the time and some request ids from the "
            "audit, but never the token. The gateway tries new tokens by itself, at most every 30 "
            "s; no restart is needed."
        ),
    ),
    "upstream-unreachable": ReasonGuidance(
        meaning=Message(
            "The gateway cannot connect to the platform: its name does not resolve, the port is "
            "closed, or connecting took longer than `platform.connect_timeout`."
        ),
        text=Message(
            "The gateway could not connect to the platform. {delivery} Send the request again "
            "later. If this lasts longer than 15 minutes, report it to the gateway's operator, who "
            "must check the connection to the platform."
        ),
        repeat="retry-after",
        remedy=Message(
            "Do not restart the gateway: it tries again by itself. Run `dhp-gateway doctor`, which "
            "tests name, route and port separately. Check whether other computers on the network "
            "reach the platform, then the network, the firewall and `platform.proxy_url`. If all "
            "of these work, report it to the platform's support."
        ),
    ),
    "upstream-failed": ReasonGuidance(
        meaning=Message(
            "The connection broke after the request was sent, or the response was cut off or is "
            "not valid HTTP."
        ),
        text=Message(
            "The connection to the platform broke before its response was complete. It is not "
            "known whether the data was saved. Look for it on the platform first; send it again "
            "only if it is not there."
        ),
        read_text=Message(
            "The connection to the platform broke before its response was complete. This request "
            "only reads, so it can be sent again at once. If this happens often, report it to the "
            "gateway's operator."
        ),
        repeat="read-now",
        remedy=Message(
            "If it is frequent, compare the timeouts of firewalls and proxies on the way with "
            "`platform.idle_timeout`, and give request ids to the platform's support."
        ),
    ),
    "upstream-busy": ReasonGuidance(
        meaning=Message(
            "All `platform.max_connections` connections were in use for `platform.connect_timeout`."
        ),
        text=Message(
            "All connections of the gateway to the platform are in use. {delivery} Send the "
            "request again later. If this happens often, report it to the gateway's operator."
        ),
        repeat="retry-after",
        remedy=Message(
            "If the platform has become slow (`dhp_gateway_upstream_duration_seconds`), report it "
            "to its support. If it is fast, ask whether the platform limits connections, then "
            "raise `platform.max_connections`; each connection needs an open file on both sides."
        ),
    ),
    "upstream-tls": ReasonGuidance(
        meaning=Message(
            "There is no secure connection to the platform: its certificate has expired, is from "
            "an unknown CA or for another name; or the gateway's certificate was refused; or the "
            "clock is wrong."
        ),
        text=Message(
            "A secure connection to the platform could not be made. {delivery} Sending again does "
            "not help. The gateway's operator must check the platform's certificate, the trusted "
            "certificates and the gateway's clock."
        ),
        repeat="operator",
        remedy=Message(
            "Never switch the check off: the token and patient data would go to a stranger. Run "
            "`dhp-gateway doctor`, which names the fault and says what to do. If the platform "
            "refuses the gateway's certificate, renew `platform.client_cert_file` and its key; no "
            "restart is needed."
        ),
    ),
    "upstream-timeout": ReasonGuidance(
        meaning=Message(
            "The platform did not answer within `platform.response_timeout`, or paused longer than "
            "`platform.idle_timeout`."
        ),
        text=Message(
            "The platform did not answer in time. It is not known whether the data was saved. Look "
            "for it on the platform first; send it again only if it is not there."
        ),
        read_text=Message(
            "The platform did not answer in time. This request only reads, so it can be sent again "
            "later. If this lasts longer than 15 minutes, report it to the gateway's operator."
        ),
        repeat="read-later",
        remedy=Message(
            "The platform is overloaded, or a firewall drops packets: if it lasts, report it to "
            "the platform's support. If only some searches are slow, ask the caller's vendor to "
            "narrow them (`_count`, dates). Raise `platform.response_timeout` only if the platform "
            "is known to need longer, and leave it below the callers' own timeout."
        ),
    ),
    "upstream-redirect": ReasonGuidance(
        meaning=Message(
            "The platform, or a proxy before it, answered with a redirect outside its base "
            "address. Following it could send the token to a stranger."
        ),
        text=Message(
            "The platform sent the gateway to another address, which the gateway does not follow. "
            "Sending again does not help. The data was probably not saved: look for it on the "
            "platform to be sure. The gateway's operator must check the platform's address in its "
            "settings."
        ),
        read_text=Message(
            "The platform sent the gateway to another address, which the gateway does not follow. "
            "Sending again does not help. The gateway's operator must check the platform's address "
            "in its settings."
        ),
        repeat="operator",
        remedy=Message(
            "Set `platform.fhir_base_url` to the address in the platform's documentation. Other "
            "usual causes are a sign-in page of the network provider and an expired sign-in to a "
            "proxy."
        ),
    ),
    "upstream-non-fhir": ReasonGuidance(
        meaning=Message(
            "The response is not FHIR: an HTML or empty error page, a sign-in page with status "
            "200, or a success without FHIR where a resource was requested. Something before the "
            "FHIR server answered, or the server itself is broken."
        ),
        text=Message(
            "The platform's response is not in the FHIR format, and the gateway did not pass it "
            "on. It is not known whether the data was saved. Look for it on the platform first; "
            "send it again only if it is not there. If this lasts, report it to the gateway's "
            "operator."
        ),
        read_text=Message(
            "The platform's response is not in the FHIR format, and the gateway did not pass it "
            "on. Send the request again later. If this lasts, report it to the gateway's operator."
        ),
        repeat="read-later",
        remedy=Message(
            "Undo recent changes of the settings. Run `dhp-gateway doctor`, which shows the "
            "response. 502 to 504 (`platform-status` in the diagnostics) come from the platform's "
            "own proxy and usually pass. For 200, 403 or 404 compare `platform.fhir_base_url` with "
            "the platform's documentation, to the last segment, and look for a sign-in page of the "
            "network provider or an expired sign-in to a proxy. If address and network are right, "
            "report it to the platform's support."
        ),
    ),
    "circuit-open": ReasonGuidance(
        meaning=Message(
            "The platform is failing (`circuit_breaker`), so the gateway has paused requests to it "
            "and soon asks the platform itself. Or requests of one kind of this caller alone "
            "failed: the diagnostics name the kind (`held-off`)."
        ),
        text=Message(
            "The platform is failing, so the gateway has paused requests to it. {delivery} Send "
            "the request again after the number of seconds in the Retry-After header. If this "
            "lasts longer than 15 minutes, report it to the gateway's operator."
        ),
        repeat="retry-after",
        remedy=Message(
            "Do not restart the gateway: the pause ends by itself. Find the reasons that came "
            "before, on `/status` or in the log line `circuit opened` or `held off`, and follow "
            "those. If only one kind of request fails, report it to the platform's support."
        ),
    ),
    "audit-unavailable": ReasonGuidance(
        meaning=Message(
            "The audit cannot be written, so requests are refused (`audit.on_failure` is `block`): "
            "a full disk, missing rights, an unreachable syslog server or repository."
        ),
        text=Message(
            "The gateway cannot write its audit record, and without one it sends nothing to the "
            "platform. Report it to the gateway's operator, who must check the audit storage. Send "
            "the request again after that."
        ),
        repeat="operator",
        remedy=Message(
            "Do not restart the gateway: the records of accepted requests wait in memory and would "
            "be lost. The log names the error. If the disk is full, remove what does not belong "
            "there, or move rotated files (`audit.jsonl.2…`) to another disk. Do not delete them, "
            "and do not touch "
            "`audit.jsonl` and `.audit.jsonl.chain`. If the audit server is down, restore it. If "
            "rights are missing or the file system is read-only, correct that. Service resumes "
            "within a second; then run `dhp-gateway audit verify`. `audit.on_failure: drop` lets "
            "requests through without a record, but only after a restart; leave that decision to "
            "those responsible for data protection."
        ),
    ),
    "search-parameter-ignored": ReasonGuidance(
        meaning=Message(
            "`fhir.search_guard` is `block`, and the platform ignored a parameter that selects "
            "resources. Without the guard the caller would have received more resources than it "
            "searched for."
        ),
        text=Message(
            "The platform ignored at least one search parameter, so its response could contain "
            "data that does not belong to this search. The gateway did not pass the response on. "
            "The vendor of your system must use only search parameters that the platform supports."
        ),
        repeat="corrected",
        remedy=Message(
            "Pass the names in the diagnostics to the caller's vendor. The platform's `metadata` "
            "lists the parameters that it supports."
        ),
    ),
    "condition-unsupported": ReasonGuidance(
        meaning=Message(
            "`fhir.condition_guard` is `block`, and the platform's CapabilityStatement does not "
            "declare conditional writes of that type (`If-None-Exist`, a query instead of an id, "
            "`ifNoneExist` in a Bundle). The platform would ignore the condition and create the "
            "resource again. The national platform declares none for any type."
        ),
        text=Message(
            "This write depends on a condition, and the platform does not declare support for "
            "conditional writes, so the record could be created twice. Nothing was sent to the "
            "platform. The vendor of your system must search first and then write without a "
            "condition."
        ),
        repeat="corrected",
        remedy=Message(
            "Pass the names in the diagnostics to the caller's vendor: search by identifier, then "
            "create, or update by id with `If-Match`. With `fhir.condition_guard: warn` such "
            "writes are sent, with a warning header."
        ),
    ),
    "condition-unknown": ReasonGuidance(
        meaning=Message(
            "A conditional create, update or delete came before the gateway could read the "
            "platform's CapabilityStatement, which declares whether the platform supports such "
            "conditions. With `fhir.condition_guard: block` nothing is sent; a write that may be "
            "queued is queued."
        ),
        text=Message(
            "This write depends on a condition, and the gateway could not find out yet whether the "
            "platform supports conditional writes, so the record could be created twice. Nothing "
            "was sent to the platform. Send the request again after the number of seconds in the "
            "Retry-After header. If this lasts longer than 15 minutes, report it to the gateway's "
            "operator."
        ),
        repeat="retry-after",
        remedy=Message(
            "If it lasts for seconds after a start or an outage, nothing. Otherwise run "
            "`dhp-gateway doctor`: `GET metadata` fails for all credentials."
        ),
    ),
    "outbox-full": ReasonGuidance(
        meaning=Message(
            "After a long outage of the platform, the outbox has reached `outbox.max_entries` or "
            "`outbox.max_bytes`, or the caller its share of them (`outbox.max_share`). The caller "
            "gets the same reason while the outbox cannot be opened or reached (`outbox-away`)."
        ),
        text=Message(
            "The platform cannot be reached and the gateway's queue for writes is full. This write "
            "was not accepted: store it in your system and send it again later. Report it to the "
            "gateway's operator, who must check the queue and the connection to the platform."
        ),
        repeat="retry-after",
        remedy=Message(
            "Restore the connection to the platform first: waiting writes are then delivered by "
            "themselves. Decide about `failed` and `unclear` entries (`dhp-gateway outbox list`), "
            "which take up space. If there is disk space, raise the limits and restart the "
            "gateway; entries survive that."
        ),
    ),
    "shutting-down": ReasonGuidance(
        meaning=Message("The gateway is being stopped or restarted."),
        text=Message(
            "The gateway is stopping or restarting. {sending} Send the request again in one minute."
        ),
        repeat="now",
        remedy=Message(
            "If that was intended, nothing. Otherwise start the gateway again. With several "
            "replicas, remove this one from the load balancer before it stops."
        ),
    ),
    "internal": ReasonGuidance(
        meaning=Message("A bug in the gateway."),
        text=Message(
            "Something went wrong inside the gateway. It is not known whether the data was saved. "
            "Look for it on the platform first; send it again only if it is not there. Give the "
            "request id to the gateway's operator."
        ),
        read_text=Message(
            "Something went wrong inside the gateway. This request only reads, so it can be sent "
            "again at once. Give the request id to the gateway's operator."
        ),
        repeat="read-now",
        remedy=Message(
            "Find the traceback in the log by the request id and report it with the version "
            "(`dhp_gateway_build_info`)."
        ),
    ),
}

_PLATFORM_FAILS: Final = Guidance(
    Message("The platform itself answers with errors (5xx)."),
    Message(
        "Nothing on the gateway. If it lasts, give the platform's support the time and some "
        "request ids; `dhp-gateway doctor` shows whether the network is the cause."
    ),
)
# By the reason of a component of `gateway.health.health`, and by what is counted beside the reasons
# of the gateway. `{credential}` is the name of a credential.
COMPONENT_GUIDANCE: Final[dict[str, Guidance]] = {
    **REASON_GUIDANCE,
    "platform-not-fhir": REASON_GUIDANCE["upstream-non-fhir"],
    "platform-timeout": REASON_GUIDANCE["upstream-timeout"],
    "platform-unreachable": REASON_GUIDANCE["upstream-unreachable"],
    "platform-tls": REASON_GUIDANCE["upstream-tls"],
    "platform-fails": _PLATFORM_FAILS,
    "platform-error": _PLATFORM_FAILS,
    "platform-refuses": Guidance(
        Message(
            "The platform refuses the gateway (credential `{credential}`): it answers 401 to a new "
            "token, or 403."
        ),
        REASON_GUIDANCE["token-rejected"].remedy,
    ),
    "platform-refusal": Guidance(
        Message("The platform itself refused the request, and its response was passed on."),
        Message(
            "404 and 422 are as a rule the caller's mistake: the response says which. With 401 and "
            "403 run `dhp-gateway doctor`, then ask the platform's support."
        ),
    ),
    "fine": Guidance(Message("Requests reach the platform. Nothing has to be done.")),
    "untried": Guidance(
        Message(
            "The gateway is ready, but no request has gone to the platform yet. The first one, or "
            "the gateway's own check, will show whether the platform answers."
        )
    ),
    "token-awaited": Guidance(Message("The first token is being requested. Wait a few seconds.")),
    "renewal-fails": Guidance(
        Message("The token is still valid but could not be renewed."),
        Message(
            "Do not restart the gateway: it would lose the token. Act before the token expires: "
            "run `dhp-gateway doctor`."
        ),
    ),
    "secret-refused": Guidance(
        Message(
            "The sign-in service does not accept the first secret in the file, but accepts another "
            "one."
        ),
        Message(
            "Put the right one on the first line, unless the secret is being changed just now."
        ),
    ),
    "many-errors": Guidance(
        Message("Half of the last requests or more failed."),
        Message("The last errors on `/status` say what to do."),
    ),
    "many-refusals": Guidance(
        Message("The platform refuses nearly all of the last requests, although it answers."),
        Message(
            "The last errors on `/status` say what to do; `dhp-gateway doctor` asks the platform "
            "as the gateway does."
        ),
    ),
    "outbox-away": Guidance(
        Message(
            "Requests reach the platform, but the outbox cannot be reached: writes cannot be "
            "queued, and those that wait are not delivered."
        ),
        Message(
            "Do not restart the gateway: it tries again every few seconds. The log names the "
            "cause. Free or mount the disk of the outbox, or start its database."
        ),
    ),
    "outbox-standstill": Guidance(
        Message("Requests reach the platform, but no queued write has been delivered for a while."),
        Message(
            "`dhp-gateway outbox list` or the log shows the cause. If the disk is full, free "
            "space. If another program has locked the database, end that program. If one write "
            "fails again and again, give the platform's support its time and request id, or drop "
            "it. Deliveries then continue by themselves. If neither shows a cause, restart the "
            "gateway and report the bug."
        ),
    ),
    "outbox-person": Guidance(
        Message(
            "Queued writes need an operator's decision, and block later writes about the same "
            "patients."
        ),
        Message("Run `dhp-gateway outbox list`, or open `/outbox`, which says what to do."),
    ),
}

# The platform's state in a few words.
PLATFORM_CAUSES: Final = {
    "untried": Message("not tried yet"),
    "many-errors": Message("many errors"),
    "many-refusals": Message("refuses nearly all"),
    "platform-refuses": Message("refuses the gateway"),
    "platform-not-fhir": Message("no FHIR server"),
    "platform-fails": Message("answers with errors"),
    "platform-timeout": Message("does not answer in time"),
    "platform-unreachable": Message("cannot be reached"),
    "platform-tls": Message("no secure connection"),
    "answers": Message("answers"),
}

# Why there is no connection to a server, or no usable response. `{key}` is the setting with the
# host, `{section}` its section. Remedies begin without a capital letter.
CONNECTION_CAUSES: Final = {
    "time-out": Guidance(Message("no response in time")),
    "name not found": Guidance(
        Message("its host name cannot be found"),
        Message(
            "check the spelling in {key} and this machine's name servers (/etc/resolv.conf); "
            "without internet ask the network's administrator"
        ),
    ),
    "no connection": Guidance(
        Message("no connection"),
        Message(
            "nothing listens there, or a firewall blocks it: check host and port in {key}, and ask "
            "the network's administrator to open them"
        ),
    ),
    "connection broken": Guidance(Message("the connection broke")),
    "certificate": Guidance(
        Message("its certificate is not trusted"),
        Message(
            "if you have your own CA, or a proxy inspects TLS, put its certificate into a PEM file "
            "and set {section}.ca_file; otherwise the connection may be intercepted"
        ),
    ),
    "certificate name": Guidance(
        Message("its certificate is for another host"),
        Message("correct the host in {key}; never switch the check off"),
    ),
    "certificate time": Guidance(
        Message("its certificate is not valid at this time"),
        Message(
            "check this machine's clock first; if it is right, the server's operator must renew "
            "the certificate"
        ),
    ),
    "no TLS": Guidance(
        Message("there is no TLS on this port"), Message("check port and https:// in {key}")
    ),
    "TLS": Guidance(Message("the TLS connection failed")),
}
