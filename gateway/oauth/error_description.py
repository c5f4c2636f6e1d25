"""Masks the SSO's own description of an error for operators (RFC 6749 sections 4.1.2.1, 5.2).

`error_description` and `error_uri` are text of the SSO: they may be long, contain control
characters, and echo values of this request or of other clients' requests. The masked text may be
shown in the log, on the terminal and on the status page. It is never shown to callers and never a
value of a metric, an audit record or a trace.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit

from gateway.telemetry.masking import MASK, mask_text

_MAX_LENGTH: Final = 300
# Parameters of a token request whose values may be shown; the value of any other may be secret.
_PUBLIC_PARAMETERS: Final = frozenset(
    {
        *("grant_type", "scope", "client_id", "redirect_uri"),
        *("client_assertion_type", "token_type_hint"),
    }
)
# Shorter values are masked only as whole words, because they occur within many other words.
_MIN_INNER_LENGTH: Final = 4
# Tokens, authorization codes and keys. A run of 16 or more characters is masked if it looks random:
# no word of a language and no error code of that length has digits or changes of case.
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=_.~%-]{16,}")
_URL_RUN: Final = re.compile(r"[A-Za-z0-9+=_~%-]{16,}")
_RANDOM: Final = re.compile(r"\d|(?:[a-z][A-Z].*){4}|[A-Za-z]{28}|.{64}", re.DOTALL)


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
        yield unquote_plus(decoded.partition(":")[2])
    for cookie in headers.get("Cookie", "").split("; "):
        yield cookie.partition("=")[2]


def description_of(response: Mapping[str, object] | None, secrets: Iterable[str] = ()) -> str:
    """Return the masked `error_description` and `error_uri` of a response in one line, "" if none.

    `secrets` are the values to mask, from `secrets_of`. The text has at most 300 characters for
    each of the two members.
    """
    members = response or {}
    text, url = members.get("error_description"), members.get("error_uri")
    parts = [_cleaned(text, secrets, _LONG_RUN) if isinstance(text, str) else ""]
    if isinstance(url, str) and (shown := _without_query(url)):
        parts.append(f"({_cleaned(shown, secrets, _URL_RUN)})")
    return " ".join(part for part in parts if part)


def _cleaned(text: str, secrets: Iterable[str], run: re.Pattern[str]) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < _MIN_INNER_LENGTH:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, MASK, text, flags=re.IGNORECASE)
    text = run.sub(_masked_where_random, mask_text(text))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"


def _masked_where_random(run: re.Match[str]) -> str:
    return MASK if _RANDOM.search(run[0]) else run[0]


def _without_query(url: str) -> str:
    """Return an HTTP(S) URL without user information, query and fragment, "" for other texts."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
