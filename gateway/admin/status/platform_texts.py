"""Texts of the status page about the platform; those with `care:` say what to do.

The other keys are the reasons of `gateway.admin.judgement`, as the platform's card shows them.
`{credential}` is replaced by the name of a credential.
"""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message

PLATFORM_MESSAGES: Final = {
    "care:untried": Message(
        "The gateway is ready, but nothing has been asked of the platform yet: the first "
        "request, or the gateway's own question, will show whether it answers."
    ),
    "care:platform-refuses": Message(
        "The platform refuses this client (credential `{credential}`). Run `dhp-gateway "
        "doctor`; ask the platform's support whether this client may use it, and check that "
        "`sso` and `platform` are of one environment."
    ),
    "care:platform-not-fhir": Message(
        "What answers at the platform's address is no FHIR server. Check the setting "
        "`platform.fhir_base_url` with `dhp-gateway doctor`; a portal or proxy on the line "
        "can be the cause, too."
    ),
    "care:platform-fails": Message(
        "The platform answers with errors. Tell its support; `dhp-gateway doctor` shows "
        "whether it is the line."
    ),
    "care:platform-timeout": Message(
        "The platform does not answer in time. Check the line with `dhp-gateway doctor`; if "
        "that is well, tell the platform's support."
    ),
    "care:platform-unreachable": Message(
        "The platform cannot be reached. Check line, firewall and proxy with `dhp-gateway "
        "doctor`; the gateway goes on trying by itself."
    ),
    "care:platform-tls": Message(
        "There is no secure connection to the platform. Run `dhp-gateway doctor`: it names "
        "the certificate that is not accepted."
    ),
    "care:many-refusals": Message(
        "The platform refuses nearly all of the last requests, although it answers. See the "
        "errors below; `dhp-gateway doctor` asks it as this client."
    ),
    "untried": Message("not tried yet"),
    "circuit-open": Message("left alone"),
    "circuit-half-open": Message("being tried"),
    "many-errors": Message("many errors"),
    "many-refusals": Message("refuses nearly all"),
    "platform-refuses": Message("refuses this client"),
    "platform-not-fhir": Message("no FHIR server"),
    "platform-fails": Message("answers with errors"),
    "platform-timeout": Message("does not answer in time"),
    "platform-unreachable": Message("cannot be reached"),
    "platform-tls": Message("no secure connection"),
    "answers": Message("answers"),
    "since": Message("Since {at}"),
    "asked_itself": Message("The gateway itself asked"),
    "refusals": Message("Refused"),
    "missing_alias": Message(
        "Its links lead to `{alias}`, past the gateway, where callers are refused: add that "
        "to `rewrite.aliases`."
    ),
}
