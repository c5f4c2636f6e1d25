"""What a state of the gateway means and what people on duty do about it, as messages.

The status page and the alerts show them. Keys with `care:` say what to do about a service status,
keys with `cause:` why a credential has no token, one for each `Cause`. The other keys are the
reasons of `gateway.health.health` and the answers of the status page. `{credential}` is replaced by
the name of a credential.
"""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message

_TOKEN_CAUSE_MESSAGES: Final = {
    "refused": Message("our client is refused"),
    "throttled": Message("too many requests"),
    "redirect": Message("it answers with a redirect"),
    "error status": Message("it answers with an error"),
    "no OAuth error": Message(
        "it refuses without an OAuth error: a firewall in front, or a wrong address"
    ),
    "web page": Message("it answers with a web page: a firewall in front, or a wrong address"),
    "empty answer": Message("its answer is empty"),
    "unreadable answer": Message("its answer cannot be read"),
    "not HTTP": Message("its answer is not HTTP"),
    "not a JSON object": Message("its answer is no JSON object"),
    "no usable access_token": Message("there is no usable token in its answer"),
    "token_type is not Bearer": Message("its token is not of the type Bearer"),
    "token expired on arrival": Message("its token had expired when it came"),
    "time-out": Message("no answer in time"),
    "name not found": Message("its host name cannot be found"),
    "no connection": Message("no connection"),
    "connection broken": Message("the connection broke"),
    "proxy": Message("the proxy gives no connection"),
    "certificate": Message("its certificate is not trusted"),
    "certificate name": Message("its certificate is for another host"),
    "certificate time": Message("its certificate is not valid at this time"),
    "no TLS": Message("it does not speak TLS"),
    "TLS": Message("the TLS connection failed"),
    "internal error": Message("an error in the gateway, see the log"),
}


_PLATFORM_MESSAGES: Final = {
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
}


_OWN_MESSAGES: Final = {
    "question": Message("Can care go on?"),
    "answer:yes": Message("Yes"),
    "answer:untried": Message("Not tried yet"),
    "answer:degraded": Message("With limits"),
    "answer:no": Message("No"),
    "care:fine": Message("Requests reach the platform. Nothing has to be done."),
    "care:shutting-down": Message(
        "The gateway is stopping. Start it again if that was not intended."
    ),
    "care:audit-unavailable": Message(
        "The audit cannot be written, so requests are refused. Check the disk or the audit's "
        "server."
    ),
    "care:token-refused": Message(
        "The sign-in service refuses our client. Run `dhp-gateway token` and compare "
        "`client_id` and secret with those that were issued."
    ),
    "care:token-awaited": Message("The first token is on its way. Wait a few seconds."),
    "care:sso-unavailable": Message(
        "The sign-in service gives no token. Check the network with `dhp-gateway doctor`; "
        "the gateway goes on asking by itself."
    ),
    "care:circuit-open": Message(
        "The platform fails and is left alone for a moment. Check the network with "
        "`dhp-gateway doctor`; the gateway tries again by itself."
    ),
    "care:circuit-half-open": Message(
        "The platform failed and is being tried again. Wait a moment."
    ),
    "care:renewal-fails": Message(
        "The token is still valid but could not be renewed. Act before it expires: run "
        "`dhp-gateway doctor`."
    ),
    "care:secret-refused": Message(
        "The sign-in service does not take the first secret in the file; another one serves. "
        "Unless an exchange is under way, put the right one there."
    ),
    "care:outbox-away": Message(
        "Requests reach the platform, but the outbox cannot be reached: writes cannot be "
        "queued, and those that wait are not delivered."
    ),
    "care:outbox-person": Message(
        "Requests reach the platform, but queued writes wait for a person's decision. Run "
        "`dhp-gateway outbox list`."
    ),
    "care:many-errors": Message("Half of the last requests or more failed. See the errors below."),
    "platform-error": Message("The platform itself answered with an error, which was passed on."),
    "platform-refusal": Message(
        "The platform itself refused the request, and its answer was passed on."
    ),
}

STATUS_MESSAGES: Final = {
    **_OWN_MESSAGES,
    **_PLATFORM_MESSAGES,
    **{f"cause:{cause}": text for cause, text in _TOKEN_CAUSE_MESSAGES.items()},
}
