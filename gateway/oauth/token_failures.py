"""Explains a failed token request, or access to a shared store, in a sentence for the operator.

`TOKEN_CAUSES` has the record of each `Cause`, `OAUTH_REMEDIES` what to do about an OAuth error. The
log and the commands show the same sentence, the status page its part about the cause. A sentence
contains fixed words, settings, and in quotation marks the SSO's own description of the error
(RFC 6749 sections 4.1.2.1, 5.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.guidance import CONNECTION_CAUSES, Guidance
from gateway.i18n import Message, format_duration, join_messages
from gateway.oauth.token_endpoint import certificate_cause
from gateway.oauth.token_response import TokenRequestError

if TYPE_CHECKING:
    from gateway.config.outbound_settings import SsoSettings

UNKNOWN_CODE: Final = Message("with an error code that OAuth does not define")
# The likely sources of a response 400, 401 or 403 without an OAuth error.
NOT_THE_SSO: Final = Message("a firewall in front of it, or a wrong address")

_CHECK_TOKEN_URL: Final = Message("check sso.token_url")
_CHECK_OR_RETRY: Final = Message("check sso.token_url; if it is right, try again later")
# By the `Cause` of `gateway.oauth.token_response`. `{name}` is the name of the credential.
TOKEN_CAUSES: Final = {
    **CONNECTION_CAUSES,
    "proxy": Guidance(
        Message("the proxy refuses the connection"),
        Message(
            "check {section}.proxy_url, and ask the proxy's administrator to allow the host in "
            "{key}"
        ),
    ),
    "proxy password": Guidance(
        Message("the proxy requires a password"),
        Message(
            "the gateway sends none: ask the proxy's administrator to let this machine through "
            "without one"
        ),
    ),
    "proxy route": Guidance(
        Message("the proxy cannot reach the server"),
        Message("check the host and port in {key}, then ask the proxy's administrator"),
    ),
    "refused": Guidance(
        Message("the token request is refused"),
        Message("check credentials.{name} and sso.token_url"),
    ),
    "throttled": Guidance(Message("too many requests")),
    "redirect": Guidance(Message("it answers with a redirect"), Message("correct sso.token_url")),
    "error status": Guidance(Message("it answers with an error")),
    "no OAuth error": Guidance(
        Message(
            "it refuses without an OAuth error: a wrong client_id or secret, a firewall in front "
            "of it, or a wrong address"
        ),
        _CHECK_OR_RETRY,
    ),
    "web page": Guidance(
        Message("it answers with a web page: a firewall in front of it, or a wrong address"),
        _CHECK_OR_RETRY,
    ),
    "empty answer": Guidance(Message("its response is empty"), _CHECK_TOKEN_URL),
    "unreadable answer": Guidance(Message("its response cannot be read"), _CHECK_TOKEN_URL),
    "not HTTP": Guidance(Message("its response is not HTTP"), _CHECK_TOKEN_URL),
    "not a JSON object": Guidance(Message("its response is not a JSON object"), _CHECK_TOKEN_URL),
    "no usable access_token": Guidance(Message("there is no usable token in its response")),
    "token_type is not Bearer": Guidance(Message("its token is not of the type Bearer")),
    "token expired on arrival": Guidance(Message("its token had expired when it came")),
    "internal error": Guidance(Message("an error in the gateway, see the log")),
}
# By the error code of RFC 6749 section 5.2. Some servers respond to a wrong secret with
# unauthorized_client.
OAUTH_REMEDIES: Final = {
    "invalid_client": Message(
        "check client_id and client secret of credentials.{name}, or which public key the SSO knows"
    ),
    "invalid_scope": Message(
        "credentials.{name}.scope must be a scope that this client_id may request; null requests "
        "none, as DHP requires, but other SSOs may refuse that"
    ),
    "unauthorized_client": Message(
        "check the client secret; if it is right, ask the SSO's support whether this client_id may "
        "use client_credentials"
    ),
    "unsupported_grant_type": Message("check whether sso.token_url is the token endpoint"),
}
# Of a response 401 or 403 without an OAuth error.
_UNEXPLAINED_REFUSAL_REMEDY: Final = Message(
    "check sso.token_url, and client_id and client secret of credentials.{name}, which some SSOs "
    "refuse in this way; if all are right, try again later"
)
_CHECK_STORE: Final = Message("check store.url, and look into the log of that server")
_CHECK_TLS: Final = Message(
    "check whether store.url must begin with rediss://; if it does, set tls-auth-clients no in "
    "Redis, whose log says more"
)
# By the class of an exception. Only the names of the classes are known: their library is an extra.
STORE_CAUSES: Final = {
    "AuthenticationError": Guidance(
        Message("it does not accept the user or the password"),
        Message("correct them in store.url"),
    ),
    "NoPermissionError": Guidance(
        Message("its user may not use a command"),
        Message("give that user the rights named in docs/operations.md"),
    ),
    "MasterNotFoundError": Guidance(
        Message("no Sentinel knows a master of the service"),
        Message("check the hosts and the service in store.url, and whether the Sentinels run"),
    ),
    "TimeoutError": CONNECTION_CAUSES["time-out"],
    "gaierror": CONNECTION_CAUSES["name not found"],
    "SSLError": Guidance(CONNECTION_CAUSES["TLS"].meaning, _CHECK_TLS),
    "ConnectionRefusedError": CONNECTION_CAUSES["no connection"],
    # A reset by the server may overtake its alert that a client certificate is missing.
    "ConnectionError": Guidance(CONNECTION_CAUSES["connection broken"].meaning, _CHECK_TLS),
    "OSError": CONNECTION_CAUSES["no connection"],
    "Exception": Guidance(Message("an access to it failed")),
}
# Statuses by which a server responds at an address that is not its token endpoint.
WRONG_ENDPOINT_STATUSES: Final = frozenset({404, 405, 410})


def failure_text(error: TokenRequestError, credential: str, sso: SsoSettings) -> Message:
    """Return the sentence, without a capital letter at its start and a full stop at its end."""
    happened, remedy = cause_and_remedy(error, credential, sso)
    if not remedy:
        return happened
    pattern = "{happened}: {remedy}" if happened.endswith(")") else "{happened}; {remedy}"
    return Message(pattern, happened=happened, remedy=remedy)


def cause_and_remedy(
    error: TokenRequestError, credential: str, sso: SsoSettings
) -> tuple[Message, Message]:
    """Return what happened, and the remedy, which is empty where none is known."""
    key, url = "sso.token_url", sso.token_url
    details = reported_error(error)
    if error.cause == "time-out":
        details = [format_duration(sso.timeout)]
    elif error.cause == "name not found":
        if sso.proxy_url is not None:
            # The gateway resolves only the proxy's host name; the proxy resolves the SSO's.
            key, url = "sso.proxy_url", sso.proxy_url
        details = [Message(urlsplit(url).hostname or "")]
    values = {
        "way": Message("the SSO at {url}", url=sso.token_url),
        "cause": TOKEN_CAUSES[error.cause].meaning,
    }
    happened = (
        Message(
            "{way} gave no token: {cause} ({told})", **values, told=join_messages(", ", details)
        )
        if details
        else Message("{way} gave no token: {cause}", **values)
    )
    return with_description(happened, error.description), _remedy(error, credential, key)


def with_description(happened: Message, description: str) -> Message:
    """Return `happened`, followed by the SSO's own description of the error if there is one."""
    if not description:
        return happened
    return Message(
        "{happened}; it reports “{description}”", happened=happened, description=description
    )


def _remedy(error: TokenRequestError, credential: str, key: str) -> Message:
    """Return the remedy, empty where none is known; `key` is the setting of the address."""
    if error.retry_after and error.kind == "throttled":
        return Message("try again in {time}", time=format_duration(error.retry_after))
    remedy = TOKEN_CAUSES[error.cause].remedy
    if error.kind == "refused":
        remedy = OAUTH_REMEDIES.get(error.oauth_error or "", TOKEN_CAUSES["refused"].remedy)
    elif error.may_be_wrong_client:
        remedy = _UNEXPLAINED_REFUSAL_REMEDY
    elif error.cause == "error status" and error.status in WRONG_ENDPOINT_STATUSES:
        remedy = _CHECK_TOKEN_URL
    return Message(remedy.msgid, name=credential, key=key, section="sso")


def reported_error(error: TokenRequestError) -> list[Message]:
    """Return status and error code of the SSO's response, as far as there are any."""
    reported: list[Message] = []
    if error.status is not None:
        reported.append(Message("status {status}", status=error.status))
    if error.oauth_error is not None:
        is_known = error.oauth_error != "other"
        reported.append(Message(error.oauth_error) if is_known else UNKNOWN_CODE)
    return reported


def explain_store_error(error: Exception) -> Guidance:
    """Return what an exception of the store's library means, and what to do.

    Its text is not shown: it may contain the user, or quote a value.
    """
    # The library raises its ConnectionError while it handles an OSError.
    inner = error.__context__ if isinstance(error.__context__, OSError) else error
    guidance = (
        CONNECTION_CAUSES[certificate_cause(inner)]
        if hasattr(inner, "verify_code")
        else next(filter(None, (STORE_CAUSES.get(kind.__name__) for kind in type(inner).__mro__)))
    )
    return Guidance(
        guidance.meaning,
        Message((guidance.remedy or _CHECK_STORE).msgid, key="store.url", section="store"),
    )
