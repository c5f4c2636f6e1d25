"""Why there is no token, in a sentence for the person who runs the gateway.

The same sentence stands in the log and on the terminal of `dhp-gateway token`. It holds fixed words
and settings only, never text of the SSO.
"""

from __future__ import annotations

from typing import Final

from gateway.oauth.token_response import TokenRequestError

UNKNOWN_CODE: Final = "with an error code that is not OAuth's"

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
_CAUSES: Final = {
    "time-out": "{url} did not answer within {timeout:g} s",
    "name not found": "the host name in {url} cannot be resolved",
    "no connection": "no connection to {url}: nothing listens there, or a firewall is between",
    "certificate": "the certificate of {url} is not trusted; its CA goes into sso.ca_file",
    "certificate name": (
        "the certificate of {url} belongs to another host name; correct sso.token_url, "
        "never work around this"
    ),
    "certificate time": (
        "the certificate of {url} is not valid at this time; check this machine's clock first"
    ),
    "no TLS": "{url} does not speak TLS; check port and https:// in sso.token_url",
    "TLS": "no secure connection to {url}: TLS failed",
    "proxy": "the proxy in sso.proxy_url gave no connection to {url}",
    "connection broken": "the connection to {url} broke before the answer was complete",
    "not HTTP": "{url} answered something that is not HTTP",
    "redirect": "{url} answered with a redirect, which is never followed; correct sso.token_url",
}
# What a server says of an address that is not its token endpoint.
_ELSEWHERE: Final = frozenset({404, 405, 410})


def explain(
    error: TokenRequestError, credential: str, *, timeout: float, url: str = "the SSO"
) -> str:
    """The sentence, without a capital and a final stop.

    `timeout` is what the SSO had to answer in, in seconds; `url` names it.
    """
    if error.kind == "refused":
        hint = _REFUSALS.get(error.oauth_error or "", "check credentials.{name} and sso.token_url")
        return f"the SSO refused ({_told(error)}): {hint.format(name=credential)}"
    if error.kind == "throttled":
        wait = f"; try again in {error.retry_after:.0f} s" if error.retry_after else ""
        return f"the SSO has had too many requests{wait}"
    known = _CAUSES.get(error.cause)
    if known is not None:
        return known.format(url=url, timeout=timeout)
    if error.cause != "error status":
        return f"{url} gave no token: {error.cause}"
    remedy = ": check sso.token_url" if error.status in _ELSEWHERE else ""
    return f"{url} gave no token ({_told(error)}){remedy}"


def _told(error: TokenRequestError) -> str:
    """Status and error code of the SSO."""
    told = [] if error.status is None else [f"status {error.status}"]
    if error.oauth_error is not None:
        told.append(UNKNOWN_CODE if error.oauth_error == "other" else error.oauth_error)
    return ", ".join(told) or error.cause
