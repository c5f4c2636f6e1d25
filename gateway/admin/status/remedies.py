"""Texts in three languages that say what operators do about a reason among the last errors.

`gateway.fhir.texts` has the texts for users of the calling system; docs/errors.md has more details.
"""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message, in_all_languages

REMEDY_MESSAGES: Final = {
    "bad-request": Message(
        "Nothing here. Pass the `diagnostics` on to the vendor of the calling system."
    ),
    "unknown-path": Message("Compare the caller's base URL with `listen.base_path`."),
    "loop": Message(
        "Run `dhp-gateway doctor`, then correct `platform.fhir_base_url` or its proxy."
    ),
    "misdirected": Message(
        "The caller uses the gateway as an HTTP proxy, by a name that is not known: set "
        "`listen.public_url`, or correct its base URL."
    ),
    "method-not-allowed": Message(
        "Nothing here. The vendor of the calling system has to correct it."
    ),
    "caller-unauthenticated": Message("Give the caller its key, or add its network to `callers`."),
    "caller-unknown": Message(
        "Compare the caller's key with the settings. Failures from an unknown address: look "
        "at the audit."
    ),
    "caller-forbidden": Message(
        "Look up the audit record; extend `allow` or `networks` if the caller should have it."
    ),
    "header-timeout": Message("Check the line between the caller and the gateway."),
    "body-timeout": Message("Check the line between the caller and the gateway."),
    "payload-too-large": Message(
        "Raise `limits.max_body_bytes` if the platform takes such bodies."
    ),
    "url-too-long": Message("Have the caller search with POST, or raise `limits.max_url_bytes`."),
    "header-too-large": Message("Look for a large cookie or token that the caller need not send."),
    "rate-limited": Message(
        "Nothing, if it is rare. Else raise the caller's `rate_limit`; where no caller is "
        "named, look in the audit for wrong keys and addresses."
    ),
    "overloaded": Message("If the platform is fast, raise the limit or add a worker."),
    "token-refused": Message(
        "Run `dhp-gateway token`; compare `client_id` and secret with those issued."
    ),
    "sso-unavailable": Message(
        "Run `dhp-gateway doctor`. If only the sign-in service fails, tell the platform's support."
    ),
    "token-rejected": Message(
        "Check that `sso` and `platform` are of one environment and the clock is right; then "
        "ask the platform's support."
    ),
    "upstream-unreachable": Message("Run `dhp-gateway doctor`; check line, firewall and proxy."),
    "upstream-failed": Message(
        "If it is frequent, check time-outs of firewalls on the way and tell the platform's "
        "support."
    ),
    "upstream-busy": Message("If the platform is fast, raise `platform.max_connections`."),
    "upstream-tls": Message(
        "Run `dhp-gateway doctor`; behind an inspecting proxy set `platform.ca_file`. Never "
        "switch the check off."
    ),
    "upstream-timeout": Message(
        "See whether everything is slow or only some searches; tell the platform's support "
        "if it lasts."
    ),
    "upstream-redirect": Message(
        "Set `platform.fhir_base_url` to the documented address; look for a portal or proxy "
        "on the line."
    ),
    "upstream-non-fhir": Message(
        "502 to 504 usually pass. Otherwise check `platform.fhir_base_url` with `dhp-gateway "
        "doctor`; look for a proxy or portal on the line."
    ),
    "circuit-open": Message(
        "Look at the other errors here: they name the cause. The gateway tries again by itself."
    ),
    "audit-unavailable": Message("Free the disk or mend the audit's server."),
    "search-parameter-ignored": Message(
        "Pass the `diagnostics` on to the vendor of the calling system."
    ),
    "condition-unsupported": Message(
        "Pass the `diagnostics` on to the vendor of the calling system."
    ),
    "outbox-full": Message(
        "Mend the line to the platform; raise the outbox's limits if there is space."
    ),
    "shutting-down": Message("Nothing."),
    "internal": Message("Find the `Traceback` in the log and report it with the version."),
    "platform-error": Message("Nothing here. If it lasts, tell the platform's support."),
    "platform-refusal": Message(
        "404 and 422 are as a rule the caller's mistake: the answer says which. With 401 and "
        "403 run `dhp-gateway doctor`, then ask the platform's support."
    ),
}

REMEDIES: Final = in_all_languages(REMEDY_MESSAGES)
