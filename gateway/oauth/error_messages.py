"""Why there is no token, in a sentence for the person who runs the gateway.

The same sentence stands in the log and on the terminal of `dhp-gateway token`. It holds fixed words
and settings only, never text of the SSO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.duration import in_words
from gateway.oauth.token_response import TokenRequestError

UNKNOWN_CODE: Final = "with an error code that is not OAuth's"
# Who answers 400, 401 or 403 without an OAuth error.
NOT_THE_SSO: Final = "a firewall in front, or a wrong address"

_REFUSALS: Final = {
    "invalid_client": (
        "check client_id and client secret of credentials.{name}, or which public key the SSO knows"
    ),
    "invalid_scope": "set credentials.{name}.scope to null, or to a scope you were given",
    "unauthorized_client": (
        "check the secret; or the client may not use client_credentials: ask the SSO's operator"
    ),
    "unsupported_grant_type": "is sso.token_url the token endpoint?",
}
_ADDRESS: Final = "check sso.token_url"
# What happened, and what to do about it.
_CAUSES: Final = {
    "time-out": ("{url} did not answer within {timeout:g} s", ""),
    "name not found": ("the host name {host} of {key} cannot be resolved", "check its spelling"),
    "no connection": (
        "no connection to {url}: nothing listens there, or a firewall is between",
        "",
    ),
    "certificate": ("the certificate of {url} is not trusted", "its CA goes into sso.ca_file"),
    "certificate name": (
        "the certificate of {url} belongs to another host name",
        "correct sso.token_url, never work around this",
    ),
    "certificate time": (
        "the certificate of {url} is not valid at this time",
        "check this machine's clock first",
    ),
    "no TLS": ("{url} does not speak TLS", "check port and https:// in sso.token_url"),
    "TLS": ("no secure connection to {url}: TLS failed", ""),
    "proxy": ("the proxy in sso.proxy_url gave no connection to {url}", ""),
    "connection broken": ("the connection to {url} broke before the answer was complete", ""),
    "not HTTP": ("{url} answered something that is not HTTP", _ADDRESS),
    "redirect": (
        "{url} answered with a redirect, which is never followed",
        "correct sso.token_url",
    ),
}
# What a server says of an address that is not its token endpoint.
_ELSEWHERE: Final = frozenset({404, 405, 410})
_NOT_OURS: Final = frozenset({"unreadable answer", "not a JSON object", "empty answer"})
_PASSES: Final = f"{NOT_THE_SSO}; check sso.token_url, and if it is right try again later"


@dataclass(frozen=True, slots=True)
class Way:
    """How the SSO is reached: its `url`, what it has to answer in (seconds), the proxy's URL."""

    url: str = ""
    timeout: float = 10.0
    proxy_url: str | None = None

    def __str__(self) -> str:
        return f"the SSO at {self.url}" if self.url else "the SSO"


def explain(error: TokenRequestError, credential: str, way: Way) -> str:
    """The sentence, without a capital and a final stop."""
    happened, remedy = causes(error, credential, way)
    if not remedy:
        return happened
    return f"{happened}{':' if happened.endswith(')') else ';'} {remedy}"


def causes(error: TokenRequestError, credential: str, way: Way) -> tuple[str, str]:
    """What happened, and what to do; the latter is empty where there is nothing more to say."""
    if error.kind == "refused":
        hint = _REFUSALS.get(error.oauth_error or "", "check credentials.{name} and sso.token_url")
        return f"the SSO refused ({_told(error)})", hint.format(name=credential)
    if error.kind == "throttled":
        wait = f"try again in {in_words(error.retry_after)}" if error.retry_after else ""
        return "the SSO has had too many requests", wait
    known, remedy = _CAUSES.get(error.cause, ("", ""))
    if known:
        # Behind a proxy ours is the only name that is looked up here.
        key, named = (
            ("sso.token_url", way.url)
            if way.proxy_url is None
            else ("sso.proxy_url", way.proxy_url)
        )
        host = urlsplit(named).hostname or "the SSO's"
        return known.format(url=way, timeout=way.timeout, host=host, key=key), remedy
    if error.cause in ("no OAuth error", "web page"):
        what = "a web page" if error.cause == "web page" else "an answer that is not OAuth's"
        status = "" if error.status is None else f" (status {error.status})"
        return f"{way} gave no token but {what}{status}", _PASSES
    if error.cause != "error status":
        remedy = _ADDRESS if error.cause in _NOT_OURS else ""
        return f"{way} gave no token: {error.cause}", remedy
    return f"{way} gave no token ({_told(error)})", _ADDRESS if error.status in _ELSEWHERE else ""


def _told(error: TokenRequestError) -> str:
    """Status and error code of the SSO."""
    told = [] if error.status is None else [f"status {error.status}"]
    if error.oauth_error is not None:
        told.append(UNKNOWN_CODE if error.oauth_error == "other" else error.oauth_error)
    return ", ".join(told) or error.cause
