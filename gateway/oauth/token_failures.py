"""Explains a failed token request in a sentence for the operator.

The log and the commands show the same sentence, the status page its part about the `Cause`, which
is in `gateway.health.advice`. A sentence contains fixed words, settings, and in quotation marks the
SSO's own description of the error (RFC 6749 sections 4.1.2.1, 5.2).

`error_description` and `error_uri` are text of the SSO: they may be long, contain control
characters, and echo values of this request or of other clients' requests. They are therefore
masked. The masked text may be shown in the log, on the terminal and on the status page. It is never
shown to callers and never a value of a metric, an audit record or a trace.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit

from gateway.health.advice import TOKEN_CAUSES
from gateway.i18n import EMPTY_MESSAGE, Message, format_duration, join_messages
from gateway.telemetry.log_masking import MASK, mask_text

if TYPE_CHECKING:
    from gateway.config.outbound_settings import SsoSettings
    from gateway.oauth.token_response import TokenRequestError

UNKNOWN_CODE: Final = Message("with an error code that is not OAuth's")
# The likely sources of a response 400, 401 or 403 without an OAuth error.
NOT_THE_SSO: Final = Message("a firewall in front, or a wrong address")

_REFUSAL_REMEDIES: Final[dict[str, Message]] = {
    "invalid_client": (
        Message(
            "check client_id and client secret of credentials.{name}, or which "
            "public key the SSO knows"
        )
    ),
    "invalid_scope": Message(
        "credentials.{name}.scope must be a scope that this client was given; null asks for none, "
        "which DHP requires and other SSOs may refuse"
    ),
    "unauthorized_client": (
        Message(
            "check the secret; or the client may not use client_credentials: ask the SSO's operator"
        )
    ),
    "unsupported_grant_type": Message("is sso.token_url the token endpoint?"),
}
_CHECK_TOKEN_URL: Final = Message("check sso.token_url")
_CHECK_OR_RETRY: Final = Message("check sso.token_url, and if it is right try again later")
_CHECK_CLIENT_TOO: Final = Message(
    "check sso.token_url, and client_id and secret of credentials.{name}, which some SSOs refuse "
    "like this; if all are right try again later"
)
# By cause, where a remedy is known.
_CAUSE_REMEDIES: Final[dict[str, Message]] = {
    "name not found": Message("check the spelling of {key}"),
    "no connection": Message("nothing listens there, or a firewall is between"),
    "certificate": Message("its CA goes into sso.ca_file"),
    "certificate name": Message("correct sso.token_url, never work around this"),
    "certificate time": Message("check this machine's clock first"),
    "no TLS": Message("check port and https:// in sso.token_url"),
    "proxy": Message("check sso.proxy_url"),
    "redirect": Message("correct sso.token_url"),
    "no OAuth error": _CHECK_OR_RETRY,
    "web page": _CHECK_OR_RETRY,
    **dict.fromkeys(
        ("not HTTP", "unreadable answer", "not a JSON object", "empty answer"), _CHECK_TOKEN_URL
    ),
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
    # With a proxy, the gateway resolves only the proxy's host name; the proxy resolves the SSO's.
    key, url = (
        ("sso.token_url", sso.token_url)
        if sso.proxy_url is None
        else ("sso.proxy_url", sso.proxy_url)
    )
    details = reported_error(error)
    if error.cause == "time-out":
        details = [format_duration(sso.timeout)]
    elif error.cause == "name not found":
        details = [Message(urlsplit(url).hostname or "")]
    values = {
        "way": Message("the SSO at {url}", url=sso.token_url),
        "cause": TOKEN_CAUSES[error.cause],
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
        "{happened}; it says “{description}”", happened=happened, description=description
    )


def _remedy(error: TokenRequestError, credential: str, key: str) -> Message:
    """Return the remedy, empty where none is known; `key` is the setting of the host name."""
    if error.kind == "refused":
        hint = _REFUSAL_REMEDIES.get(
            error.oauth_error or "", Message("check credentials.{name} and sso.token_url")
        )
        return Message(hint.msgid, name=credential)
    if error.retry_after and error.kind == "throttled":
        return Message("try again in {time}", time=format_duration(error.retry_after))
    if error.may_be_wrong_client:
        return Message(_CHECK_CLIENT_TOO.msgid, name=credential)
    if error.cause == "error status" and error.status in WRONG_ENDPOINT_STATUSES:
        return _CHECK_TOKEN_URL
    if error.cause == "name not found":
        return Message(_CAUSE_REMEDIES[error.cause].msgid, key=key)
    return _CAUSE_REMEDIES.get(error.cause, EMPTY_MESSAGE)


def reported_error(error: TokenRequestError) -> list[Message]:
    """Return status and error code of the SSO's response, as far as there are any."""
    reported: list[Message] = []
    if error.status is not None:
        reported.append(Message("status {status}", status=error.status))
    if error.oauth_error is not None:
        is_known = error.oauth_error != "other"
        reported.append(Message(error.oauth_error) if is_known else UNKNOWN_CODE)
    return reported


_MAX_SHOWN_LENGTH: Final = 300
# Parameters of a token request whose values may be shown; the value of any other may be secret.
_PUBLIC_PARAMETERS: Final = frozenset(
    {
        "grant_type",
        "scope",
        "client_id",
        "redirect_uri",
        "client_assertion_type",
        "token_type_hint",
    }
)
# Shorter values are masked only as whole words, because they occur within many other words.
_MIN_INNER_SECRET_LENGTH: Final = 4
# Tokens, authorization codes and keys. A run of 16 or more characters is masked if it looks random:
# no word of a language and no error code of that length has digits or changes of case.
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=_.~%-]{16,}")
_URL_RUN: Final = re.compile(r"[A-Za-z0-9+=_~%-]{16,}")
_LOOKS_RANDOM: Final = re.compile(r"\d|(?:[a-z][A-Z].*){4}|[A-Za-z]{28}|.{64}", re.DOTALL)


def secrets_of(form: str, headers: Mapping[str, str]) -> frozenset[str]:
    """Return the secret values of a token request: plain, and in both forms of percent-encoding."""
    spelt: set[str] = set()
    for value in _secret_values(form, headers):
        spelt |= {value, quote(value, safe=""), quote_plus(value)}
    return frozenset(spelt - {""})


def _secret_values(form: str, headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in parse_qsl(form):
        if name not in _PUBLIC_PARAMETERS:
            yield value
    credentials = headers.get("Authorization", "").partition(" ")[2]
    if credentials:
        yield credentials
        try:
            decoded = base64.b64decode(credentials).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        secret = decoded.partition(":")[2]
        yield from (secret, unquote_plus(secret))
    for cookie in headers.get("Cookie", "").split("; "):
        yield cookie.partition("=")[2]


def description_of(response: Mapping[str, object] | None, secrets: Iterable[str] = ()) -> str:
    """Return the masked `error_description` and `error_uri` of a response in one line, "" if none.

    `secrets` are the values to mask, from `secrets_of`. The text has at most 300 characters for
    each of the two members.
    """
    members = response or {}
    text, url = members.get("error_description"), members.get("error_uri")
    parts = [masked_text(text, secrets) if isinstance(text, str) else ""]
    if isinstance(url, str) and (shown := _without_query(url)):
        parts.append(f"({masked_text(shown, secrets, _URL_RUN)})")
    return " ".join(part for part in parts if part)


def masked_text(text: str, secrets: Iterable[str], run: re.Pattern[str] = _LONG_RUN) -> str:
    """Return a text of the SSO in one line of at most 300 characters, without `secrets`.

    What looks random is masked as well, in words that match `run`.
    """
    text = "".join(character if character.isprintable() else " " for character in text)
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < _MIN_INNER_SECRET_LENGTH:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, MASK, text, flags=re.IGNORECASE)
    text = run.sub(_masked_where_random, mask_text(text))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[: _MAX_SHOWN_LENGTH - 1]}…"


def _masked_where_random(run: re.Match[str]) -> str:
    return MASK if _LOOKS_RANDOM.search(run[0]) else run[0]


def _without_query(url: str) -> str:
    """Return an HTTP(S) URL without user information, query and fragment, "" for other texts."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
