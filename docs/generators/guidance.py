"""When to retry, the cause and the remedy of each reason, for the documentation and support."""

from __future__ import annotations

from typing import Final, NamedTuple


class Guidance(NamedTuple):
    """Texts for operators, in English and Markdown; `gateway.errors` has those for callers."""

    repeat: str
    cause: str
    remedy: str


GUIDANCE: Final[dict[str, Guidance]] = {
    "bad-request": Guidance(
        "Correct it first",
        (
            "The request is invalid, ambiguous or unsafe: for example an illegal character in a "
            "header or the URL, an empty or dot segment in the path (`//`, `..`), letters in the "
            "URL that are not percent-encoded UTF-8, TLS on a plain HTTP port."
        ),
        (
            "Nothing on the gateway. Pass the rule in the diagnostics to the vendor of the "
            "calling system."
        ),
    ),
    "unknown-path": Guidance(
        "Correct it first",
        (
            "The path begins neither with `listen.base_path` nor, with the sign-in enabled, with "
            "`/auth`."
        ),
        (
            "Compare the caller's base URL with `listen.base_path`, which the diagnostics name. "
            "Usual causes: it is missing, is there twice (`/fhir/fhir/Patient`), or is in "
            "capitals (`/FHIR`)."
        ),
    ),
    "loop": Guidance(
        "Operator first",
        (
            "The request carries this gateway's own `Via`: `platform.fhir_base_url`, or a proxy "
            "behind it, leads back here."
        ),
        "Run `dhp-gateway doctor`, then correct `platform.fhir_base_url` or `platform.proxy_url`.",
    ),
    "misdirected": Guidance(
        "Correct it first",
        (
            "The target is a whole URL (`GET http://HOST/fhir/…`), as programs send it to an HTTP"
            " proxy, and HOST is neither the address of the connection nor the host of "
            "`listen.public_url`."
        ),
        (
            "If HOST is a name of the gateway, set `listen.public_url`. Otherwise the calling "
            "system uses the gateway as a proxy to another host: its base URL must be the "
            "gateway's."
        ),
    ),
    "method-not-allowed": Guidance(
        "Correct it first",
        "`CONNECT`, `TRACE`, or another method that FHIR does not use.",
        "Nothing on the gateway. The caller's vendor uses a method from `Allow`.",
    ),
    "caller-unauthenticated": Guidance(
        "Correct it first",
        (
            "The request has no API key, password, client certificate or browser session, and the"
            " settings require one."
        ),
        (
            "Give the caller its key, or add its network to `callers`. If a browser session "
            "ended, the user signs in again."
        ),
    ),
    "caller-unknown": Guidance(
        "Correct it first",
        (
            "The API key or password belongs to no caller, for instance after a change on one "
            "side only."
        ),
        (
            "Compare the key with the file of `api_key_file` or `password_file`; look for a "
            "trailing line break. If it is repeated from an unknown address, look at the audit."
        ),
    ),
    "caller-forbidden": Guidance(
        "Operator first",
        (
            "The caller is known, but its `callers` entry does not include its network or its "
            "request (interaction, resource type, operation, or a search parameter that leads to "
            "other types). For a Bundle the diagnostics name the first entry that is not included, "
            "or cannot be read in one way only. Or a page in a browser sent a request without "
            "`X-Requested-With`, or from a foreign origin."
        ),
        (
            "Find the audit record by the request id; it names interaction and resource. Extend "
            "`allow` or `networks` if the caller should have access. A page of your own must send"
            " `X-Requested-With`, from an origin in `login.cors_origins`."
        ),
    ),
    "header-timeout": Guidance(
        "Right away",
        (
            "The header did not arrive within `limits.header_timeout`: the network is slow or "
            "broken, or the connection only seems to be in use."
        ),
        (
            "Check the network between the caller and the gateway. Raise `limits.header_timeout` "
            "only if it is known to be slow."
        ),
    ),
    "body-timeout": Guidance(
        "Right away",
        "The body stopped, or stayed below `limits.min_body_rate`.",
        (
            "Check the network between the caller and the gateway. Lower `limits.min_body_rate` "
            "only if it is known to be slow."
        ),
    ),
    "payload-too-large": Guidance(
        "Correct it first",
        (
            "The body is larger than `limits.max_body_bytes`; or it is a Bundle of requests, of a "
            "caller that `allow` limits, and larger than 16 MiB or made of too many elements."
        ),
        (
            "Raise `limits.max_body_bytes` if the platform accepts such bodies; otherwise, and for "
            "such a Bundle, the caller must split the data."
        ),
    ),
    "url-too-long": Guidance(
        "Correct it first",
        "The URL is longer than `limits.max_url_bytes`, nearly always because of a long search.",
        "Advise the caller to search with `POST …/_search`, or raise `limits.max_url_bytes`.",
    ),
    "header-too-large": Guidance(
        "Correct it first",
        (
            "One header field is larger than `limits.max_header_bytes`, all together are larger "
            "than four times that, or there are more than `limits.max_headers`."
        ),
        (
            "Look for a large cookie or token that the caller does not need to send; otherwise "
            "raise the limit."
        ),
    ),
    "rate-limited": Guidance(
        "After `Retry-After`",
        (
            "The caller exceeded its `rate_limit`. Or, if audit and metrics name no caller, its "
            "address sent too many requests that belong to no caller: broken ones, unknown paths,"
            " wrong keys (`limits.unidentified_rate`)."
        ),
        (
            "Nothing, if it is rare. Otherwise raise the caller's `rate_limit`, or ask its vendor"
            " to spread the requests. Without a caller: the audit has the first requests, with "
            "address and fault; give a system with an old key the new one. Requests with a right "
            "key pass meanwhile."
        ),
    ),
    "overloaded": Guidance(
        "After `Retry-After`",
        (
            "`limits.max_concurrent_requests` or the caller's `max_concurrent` is reached, often "
            "because the platform has become slow."
        ),
        (
            "If the platform has become slow (`dhp_gateway_upstream_duration_seconds`), tell its "
            "support: a higher limit would only make all callers wait longer. If one caller sends"
            " far more than usual, ask its administrator, and give it a `rate_limit` or "
            "`max_concurrent` of its own, which needs no restart. If the load is real, raise the "
            "limit or add a replica."
        ),
    ),
    "token-refused": Guidance(
        "Operator first",
        (
            "The SSO answered the token request with 400, 401 or 403 and an OAuth error: a wrong "
            "or expired client secret, a `client_id` of another environment, a private key whose "
            "public half is not registered, an unknown scope."
        ),
        (
            "Run `dhp-gateway token`, which prints the SSO's error. `invalid_client`: compare "
            "`client_id` and the client secret with those that the SSO issued, or register the "
            "keys of `/.well-known/jwks.json` there with their `kid`; for a key, the clock must "
            "be right to two minutes. `unauthorized_client`: the SSO does not allow the client "
            "this way to get a token. `invalid_scope`: leave `scope` empty unless it was "
            "assigned. A corrected file is loaded within seconds; with the systemd unit as "
            "shipped, run `systemctl restart dhp-gateway`. If nothing helps, give the SSO's "
            "support the `client_id`, the time and the error code, never the secret."
        ),
    ),
    "sso-unavailable": Guidance(
        "After `Retry-After`",
        (
            "The SSO cannot be reached, is too slow, answers 5xx or 429, redirects, or sends "
            "something that is not a token, and no valid token is left. A 400, 401 or 403 without"
            " an OAuth error comes from a firewall in front of the SSO, or the address is wrong, "
            "or the SSO refuses a wrong `client_id` or secret like this."
        ),
        (
            "Run `dhp-gateway doctor`, which tests name, connection, TLS and response of the SSO,"
            " and then of the platform. If both fail, repair the network, the firewall, DNS or "
            "`sso.proxy_url`. If TLS fails, the SSO's certificate has expired, or `sso.ca_file` "
            "lacks the CA of an inspecting proxy. After 401 or 403, compare `client_id` and secret "
            "with those that were issued. If only the SSO fails, tell its support the "
            "time and this machine's public address. The gateway continues by itself as soon as "
            "the SSO answers."
        ),
    ),
    "token-rejected": Guidance(
        "Once, then operator",
        (
            "The platform answered 401 to a new token, or to a request whose body could not be "
            "sent again."
        ),
        (
            "Undo recent changes of the settings. Check that `sso` and `platform` belong to the "
            "same environment (playground or production), and that the clock is right: "
            "`dhp-gateway doctor` prints the difference. Then ask the platform's support whether "
            "the `client_id` may use the FHIR API, with the time and some request ids from the "
            "audit, but never the token. The gateway tries new tokens by itself, at most every 30"
            " s; no restart is needed."
        ),
    ),
    "upstream-unreachable": Guidance(
        "After `Retry-After`",
        (
            "No connection: the name does not resolve, the port is closed, or connecting took "
            "longer than `platform.connect_timeout`."
        ),
        (
            "Run `dhp-gateway doctor`, which tests name, route and port separately. Check whether"
            " other machines on the network reach the platform, then the network, the firewall "
            "and `platform.proxy_url`. If all of these work, tell the platform's support. The "
            "gateway continues by itself."
        ),
    ),
    "upstream-failed": Guidance(
        "Reads right away; writes after reading",
        (
            "The connection broke after the request was sent, or the response was cut off or is "
            "not valid HTTP."
        ),
        (
            "If it is frequent, compare the timeouts of firewalls and proxies with "
            "`platform.idle_timeout`, and report request ids to the platform's support."
        ),
    ),
    "upstream-busy": Guidance(
        "After `Retry-After`",
        "All `platform.max_connections` connections were in use for `platform.connect_timeout`.",
        (
            "If the platform has become slow (`dhp_gateway_upstream_duration_seconds`), tell its "
            "support. If it is fast, raise `platform.max_connections`, after asking whether the "
            "platform limits connections; each takes an open file on both sides."
        ),
    ),
    "upstream-tls": Guidance(
        "Operator first",
        (
            "The platform's certificate has expired, is from an unknown authority or for another "
            "name; or the client certificate was refused; or the clock is wrong."
        ),
        (
            "Run `dhp-gateway doctor`, which names the fault. A certificate that is expired or "
            "for another name: the platform's support must act. An unknown authority: put the CA "
            "of an inspecting proxy, or the platform's new CA from a source that you trust, into "
            "`platform.ca_file`. A refused client certificate: renew `platform.client_cert_file` "
            "and its key; no restart is needed. A wrong clock: repair the time synchronisation. "
            "Never switch the check off: the token and patient data would go to a stranger."
        ),
    ),
    "upstream-timeout": Guidance(
        "Reads later; writes after reading",
        (
            "The platform did not answer within `platform.response_timeout`, or paused longer "
            "than `platform.idle_timeout`."
        ),
        (
            "The platform is overloaded, or a firewall drops packets. If only some searches are "
            "slow, their vendor should narrow them (`_count`, dates). Raise "
            "`platform.response_timeout` only if the platform is known to need longer, and keep "
            "it below the callers' own timeout."
        ),
    ),
    "upstream-redirect": Guidance(
        "Operator first",
        (
            "The platform, or a proxy before it, answered with a redirect outside its base "
            "address. Following it could send the token to a stranger."
        ),
        (
            "Set `platform.fhir_base_url` to the address in the platform's documentation. Other "
            "usual causes are a captive portal and an expired proxy sign-in."
        ),
    ),
    "upstream-non-fhir": Guidance(
        "Reads later; writes after reading",
        (
            "An HTML or empty error page, a sign-in page with status 200, or a success without "
            "FHIR where a resource was requested. Something before the FHIR server answered, or "
            "the server itself is broken."
        ),
        (
            "See `platform-status` in the diagnostics. 502 to 504 come from the platform's own "
            "proxy and usually pass. For 200, 403 or 404 compare `platform.fhir_base_url` with "
            "the platform's documentation, to the last segment, and look for a portal of the "
            "network provider or an expired proxy sign-in. If address and network are right, tell"
            " the platform's support."
        ),
    ),
    "circuit-open": Guidance(
        "After `Retry-After`",
        (
            "Too many of the last requests to the platform failed (`circuit_breaker`), and the "
            "platform fails: the gateway pauses, then asks the platform itself. Or requests of one "
            "kind of this caller alone failed: the diagnostics name the kind (`held-off`)."
        ),
        (
            "Look at the reasons that came before, in `dhp_gateway_requests_total` or in the log "
            "line `circuit opened` or `held off`, and follow those. Both end by themselves. If "
            "only one kind of request fails, tell the platform's support which."
        ),
    ),
    "audit-unavailable": Guidance(
        "Operator first",
        (
            "An audit record cannot be written and `audit.on_failure` is `block`: a full disk, "
            "missing rights, an unreachable syslog server or repository."
        ),
        (
            "Do not restart the gateway: the records of accepted requests wait in memory and "
            "would be lost. The log names the system's error. A full disk: move rotated files "
            "(`audit.jsonl.2…`) to another disk; do not delete them, and do not touch "
            "`audit.jsonl` and `.audit.jsonl.chain`. A server that is down: restore it. Missing "
            "rights or a read-only file system: correct them. Service resumes within a second; "
            "then run `dhp-gateway audit verify`. `audit.on_failure: drop` lets requests through "
            "without a record, after a restart; that decision belongs to those responsible for "
            "data protection."
        ),
    ),
    "search-parameter-ignored": Guidance(
        "Correct it first",
        (
            "`fhir.search_guard` is `block`, and the platform ignored a parameter that selects "
            "resources. Without the guard the caller would have taken too many records for its "
            "result."
        ),
        (
            "Pass the names in the diagnostics to the caller's vendor. The platform's `metadata` "
            "lists the parameters that it supports."
        ),
    ),
    "condition-unsupported": Guidance(
        "Correct it first",
        (
            "`fhir.condition_guard` is `block`, and the platform's CapabilityStatement does not "
            "declare conditional writes of that type (`If-None-Exist`, a query instead of an id, "
            "`ifNoneExist` in a Bundle). The platform would ignore the condition and create the "
            "resource again. The national platform declares none for any type."
        ),
        (
            "Pass the names in the diagnostics to the caller's vendor: search by identifier, then"
            " create, or update by id with `If-Match`. With `fhir.condition_guard: warn` such "
            "writes are sent, with a warning header."
        ),
    ),
    "condition-unknown": Guidance(
        "After `Retry-After`",
        (
            "A conditional create, update or delete came before the platform's "
            "CapabilityStatement could be had, which says whether the platform keeps such "
            "conditions. With `fhir.condition_guard: block` nothing is sent; a write that may be "
            "queued is queued."
        ),
        (
            "Nothing, if it lasts for seconds after a start or an outage. Else run `dhp-gateway "
            "doctor`: `GET metadata` fails for all credentials."
        ),
    ),
    "outbox-full": Guidance(
        "After `Retry-After`",
        (
            "The outbox has reached `outbox.max_entries` or `outbox.max_bytes`, or the caller its"
            " share of them (`outbox.max_share`), after a long outage of the platform. The caller"
            " gets the same reason while the outbox cannot be opened or reached."
        ),
        (
            "Restore the connection to the platform first: waiting writes are then delivered by "
            "themselves. Decide about `failed` and `unclear` entries (`dhp-gateway outbox list`),"
            " which take up space. If there is disk space, raise the limits and restart the "
            "gateway; entries survive that. If the log says that the outbox cannot be reached, "
            "free or mount its disk, or start its database; the gateway tries again every few "
            "seconds."
        ),
    ),
    "shutting-down": Guidance(
        "Right away",
        "The gateway is being stopped or restarted.",
        "Nothing. With several replicas, remove this one from the load balancer before it stops.",
    ),
    "internal": Guidance(
        "Reads right away; writes after reading",
        "A bug in the gateway.",
        (
            "Find the traceback in the log by the request id and report it with the version "
            "(`dhp_gateway_build_info`)."
        ),
    ),
}
