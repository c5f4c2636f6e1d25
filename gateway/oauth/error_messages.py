"""Explains a failed token request in a sentence for the operator.

The log and `dhp-gateway token` show the same sentence. It contains fixed words, settings, and in
quotation marks the SSO's own description of the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.duration import format_duration
from gateway.oauth.token_response import TokenRequestError
from gateway.phrases import EMPTY_PHRASE, Phrase, join_phrases

UNKNOWN_CODE: Final = Phrase("with an error code that is not OAuth's")
# The likely sources of a response 400, 401 or 403 without an OAuth error.
NOT_THE_SSO: Final = Phrase("a firewall in front, or a wrong address")

_REFUSALS: Final[dict[str, Phrase]] = {
    "invalid_client": (
        Phrase(
            "check client_id and client secret of credentials.{name}, or which "
            "public key the SSO knows"
        )
    ),
    "invalid_scope": Phrase("set credentials.{name}.scope to null, or to a scope you were given"),
    "unauthorized_client": (
        Phrase(
            "check the secret; or the client may not use client_credentials: ask the SSO's operator"
        )
    ),
    "unsupported_grant_type": Phrase("is sso.token_url the token endpoint?"),
}
_ADDRESS: Final = Phrase("check sso.token_url")
# By cause: what happened, and the remedy.
_CAUSES: Final[dict[str, tuple[Phrase, Phrase]]] = {
    "time-out": (Phrase("{url} did not answer within {timeout:g} s"), EMPTY_PHRASE),
    "name not found": (
        Phrase("the host name {host} of {key} cannot be resolved"),
        Phrase("check its spelling"),
    ),
    "no connection": (
        Phrase("no connection to {url}: nothing listens there, or a firewall is between"),
        EMPTY_PHRASE,
    ),
    "certificate": (
        Phrase("the certificate of {url} is not trusted"),
        Phrase("its CA goes into sso.ca_file"),
    ),
    "certificate name": (
        Phrase("the certificate of {url} belongs to another host name"),
        Phrase("correct sso.token_url, never work around this"),
    ),
    "certificate time": (
        Phrase("the certificate of {url} is not valid at this time"),
        Phrase("check this machine's clock first"),
    ),
    "no TLS": (
        Phrase("{url} does not speak TLS"),
        Phrase("check port and https:// in sso.token_url"),
    ),
    "TLS": (Phrase("no secure connection to {url}: TLS failed"), EMPTY_PHRASE),
    "proxy": (Phrase("the proxy in sso.proxy_url gave no connection to {url}"), EMPTY_PHRASE),
    "connection broken": (
        Phrase("the connection to {url} broke before the answer was complete"),
        EMPTY_PHRASE,
    ),
    "not HTTP": (Phrase("{url} answered something that is not HTTP"), _ADDRESS),
    "redirect": (
        Phrase("{url} answered with a redirect, which is never followed"),
        Phrase("correct sso.token_url"),
    ),
}
# Statuses by which a server responds at an address that is not its token endpoint.
_WRONG_ENDPOINT_STATUSES: Final = frozenset({404, 405, 410})
_INVALID_RESPONSE_CAUSES: Final = frozenset(
    {"unreadable answer", "not a JSON object", "empty answer"}
)
_RETRY_HINT: Final = Phrase(
    "{not_the_sso}; check sso.token_url, and if it is right try again later",
    not_the_sso=NOT_THE_SSO,
)


@dataclass(frozen=True, slots=True)
class SsoRoute:
    """How the SSO is reached.

    `url` is the token endpoint, `timeout` the time limit of a request in seconds, `proxy_url` the
    URL of the proxy in between, None without one.
    """

    url: str = ""
    timeout: float = 10.0
    proxy_url: str | None = None

    @property
    def destination(self) -> Phrase:
        """The SSO with its URL, as a part of a sentence."""
        return Phrase("the SSO at {url}", url=self.url) if self.url else Phrase("the SSO")


def failure_text(error: TokenRequestError, credential: str, sso: SsoRoute) -> Phrase:
    """Return the sentence, without a capital letter at its start and a full stop at its end."""
    happened, remedy = cause_and_remedy(error, credential, sso)
    if not remedy:
        return happened
    pattern = "{happened}: {remedy}" if happened.endswith(")") else "{happened}; {remedy}"
    return Phrase(pattern, happened=happened, remedy=remedy)


def cause_and_remedy(
    error: TokenRequestError, credential: str, sso: SsoRoute
) -> tuple[Phrase, Phrase]:
    """Return what happened, and the remedy, which is empty where none is known."""
    happened, remedy = _causes(error, credential, sso)
    return with_description(happened, error.description), remedy


def with_description(happened: Phrase, description: str) -> Phrase:
    """Return `happened`, followed by the SSO's own description of the error if there is one."""
    if not description:
        return happened
    return Phrase("{happened}; it says “{description}”", happened=happened, description=description)


def _causes(error: TokenRequestError, credential: str, sso: SsoRoute) -> tuple[Phrase, Phrase]:
    if error.kind == "refused":
        hint = _REFUSALS.get(
            error.oauth_error or "", Phrase("check credentials.{name} and sso.token_url")
        )
        hint = Phrase(hint.sentence, name=credential)
        return Phrase("the SSO refused ({told})", told=_reported_error(error)), hint
    if error.kind == "throttled":
        wait = (
            Phrase("try again in {time}", time=format_duration(error.retry_after))
            if error.retry_after
            else EMPTY_PHRASE
        )
        return Phrase("the SSO has had too many requests"), wait
    known, remedy = _CAUSES.get(error.cause, (EMPTY_PHRASE, EMPTY_PHRASE))
    if known:
        # With a proxy, the gateway resolves only the proxy's host name; the proxy resolves the
        # SSO's.
        key, named = (
            ("sso.token_url", sso.url)
            if sso.proxy_url is None
            else ("sso.proxy_url", sso.proxy_url)
        )
        host = urlsplit(named).hostname or Phrase("the SSO's")
        values = {"url": sso.destination, "timeout": sso.timeout, "host": host, "key": key}
        return Phrase(known.sentence, **values), remedy
    if error.cause in ("no OAuth error", "web page"):
        what = (
            Phrase("a web page")
            if error.cause == "web page"
            else Phrase("an answer that is not OAuth's")
        )
        status = (
            EMPTY_PHRASE
            if error.status is None
            else Phrase("{space}(status {status})", space=" ", status=error.status)
        )
        return Phrase(
            "{way} gave no token but {what}{status}", way=sso.destination, what=what, status=status
        ), _RETRY_HINT
    if error.cause != "error status":
        remedy = _ADDRESS if error.cause in _INVALID_RESPONSE_CAUSES else EMPTY_PHRASE
        return Phrase(
            "{way} gave no token: {cause}", way=sso.destination, cause=Phrase(error.cause)
        ), remedy
    return Phrase(
        "{way} gave no token ({told})", way=sso.destination, told=_reported_error(error)
    ), _ADDRESS if error.status in _WRONG_ENDPOINT_STATUSES else EMPTY_PHRASE


def _reported_error(error: TokenRequestError) -> Phrase:
    """Return status and error code of the SSO's response, else the cause."""
    parts: list[Phrase] = (
        [] if error.status is None else [Phrase("status {status}", status=error.status)]
    )
    if error.oauth_error is not None:
        parts.append(UNKNOWN_CODE if error.oauth_error == "other" else Phrase(error.oauth_error))
    return join_phrases(", ", parts) if parts else Phrase(error.cause)
