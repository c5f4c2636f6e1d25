"""What a reason of `gateway.health.health` means, and what operators do about it, as messages.

The status page, alert messages and commands show the same text for the same cause. `ADVICE` says
what to do about the reason of a component, `PLATFORM_CAUSES` in a few words why the platform is in
its state, `TOKEN_CAUSES` why a credential has no token, one for each `Cause`, and `PASSED_ON` what
an error of the platform means that a caller received.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.health.health import Component, ComponentState

CARE_QUESTION: Final = Message("Can care go on?")
# The answer in `/status.json`, and its word.
CARE_ANSWERS: Final[dict[ComponentState, str]] = {
    "ok": "yes",
    "untried": "untried",
    "degraded": "degraded",
    "failed": "no",
}
ANSWER_WORDS: Final = {
    "yes": Message("Yes"),
    "untried": Message("Not tried yet"),
    "degraded": Message("With limits"),
    "no": Message("No"),
}

# `{credential}` is replaced by the name of a credential.
ADVICE: Final = {
    "fine": Message("Requests reach the platform. Nothing has to be done."),
    "untried": Message(
        "The gateway is ready, but nothing has been asked of the platform yet: the first "
        "request, or the gateway's own question, will show whether it answers."
    ),
    "shutting-down": Message("The gateway is stopping. Start it again if that was not intended."),
    "audit-unavailable": Message(
        "The audit cannot be written, so requests are refused. Check the disk or the audit's "
        "server."
    ),
    "token-refused": Message(
        "The sign-in service refuses our client. Run `dhp-gateway token` and compare "
        "`client_id` and secret with those that were issued."
    ),
    "token-awaited": Message("The first token is on its way. Wait a few seconds."),
    "sso-unavailable": Message(
        "The sign-in service gives no token. Check the network with `dhp-gateway doctor`; "
        "the gateway goes on asking by itself."
    ),
    "renewal-fails": Message(
        "The token is still valid but could not be renewed. Act before it expires: run "
        "`dhp-gateway doctor`."
    ),
    "secret-refused": Message(
        "The sign-in service does not take the first secret in the file; another one serves. "
        "Unless an exchange is under way, put the right one there."
    ),
    "many-errors": Message("Half of the last requests or more failed. See the errors below."),
    "many-refusals": Message(
        "The platform refuses nearly all of the last requests, although it answers. See the "
        "errors below; `dhp-gateway doctor` asks it as this client."
    ),
    "platform-refuses": Message(
        "The platform refuses this client (credential `{credential}`). Run `dhp-gateway "
        "doctor`; ask the platform's support whether this client may use it, and check that "
        "`sso` and `platform` are of one environment."
    ),
    "platform-not-fhir": Message(
        "What answers at the platform's address is no FHIR server. Check the setting "
        "`platform.fhir_base_url` with `dhp-gateway doctor`; a portal or proxy on the line "
        "can be the cause, too."
    ),
    "platform-fails": Message(
        "The platform answers with errors. Tell its support; `dhp-gateway doctor` shows "
        "whether it is the line."
    ),
    "platform-timeout": Message(
        "The platform does not answer in time. Check the line with `dhp-gateway doctor`; if "
        "that is well, tell the platform's support."
    ),
    "platform-unreachable": Message(
        "The platform cannot be reached. Check line, firewall and proxy with `dhp-gateway "
        "doctor`; the gateway goes on trying by itself."
    ),
    "platform-tls": Message(
        "There is no secure connection to the platform. Run `dhp-gateway doctor`: it names "
        "the certificate that is not accepted."
    ),
    "outbox-away": Message(
        "Requests reach the platform, but the outbox cannot be reached: writes cannot be "
        "queued, and those that wait are not delivered."
    ),
    "outbox-standstill": Message(
        "Requests reach the platform, but no queued write has been delivered for a while. "
        "`dhp-gateway outbox list` shows why, or the log: a full disk or a database that "
        "another program has locked. Mend that; deliveries then go on by themselves."
    ),
    "outbox-person": Message(
        "Requests reach the platform, but queued writes wait for a person's decision. Run "
        "`dhp-gateway outbox list`."
    ),
}


def advice(component: Component, language: str) -> str:
    """Return what operators do about the reason of a component."""
    text = ADVICE[component.reason].in_language(language)
    return text.replace("{credential}", component.about)


PLATFORM_CAUSES: Final = {
    "untried": Message("not tried yet"),
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

TOKEN_CAUSES: Final = {
    "refused": Message("our client is refused"),
    "throttled": Message("too many requests"),
    "redirect": Message("it answers with a redirect"),
    "error status": Message("it answers with an error"),
    "no OAuth error": Message(
        "it refuses without an OAuth error: a wrong client_id or secret, a firewall in front, or a "
        "wrong address"
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

# By what `gateway.health.recent_requests` counts beside the gateway's own reasons.
PASSED_ON: Final = {
    "platform-error": Message("The platform itself answered with an error, which was passed on."),
    "platform-refusal": Message(
        "The platform itself refused the request, and its answer was passed on."
    ),
}
